//! Bases and repositories of the Debian family: names that Debian's own packages lack, in a small repository.

use std::path::PathBuf;
use std::sync::Mutex;

use super::base::{self, Family, chosen, os_release};
use super::{KERNEL, plan};
use crate::support::debs::{deb, index};
use crate::support::{web, world};

/// Makes base and repository of a release of Ubuntu; `None` where there is no root to make a base of.
pub(super) fn family(name: &'static str) -> Option<Family> {
    static LOCK: Mutex<()> = Mutex::new(());
    let _alone = LOCK
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let plan = plan(&base::os_release_dir(name), &[]);
    let packages = chosen(&plan, &["packages", "kernel"]);
    let kernel = chosen(&plan, &["kernel"]).pop().expect("a kernel");
    let address = web::serve(&repository(
        name,
        &packages,
        &kernel,
        &base::OLDER.packages()?,
    ));
    let files = [
        ("usr/lib/os-release", os_release(name)),
        (
            "etc/apt/sources.list",
            format!("deb [trusted=yes] {address} ./\n"),
        ),
    ]
    .map(|(path, content)| (path.to_owned(), 0o644, content));
    Some(Family {
        name,
        manager: "apt",
        location: base::make(&base::OLDER, name, &files)?,
        packages,
        kernel: KERNEL.into(),
        initrd: base::DRACUT_INITRD,
        database: None,
    })
}

/// Builds a repository with one small package for each name that the root does not have already.
fn repository(name: &str, packages: &[String], kernel: &str, present: &[String]) -> PathBuf {
    let dir = world().own_dir(&format!("families-repositories/{name}"));
    let image = format!("linux-image-{KERNEL}");
    for package in packages.iter().filter(|name| !present.contains(name)) {
        let depends = if package == kernel {
            format!("Depends: {image}\n")
        } else {
            String::new()
        };
        deb(&dir, package, &depends, &[]);
    }
    let modules = format!("lib/modules/{KERNEL}");
    let files = [
        (format!("boot/vmlinuz-{KERNEL}"), "stub kernel\n"),
        (format!("{modules}/modules.order"), ""),
        (format!("{modules}/modules.builtin"), ""),
        (
            "DEBIAN/postinst".to_owned(),
            "#!/bin/sh\nmkdir -p /usr/share/stubs\nset -e\ncommand -v dracut | sed 's,^/run/kfactory/.*bin/,/run/kfactory/bin/,' >/usr/share/stubs/dracut\n",
        ),
    ];
    deb(&dir, &image, "", &files);
    index(&dir);
    dir
}
