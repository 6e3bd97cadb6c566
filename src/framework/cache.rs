//! Programs kept from earlier runs.
//!
//! ```text
//! <cache>/release/immucore-v0.20.4-amd64/        one directory per program, renamed into place when whole
//!         go/immucore-v0.20.4-amd64-go1.26.8/
//!             program                            the executable
//!             record.json                        its checksum and what vouched for it
//!         tar/<sha256 of the archive>/           the programs of one archive, laid out as in an image
//!         .new-XXXXXX/                           being made; left behind only by a killed run
//! ```
//!
//! There is no lock: two processes that make the same program make it twice, and one of the two is kept.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{FrameworkError, Verified, elf};

const PROGRAM: &str = "program";
const RECORD: &str = "record.json";

/// The content of `record.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    sha256: String,
    size_bytes: u64,
    verified: Verified,
    evidence: String,
}

/// A program in the cache.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// SHA-256 of its content.
    pub(crate) sha256: String,
    /// Its length in bytes.
    pub(crate) size_bytes: u64,
    /// What vouched for it when it came in.
    pub(crate) verified: Verified,
}

/// A place in the cache, filled or not.
#[derive(Debug)]
pub(crate) struct Slot {
    root: PathBuf,
    dir: PathBuf,
}

impl Slot {
    /// Names the place for `key` among the programs of one `source` (`release` or `go`).
    pub(crate) fn new(cache_dir: &Path, source: &str, key: &str) -> Self {
        Self {
            root: cache_dir.to_path_buf(),
            dir: cache_dir.join(source).join(key),
        }
    }

    /// Returns the directory of the place.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the program that is kept here, if there is one and its bytes still have their checksum.
    ///
    /// `pin` is the evidence that we would accept today. A program that came in with other evidence is as good as
    /// absent: the pin was added or corrected since.
    pub(crate) fn kept_opt(&self, pin: Option<&str>) -> Option<Kept> {
        let record: Record = serde_json::from_slice(&fs::read(self.dir.join(RECORD)).ok()?).ok()?;
        if pin.is_some_and(|pin| pin != record.evidence) {
            return None;
        }
        let path = self.dir.join(PROGRAM);
        let found = fingerprint(&path).ok()?;
        (found.sha256 == record.sha256).then_some(Kept {
            path,
            sha256: record.sha256,
            size_bytes: record.size_bytes,
            verified: if pin.is_some() {
                Verified::Pin
            } else {
                record.verified
            },
        })
    }

    /// Returns an empty directory to make the program in. It vanishes when dropped.
    pub(crate) fn workshop(&self) -> Result<tempfile::TempDir, FrameworkError> {
        let parent = self.dir.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(FrameworkError::io("creating", parent))?;
        tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&self.root)
            .map_err(FrameworkError::io(
                "creating a temporary directory in",
                &self.root,
            ))
    }

    /// Keeps the program at `program` (inside `workshop`) here. `evidence` is the checksum that vouched for it.
    pub(crate) fn keep(
        &self,
        workshop: tempfile::TempDir,
        program: &Path,
        verified: Verified,
        evidence: &str,
    ) -> Result<Kept, FrameworkError> {
        let staged = workshop.path().join("kept");
        fs::create_dir(&staged).map_err(FrameworkError::io("creating", &staged))?;
        let path = staged.join(PROGRAM);
        fs::rename(program, &path).map_err(FrameworkError::io("moving", program))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(FrameworkError::io("setting the mode of", &path))?;
        let Fingerprint {
            sha256, size_bytes, ..
        } = fingerprint(&path).map_err(FrameworkError::io("reading", &path))?;
        let record = Record {
            sha256,
            size_bytes,
            verified,
            evidence: evidence.into(),
        };
        write_record(&staged.join(RECORD), &record)?;
        File::open(&path)
            .and_then(|f| f.sync_all())
            .map_err(FrameworkError::io("writing", &path))?;
        self.replace(&staged)?;
        let Record {
            sha256, size_bytes, ..
        } = record;
        Ok(Kept {
            path: self.dir.join(PROGRAM),
            sha256,
            size_bytes,
            verified,
        })
    }

    /// Moves `staged` into place, over whatever a killed run or an older pin left there.
    pub(super) fn replace(&self, staged: &Path) -> Result<(), FrameworkError> {
        for _ in 0..8 {
            match fs::rename(staged, &self.dir) {
                Ok(()) => return Ok(()),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                    ) =>
                {
                    // Renamed away first, so that a reader never sees a directory that is half removed.
                    let old = staged.with_file_name(format!("old-{}", std::process::id()));
                    if fs::rename(&self.dir, &old).is_ok() {
                        fs::remove_dir_all(&old).map_err(FrameworkError::io("removing", &old))?;
                    }
                }
                Err(e) => return Err(FrameworkError::io("moving a program to", &self.dir)(e)),
            }
        }
        let busy = io::Error::from(io::ErrorKind::ResourceBusy);
        Err(FrameworkError::io("moving a program to", &self.dir)(busy))
    }
}

