//! A medium or a disk in a file: what the commands `iso` and `raw` write, and what `convert` writes beside the image.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kfactory_layers::partial;
use kfactory_sandbox::CancelToken;
use serde_json::{Map, Value, json};

use super::cloud_config;
use super::disk::{Boot, Disk, DiskSize, Made};
use super::format::{Details, Format};
use super::guid::Guid;
use super::live::Live;
use super::output::Output;
use super::source::Source;
use super::verify;
use crate::distro::Arch;
use crate::error::{Context as _, Error, Kind, Result};
use crate::given;
use crate::progress::{Reporter, bytes_text};

/// Where a file goes, and how it is made.
#[derive(Debug, Clone, Copy)]
pub struct Making<'a> {
    /// The file.
    pub path: &'a Path,
    /// Whether one that is there is replaced.
    pub force: bool,
    /// Whether it is read back, and kept only if it boots as far as its bytes tell.
    pub verify: bool,
    /// Threads that compress.
    pub threads: usize,
    /// Shows how far it is.
    pub reporter: &'a Arc<Reporter>,
    /// Ends the work when the user stops the run.
    pub stop: &'a CancelToken,
}

impl Making<'_> {
    /// Reads back what was written to `output`, where that is wanted.
    fn verify(&self, output: &Output) -> Result<()> {
        match self.verify {
            // There was room for the raw disk of other forms, which is gone now.
            true => verify::made(output.file(), given::directory_of(self.path), self.stop),
            false => Ok(()),
        }
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The file.
    pub path: PathBuf,
    /// Its checksum, in hexadecimal digits.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// What it is beside that, by the names that `--progress json` prints.
    pub facts: Map<String, Value>,
    /// What the user may not expect of it.
    pub notes: Vec<String>,
}

/// A whole file that has not its name yet.
#[derive(Debug)]
pub struct Unnamed {
    output: Output,
    facts: Map<String, Value>,
    notes: Vec<String>,
}

impl Unnamed {
    /// Gives the file its name.
    ///
    /// # Errors
    ///
    /// As [`Output::finish`].
    pub fn finish(self, reporter: &Arc<Reporter>, stop: &CancelToken) -> Result<Artifact> {
        let Self {
            output,
            facts,
            notes,
        } = self;
        let path = output.path().to_owned();
        let finish = || {
            let bytes = output.file().metadata()?.len();
            Ok((bytes, output.finish(reporter, stop)?))
        };
        let (bytes, sha256) = finish().map_err(|error| not_made(&path, error))?;
        Ok(Artifact {
            path,
            sha256,
            bytes,
            facts,
            notes,
        })
    }
}

impl Artifact {
    /// Returns it as one line of `--progress json`.
    pub fn to_json(&self) -> Value {
        let mut value = json!({ "file": self.path, "sha256": self.sha256, "bytes": self.bytes });
        if let Value::Object(fields) = &mut value {
            fields.extend(self.facts.clone());
        }
        value
    }

    /// Returns it as the lines that people read.
    pub fn to_text(&self) -> String {
        let disk = self.facts.get("disk_bytes").and_then(Value::as_u64);
        let disk = disk.map(|bytes| format!(", a disk of {}", bytes_text(bytes)));
        format!(
            "{}\nsha256:{} ({}{})\n",
            self.path.display(),
            self.sha256,
            bytes_text(self.bytes),
            disk.unwrap_or_default()
        )
    }
}

/// Writes the medium `live` of `source`.
///
/// # Errors
///
/// As [`Live::write`]; the medium would not boot; or something cannot be written there.
pub fn iso(source: &Source<'_>, live: &Live<'_>, making: Making<'_>) -> Result<Unnamed> {
    let make = || {
        let output = Output::create(making.path, making.force)?;
        let progress = source.progress(making.path, making.reporter);
        let made = live.write(&source.flat(&progress), &output, making.stop)?;
        making.verify(&output)?;
        Ok((output, made))
    };
    let (output, made) = make().map_err(|error| not_made(making.path, error))?;
    let mut notes = Vec::from_iter(source.lost_in_squashfs());
    if !made.bios && live.arch == Arch::Amd64 {
        notes.push(uefi_alone("medium"));
    }
    Ok(Unnamed {
        output,
        facts: Map::from_iter([
            ("kind".to_owned(), json!("iso")),
            ("bios".to_owned(), json!(made.bios)),
            ("uefi".to_owned(), json!(true)),
        ]),
        notes,
    })
}

