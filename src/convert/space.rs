//! Whether the disk of the store has room for what is about to be made.
//!
//! How much that is nobody can know before: packages bring others along, and every distribution's are of other sizes. What
//! each part took at its peak was measured by converting Debian 12 for amd64 into an empty store on a file system of its
//! own (`df` every 0.2 s; 2.39 GiB at the peak, of which the base was 0.25, and 1.73 at the end; 0.67 more with 86 MiB of
//! firmware). So too little by that measure is a warning. An error is only what cannot fit whatever happens.

use std::path::Path;

use crate::distro::{kinds, sizes};
use crate::error::{Context as _, Error, Result};
use crate::plan::Plan;
use crate::progress::bytes_text;
use crate::step::{Action, Step};

const MIB: u64 = 1 << 20;

/// What a conversion of Debian 12 takes at its peak, base and all.
pub const WHOLE_BYTES: u64 = 2450 * MIB;

/// Steps, what they make, and what they take at their peak: archives, files, what is unpacked ahead, and the layer.
const MEASURED: &[(&str, &str, u64)] = &[
    ("installPackages", "packages", 1100 * MIB),
    ("installKernel", "the kernel", 400 * MIB),
    ("kairosBinaries", "the Kairos binaries", 50 * MIB),
    ("initrd", "the initrd", 650 * MIB),
];
/// Firmware is in its archive, in the tree, in the initrd while it is made, in the finished one, and in two layers.
const FIRMWARE_TIMES: u64 = 8;

/// What some steps will take of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Estimate {
    /// What for, and the most bytes.
    parts: Vec<(&'static str, u64)>,
    /// What the files of the packages take alone, where the distribution's index is known; without those they depend on.
    least: u64,
}

impl Estimate {
    /// Estimates what the layers of `plan` after the first `done` take.
    pub(super) fn of(plan: &Plan, done: usize) -> Self {
        let units = plan.layers.iter().skip(done);
        let steps: Vec<&Step> = units
            .flat_map(|unit| unit.steps.iter().map(|&index| &plan.steps[index]))
            .collect();
        let measured = MEASURED.iter().filter(|(name, ..)| {
            let is_it = |step: &&Step| step.extension.is_none() && step.name.as_str() == *name;
            steps.iter().any(is_it)
        });
        let mut parts: Vec<_> = measured.map(|(_, what, bytes)| (*what, *bytes)).collect();
        let (mut least, mut firmware) = (0, 0);
        for name in steps.iter().flat_map(|step| installed(step)) {
            let Some(bytes) = sizes::installed_bytes(&plan.selected_for, name) else {
                continue;
            };
            least += bytes;
            if kinds::is_firmware(name) {
                firmware += bytes;
            }
        }
        if firmware > 0 {
            parts.push(("firmware", firmware * FIRMWARE_TIMES));
        }
        Self { parts, least }
    }

    /// Adds what is needed beside the steps.
    pub(super) fn and(mut self, what: &'static str, bytes: u64) -> Self {
        if bytes > 0 {
            self.parts.push((what, bytes));
        }
        self
    }

    fn most(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Compares with what is `free` in `dir`; returns a warning where that may be too little.
    ///
    /// # Errors
    ///
    /// It is too little for the packages alone.
    pub(super) fn check(&self, free: u64, dir: &Path) -> Result<Option<String>> {
        let has = format!(
            "the store in {} has {} free",
            dir.display(),
            bytes_text(free)
        );
        if free < self.least {
            return Err(Error::user(format!(
                "{has}, and the packages alone take {} when they are installed, as the distribution's index says",
                bytes_text(self.least)
            ))
            .hint(REMEDY));
        }
        if free >= self.most() {
            return Ok(None);
        }
        let parts: Vec<String> = self
            .parts
            .iter()
            .map(|(what, bytes)| format!("{} for {what}", bytes_text(*bytes)))
            .collect();
        Ok(Some(format!(
            "{has}, which may be too little: what is left to do takes up to {} ({}), as measured with Debian 12; {REMEDY}",
            bytes_text(self.most()),
            parts.join(", ")
        )))
    }
}

const REMEDY: &str =
    "`kfactory store gc` frees what no image needs, `--store DIR` uses another disk";

/// Checks that `needed` bytes of `what` fit into the store in `dir`.
///
/// # Errors
///
/// They do not.
pub(super) fn fits(dir: &Path, what: &str, needed: u64) -> Result<()> {
    let free = free_bytes(dir)?;
    if free >= needed {
        return Ok(());
    }
    Err(Error::user(format!(
        "the store in {} has {} free, and {what} takes {}, as its manifest says",
        dir.display(),
        bytes_text(free),
        bytes_text(needed)
    ))
    .hint(REMEDY))
}

/// Returns what this user may still write to the disk of `dir`, in bytes.
pub(super) fn free_bytes(dir: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(dir)
        .context(|| format!("asking for free space in {}", dir.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn installed(step: &Step) -> impl Iterator<Item = &str> {
    step.actions
        .iter()
        .flat_map(|action| match action {
            Action::Packages { install, .. } => install.as_slice(),
            _ => &[],
        })
        .map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Facts, plan};
    use crate::request::Request;

    fn debian(change: impl FnOnce(&mut Request)) -> Plan {
        let os_release = "ID=debian\nVERSION_ID=\"12\"\nNAME=Debian\n";
        let distro =
            crate::distro::Distro::detect(&crate::distro::os_release::OsRelease::parse(os_release))
                .unwrap();
        let facts = Facts {
            distro,
            arch: crate::distro::Arch::Amd64,
        };
        let mut request = Request::defaults();
        request.base = "debian:12".into();
        request.version = Some("v1.0.0".into());
        change(&mut request);
        let version = request.validate().unwrap().version;
        plan(&facts, &request, &version).unwrap()
    }

    #[test]
    fn what_is_left_to_do_decides_how_much_room_it_needs() {
        let plan = debian(|_| {});
        let whole = Estimate::of(&plan, 0);
        // With the base it is what was measured.
        let with_base = whole.most() + 250 * MIB;
        assert!(with_base.abs_diff(WHOLE_BYTES) < 10 * MIB, "{whole:?}");
        let last = Estimate::of(&plan, plan.layers.len() - 1);
        assert_eq!(last.parts, [("the initrd", 650 * MIB)]);
        assert_eq!(Estimate::of(&plan, plan.layers.len()).most(), 0);
        let firmware = debian(|request| request.firmware = "amd".into());
        let more = Estimate::of(&firmware, 0).most() - whole.most();
        assert!(more > 500 * MIB, "{more}");
    }

    #[test]
    fn only_what_cannot_fit_is_an_error() {
        let estimate = Estimate::of(&debian(|_| {}), 0);
        let check = |free| estimate.check(free, Path::new("/store"));
        assert_eq!(check(3 << 30).unwrap(), None);
        let warning = check(1 << 30).unwrap().unwrap();
        for words in [
            "the store in /store has 1.0 GiB free",
            "up to 2.1 GiB (1.1 GiB for packages, 400.0 MiB for the kernel",
            "measured with Debian 12",
        ] {
            assert!(warning.contains(words), "{warning}");
        }
        let error = check(10 * MIB).unwrap_err().render_text();
        assert!(error.contains("the distribution's index"), "{error}");
        assert!(error.contains("hint: "), "{error}");
    }
}
