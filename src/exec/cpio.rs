//! Rewrites the cpio archive that dracut makes so that equal contents give equal bytes.
//!
//! Times are clamped, inode numbers are given anew in order of appearance, and device nodes that an unprivileged
//! dracut could not make are added. Set-ID bits of files go: `cp` keeps them and a clone does not, so that they tell what file
//! system dracut worked on, and nobody but root runs anything there. Content is streamed.
//!
//! Spec: Linux `Documentation/driver-api/early-userspace/buffer-format.rst` (the `newc` format).

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};

use crate::cpio::{Header, Reader, TRAILER, Writer, bad};

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;
const S_ISUID_OR_GID: u32 = 0o6000;

/// Device nodes the kernel or early user space opens before devtmpfs is mounted: name, mode, major, minor.
const DEVICES: &[(&str, u32, u32, u32)] = &[
    ("dev/console", 0o600, 5, 1),
    ("dev/kmsg", 0o600, 1, 11),
    ("dev/null", 0o666, 1, 3),
    ("dev/random", 0o666, 1, 8),
    ("dev/urandom", 0o666, 1, 9),
];

/// Rewrites every archive in `input` but an early one (microcode), which is copied to `early` unchanged.
///
/// `early` receives what must stay uncompressed in front of the initrd; `main` the rest. `clamp` is the highest
/// modification time, in seconds since 1970, that an entry may have.
///
/// # Errors
///
/// `InvalidData` for a damaged archive, or an I/O error of either side.
pub(super) fn normalize(
    input: impl Read,
    early: &mut impl Write,
    main: &mut impl Write,
    clamp: u32,
) -> io::Result<()> {
    let mut reader = Reader::new(input);
    let mut archives = 0;
    while let Some(first) = reader.next_header()? {
        archives += 1;
        if archives == 1 && first.1 == b"early_cpio" {
            copy_archive(&mut reader, first, early, clamp, false)?;
        } else {
            copy_archive(&mut reader, first, main, clamp, true)?;
        }
    }
    if archives == 0 {
        return Err(bad("it is empty"));
    }
    Ok(())
}

fn copy_archive<R: Read>(
    reader: &mut Reader<R>,
    first: (Header, Vec<u8>),
    out: &mut impl Write,
    clamp: u32,
    add_devices: bool,
) -> io::Result<()> {
    let mut out = Writer::new(out);
    let mut inodes: HashMap<(u32, (u32, u32)), u32> = HashMap::new();
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    let mut next_inode = 1;
    let mut entry = Some(first);
    while let Some((mut header, name)) = entry {
        if name == TRAILER {
            break;
        }
        let key = (header.ino, header.dev);
        // Entries with one link may share an inode number with a file of another filesystem; only real links keep theirs.
        let is_file = header.mode & S_IFMT == S_IFREG;
        if is_file {
            header.mode &= !S_ISUID_OR_GID;
        }
        header.ino = if header.nlink > 1 && is_file {
            *inodes.entry(key).or_insert_with(|| take(&mut next_inode))
        } else {
            take(&mut next_inode)
        };
        header.dev = (0, 0);
        header.mtime = header.mtime.min(clamp);
        out.entry(&header, &name)?;
        reader.copy(u64::from(header.size), &mut out)?;
        seen.insert(name);
        entry = Some(
            reader
                .next_header()?
                .ok_or_else(|| bad("it ends before its trailer"))?,
        );
    }
    if add_devices {
        for (name, mode, major, minor) in DEVICES {
            if seen.contains(name.as_bytes()) || !seen.contains(b"dev".as_slice()) {
                continue;
            }
            let header = Header {
                ino: take(&mut next_inode),
                mode: S_IFCHR | mode,
                nlink: 1,
                mtime: clamp,
                rdev: (*major, *minor),
                ..Header::default()
            };
            out.entry(&header, name.as_bytes())?;
        }
    }
    out.entry(
        &Header {
            nlink: 1,
            ..Header::default()
        },
        TRAILER,
    )?;
    // The kernel looks for the next archive at a multiple of four bytes; 512 is what cpio itself pads to.
    out.pad(512)
}

fn take(next: &mut u32) -> u32 {
    *next += 1;
    *next - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, u32, u32, &[u8])]) -> Vec<u8> {
        let mut out = Writer::new(Vec::new());
        for (index, (name, mode, nlink, data)) in entries.iter().enumerate() {
            let header = Header {
                ino: 7000 + index as u32,
                mode: *mode,
                nlink: *nlink,
                mtime: 4_000_000_000,
                size: data.len() as u32,
                dev: (8, 1),
                ..Header::default()
            };
            out.entry(&header, name.as_bytes()).unwrap();
            out.write_all(data).unwrap();
            out.pad(4).unwrap();
        }
        out.entry(&Header::default(), TRAILER).unwrap();
        out.pad(512).unwrap();
        out.into_inner()
    }

    fn run(input: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut early, mut main) = (Vec::new(), Vec::new());
        normalize(input, &mut early, &mut main, 100).unwrap();
        (early, main)
    }

    #[test]
    fn device_nodes_are_added_once_and_times_are_clamped() {
        let input = archive(&[
            ("dev", 0o040_755, 2, b""),
            ("dev/null", 0o020_666, 1, b""),
            ("init", 0o100_755, 1, b"hello"),
        ]);
        let (early, main) = run(&input);
        assert!(early.is_empty());
        let mut reader = Reader::new(main.as_slice());
        let mut names = Vec::new();
        while let Some((header, name)) = reader.next_header().unwrap() {
            assert!(header.mtime <= 100);
            reader
                .copy(u64::from(header.size), &mut Writer::new(io::sink()))
                .unwrap();
            names.push(String::from_utf8(name).unwrap());
        }
        assert_eq!(
            names,
            [
                "dev",
                "dev/null",
                "init",
                "dev/console",
                "dev/kmsg",
                "dev/random",
                "dev/urandom",
                "TRAILER!!!"
            ]
        );
    }

    #[test]
    fn files_lose_their_set_id_bits() {
        let modes = |mode| run(&archive(&[("mount", mode, 1, b"x")])).1;
        assert_eq!(modes(0o104_755), modes(0o100_755));
        assert_ne!(modes(0o100_755), modes(0o100_750));
    }

    #[test]
    fn an_early_archive_stays_apart() {
        let mut input = archive(&[("early_cpio", 0o100_644, 1, b"1")]);
        input.extend(archive(&[("init", 0o100_755, 1, b"x")]));
        let (early, main) = run(&input);
        assert!(!early.is_empty() && early.len() % 512 == 0);
        assert!(main.windows(4).any(|w| w == b"init"));
        assert!(!early.windows(4).any(|w| w == b"init"));
    }

    #[test]
    fn normalizing_twice_changes_nothing_more() {
        let (_, once) = run(&archive(&[
            ("dev", 0o040_755, 2, b""),
            ("a", 0o100_644, 1, b"abc"),
        ]));
        assert_eq!(run(&once).1, once);
    }

    #[test]
    fn a_cut_archive_is_an_error() {
        let whole = archive(&[("a", 0o100_644, 1, b"abcdefgh")]);
        for cut in [3, 50, 115, 120] {
            assert!(
                normalize(&whole[..cut], &mut Vec::new(), &mut Vec::new(), 1).is_err(),
                "cut at {cut}"
            );
        }
    }
}
