//! The drivers for memory that outlives a boot, which a UKI that is booted over HTTP needs: the firmware hands it over in such memory.
//!
//! Ubuntu has them in a package of over 100 MB beside the kernel's own; only they are taken out of it.

use super::packages::apt::Apt;
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

pub(super) fn install(env: &Environment<'_>, target: &Target<'_>, step: &str) -> Result<()> {
    let version = kernel::choose(env, &target.root)?;
    let package = format!("linux-modules-extra-{version}");
    let apt = Apt::open(env, target, step)?;
    apt.refresh()?;
    let config = apt.config();
    let known = [
        "apt-get",
        &config,
        "--quiet",
        "--print-uris",
        "download",
        &package,
    ];
    match apt.command(target, &known.map(str::to_owned)) {
        Ok(_) => {}
        // Newer kernels have them in their own package.
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
