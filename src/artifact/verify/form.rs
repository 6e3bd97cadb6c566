//! Disks in the forms that clouds take: what each of them demands, and what is in them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use kfactory_sandbox::CancelToken;

use super::kind::{self, CONVERT, Content, Form, UNPACK};
use super::rule::{Kind, Report};
use super::{disk, rules};
use crate::artifact::format::gce;
use crate::artifact::format::view::gzip::{self, Archive};
use crate::artifact::format::view::{View, ViewError, qcow2, vmdk};
use crate::error::{Error, Result};
use crate::progress::bytes_text;
use crate::validate::output::Demand;

impl Form {
    /// Returns the rule that is broken where the file contradicts itself.
    fn rule(self) -> &'static Demand {
        match self {
            Self::Qcow2 => &rules::QCOW2,
            Self::Vmdk => &rules::VMDK,
            Self::Gzip => &rules::GZIP,
        }
    }
}

/// Checks the disk that `file` holds in the form `form`; what must be unpacked for that goes to the directory `scratch`.
pub(super) fn check(
    report: &mut Report,
    file: File,
    form: Form,
    scratch: &Path,
    stop: Option<&CancelToken>,
) -> Result<()> {
    report.hold(form.rule());
    let view = match open(report, file, form, scratch, stop) {
        Ok(view) => view,
        Err(ViewError::Damaged(why)) => {
            report.hold(form.rule()).add(why);
            return Ok(());
        }
        Err(ViewError::Io(error)) => return Err(error.into()),
        Err(error @ ViewError::Unread(_)) => {
            let hint = match form {
                Form::Gzip => UNPACK,
                Form::Qcow2 | Form::Vmdk => CONVERT,
            };
            return Err(Error::user(error.to_string()).hint(hint));
        }
    };
    report.fact("format", &*view.form);
    let checked = match kind::of(&view.disk) {
        Ok(Content::Plain(Kind::Disk)) => disk::check(report, &view.disk, stop),
        Ok(_) => Err(Error::user(format!(
            "what is in it ({}) is no disk",
            view.form
        ))),
        Err(error) => Err(error.context(format!("reading what is in it ({})", view.form))),
    };
    // What could not be unpacked explains whatever else is wrong.
    if let Some(why) = view.damage() {
        report.hold(form.rule()).add(why);
        return Ok(());
    }
    checked?;
    match view.unpack_all(stop) {
        Ok(()) => Ok(()),
        Err(ViewError::Io(error)) => Err(error.into()),
        Err(error) => {
            report.hold(form.rule()).add(error.to_string());
            Ok(())
        }
    }
}

fn open(
    report: &mut Report,
    file: File,
    form: Form,
    scratch: &Path,
    stop: Option<&CancelToken>,
) -> Result<View, ViewError> {
    match form {
        Form::Qcow2 => qcow2::open(Arc::new(file)),
        Form::Vmdk => vmdk::open(Arc::new(file)),
        Form::Gzip => {
            let unpacked = gzip::open(&file, scratch, stop)?;
            if let Some(archive) = &unpacked.archive {
                archive_of_google(report, archive, unpacked.view.disk.len());
            }
            Ok(unpacked.view)
        }
    }
}

/// Checks what Google demands of an archive with a disk of `len` bytes.
fn archive_of_google(report: &mut Report, archive: &Archive, len: u64) {
    let mut held = report.hold(&rules::GCE_ARCHIVE);
    if archive.member != gzip::MEMBER {
        held.add(format!("the disk is called {:?}", archive.member));
    }
    for other in &archive.others {
        held.add(format!("it holds {other:?}, too"));
    }
    if !archive.is_old_gnu {
        held.add("it is of another format than tar's `oldgnu`");
    }
    if !len.is_multiple_of(gce::SIZE_STEP) {
        let size = bytes_text(len);
        held.add(format!("the disk has {len} bytes ({size}), no whole GiB"));
    }
}
