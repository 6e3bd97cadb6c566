//! The small files of an image that do not depend on facts about it: grub, branding, greetings, log rotation, sshd.

use super::StaticFile;

/// Where sshd's drop-in goes. 05, because sshd takes the first value of a directive and vendors use 99; users win with 01.
const SSH_HARDENING_PATH: &str = "/etc/ssh/sshd_config.d/05-kairos-hardening.conf";

/// The first OpenSSH that knows every algorithm of the drop-in; an older one would refuse to start with it.
const HARDENED_OPENSSH: (u32, u32) = (8, 5);

/// The smallest prime, in the way `/etc/ssh/moduli` counts bits (a 2048 bit prime stands there as 2047).
const SMALLEST_MODULUS: u32 = 2047;

/// Returns the boot menu and the boot arguments. Not for Trusted Boot, which has no grub.
///
/// The agent copies `grub.cfg` to the state partition once, at installation; `bootargs.cfg` is read from the booted image, so it may
/// change with every upgrade but must serve the `grub.cfg` of older ones.
pub fn grub_files() -> [StaticFile; 2] {
    [
        StaticFile::new("/etc/cos/grub.cfg", 0o644, include_str!("files/grub.cfg")),
        StaticFile::new(
            "/etc/cos/bootargs.cfg",
            0o644,
            include_str!("files/bootargs.cfg"),
        ),
    ]
}

/// Returns the texts that the agent shows, and the extra boot menu entry.
pub fn branding_files() -> [StaticFile; 5] {
    macro_rules! branding {
        ($name:literal) => {
            StaticFile::new(
                concat!("/etc/kairos/branding/", $name),
                0o644,
                include_str!(concat!("files/branding/", $name)),
            )
        };
    }
    [
        branding!("grubmenu.cfg"),
        branding!("interactive_install_text"),
        branding!("install_text"),
        branding!("recovery_text"),
        branding!("reset_text"),
    ]
}

/// Returns the greetings, the upgrade script for Kubernetes plans, and the log rotation.
pub fn miscellaneous_files() -> [StaticFile; 4] {
    [
        StaticFile::new("/etc/issue.d/01-KAIROS", 0o644, include_str!("files/issue")),
        StaticFile::new("/etc/motd", 0o644, include_str!("files/motd")),
        StaticFile::new(
            "/usr/sbin/suc-upgrade",
            0o755,
            include_str!("files/suc-upgrade"),
        ),
        StaticFile::new(
            "/etc/logrotate.d/kairos",
            0o644,
            include_str!("files/logrotate"),
        ),
    ]
}

/// Returns the script that hands the firmware of an image over to a Jetson Thor; a cloud-config calls it.
pub fn jetson_qspi_update() -> StaticFile {
    StaticFile::new(
        "/usr/sbin/kairos-jetson-qspi-update",
        0o755,
        include_str!("files/kairos-jetson-qspi-update"),
    )
}

/// Returns sshd's drop-in; with `fips` it names only algorithms that a FIPS build of OpenSSH accepts.
///
/// Only for images whose sshd [supports it](openssh_supports_hardening).
pub fn ssh_hardening(fips: bool) -> StaticFile {
    let content = if fips {
        include_str!("files/ssh-hardening-fips.conf")
    } else {
        include_str!("files/ssh-hardening.conf")
    };
    StaticFile::new(SSH_HARDENING_PATH, 0o644, content)
}

/// Whether the sshd that printed `usage` (stdout and stderr of `sshd -h`) starts with the drop-in: OpenSSH 8.5 or newer.
///
/// No version in the text counts as too old.
pub fn openssh_supports_hardening(usage: &str) -> bool {
    usage
        .split("OpenSSH_")
        .nth(1)
        .and_then(leading_version)
        .is_some_and(|version| version >= HARDENED_OPENSSH)
}

/// Reads `9.2` from `9.2p1 Debian-2+deb12u3`.
fn leading_version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.split_once('.')?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    Some((major.parse().ok()?, rest[..end].parse().ok()?))
}

