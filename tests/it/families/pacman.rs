//! Base and repository of Arch Linux, whose kernel comes with the base.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::base::{self, Database, Family, chosen, os_release};
use super::{BUILTIN, KERNEL, plan};
use crate::support::web;
use crate::support::{run, world};

/// A hook as mkinitcpio ships it; run, it would leave a file.
const HOOK: &str = "[Trigger]\nType = Package\nOperation = Install\nTarget = *\n\n\
    [Action]\nDescription = building the initrd\nWhen = PostTransaction\nExec = /usr/bin/touch /boot/initramfs-hook\n";

/// Makes base and repository; `None` where there is no root to make a base of.
pub(super) fn family() -> Option<Family> {
    let name = "arch";
    let plan = plan(
        &base::os_release_dir(name),
        &["--skip-step", "installKernel"],
    );
    let packages = chosen(&plan, &["packages"]);
    let address = web::serve(&repository(&packages));
    let files = [
        ("usr/lib/os-release".to_owned(), os_release(name)),
        (
            "etc/pacman.conf".to_owned(),
            format!(
                "[options]\nArchitecture = auto\nSigLevel = Never\n\n[stubs]\nServer = {address}\n"
            ),
        ),
        (
            "usr/share/libalpm/hooks/90-mkinitcpio-install.hook".to_owned(),
            HOOK.to_owned(),
        ),
        // One of the image's own, which runs.
        (
            "etc/pacman.d/hooks/own.hook".to_owned(),
            HOOK.replace("/boot/initramfs-hook", "/usr/share/stubs/own-hook"),
        ),
        (
            format!("usr/lib/modules/{KERNEL}/vmlinuz"),
            "stub kernel\n".to_owned(),
        ),
        (
            format!("usr/lib/modules/{KERNEL}/modules.order"),
            String::new(),
        ),
        (
            format!("usr/lib/modules/{KERNEL}/modules.builtin"),
            format!("{BUILTIN}\n"),
        ),
        // Debian's name for its own unit would be in the way of the family's.
        (
            "etc/systemd/system/.wh.sshd.service".to_owned(),
            String::new(),
        ),
        (
            "usr/lib/systemd/system/sshd.service".to_owned(),
            "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n".to_owned(),
        ),
        (
            "var/lib/pacman/local/ALPM_DB_VERSION".to_owned(),
            "9\n".to_owned(),
        ),
    ]
    .map(|(path, content)| (path, 0o644, content));
    Some(Family {
        name,
        manager: "pacman",
        location: base::make(&base::NEWER, name, &files)?,
        packages,
        kernel: KERNEL.into(),
        initrd: base::DRACUT_INITRD,
        database: Some(Database::Pacman("var/lib/pacman")),
    })
}

/// Builds a repository with one small package for each name.
fn repository(packages: &[String]) -> PathBuf {
    let dir = world().own_dir("families-repositories/arch");
    let mut files = Vec::new();
    for name in packages {
        let build = world().own_dir(&format!("families-repositories/arch.build/{name}"));
        let share = build.join("usr/share/stubs");
        fs::create_dir_all(&share).expect("a directory");
        fs::write(share.join(format!("{name}.stub")), name).expect("written");
        let info = format!(
            "pkgname = {name}\npkgbase = {name}\npkgver = 1-1\npkgdesc = stub\nurl = http://localhost\nbuilddate = 0\n\
             packager = nobody\nsize = 1\narch = any\n"
        );
        fs::write(build.join(".PKGINFO"), info).expect("written");
        let file = dir.join(format!("{name}-1-1-any.pkg.tar.zst"));
        run(Command::new("bsdtar")
            .args(["--zstd", "--uid", "0", "--gid", "0", "-cf"])
            .arg(&file)
            .args([".PKGINFO", "usr"])
            .current_dir(&build));
        files.push(file);
    }
    run(Command::new("repo-add")
        .arg("--quiet")
        .arg(dir.join("stubs.db.tar.gz"))
        .args(&files));
    dir
}
