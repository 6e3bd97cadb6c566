//! Which form a disk is written in, by name or by the ending of a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use kfactory_sandbox::CancelToken;

use super::{RawDisk, gce, maas, qcow2, vhd, vmdk};
use crate::artifact::guid::Guid;
use crate::error::{Error, Result};
use crate::progress::Transfer;
use crate::stop::Stoppable;

/// The form of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Byte for byte
    Raw,
    /// QEMU, OpenStack, Proxmox; compressed
    Qcow2,
    /// Azure; fixed size
    Vhd,
    /// vSphere; stream-optimised
    Vmdk,
    /// Google Compute Engine; disk.raw in a tar.gz
    Gce,
    /// MAAS (ddgz); compressed with gzip
    Maas,
}

/// What a file's ending says; the longer ones first.
const ENDINGS: [(&str, Format); 7] = [
    (".tar.gz", Format::Gce),
    (".gz", Format::Maas),
    (".qcow2", Format::Qcow2),
    (".vhd", Format::Vhd),
    (".vmdk", Format::Vmdk),
    (".raw", Format::Raw),
    (".img", Format::Raw),
];
/// Endings of what disks are not written in; a raw disk called so would be taken for what it is not.
const OTHER_ENDINGS: [&str; 11] = [
    ".qcow", ".iso", ".vhdx", ".vdi", ".qed", ".ova", ".ovf", ".tar", ".tgz", ".xz", ".zst",
];
/// Partitions begin at whole MiB, so no disk is a part of one larger.
const SIZE_STEP: u64 = 1 << 20;

/// What the forms have beside the disk.
#[derive(Debug, Clone, Copy)]
pub struct Details<'a> {
    /// The name that the file will have.
    pub name: &'a str,
    /// What tells the disk from all others.
    pub id: Guid,
    /// The time of making, in seconds since 1970.
    pub created: i64,
    /// Threads that compress.
    pub threads: usize,
}

/// The sizes that a disk may have, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// What each is a multiple of.
    pub step: u64,
    /// The largest, where there is one.
    pub most: Option<u64>,
}

