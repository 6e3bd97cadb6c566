//! Rewrites the cpio archive that dracut makes so that equal contents give equal bytes.
//!
//! Times are clamped, inode numbers are given anew in order of appearance, and device nodes that an unprivileged
//! dracut could not make are added. Set-ID bits of files go: `cp` keeps them and a clone does not, so that they tell what file
//! system dracut worked on, and nobody but root runs anything there. Equal files become links of one. Content is streamed.
//!
//! Spec: Linux `Documentation/driver-api/early-userspace/buffer-format.rst` (the `newc` format).

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};

use super::cpio_twins::Twins;
use crate::cpio::{Header, Reader, S_IFMT, S_IFREG, TRAILER, Writer, bad};

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
/// `twins` are the files of `input` that are equal. `early` receives what must stay uncompressed in front of the initrd; `main`
/// the rest. `clamp` is the highest modification time, in seconds since 1970, that an entry may have.
///
/// # Errors
///
/// `InvalidData` for a damaged archive, or an I/O error of either side.
pub(super) fn normalize(
    input: impl Read,
    twins: &Twins,
    early: &mut impl Write,
    main: &mut impl Write,
    clamp: u32,
) -> io::Result<()> {
    let mut entries = Entries {
        reader: Reader::new(input),
        ahead: None,
        count: 0,
        twins,
    };
    let mut archives = 0;
    while !entries.at_end()? {
        archives += 1;
        if archives == 1 && entries.are_early()? {
            copy_archive(&mut entries, early, clamp, false)?;
        } else {
            copy_archive(&mut entries, main, clamp, true)?;
        }
    }
    if archives == 0 {
        return Err(bad("it is empty"));
    }
    Ok(())
}

/// The entries of all archives in a row, with a look ahead.
struct Entries<'a, R> {
    reader: Reader<R>,
    /// What was looked at: one entry, or two of which the first is a directory.
    ahead: Option<(Entry, Option<Entry>)>,
    /// How many entries were handed out; twins are told by it.
    count: usize,
    twins: &'a Twins,
}

type Entry = (Header, Vec<u8>);

impl<R: Read> Entries<'_, R> {
    fn at_end(&mut self) -> io::Result<bool> {
        if self.ahead.is_none() {
            self.ahead = self.reader.next_header()?.map(|first| (first, None));
        }
        Ok(self.ahead.is_none())
    }

    /// Tells whether dracut's mark of an early archive comes next; newer ones begin with the top directory.
    fn are_early(&mut self) -> io::Result<bool> {
        let is_mark = |entry: &Entry| entry.1 == b"early_cpio";
        let Some((first, second)) = &mut self.ahead else {
            return Ok(false);
        };
        if first.1 == b"." && first.0.size == 0 && second.is_none() {
            *second = self.reader.next_header()?;
        }
        Ok(is_mark(first) || second.as_ref().is_some_and(is_mark))
    }

    /// Returns the next entry and its number.
    fn next(&mut self) -> io::Result<(Entry, usize)> {
        let next = match self.ahead.take() {
            Some((first, second)) => {
                self.ahead = second.map(|second| (second, None));
                Some(first)
            }
            None => self.reader.next_header()?,
        };
        self.count += 1;
        let entry = next.ok_or_else(|| bad("it ends before its trailer"))?;
        Ok((entry, self.count - 1))
    }
}

fn copy_archive<R: Read>(
    entries: &mut Entries<'_, R>,
    out: &mut impl Write,
    clamp: u32,
    add_devices: bool,
) -> io::Result<()> {
    let mut out = Writer::new(out);
    let mut inodes: HashMap<(u32, (u32, u32)), u32> = HashMap::new();
    let mut twin_inodes: HashMap<usize, u32> = HashMap::new();
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    let mut next_inode = 1;
    loop {
        let ((mut header, name), number) = entries.next()?;
        if name == TRAILER {
            break;
        }
        let size = u64::from(header.size);
        let key = (header.ino, header.dev);
        // Entries with one link may share an inode number with a file of another filesystem; only real links keep theirs.
        let is_file = header.mode & S_IFMT == S_IFREG;
        if is_file {
            header.mode &= !S_ISUID_OR_GID;
        }
        let twin = entries.twins.get(number);
        header.ino = if let Some(twin) = twin {
            header.nlink = twin.count;
            *twin_inodes
                .entry(twin.first)
                .or_insert_with(|| take(&mut next_inode))
        } else if header.nlink > 1 && is_file {
            *inodes.entry(key).or_insert_with(|| take(&mut next_inode))
        } else {
            take(&mut next_inode)
        };
        header.dev = (0, 0);
        header.mtime = header.mtime.min(clamp);
        if twin.is_some_and(|twin| twin.first != number) {
            // The content came with the first of them.
            header.size = 0;
            out.entry(&header, &name)?;
            entries.reader.skip(size)?;
        } else {
            out.entry(&header, &name)?;
            entries.reader.copy(size, &mut out)?;
        }
        seen.insert(name);
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
        let twins = Twins::find(|| Ok(input)).unwrap();
        normalize(input, &twins, &mut early, &mut main, 100).unwrap();
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
        let mark = ("early_cpio", 0o100_644, 1, b"1".as_slice());
        let top = (".", 0o040_755, 2, b"".as_slice());
        for first in [archive(&[mark]), archive(&[top, mark])] {
            let mut input = first;
            input.extend(archive(&[top, ("init", 0o100_755, 1, b"x")]));
            let (early, main) = run(&input);
            assert!(!early.is_empty() && early.len() % 512 == 0);
            assert!(main.windows(4).any(|w| w == b"init"));
            assert!(!early.windows(4).any(|w| w == b"init"));
        }
        let (early, _) = run(&archive(&[top, ("init", 0o100_755, 1, b"x")]));
        assert!(early.is_empty());
    }

    #[test]
    fn equal_files_are_links_of_the_first_which_other_readers_understand() {
        let program = vec![7; 1 << 17];
        let input = archive(&[
            ("bin", 0o040_755, 2, b""),
            ("bin/cat", 0o100_755, 1, &program),
            ("bin/private", 0o100_700, 1, &program),
            ("bin/true", 0o104_755, 1, &program),
            ("empty", 0o100_755, 1, b""),
        ]);
        let (_, main) = run(&input);
        let mut reader = Reader::new(main.as_slice());
        let mut found = HashMap::new();
        while let Some((header, name)) = reader.next_header().unwrap() {
            reader.skip(u64::from(header.size)).unwrap();
            found.insert(String::from_utf8(name).unwrap(), header);
        }
        let (first, other) = (found["bin/cat"], found["bin/true"]);
        assert_eq!((first.nlink, other.nlink), (2, 2));
        assert_eq!(first.ino, other.ino);
        assert_eq!((first.size, other.size), (1 << 17, 0));
        assert_eq!(found["bin/private"].nlink, 1);
        assert_eq!(run(&main).1, main);
        let mut two = archive(&[
            ("early_cpio", 0o100_644, 1, b"1"),
            ("a", 0o100_755, 1, &program),
        ]);
        two.extend(archive(&[("b", 0o100_755, 1, &program)]));
        assert!(
            run(&two).1.len() > program.len(),
            "each archive has its own"
        );
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
                normalize(
                    &whole[..cut],
                    &Twins::default(),
                    &mut Vec::new(),
                    &mut Vec::new(),
                    1
                )
                .is_err(),
                "cut at {cut}"
            );
        }
    }
}
