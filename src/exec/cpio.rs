//! Rewrites the cpio archive that dracut makes so that equal contents give equal bytes.
//!
//! Times are clamped, inode numbers are given anew in order of appearance, and device nodes that an unprivileged
//! dracut could not make are added. Content is streamed.
//!
//! Spec: Linux `Documentation/driver-api/early-userspace/buffer-format.rst` (the `newc` format).

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};

const MAGIC: &[u8; 6] = b"070701";
const HEADER_BYTES: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";
/// No path in an initramfs comes near this; a larger value is a damaged archive.
const MAX_NAME_BYTES: u32 = 4096;
const S_IFCHR: u32 = 0o020_000;

/// Device nodes the kernel or early user space opens before devtmpfs is mounted: name, mode, major, minor.
const DEVICES: &[(&str, u32, u32, u32)] = &[
    ("dev/console", 0o600, 5, 1),
    ("dev/kmsg", 0o600, 1, 11),
    ("dev/null", 0o666, 1, 3),
    ("dev/random", 0o666, 1, 8),
    ("dev/urandom", 0o666, 1, 9),
];

/// The thirteen numbers of a `newc` header, in the order they are written.
#[derive(Debug, Clone, Copy, Default)]
struct Header {
    ino: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    mtime: u32,
    size: u32,
    dev: (u32, u32),
    rdev: (u32, u32),
    name_size: u32,
}

impl Header {
    fn parse(raw: &[u8; HEADER_BYTES]) -> io::Result<Self> {
        if &raw[..6] != MAGIC {
            return Err(bad("an entry does not begin with 070701"));
        }
        let field = |index: usize| -> io::Result<u32> {
            let text = std::str::from_utf8(&raw[6 + index * 8..14 + index * 8])
                .map_err(|_| bad("a header field is not text"))?;
            u32::from_str_radix(text, 16).map_err(|_| bad("a header field is not hexadecimal"))
        };
        Ok(Self {
            ino: field(0)?,
            mode: field(1)?,
            uid: field(2)?,
            gid: field(3)?,
            nlink: field(4)?,
            mtime: field(5)?,
            size: field(6)?,
            dev: (field(7)?, field(8)?),
            rdev: (field(9)?, field(10)?),
            name_size: field(11)?,
        })
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(MAGIC)?;
        let fields = [
            self.ino,
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.mtime,
            self.size,
            self.dev.0,
            self.dev.1,
            self.rdev.0,
            self.rdev.1,
            self.name_size,
            0,
        ];
        for field in fields {
            write!(out, "{field:08x}")?;
        }
        Ok(())
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("cpio archive: {what}"))
}

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
    let mut reader = Aligned {
        inner: input,
        position: 0,
    };
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
    reader: &mut Aligned<R>,
    first: (Header, Vec<u8>),
    out: &mut impl Write,
    clamp: u32,
    add_devices: bool,
) -> io::Result<()> {
    let mut out = Padded {
        inner: out,
        position: 0,
    };
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
        header.ino = if header.nlink > 1 && header.mode & 0o170_000 == 0o100_000 {
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

/// Reads entries and keeps count, because every part is padded to four bytes.
struct Aligned<R> {
    inner: R,
    position: u64,
}

impl<R: Read> Aligned<R> {
    /// Returns the next header and its name without the final NUL; `None` at the end of the input.
    fn next_header(&mut self) -> io::Result<Option<(Header, Vec<u8>)>> {
        self.align()?;
        let mut raw = [0u8; HEADER_BYTES];
        // Zero bytes between two archives are padding.
        loop {
            match self.read_some(&mut raw[..4])? {
                0 => return Ok(None),
                4 => {}
                _ => return Err(bad("it ends inside a header")),
            }
            if raw[..4] != [0; 4] {
                break;
            }
        }
        self.exact(&mut raw[4..])?;
        let header = Header::parse(&raw)?;
        if header.name_size == 0 || header.name_size > MAX_NAME_BYTES {
            return Err(bad("a name has an impossible length"));
        }
        let mut name = vec![0; header.name_size as usize];
        self.exact(&mut name)?;
        name.pop();
        self.align()?;
        Ok(Some((header, name)))
    }

    fn copy<W: Write>(&mut self, size: u64, out: &mut Padded<W>) -> io::Result<()> {
        let copied = io::copy(&mut (&mut self.inner).take(size), out)?;
        self.position += copied;
        if copied != size {
            return Err(bad("it ends inside a file"));
        }
        out.pad(4)
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    fn exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.read_some(buffer)? == buffer.len() {
            Ok(())
        } else {
            Err(bad("it ends inside an entry"))
        }
    }

    fn align(&mut self) -> io::Result<()> {
        let rest = (4 - self.position % 4) % 4;
        let mut skip = [0u8; 4];
        let wanted = rest as usize;
        // The very end of the input need not be padded.
        self.read_some(&mut skip[..wanted]).map(|_| ())
    }
}

struct Padded<W> {
    inner: W,
    position: u64,
}

impl<W: Write> Padded<W> {
    fn entry(&mut self, header: &Header, name: &[u8]) -> io::Result<()> {
        let header = Header {
            name_size: name.len() as u32 + 1,
            ..*header
        };
        header.write(self)?;
        self.write_all(name)?;
        self.write_all(&[0])?;
        self.pad(4)
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        let rest = (to - self.position % to) % to;
        self.write_all(&[0u8; 512][..rest as usize])
    }
}

impl<W: Write> Write for Padded<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, u32, u32, &[u8])]) -> Vec<u8> {
        let mut out = Padded {
            inner: Vec::new(),
            position: 0,
        };
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
        out.inner
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
        let mut reader = Aligned {
            inner: main.as_slice(),
            position: 0,
        };
        let mut names = Vec::new();
        while let Some((header, name)) = reader.next_header().unwrap() {
            assert!(header.mtime <= 100);
            reader
                .copy(
                    u64::from(header.size),
                    &mut Padded {
                        inner: io::sink(),
                        position: 0,
                    },
                )
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
