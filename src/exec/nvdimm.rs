//! The drivers for memory that outlives a boot, which a UKI that is booted over HTTP needs: the firmware hands it over in such memory.
//!
//! Ubuntu has them in a package of over 100 MB beside the kernel's own; only they are taken out of it.

use kfactory_layers::root::Root;

use super::packages::{Site, apt::Apt};
use super::{CommandOptions, Environment, Target, kernel};
use crate::error::{Kind, Result};

/// Downloads the package `$2` of kernel `$3` and copies its drivers into the tree. `/var/tmp` is outside every layer.
const SCRIPT: &str = r#"set -e
rm -rf /var/tmp/nvdimm && mkdir /var/tmp/nvdimm && cd /var/tmp/nvdimm
apt-get "$1" --quiet download "$2"
dpkg-deb -x ./*.deb x
for from in x/lib/modules/"$3" x/usr/lib/modules/"$3"; do
    [ -d "$from/kernel/drivers/nvdimm" ] || continue
    mkdir -p /usr/lib/modules/"$3"/kernel/drivers/nvdimm
    cp -a "$from"/kernel/drivers/nvdimm/. /usr/lib/modules/"$3"/kernel/drivers/nvdimm/
done
cd / && rm -rf /var/tmp/nvdimm
"#;

/// Tells whether the kernel's own package has brought them, as those of newer kernels do.
fn has_drivers(root: &Root, version: &str) -> Result<bool> {
    let dir = format!(
        "{}/{version}/kernel/drivers/nvdimm",
        kernel::modules_dir(root)?
    );
    if !root.exists(&dir)? {
        return Ok(false);
    }
    let entries = root.read_dir(&dir)?;
    Ok(entries
        .iter()
        .any(|entry| entry.name.to_string_lossy().starts_with("nd_pmem.ko")))
}

pub(super) fn install(env: &Environment<'_>, target: &Target<'_>, step: &str) -> Result<()> {
    let version = kernel::choose(env, &target.root)?;
    if has_drivers(&target.root, &version)? {
        return Ok(());
    }
    let package = format!("linux-modules-extra-{version}");
    let apt = Apt::open(Site { env, target, step })?;
    apt.refresh()?;
    let config = apt.config();
    // A package that is not there is no error to show.
    let known = r#"apt-get "$1" --quiet --print-uris download "$2" >/dev/null 2>&1"#;
    let known = ["sh", "-c", known, "sh", &config, &package];
    match apt.command(target, &known.map(str::to_owned)) {
        Ok(()) => {}
        Err(error) if error.kind() == Kind::Step => return Ok(()),
        Err(error) => return Err(error),
    }
    let copy = ["sh", "-c", SCRIPT, "sh", &config, &package, &version];
    apt.command(target, &copy.map(str::to_owned))?;
    env.command(
        target,
        step,
        &["depmod", "-a", &version],
        CommandOptions::default(),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_has_the_drivers_needs_no_other_package() {
        let dir = tempfile::tempdir().unwrap();
        let drivers = dir.path().join("usr/lib/modules/7.0/kernel/drivers/nvdimm");
        std::fs::create_dir_all(&drivers).unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert!(!has_drivers(&root, "6.8").unwrap() && !has_drivers(&root, "7.0").unwrap());
        std::fs::write(drivers.join("nd_pmem.ko.zst"), "").unwrap();
        assert!(has_drivers(&root, "7.0").unwrap());
    }
}