/// Writes the disk of `source` in `format`.
///
/// # Errors
///
/// As [`Disk::write`]; the disk would not boot; or something cannot be written there.
pub fn raw(
    source: &Source<'_>,
    disk: &Disk<'_>,
    format: Format,
    making: Making<'_>,
) -> Result<Unnamed> {
    let make = || {
        let output = Output::create(making.path, making.force)?;
        let made = write_disk(source, disk, format, making, output.file())?;
        making.verify(&output)?;
        Ok((output, made))
    };
    let (output, made) = make().map_err(|error| not_made(making.path, error))?;
    Ok(Unnamed {
        output,
        facts: Map::from_iter([
            ("kind".to_owned(), json!("raw")),
            ("format".to_owned(), json!(format.name())),
            ("bios".to_owned(), json!(made.boot.has_bios())),
            ("uefi".to_owned(), json!(made.boot.has_uefi())),
            ("disk_bytes".to_owned(), json!(made.size)),
            ("first_boot_disk_bytes".to_owned(), json!(made.first_boot)),
        ]),
        notes: disk_notes(disk, &made, format),
    })
}

fn write_disk(
    source: &Source<'_>,
    disk: &Disk<'_>,
    format: Format,
    making: Making<'_>,
    out: &File,
) -> Result<Made> {
    let digest = source.image.manifest_digest();
    let name = making.path.file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    let details = Details {
        name: &name,
        id: Guid::of_name(Guid::URL, &format!("{digest}/{}", format.name())),
        created: disk.created,
        threads: making.threads,
    };
    let progress = source.progress(making.path, making.reporter);
    if format.is_in_place() {
        let made = disk.write(&source.flat(&progress), out, making.stop)?;
        format.write(out, out, &details, None, making.stop)?;
        return Ok(made);
    }
    let raw = partial::create_beside(making.path, 0o600)?;
    let made = disk.write(&source.flat(&progress), raw.as_file(), making.stop)?;
    drop(progress);
    let progress = making.reporter.transfer("compress", &name, made.size);
    format
        .write(raw.as_file(), out, &details, Some(&progress), making.stop)
        .context(|| format!("making a {} of the disk", format.name()))?;
    Ok(made)
}

fn disk_notes(disk: &Disk<'_>, made: &Made, format: Format) -> Vec<String> {
    let mut notes = Vec::new();
    match disk.cloud_config {
        None => notes.push("there are no default credentials: nobody can log in to the installed system unless the image itself has a user; `--cloud-config FILE` brings one".to_owned()),
        Some(config) if !cloud_config::installs(config) => notes.push("the configuration has no user of the group `admin`, without whom the agent installs nothing: `install.nousers: true` in it says that this is meant".to_owned()),
        Some(_) => {}
    }
    if disk.boot.is_none() && made.boot == Boot::Uefi && disk.arch == Arch::Amd64 {
        notes.push(uefi_alone("disk"));
    }
    if made.size < made.first_boot {
        let least = DiskSize::for_bytes(made.first_boot);
        notes.push(format!(
            "the disk must have {least} ({}) when it boots first, and has {}: `--size {least}` (`--raw-size` of `convert`) makes it so large at once; or {}",
            bytes_text(made.first_boot),
            bytes_text(made.size),
            growing(format, least),
        ));
    }
    if format == Format::Maas {
        notes.push("the disk has no partition with a directory `curtin`, by which the installer of MAAS finds where to put network settings, and without which it may refuse a disk".to_owned());
    }
    notes
}

/// Says how a disk in `format` gets `size` before it boots.
fn growing(format: Format, size: DiskSize) -> String {
    match format {
        Format::Raw => format!(
            "`truncate -s {size} FILE` adds what is missing, of which the checksum knows nothing"
        ),
        Format::Qcow2 => format!(
            "`qemu-img resize FILE {size}` adds what is missing, of which the checksum knows nothing"
        ),
        Format::Vhd | Format::Vmdk | Format::Gce | Format::Maas => {
            "give the machine's disk that size where it is made".to_owned()
        }
    }
}

fn uefi_alone(what: &str) -> String {
    format!(
        "the image has no GRUB for BIOS machines: the {what} starts on UEFI alone (Debian and Ubuntu have it in `grub-pc-bin`)"
    )
}

/// Says that `path` was not made.
fn not_made(path: &Path, error: Error) -> Error {
    match error.kind() {
        Kind::Interrupted if path.exists() => {
            Error::interrupted(format!("`{}` is as it was before", path.display()))
        }
        Kind::Interrupted => Error::interrupted(format!("there is no `{}`", path.display())),
        _ => error.context(format!("cannot make `{}`", path.display())),
    }
}
