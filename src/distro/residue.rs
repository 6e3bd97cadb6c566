//! What installing packages leaves in a rootfs that an image must not hold.
//!
//! Found by installing everything twice and comparing the trees. The data stands with its family ([`debian::RESIDUE`] and
//! its like) and here, where it is everybody's; the functions evaluate it for one path or one file's content and know
//! nothing about trees or layers.

use super::{alpine, arch, debian, redhat, suse};

/// What no image of any family is to hold.
///
/// Paths relative to the root. `*` stands for any part of one name, `**` at the end for everything below a directory, the
/// directory itself excluded.
const COMMON: &[&str] = &[
    // Logs of the build.
    "var/log/dracut.log",
    "var/log/fontconfig.log",
    // Caches that hold inode numbers and times; every one of them is made again by its owner when it is missed.
    "var/cache/ldconfig/**",
    "var/cache/man/**",
    // Identity of one machine. The empty /etc/machine-id is a rewrite, because systemd wants the file to exist.
    "var/lib/dbus/machine-id",
    // Where there is none, ZFS takes no pool for one of another machine.
    "etc/hostid",
    "etc/ssh/ssh_host_*_key",
    "etc/ssh/ssh_host_*_key.pub",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "var/lib/urandom/random-seed",
    // The resolver of the build host, set aside by systemd-resolved.
    "etc/.resolv.conf.systemd-resolved.bak",
    // Backups that the account tools make.
    "etc/.pwd.lock",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
];

/// Returns every pattern of changes to forget: whatever a step did there, the image keeps what the layers below have, or
/// nothing. All families at once: a base may have the package manager of another one.
pub fn patterns() -> impl Iterator<Item = &'static str> {
    let families = [
        debian::RESIDUE,
        redhat::RESIDUE,
        suse::RESIDUE,
        alpine::RESIDUE,
        arch::RESIDUE,
    ];
    let own = families.into_iter().flatten();
    COMMON.iter().chain(own).copied()
}

/// How one file's content is made the same for every build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rewrite {
    /// The file becomes empty.
    Empty,
    /// The file becomes this text.
    Replace(&'static str),
    /// Lines that start so are left out.
    DropLines(&'static str),
    /// In each `:`-separated line, the third field is a day since 1970 and is not to be after the build's day.
    ClampDay,
}

const REWRITES: &[(&str, Rewrite)] = &[
    // systemd makes a new ID at first boot when it finds the file empty.
    ("etc/machine-id", Rewrite::Empty),
    // The package script invents a name, which must be unique in a network; this makes iscsid invent it at first start.
    (
        "etc/iscsi/initiatorname.iscsi",
        Rewrite::Replace("GenerateName=yes\n"),
    ),
    (
        "etc/mdadm/mdadm.conf",
        Rewrite::DropLines("# This configuration was auto-generated on "),
    ),
    ("etc/shadow", Rewrite::ClampDay),
];

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// Tells whether a change at `path` (relative to the root, bytes as in the file system) is to be forgotten.
pub fn is_residue(path: &[u8]) -> bool {
    patterns().any(|pattern| matches(pattern.as_bytes(), path))
}

/// Lists the files that [`rewrite`] may change, relative to the root.
pub fn rewritten_paths() -> impl Iterator<Item = &'static str> {
    REWRITES.iter().map(|(path, _)| *path)
}

/// Returns the content the file at `path` is to have instead of `content`; `None` if it is to stay as it is.
///
/// `source_date_epoch` is the build's time in seconds.
pub fn rewrite(path: &str, content: &[u8], source_date_epoch: u64) -> Option<Vec<u8>> {
    let (_, rewrite) = REWRITES.iter().find(|(known, _)| *known == path)?;
    let changed = match rewrite {
        Rewrite::Empty => Vec::new(),
        Rewrite::Replace(text) => text.as_bytes().to_vec(),
        Rewrite::DropLines(start) => lines(content)
            .filter(|line| !line.starts_with(start.as_bytes()))
            .flatten()
            .copied()
            .collect(),
        Rewrite::ClampDay => {
            let day = source_date_epoch / SECONDS_PER_DAY;
            lines(content)
                .flat_map(|line| clamp_day(line, day))
                .collect()
        }
    };
    (changed != content).then_some(changed)
}

/// Splits into lines that keep their line feed.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split_inclusive(|byte| *byte == b'\n')
}