impl Format {
    /// Returns what the ending of `path` says.
    pub fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let found = ENDINGS.iter().find(|(ending, _)| name.ends_with(ending));
        found.map(|(_, format)| *format)
    }

    /// Returns `asked`, or else what the ending of the file at `path` says; raw where neither says anything.
    ///
    /// # Errors
    ///
    /// The ending says another form than `asked`, or one that no disk is written in.
    pub fn chosen(asked: Option<Self>, path: &Path) -> Result<Self> {
        let said = Self::said(path)?;
        match (asked, said) {
            (Some(asked), Some(said)) if asked != said => {
                let (asked, said) = (asked.name(), said.name());
                Err(Error::usage(format!(
                    "`--format {asked}`, and `{}` ends as {said} does",
                    path.display()
                ))
                .hint("leave one of them out, or call the file something else"))
            }
            _ => Ok(asked.or(said).unwrap_or(Self::Raw)),
        }
    }

    /// Checks that the file at `path` is not called as a disk is, but a medium.
    ///
    /// # Errors
    ///
    /// It is.
    pub fn check_medium(path: &Path) -> Result<()> {
        match Self::of_path(path).filter(|_| has_meaning(path)) {
            Some(said) => Err(Error::usage(format!(
                "`{}` ends as a disk of the form {} does",
                path.display(),
                said.name()
            ))
            .hint("media end in `.iso`; `kfactory raw`, and `--raw` of `convert`, write disks")),
            None => Ok(()),
        }
    }

    /// Returns the form that the ending of the file at `path` says; none where it says nothing.
    fn said(path: &Path) -> Result<Option<Self>> {
        if !has_meaning(path) {
            return Ok(None);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let lower = name.to_ascii_lowercase();
        let Some(ending) = OTHER_ENDINGS.iter().find(|it| lower.ends_with(*it)) else {
            return Ok(Self::of_path(path));
        };
        let known: Vec<&str> = ENDINGS.iter().map(|(ending, _)| *ending).collect();
        let known = known.join(", ");
        Err(
            Error::usage(format!("`{name}`: no disk is written as `{ending}`")).hint(format!(
                "endings that say a form: {known}; `kfactory iso` writes media"
            )),
        )
    }

    /// Returns how upstream's names of such files end; where it makes none, how they usually do.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Raw => ".raw",
            Self::Qcow2 => ".qcow2",
            Self::Vhd => ".raw.vhd",
            Self::Vmdk => ".vmdk",
            Self::Gce => ".raw.gce.tar.gz",
            Self::Maas => ".raw.gz",
        }
    }

    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Vmdk => "vmdk",
            Self::Gce => "gce",
            Self::Maas => "maas",
        }
    }

    /// Returns the sizes that a disk in it may have.
    pub fn sizes(self) -> Sizes {
        let (step, most) = match self {
            Self::Gce => (gce::SIZE_STEP, None),
            Self::Vhd => (vhd::SIZE_STEP, Some(vhd::MAX_BYTES)),
            Self::Vmdk => (SIZE_STEP, Some(vmdk::MAX_BYTES / SIZE_STEP * SIZE_STEP)),
            Self::Raw | Self::Qcow2 | Self::Maas => (SIZE_STEP, None),
        };
        Sizes { step, most }
    }

    /// Returns whether the raw disk itself is the beginning of the file, or all of it.
    pub fn is_in_place(self) -> bool {
        matches!(self, Self::Raw | Self::Vhd)
    }

    /// Makes `out` of the raw disk in `raw`; `progress` shows how far it is. For one [in place](Self::is_in_place) both are the same file.
    ///
    /// # Errors
    ///
    /// A size that the form does not have, a file that cannot be read or written, or the user stops the run.
    pub fn write(
        self,
        raw: &File,
        out: &File,
        details: &Details<'_>,
        progress: Option<&Transfer>,
        cancel: &CancelToken,
    ) -> io::Result<()> {
        let Details {
            name,
            id,
            created,
            threads,
        } = *details;
        let mut disk = RawDisk::new(raw)?.stopped_by(cancel);
        if let Some(progress) = progress {
            disk = disk.shown_by(progress);
        }
        let stream = || io::BufWriter::new(Stoppable::new(out, Some(cancel)));
        match self {
            Self::Raw => Ok(()),
            Self::Vhd => out.write_all_at(&vhd::footer(disk.size(), id, created), disk.size()),
            Self::Qcow2 => qcow2::write(&disk, out, true, threads),
            Self::Vmdk => {
                let content_id = u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]]);
                vmdk::write(&disk, stream(), name, content_id, threads)
            }
            Self::Gce => gce::write(&disk, stream(), created, threads),
            Self::Maas => maas::write(&disk, stream(), threads),
        }
    }
}

/// Tells whether the ending of `path` may say a form: not that of a directory, and `.img` is what people call any of them.
fn has_meaning(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default();
    !ending.eq_ignore_ascii_case("img") && !path.is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_ending_says_its_form_and_so_do_upstreams_names() {
        for format in [
            Format::Raw,
            Format::Qcow2,
            Format::Vhd,
            Format::Vmdk,
            Format::Gce,
            Format::Maas,
        ] {
            let path = format!("d.x/kairos{}", format.ending());
            assert_eq!(Format::of_path(Path::new(&path)), Some(format), "{path}");
        }
        assert_eq!(Format::of_path(Path::new("a.IMG")), Some(Format::Raw));
        assert_eq!(Format::of_path(Path::new("disk")), None);
    }

    #[test]
    fn a_file_that_ends_as_no_disk_does_is_refused() {
        let of = |format, name: &str| Format::chosen(format, Path::new(name));
        for name in ["a.iso", "a.VDI", "a.raw.xz"] {
            assert!(of(None, name).is_err(), "{name}");
            assert!(of(Some(Format::Raw), name).is_err(), "{name}");
        }
        assert!(of(Some(Format::Gce), "a.qcow2").is_err());
        assert_eq!(of(Some(Format::Gce), "a.img").unwrap(), Format::Gce);
        assert_eq!(of(Some(Format::Vhd), "a.raw.vhd").unwrap(), Format::Vhd);
        assert!(Format::check_medium(Path::new("a.qcow2")).is_err());
        assert!(Format::check_medium(Path::new("a.img")).is_ok());
        for name in ["a", "a.b", "iso", "/dev/shm"] {
            assert_eq!(of(None, name).unwrap(), Format::Raw, "{name}");
        }
    }
}
