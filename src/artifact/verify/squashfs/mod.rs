//! The root filesystem of live media: a squashfs, whole, with what a system needs, and compressed in a way that its kernel reads.

mod metadata;
mod reader;
mod superblock;

use std::io;

use super::rule::Report;
use super::{root, rules};
use crate::artifact::region::Region;
use crate::artifact::squashfs::Algorithm;
use crate::error::Result;
use crate::validate::kernel_image::KernelImage;
use metadata::Compressor;
use reader::Reader;
use superblock::Superblock;

/// Every way to compress, by its number, and what the kernel's configuration calls it.
const COMPRESSORS: [(u16, &str, &str); 6] = [
    (1, Algorithm::Gzip.name(), Algorithm::Gzip.kernel_option()),
    (2, "lzma", ""),
    (3, "lzo", "CONFIG_SQUASHFS_LZO"),
    (4, Algorithm::Xz.name(), Algorithm::Xz.kernel_option()),
    (5, Algorithm::Lz4.name(), Algorithm::Lz4.kernel_option()),
    (6, Algorithm::Zstd.name(), Algorithm::Zstd.kernel_option()),
];

/// Checks the squashfs in `region`, which has the name `path`, and which `kernel` mounts.
pub(super) fn check(
    report: &mut Report,
    path: &str,
    region: &Region,
    kernel: Option<&KernelImage>,
) -> Result<()> {
    let mut bytes = [0; superblock::BYTES];
    let mut held = report.hold(&rules::SQUASHFS);
    if region.len() < bytes.len() as u64 {
        let text = format!("it has {} bytes, too few for any squashfs", region.len());
        held.at(path, text);
        return Ok(());
    }
    region.read_exact_at(&mut bytes, 0)?;
    let superblock = match Superblock::read(&bytes, region.len()) {
        Ok(superblock) => superblock,
        Err(wrong) => {
            held.at(path, wrong);
            return Ok(());
        }
    };
    let number = superblock.compressor;
    let known = COMPRESSORS.iter().find(|it| it.0 == number);
    let mut held = report.hold(&rules::SQUASHFS_COMPRESSOR);
    let Some((_, name, option)) = known.filter(|it| !it.2.is_empty()) else {
        let name = known.map_or("nothing that is known", |it| it.1);
        held.at(path, format!("it is compressed with {name} ({number})"));
        return Ok(());
    };
    let used = crate::progress::bytes_text(superblock.used);
    report.fact("squashfs", format!("{name}, {used}"));
    let compressor = match *name {
        "gzip" => Compressor::Gzip,
        "lz4" => Compressor::Lz4,
        "xz" => Compressor::Xz,
        "zstd" => Compressor::Zstd,
        other => {
            let mut held = report.hold(&rules::ROOT_UNREAD);
            held.at(
                path,
                format!("its compression is {other}, which is not read here"),
            );
            return Ok(());
        }
    };
    report.hold(&rules::ROOT_UNREAD);
    let mut reader = Reader::new(region.clone(), superblock, compressor);
    let checked = root::check(report, path, &mut reader, kernel).and_then(|()| {
        let config = root::kernel_config(&mut reader, kernel)?;
        // One that does not mount any squashfs is not this one's configuration, or has it in a module of another tree.
        let is_off = config.is_some_and(|config| {
            let has = |option: &str| config.lines().any(|line| line == format!("{option}=y"));
            config.contains("CONFIG_SQUASHFS=") && !has(option)
        });
        if is_off {
            let mut held = report.hold(&rules::SQUASHFS_COMPRESSOR);
            held.at(
                path,
                format!("it is compressed with {name}, and its kernel is built without {option}"),
            );
        }
        Ok(())
    });
    match checked {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            report.hold(&rules::SQUASHFS).at(path, error.to_string());
            Ok(())
        }
        done => Ok(done?),
    }
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::root::{Lack, RootFs as _};
    use super::*;
    use crate::kairos::release::RELEASE_PATH;

    #[test]
    fn a_file_that_is_too_large_is_not_missing() {
        let bytes = include_bytes!("../../../../testdata/squashfs/gzip.squashfs");
        let file = Arc::new(tempfile::tempfile().unwrap());
        let region = Region::of_file(file, bytes.len() as u64);
        region.write_all_at(bytes, 0).unwrap();
        let head = bytes.first_chunk().unwrap();
        let superblock = Superblock::read(head, region.len()).unwrap();
        let mut reader = Reader::new(region, superblock, Compressor::Gzip);
        let size = reader.read(RELEASE_PATH, 1000).unwrap().unwrap().len();
        let (size, most) = (size as u64, size - 1);
        let lack = reader.read(RELEASE_PATH, most).unwrap();
        assert_eq!(lack, Err(Lack::TooLarge { size, most }));
        let lack = reader.read("etc/none", most).unwrap();
        assert_eq!(lack, Err(Lack::Missing));
    }
}