/// Sets the third field of a shadow line to `latest` if it is a later day; any other line comes back as it was.
///
/// Spec: shadow(5), "date of last password change".
fn clamp_day(line: &[u8], latest: u64) -> Vec<u8> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let day = fields
        .get(2)
        .and_then(|field| std::str::from_utf8(field).ok()?.parse::<u64>().ok());
    match day {
        Some(day) if day > latest => {
            let latest = latest.to_string();
            let with_latest = |(index, field)| if index == 2 { latest.as_bytes() } else { field };
            let fields: Vec<&[u8]> = fields.into_iter().enumerate().map(with_latest).collect();
            fields.join(&b':')
        }
        _ => line.to_vec(),
    }
}

/// Matches a path against a pattern of [`patterns`], name by name.
pub(crate) fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let (mut names, mut wanted) = (path.split(is_slash), pattern.split(is_slash));
    loop {
        match (wanted.next(), names.next()) {
            (None, None) => return true,
            (Some(b"**"), Some(_)) => return true,
            (Some(wanted), Some(name)) if matches_name(wanted, name) => {}
            _ => return false,
        }
    }
}

fn is_slash(byte: &u8) -> bool {
    *byte == b'/'
}

/// Matches one name against a pattern with at most one `*`.
fn matches_name(wanted: &[u8], name: &[u8]) -> bool {
    match wanted.iter().position(|byte| *byte == b'*') {
        None => wanted == name,
        Some(star) => {
            let (start, end) = (&wanted[..star], &wanted[star + 1..]);
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_residue_is_told_from_content() {
        for (path, expected) in [
            ("var/cache/apt/pkgcache.bin", true),
            ("var/cache/apt/archives/partial/x.deb", true),
            ("var/cache/apt/archives", false),
            ("var/cache/apt/other", false),
            ("var/lib/dpkg/status-old", true),
            ("var/lib/dpkg/status", false),
            ("var/lib/dpkg/info/x-old", false),
            ("etc/ssh/ssh_host_ed25519_key", true),
            ("etc/ssh/ssh_host_ed25519_key.pub", true),
            ("etc/ssh/sshd_config", false),
            ("etc/hostid", true),
            ("usr/share/terminfo/x/xterm-old", false),
            ("home/etc/shadow-", false),
            ("", false),
        ] {
            assert_eq!(is_residue(path.as_bytes()), expected, "{path}");
        }
        assert!(is_residue(b"var/log/apt/\xff"));
    }

    #[test]
    fn patterns_have_at_most_one_star_in_a_name_and_are_relative() {
        for pattern in patterns() {
            assert!(
                !pattern.starts_with('/') && !pattern.ends_with('/'),
                "{pattern}"
            );
            for name in pattern.split('/').filter(|name| *name != "**") {
                assert!(
                    name.bytes().filter(|byte| *byte == b'*').count() <= 1,
                    "{pattern}"
                );
            }
        }
    }

    #[test]
    fn what_identifies_one_machine_is_taken_out() {
        let new = |path, content: &str| {
            rewrite(path, content.as_bytes(), 0).map(|new| String::from_utf8(new).expect("text"))
        };
        assert_eq!(new("etc/machine-id", "b35a\n").as_deref(), Some(""));
        assert_eq!(new("etc/machine-id", ""), None);
        assert_eq!(
            new(
                "etc/iscsi/initiatorname.iscsi",
                "## note\nInitiatorName=iqn.1993-08.org.debian:01:9a07\n"
            )
            .as_deref(),
            Some("GenerateName=yes\n")
        );
        assert_eq!(
            new(
                "etc/mdadm/mdadm.conf",
                "HOMEHOST <system>\n# This configuration was auto-generated on Fri\nend"
            )
            .as_deref(),
            Some("HOMEHOST <system>\nend")
        );
        assert_eq!(new("etc/passwd", "root:x:0:0\n"), None);
    }

    #[test]
    fn password_days_are_not_after_the_build() {
        let day = 19_675 * SECONDS_PER_DAY + 5;
        let shadow = b"root:*:19600:0:99999:7:::\nnew:!:20777::::::\n+\nodd:x::1\nhuge:x:99999999999999999999:";
        let expected = b"root:*:19600:0:99999:7:::\nnew:!:19675::::::\n+\nodd:x::1\nhuge:x:99999999999999999999:";
        assert_eq!(
            rewrite("etc/shadow", shadow, day).as_deref(),
            Some(&expected[..])
        );
        assert_eq!(rewrite("etc/shadow", expected, day), None);
    }
}
