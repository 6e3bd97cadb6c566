//! `kfactory artifact verify`: does what is there boot, as far as its bytes tell?
//!
//! What something is shows in its content, not in its name, and it need not be of our making. It is read and nothing else: nothing of it
//! runs, nothing is mounted, no privilege is needed. Its bytes are trusted in nothing: what is read of it is bounded, and what
//! contradicts itself is a finding.
//!
//! | file | what |
//! |---|---|
//! | [`rules`] | what is demanded, as data |
//! | `rule` | a rule, what breaks it, and the report of all |
//! | `kind` | tells media, disks and directories apart, and names the formats that are not read |
//! | `iso`, `firmware` | live media: trees and menu; what BIOS and UEFI start of them |
//! | `form` | disks in the forms of clouds |
//! | `disk` | disks: partitions, and what firmware starts |
//! | `oem`, `recovery` | their file systems with configurations and with the recovery system |
//! | `netboot` | directories of files for network boot |
//! | `boot` | a kernel with its initrd |
//! | `board` | what a Raspberry Pi starts from |
//! | `efi`, `pe` | the file system that UEFI starts from, and its programs |
//! | `root` | the root filesystem, whatever it is written as |
//! | `squashfs` | the one of live media |
//! | `ext4` | ext4 file systems, one in a file of another too |
//! | `grub_menu`, `targets` | the words of GRUB's menus, and whether there is what they name |
//! | `checksum` | the checksum beside a file |

mod board;
mod boot;
mod checksum;
mod disk;
mod efi;
mod ext4;
mod firmware;
mod form;
mod grub_menu;
mod iso;
mod kind;
mod netboot;
mod oem;
mod pe;
mod recovery;
mod root;
mod rule;
pub mod rules;
mod squashfs;
mod targets;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use kfactory_layers::input::open_regular;
use kfactory_sandbox::CancelToken;
use rustix::fs::{MemfdFlags, memfd_create};

pub use rule::{Kind, Report};

use self::kind::Content;
use super::region::Region;
use crate::error::{Context as _, Error, Result};
use crate::given;

/// Checks what is at `path`, a file or a directory, until the run is stopped.
///
/// # Errors
///
/// It cannot be read, is of a kind that is not read, or the run is stopped; what is wrong with it is no error but a finding.
pub fn verify(path: &Path, stop: Option<&CancelToken>) -> Result<Report> {
    let doing = || format!("cannot verify `{}`", path.display());
    given::exists(path).context(doing)?;
    if path.is_dir() {
        let mut report = Report::new(Kind::Netboot);
        netboot::check(&mut report, path, stop).context(doing)?;
        return Ok(report.finish());
    }
    let file = open_regular(path).context(doing)?;
    let check = || {
        let (found, region, mut report) = told(&file)?;
        checksum::check(&mut report, path, &file, stop)?;
        any(&mut report, found, file.try_clone()?, &region, stop)?;
        Ok(report.finish())
    };
    check().map_err(|error: Error| error.context(doing()))
}

/// Tells what is in `file`, and begins the report of it.
fn told(file: &File) -> Result<(Content, Region, Report)> {
    let len = file.metadata()?.len();
    let region = Region::of_file(Arc::new(file.try_clone()?), len);
    let found = kind::of(&region)?;
    let report = Report::new(match found {
        Content::Plain(kind) => kind,
        Content::Formed(_) => Kind::Disk,
    });
    Ok((found, region, report))
}

/// Has every reader look at `bytes`, whatever they are: for fuzzing.
///
/// # Panics
///
/// One of them does, which is a defect, or there is no memory for a copy.
pub fn exercise(bytes: &[u8]) {
    let file = memfd_create("fuzz", MemfdFlags::CLOEXEC);
    let file = File::from(file.expect("memory"));
    file.write_all_at(bytes, 0).expect("memory");
    let copy = Arc::new(file.try_clone().expect("a descriptor"));
    let region = Region::of_file(copy, bytes.len() as u64);
    let mut report = Report::new(Kind::Disk);
    // What only few bytes lead to, at once.
    let _ = squashfs::check(&mut report, "fuzz", &region, None);
    let _ = efi::check(&mut report, "fuzz", region.clone(), None, None);
    let _ = super::gpt::Table::read_first(&region);
    let _ = iso::check(&mut report, &region, None);
    if let Ok(found) = kind::of(&region) {
        let _ = any(&mut report, found, file, &region, None);
    }
    report.finish();
}

fn any(
    report: &mut Report,
    found: Content,
    file: File,
    region: &Region,
    stop: Option<&CancelToken>,
) -> Result<()> {
    match found {
        Content::Plain(_) => content(report, region, stop),
        Content::Formed(form) => form::check(report, file, form, stop),
    }
}

/// Checks a medium or disk that was made and has not its name yet.
///
/// # Errors
///
/// It would not boot, it cannot be read, or the run is stopped.
pub fn made(file: &File, stop: &CancelToken) -> Result<()> {
    let (found, region, mut report) = told(file)?;
    any(&mut report, found, file.try_clone()?, &region, Some(stop))?;
    report.finish().demand()
}

/// Checks files for network boot that were made in `dir`, which has not its name yet.
///
/// # Errors
///
/// As [`made`].
pub fn made_files(dir: &Path, stop: &CancelToken) -> Result<()> {
    let mut report = Report::new(Kind::Netboot);
    netboot::check(&mut report, dir, Some(stop))?;
    report.finish().demand()
}

fn content(report: &mut Report, file: &Region, stop: Option<&CancelToken>) -> Result<()> {
    match report.kind {
        Kind::Iso => iso::check(report, file, stop),
        Kind::Disk => disk::check(report, file, stop),
        Kind::Netboot => unreachable!("no file is a directory"),
    }
}