fn write_record(path: &Path, record: &Record) -> Result<(), FrameworkError> {
    let text = serde_json::to_vec_pretty(record)
        .map_err(io::Error::from)
        .map_err(FrameworkError::io("writing", path))?;
    let mut file = File::create(path).map_err(FrameworkError::io("creating", path))?;
    file.write_all(&text)
        .and_then(|()| file.sync_all())
        .map_err(FrameworkError::io("writing", path))
}

/// What one pass over a file tells.
#[derive(Debug)]
pub(super) struct Fingerprint {
    pub(crate) sha256: String,
    pub(crate) size_bytes: u64,
    pub(super) kind: elf::Kind,
}

/// Reads a file once.
pub(super) fn fingerprint(path: &Path) -> io::Result<Fingerprint> {
    copy_with_fingerprint(&mut File::open(path)?, &mut io::sink())
}

/// Copies `from` to `to` and tells what went by.
pub(super) fn copy_with_fingerprint(
    from: &mut dyn Read,
    to: &mut dyn Write,
) -> io::Result<Fingerprint> {
    let mut hash = Sha256::new();
    let mut head = Vec::with_capacity(elf::HEAD_LEN);
    let mut size_bytes = 0;
    let mut buffer = vec![0; 1 << 17];
    loop {
        let len = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let bytes = &buffer[..len];
        head.extend(bytes.iter().take(elf::HEAD_LEN - head.len()));
        hash.update(bytes);
        to.write_all(bytes)?;
        size_bytes += len as u64;
    }
    Ok(Fingerprint {
        sha256: hex(&hash.finalize()),
        size_bytes,
        kind: elf::kind(&head),
    })
}

/// Returns `bytes` as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(slot: &Slot, content: &[u8], evidence: &str) -> Kept {
        let workshop = slot.workshop().expect("room");
        let program = workshop.path().join("x");
        fs::write(&program, content).expect("room");
        slot.keep(workshop, &program, Verified::PublishedChecksums, evidence)
            .expect("room")
    }

    #[test]
    fn what_was_kept_is_found_again_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let slot = Slot::new(dir.path(), "release", "a-v1.0-amd64");
        assert!(slot.kept_opt(None).is_none());
        let first = kept(&slot, b"one", "aa");
        assert_eq!(
            first.sha256,
            "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
        );
        assert_eq!(slot.kept_opt(None).expect("kept").path, first.path);
        let names: Vec<_> = fs::read_dir(dir.path())
            .expect("cache")
            .map(|e| e.expect("entry").file_name())
            .collect();
        assert_eq!(names, ["release"]);
    }

    #[test]
    fn a_program_that_was_tampered_with_is_not_found() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let slot = Slot::new(dir.path(), "go", "a");
        let first = kept(&slot, b"one", "aa");
        fs::write(&first.path, b"two").expect("writable");
        assert!(slot.kept_opt(None).is_none());
        assert_eq!(kept(&slot, b"two", "aa").size_bytes, 3);
        assert!(slot.kept_opt(None).is_some());
    }

    #[test]
    fn a_new_pin_turns_away_what_came_in_with_another_checksum() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let slot = Slot::new(dir.path(), "go", "a");
        kept(&slot, b"one", "aa");
        assert!(slot.kept_opt(Some("bb")).is_none());
        assert_eq!(
            slot.kept_opt(Some("aa")).expect("same").verified,
            Verified::Pin
        );
    }
}