/// Returns the content of `/etc/ssh/moduli` without the primes below 2048 bits, or `None` if no prime would be left: then the
/// file must stay as it is. Comments are kept.
///
/// Spec: moduli(5); the fifth field is the size.
pub fn strong_moduli(moduli: &str) -> Option<String> {
    let size = |line: &str| line.split_ascii_whitespace().nth(4)?.parse::<u32>().ok();
    let is_comment = |line: &str| line.trim_start().starts_with('#');
    let strong = |line: &str| size(line).is_some_and(|size| size >= SMALLEST_MODULUS);
    let is_prime = |line: &&str| !is_comment(line) && strong(line);
    moduli.lines().any(|line| is_prime(&line)).then(|| {
        let kept = moduli
            .lines()
            .filter(|line| is_comment(line) || is_prime(line));
        kept.flat_map(|line| [line, "\n"]).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hardening_needs_openssh_8_5() {
        for (usage, supported) in [
            (
                "unknown option -- h\nOpenSSH_9.2p1 Debian-2+deb12u3, OpenSSL 3.0.13",
                true,
            ),
            ("OpenSSH_8.5p1", true),
            ("OpenSSH_10.0p2, OpenSSL", true),
            ("OpenSSH_8.2p1 Ubuntu-4ubuntu0.11, OpenSSL 1.1.1f", false),
            ("OpenSSH_7.9", false),
            ("sh: sshd: not found", false),
            ("OpenSSH_", false),
            ("", false),
        ] {
            assert_eq!(openssh_supports_hardening(usage), supported, "{usage}");
        }
    }

    #[test]
    fn the_hardening_says_this() {
        let file = ssh_hardening(false);
        assert_eq!(
            (file.path.as_ref(), file.mode),
            ("/etc/ssh/sshd_config.d/05-kairos-hardening.conf", 0o644)
        );
        let mut lines: Vec<&str> = file
            .content
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        lines.sort_unstable();
        let expected = [
            "AllowAgentForwarding no",
            "AllowTcpForwarding no",
            "Ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr",
            "ClientAliveCountMax 3",
            "ClientAliveInterval 300",
            "GatewayPorts no",
            "HostKeyAlgorithms ssh-ed25519,ssh-ed25519-cert-v01@openssh.com,rsa-sha2-256,rsa-sha2-512,\
             rsa-sha2-256-cert-v01@openssh.com,rsa-sha2-512-cert-v01@openssh.com",
            "HostbasedAuthentication no",
            "IgnoreRhosts yes",
            "KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256@libssh.org,diffie-hellman-group-exchange-sha256",
            "LogLevel VERBOSE",
            "LoginGraceTime 30",
            "MACs hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-512,hmac-sha2-256",
            "MaxAuthTries 2",
            "MaxSessions 10",
            "MaxStartups 10:30:60",
            "PermitEmptyPasswords no",
            "PermitRootLogin no",
            "PermitTunnel no",
            "Protocol 2",
            "StrictModes yes",
            "SyslogFacility AUTH",
            "TCPKeepAlive no",
            "UseDNS no",
            "UsePAM yes",
            "X11Forwarding no",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_fips_variant_differs_in_algorithms_only() {
        let settings = |fips| {
            let content = ssh_hardening(fips).content;
            let algorithms = |line: &&str| {
                ["Ciphers", "Kex", "MACs", "HostKeyAlg", "#"]
                    .iter()
                    .any(|it| line.starts_with(it))
            };
            content
                .lines()
                .filter(|line| !algorithms(line))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(settings(true), settings(false));
        for unapproved in ["chacha20", "25519", "umac", "sntrup"] {
            assert!(
                !ssh_hardening(true).content.contains(unapproved),
                "{unapproved}"
            );
        }
    }

    #[test]
    fn weak_primes_go_and_comments_stay() {
        let moduli = "#  Time Type Tests Tries Size Gen Modulus\n20 2 6 100 1023 2 AA\n20 2 6 100 2047 2 BB\nbroken\n20 2 6 100 8191 5 CC\n";
        let kept = "#  Time Type Tests Tries Size Gen Modulus\n20 2 6 100 2047 2 BB\n20 2 6 100 8191 5 CC\n";
        assert_eq!(strong_moduli(moduli).as_deref(), Some(kept));
        assert_eq!(strong_moduli(kept).as_deref(), Some(kept));
    }

    #[test]
    fn a_file_without_strong_primes_is_left_alone() {
        assert_eq!(strong_moduli("# only\n20 2 6 100 1023 2 AA\n"), None);
        assert_eq!(strong_moduli(""), None);
    }
}
