//! How large an image for Trusted Boot is as the signed EFI image it is packed into, and what limits that.
//!
//! The whole root filesystem but `/boot` becomes the initrd of that EFI image: a compressed cpio archive that the firmware loads at
//! once and that the kernel unpacks into memory.

use std::io::{self, Read, Write};
use std::path::Path;

use kfactory_layers::metadata::FileKind;
use kfactory_layers::root::Root;

use super::Environment;
use crate::error::{Context as _, Result};
use crate::progress::bytes_text;

/// Not packed: the kernel goes in beside the archive, and the others exist at run time only.
const LEFT_OUT: [&str; 6] = ["boot", "dev", "proc", "run", "sys", "tmp"];
/// Kernel and the stub that starts it, in one file of this size at most, is what AuroraBoot calls large (`--efi-size-warn`).
const LARGE: u64 = 1024 << 20;
/// Each EFI image gets this much of the EFI system partition when a machine is installed: that is five times as large.
const SLOT: u64 = 3072 << 20;
/// The largest file of a FAT file system, which an EFI system partition is.
const FAT: u64 = (4 << 30) - 1;
/// Header, padding and the average name of a cpio entry.
const ENTRY: u64 = 160;
/// Fast; the level that UKIs are packed with makes less, so the result is the most that is to be expected.
const LEVEL: i32 = 3;
const CHUNK: usize = 1 << 20;

/// What an image weighs as a UKI, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Weight {
    kernel: u64,
    unpacked: u64,
    packed: u64,
}

/// Says how large the image is, and warns where something will refuse it.
pub(super) fn measure(env: &Environment<'_>, root: &Root) -> Result<()> {
    let doing = || "measuring the image as a UKI".to_owned();
    let mut sink = zstd::Encoder::new(Counter(0), LEVEL).context(doing)?;
    sink.multithread(u32::try_from(env.jobs.max(1)).unwrap_or(1))
        .context(doing)?;
    let unpacked = pack(root, Path::new("/"), &mut sink)?;
    let Counter(packed) = sink.finish().context(doing)?;
    let kernel = root.metadata_opt("/boot/vmlinuz")?.map_or(0, |it| it.size);
    let weight = Weight {
        kernel,
        unpacked,
        packed,
    };
    env.finding(weight.describe());
    for warning in weight.warnings() {
        env.finding(format!("warning: {warning}"));
    }
    Ok(())
}

/// Feeds every file to `sink` and returns what the archive holds.
fn pack(root: &Root, dir: &Path, sink: &mut impl Write) -> Result<u64> {
    let mut bytes = 0;
    let mut entries = root.read_dir(dir)?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in entries {
        if dir == Path::new("/") && LEFT_OUT.iter().any(|name| entry.name == *name) {
            continue;
        }
        let path = dir.join(&entry.name);
        bytes += ENTRY;
        match entry.kind {
            FileKind::Directory => bytes += pack(root, &path, sink)?,
            FileKind::File => {
                if let Some(mut file) = root.open_file_opt(&path)? {
                    bytes +=
                        copy(&mut file, sink).context(|| format!("reading {}", path.display()))?;
                }
            }
            _ => {}
        }
    }
    Ok(bytes)
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(bytes),
            count => {
                to.write_all(&buffer[..count])?;
                bytes += count as u64;
            }
        }
    }
}

/// Counts what it is given.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Weight {
    fn total(self) -> u64 {
        self.kernel + self.packed
    }

    fn describe(self) -> String {
        format!(
            "as a UKI at most {}: kernel {}, root filesystem {} ({} in memory); AuroraBoot warns above {}, an installed machine has {} for each",
            bytes_text(self.total()),
            bytes_text(self.kernel),
            bytes_text(self.packed),
            bytes_text(self.unpacked),
            bytes_text(LARGE),
            bytes_text(SLOT),
        )
    }

    fn warnings(self) -> Vec<String> {
        let total = self.total();
        let size = bytes_text(total);
        let mut warnings = Vec::new();
        if total > FAT {
            warnings.push(format!("as a UKI the image may have {size}, and no file of an EFI system partition can be larger than {}", bytes_text(FAT)));
        } else if total > SLOT {
            warnings.push(format!(
                "as a UKI the image may have {size}, and an installed machine has {} for it",
                bytes_text(SLOT)
            ));
        } else if total > LARGE {
            warnings.push(format!("as a UKI the image may have {size}: some firmware refuses to load that much; `--without`, `--firmware` and `--kernel` make it smaller"));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_its_own_warning_and_a_small_image_none() {
        let weight = |packed| Weight {
            kernel: 10 << 20,
            unpacked: packed * 3,
            packed,
        };
        assert!(weight(300 << 20).warnings().is_empty());
        for (packed, word) in [
            (1100 << 20, "firmware refuses"),
            (3100 << 20, "installed machine"),
            (5 << 30, "can be larger"),
        ] {
            let warnings = weight(packed).warnings();
            assert!(
                warnings.len() == 1 && warnings[0].contains(word),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn what_is_not_packed_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        for (name, size) in [("boot/vmlinuz", 5000), ("usr/bin/a", 700), ("run/b", 900)] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![0; size]).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let mut sink = Counter(0);
        assert_eq!(
            pack(&root, Path::new("/"), &mut sink).unwrap(),
            700 + 3 * ENTRY
        );
        assert_eq!(sink.0, 700);
    }
}
