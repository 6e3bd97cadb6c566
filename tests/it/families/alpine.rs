//! A base of Alpine that comes with its packages: Debian packages neither apk nor mkinitfs.
//!
//! Its mkinitfs is a script that writes its archive as the real one does: sorted, through `pigz` where there is one.

use super::base::{self, Family, os_release};

const KERNEL: &str = "6.12.9-0-lts";

const MKINITFS: &str = r#"#!/bin/sh
set -e
[ "$1 $2 $3" = "-C gzip -o" ] || { echo "mkinitfs $*" >&2; exit 1; }
. /etc/mkinitfs/mkinitfs.conf
case " $features " in *" immucore "*) ;; *) exit 2 ;; esac
[ -d "/lib/modules/$5" ] && [ -x /usr/share/mkinitfs/initramfs-init ] || exit 3
comp="$(command -v pigz || echo gzip) -9"
cd /
sed -n 's,^/,,p' /etc/mkinitfs/features.d/immucore.files | while read -r file; do
    if [ -f "$file" ]; then echo "$file"; fi
done | sort | cpio --quiet -o -H newc | $comp >"$4"
"#;

/// Services that the base has; `connman` stays away, which is worth a warning.
const SERVICES: &[&str] = &[
    "sshd", "fail2ban", "acpid", "hwclock", "syslog", "ntpd", "udev", "crond",
];

/// Makes the base; `None` where there is no root to make one of.
pub(super) fn family() -> Option<Family> {
    let name = "alpine-3.21";
    let file = |path: &str, mode: u32, content: &str| (path.to_owned(), mode, content.to_owned());
    let mut files = vec![
        file("usr/lib/os-release", 0o644, &os_release(name)),
        file("usr/sbin/mkinitfs", 0o755, MKINITFS),
        file("usr/sbin/openrc", 0o755, "#!/bin/sh\n"),
        file("boot/vmlinuz-lts", 0o644, "stub kernel\n"),
        file(
            &format!("usr/lib/modules/{KERNEL}/modules.order"),
            0o644,
            "",
        ),
        file(
            &format!("usr/lib/modules/{KERNEL}/modules.builtin"),
            0o644,
            "",
        ),
    ];
    let script = |service: &&str| {
        file(
            &format!("etc/init.d/{service}"),
            0o755,
            "#!/sbin/openrc-run\n",
        )
    };
    files.extend(SERVICES.iter().map(script));
    Some(Family {
        name,
        manager: "none",
        location: base::make(&base::OLDER, name, &files)?,
        packages: Vec::new(),
        kernel: "lts".into(),
        initrd: &["usr/bin/immucore", "usr/bin/kairos-agent"],
        database: None,
    })
}
