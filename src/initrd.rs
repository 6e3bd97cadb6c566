//! Reads what an initrd holds: archives in a row, each plain or compressed, with zeros between them.
//!
//! The kernel takes any number of `newc` archives one after the other. An early one with microcode stands uncompressed in
//! front; the rest is usually one compressed stream. Nothing is unpacked: names, kinds and link targets are kept, content
//! is passed over.
//!
//! Spec: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use kfactory_sandbox::CancelToken;
use liblzma::bufread::XzDecoder;

use crate::bounded::Bounded;
#[cfg(test)]
use crate::cpio;
use crate::cpio::{Reader, S_IFMT, S_IFREG, TRAILER, bad};
use crate::stop::Stoppable;

/// The largest file; real ones have some hundred megabytes.
const MAX_FILE_BYTES: u64 = 2 << 30;
/// The most that its compressed parts hold together; real ones have a gigabyte at most.
const MAX_UNPACKED_BYTES: u64 = 4 << 30;
/// The most bytes of names and links that are kept; the largest real initrds have 2 MB.
const MAX_NAMES_BYTES: usize = 64 << 20;
/// The most names that are kept; the largest real initrds hold some 20 000.
const MAX_ENTRIES: usize = 1 << 20;
/// The longest target of a link that Linux takes.
const MAX_TARGET: u64 = 4096;
/// The largest list of what is built into a kernel; real ones have 20 kB.
const MAX_BUILTIN_BYTES: u64 = 1 << 20;
const S_IFLNK: u32 = 0o120_000;
/// Bytes that tell every format apart.
const PROBE: usize = 6;

/// How a part of an initrd is compressed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A plain archive.
    Cpio,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// xz.
    Xz,
    /// A format that the kernel may know and this program does not read, by name.
    Unread(&'static str),
}

impl Format {
    fn of(head: &[u8]) -> Option<Self> {
        Some(match head {
            [b'0', b'7', b'0', b'7', b'0', b'1' | b'2', ..] => Self::Cpio,
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x02, 0x21, 0x4c, 0x18, ..] => Self::Unread("lz4"),
            [0x89, b'L', b'Z', b'O', ..] => Self::Unread("lzo"),
            [b'B', b'Z', b'h', ..] => Self::Unread("bzip2"),
            [0x5d, 0, 0, ..] => Self::Unread("lzma"),
            _ => return None,
        })
    }

    /// Returns the format's name, as in the kernel's `CONFIG_RD_` options (in lower case).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpio => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Unread(name) => name,
        }
    }
}

/// One name in an initrd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Kind and permission bits, as in `st_mode`.
    pub(crate) mode: u32,
    /// Size of the content in bytes.
    pub(crate) size: u64,
    /// Where it points, for a symbolic link.
    pub(crate) target: Option<String>,
}

/// What an initrd holds.
#[derive(Debug, Default)]
pub(crate) struct Initrd {
    /// Every entry by its path without a leading slash; a later archive replaces what an earlier one has.
    pub(crate) entries: BTreeMap<String, Entry>,
    /// The parts in order: a plain archive, or a compressed stream of archives.
    pub(crate) parts: Vec<Format>,
    /// Whether microcode for the processor stands in front, where the kernel looks before it has memory to unpack anything.
    pub(crate) has_microcode: bool,
    /// Whether it is where nobody looks: behind the first archive, or compressed.
    pub(crate) has_late_microcode: bool,
    /// The kernel's own list of what is built into it (`modules.builtin`), where the initrd has a copy.
    pub(crate) builtin: Option<String>,
    /// Bytes of all names and link targets, whether kept or replaced since.
    names_bytes: usize,
}

impl Initrd {
    /// Reads every part of `input`, until the run is stopped.
    ///
    /// # Errors
    ///
    /// `InvalidData` for what the kernel would not take either, and `Unsupported` for a compression that only it reads;
    /// [`Stopped`](crate::stop::Stopped).
    pub(crate) fn read(input: impl BufRead, stop: Option<&CancelToken>) -> io::Result<Self> {
        // Every decoder comes back for input after a few kilobytes of output.
        let input = Stoppable::new(input, stop);
        let input = Bounded::new(input, MAX_FILE_BYTES, "it is larger than");
        Self::read_up_to(MAX_UNPACKED_BYTES, input)
    }

    fn read_up_to(limit: u64, input: impl BufRead) -> io::Result<Self> {
        let mut out = Self::default();
        let mut unpacked = 0;
        let mut input = Peek::new(input);
        loop {
            input.skip_zeros()?;
            let head = input.peek()?;
            if head.is_empty() {
                break;
            }
            let format = Format::of(head)
                .ok_or_else(|| bad(&format!("no archive begins with the bytes {head:02x?}")))?;
            out.parts.push(format);
            match format {
                Format::Cpio => out.archives(&mut input, Until::Trailer)?,
                Format::Unread(name) => {
                    let text = format!("its compression is {name}, which is not read here");
                    return Err(io::Error::new(io::ErrorKind::Unsupported, text));
                }
                _ => {
                    // Padding is read in words of four bytes.
                    let members = BufReader::new(Members::new(format, input)?);
                    let members = Bounded::new(members, limit, "it unpacks to more than");
                    let mut members = members.after(unpacked);
                    out.archives(&mut members, Until::End)?;
                    unpacked = members.count();
                    input = members.into_inner().into_inner().into_inner()?;
                }
            }
        }
        if out.parts.is_empty() {
            return Err(bad("it is empty"));
        }
        Ok(out)
    }

    fn archives(&mut self, input: impl Read, until: Until) -> io::Result<()> {
        let mut reader = Reader::new(input);
        let mut is_whole = true;
        while let Some((header, name)) = reader.next_header()? {
            is_whole = name == TRAILER;
            if is_whole && until == Until::Trailer {
                return Ok(());
            }
            if is_whole {
                continue;
            }
            let size = u64::from(header.size);
            let mut target = None;
            if header.mode & S_IFMT == S_IFLNK {
                let content = reader.content(size, MAX_TARGET)?;
                target = Some(String::from_utf8_lossy(&content).into_owned());
            } else if name.ends_with(b"/modules.builtin") && size <= MAX_BUILTIN_BYTES {
                let content = reader.content(size, MAX_BUILTIN_BYTES)?;
                self.builtin = Some(String::from_utf8_lossy(&content).into_owned());
            } else {
                reader.skip(size)?;
            }
            self.add(&name, header.mode, size, target)?;
        }
        if is_whole && until == Until::End {
            Ok(())
        } else {
            Err(bad("it ends before its trailer"))
        }
    }

    fn add(&mut self, name: &[u8], mode: u32, size: u64, target: Option<String>) -> io::Result<()> {
        let name = String::from_utf8_lossy(name);
        let name = name.trim_start_matches("./").trim_start_matches('/');
        let is_microcode = name.starts_with("kernel/x86/microcode/");
        let is_early = self.parts == [Format::Cpio];
        self.has_microcode |= is_microcode && is_early;
        self.has_late_microcode |= is_microcode && !is_early && mode & S_IFMT == S_IFREG;
        if self.entries.len() >= MAX_ENTRIES {
            return Err(bad("it holds more than a million names"));
        }
        self.names_bytes += name.len() + target.as_ref().map_or(0, String::len);
        if self.names_bytes > MAX_NAMES_BYTES {
            return Err(bad("its names have more than 64 MiB"));
        }
        let entry = Entry { mode, size, target };
        self.entries.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Returns whether some path ends in `/` and `end`, or is `end` itself.
    pub(crate) fn has_ending(&self, end: &str) -> bool {
        self.entries.keys().any(|path| {
            path.strip_suffix(end)
                .is_some_and(|before| before.is_empty() || before.ends_with('/'))
        })
    }

    /// Returns the versions of the kernels whose modules it holds.
    pub(crate) fn module_versions(&self) -> Vec<&str> {
        let mut versions: Vec<&str> = self
            .entries
            .keys()
            .filter_map(|path| {
                let path = path.strip_prefix("usr/").unwrap_or(path);
                let (version, rest) = path.strip_prefix("lib/modules/")?.split_once('/')?;
                (!rest.is_empty()).then_some(version)
            })
            .collect();
        versions.dedup();
        versions
    }

    /// Returns whether a program is there, and so is what its link points at.
    pub(crate) fn has_program(&self, name: &str) -> bool {
        let links: Vec<&str> = self
            .entries
            .iter()
            .filter(|(path, _)| {
                path.rsplit_once('/')
                    .is_some_and(|(dir, last)| last == name && dir.ends_with("bin"))
            })
            .map(|(_, entry)| entry.target.as_deref().unwrap_or(""))
            .collect();
        links.iter().any(|target| {
            target.is_empty()
                || target
                    .rsplit('/')
                    .next()
                    .is_some_and(|name| self.has_ending(name))
        })
    }

    /// Returns whether the kernel finds what it starts.
    pub(crate) fn has_init(&self) -> bool {
        match self.entries.get("init") {
            None => false,
            Some(entry) => entry.target.as_deref().is_none_or(|target| {
                let target = target.trim_start_matches('/');
                // What the archive calls lib may be below usr, through a link that is in the archive too.
                self.has_ending(target.strip_prefix("usr/").unwrap_or(target))
            }),
        }
    }

    /// Returns whether it holds the module `name`.
    pub(crate) fn has_module(&self, name: &str) -> bool {
        self.entries.keys().any(|path| is_module(path, name))
    }
}

/// Returns whether a path is that of the module `name`, compressed or not; `-` and `_` are the same in module names.
pub(crate) fn is_module(path: &str, name: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split_once(".ko")
        .is_some_and(|(stem, _)| stem.replace('-', "_") == name)
}

/// Where reading archives stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// After one archive.
    Trailer,
    /// At the end of the input, after any number of archives.
    End,
}

/// Looks a few bytes ahead, whatever the size of the buffer below.
#[derive(Debug)]
struct Peek<R> {
    head: Vec<u8>,
    inner: R,
}

impl<R: BufRead> Peek<R> {
    fn new(inner: R) -> Self {
        Self {
            head: Vec::with_capacity(PROBE),
            inner,
        }
    }

    /// Returns the next bytes without taking them; fewer than [`PROBE`] at the end.
    fn peek(&mut self) -> io::Result<&[u8]> {
        let wanted = (PROBE - self.head.len()) as u64;
        (&mut self.inner).take(wanted).read_to_end(&mut self.head)?;
        Ok(&self.head)
    }

    fn skip_zeros(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.fill_buf()?;
            let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
            let is_over = zeros < buffer.len() || buffer.is_empty();
            self.consume(zeros);
            if is_over {
                return Ok(());
            }
        }
    }
}

impl<R: BufRead> Read for Peek<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.head.is_empty() {
            return self.inner.read(buffer);
        }
        let count = self.head.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.head[..count]);
        self.head.drain(..count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Peek<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.head.is_empty() {
            self.inner.fill_buf()
        } else {
            Ok(&self.head)
        }
    }

    fn consume(&mut self, count: usize) {
        if self.head.is_empty() {
            self.inner.consume(count);
        } else {
            self.head.drain(..count);
        }
    }
}

/// The most memory that one xz stream may ask for: `xz -9` asks for 65 MiB, a bomb for gigabytes.
const XZ_MEMORY_BYTES: u64 = 256 << 20;

fn xz_stream() -> io::Result<liblzma::stream::Stream> {
    Ok(liblzma::stream::Stream::new_stream_decoder(
        XZ_MEMORY_BYTES,
        0,
    )?)
}

/// Compressed streams of one format in a row, read as one: parallel compressors write many.
enum Members<R: BufRead> {
    Gzip(Box<GzDecoder<Peek<R>>>),
    Zstd(zstd::Decoder<'static, Peek<R>>),
    Xz(Box<XzDecoder<Peek<R>>>),
    /// Between two streams, and after the last one.
    Over(Peek<R>),
    /// Only while one takes the place of another.
    Moved,
}

impl<R: BufRead> Members<R> {
    fn new(format: Format, input: Peek<R>) -> io::Result<Self> {
        Ok(match format {
            Format::Gzip => Self::Gzip(Box::new(GzDecoder::new(input))),
            Format::Zstd => Self::Zstd(zstd::Decoder::with_buffer(input)?.single_frame()),
            Format::Xz => Self::Xz(Box::new(XzDecoder::new_stream(input, xz_stream()?))),
            _ => Self::Over(input),
        })
    }

    fn format(&self) -> Option<Format> {
        Some(match self {
            Self::Gzip(_) => Format::Gzip,
            Self::Zstd(_) => Format::Zstd,
            Self::Xz(_) => Format::Xz,
            Self::Over(_) | Self::Moved => return None,
        })
    }

    /// Goes on with the next stream, where there is one of the same format.
    fn advance(&mut self) -> io::Result<()> {
        let format = self.format();
        let mut input = std::mem::replace(self, Self::Moved).into_inner()?;
        input.skip_zeros()?;
        let next = Format::of(input.peek()?);
        *self = match (format, next) {
            (Some(format), Some(next)) if format == next => Self::new(format, input)?,
            _ => Self::Over(input),
        };
        Ok(())
    }

    fn into_inner(self) -> io::Result<Peek<R>> {
        match self {
            Self::Gzip(decoder) => Ok(decoder.into_inner()),
            Self::Zstd(decoder) => Ok(decoder.finish()),
            Self::Xz(decoder) => Ok(decoder.into_inner()),
            Self::Over(input) => Ok(input),
            Self::Moved => Err(io::Error::other("a stream failed before")),
        }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() {
            let count = match self {
                Self::Gzip(decoder) => decoder.read(buffer)?,
                Self::Zstd(decoder) => decoder.read(buffer)?,
                Self::Xz(decoder) => decoder.read(buffer)?,
                Self::Over(_) | Self::Moved => return Ok(0),
            };
            if count > 0 {
                return Ok(count);
            }
            self.advance()?;
        }
        Ok(0)
    }
}

/// Writes an archive of `entries`, each a path, a mode and its content. For tests, which make initrds of their own.
#[cfg(test)]
pub(crate) fn archive(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    use std::io::Write as _;
    let mut out = cpio::Writer::new(Vec::new());
    for (name, mode, content) in entries {
        let header = cpio::Header {
            mode: *mode,
            nlink: 1,
            size: content.len() as u32,
            ..cpio::Header::default()
        };
        out.entry(&header, name.as_bytes()).expect("memory");
        out.write_all(content).expect("memory");
        out.pad(4).expect("memory");
    }
    let end = cpio::Header::default();
    out.entry(&end, TRAILER).expect("memory");
    out.pad(512).expect("memory");
    out.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    const MICROCODE: (&str, u32, &[u8]) =
        ("kernel/x86/microcode/GenuineIntel.bin", 0o100_644, b"code");

    fn main_archive() -> Vec<u8> {
        archive(&[
            ("init", 0o120_777, b"usr/lib/systemd/systemd"),
            ("./usr/bin/immucore", 0o100_755, b"program"),
        ])
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    /// `printf` of the main archive through `xz -9`; nothing here writes xz.
    const XZ: &[u8] = include_bytes!("../testdata/initrd/main.cpio.xz");

    fn names(initrd: &[u8]) -> Vec<String> {
        let read = Initrd::read(initrd, None).unwrap();
        read.entries.keys().cloned().collect()
    }

    #[test]
    fn every_compression_holds_the_same_names() {
        let plain = main_archive();
        let zstd = zstd::encode_all(plain.as_slice(), 3).unwrap();
        for (bytes, format) in [
            (plain.clone(), Format::Cpio),
            (gzip(&plain), Format::Gzip),
            (zstd, Format::Zstd),
            (XZ.to_vec(), Format::Xz),
        ] {
            let read = Initrd::read(bytes.as_slice(), None).unwrap();
            assert_eq!(read.parts, [format]);
            assert_eq!(names(&bytes), ["init", "usr/bin/immucore"]);
            let target = read.entries["init"].target.as_deref();
            assert_eq!(target, Some("usr/lib/systemd/systemd"));
            assert!(read.has_ending("bin/immucore") && !read.has_ending("mucore"));
        }
    }

    #[test]
    fn microcode_in_front_is_told_apart_from_the_rest() {
        let mut initrd = archive(&[MICROCODE]);
        initrd.extend([0; 4096]);
        initrd.extend(gzip(&main_archive()));
        let read = Initrd::read(initrd.as_slice(), None).unwrap();
        assert!(read.has_microcode && read.has_ending("immucore"));
        assert!(!read.has_late_microcode);
        assert_eq!(read.parts, [Format::Cpio, Format::Gzip]);
        assert!(
            !Initrd::read(main_archive().as_slice(), None)
                .unwrap()
                .has_microcode
        );
        let mut hidden = archive(&[MICROCODE]);
        hidden.extend(main_archive());
        let read = Initrd::read(gzip(&hidden).as_slice(), None).unwrap();
        assert!(!read.has_microcode && read.has_late_microcode);
    }

    #[test]
    fn an_archive_may_be_cut_into_many_compressed_streams() {
        let plain = main_archive();
        let (one, two) = plain.split_at(150);
        for pack in [gzip as fn(&[u8]) -> Vec<u8>, |bytes| {
            zstd::encode_all(bytes, 3).unwrap()
        }] {
            let mut initrd = pack(one);
            initrd.extend(pack(two));
            initrd.extend([0; 5]);
            assert_eq!(names(&initrd), ["init", "usr/bin/immucore"]);
        }
    }

    #[test]
    fn archives_follow_a_compressed_stream_too() {
        let mut initrd = gzip(&archive(&[("a", 0o100_644, b"1")]));
        initrd.extend(zstd::encode_all(archive(&[("b", 0o100_644, b"1")]).as_slice(), 3).unwrap());
        initrd.extend(archive(&[("c", 0o100_644, b"1")]));
        assert_eq!(names(&initrd), ["a", "b", "c"]);
    }

    #[test]
    fn what_is_no_initrd_is_refused_with_a_reason() {
        let whole = gzip(&main_archive());
        for (bytes, word) in [
            (b"".to_vec(), "empty"),
            (vec![0; 100], "empty"),
            (b"#!/bin/sh\n".to_vec(), "no archive begins"),
            (whole[..whole.len() / 2].to_vec(), ""),
            (main_archive()[..200].to_vec(), "ends"),
            (gzip(&main_archive()[..200]), "ends"),
            (vec![0x02, 0x21, 0x4c, 0x18, 1, 2, 3], "lz4"),
        ] {
            let error = Initrd::read(bytes.as_slice(), None)
                .unwrap_err()
                .to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    /// Zeros after an archive, in as many compressed streams as it takes.
    fn padded(zeros: usize) -> Vec<u8> {
        let mut initrd = gzip(&main_archive());
        (0..2).for_each(|_| initrd.extend(gzip(&vec![0; zeros / 2])));
        initrd
    }

    #[test]
    fn what_unpacks_to_more_than_any_initrd_is_refused() {
        let read = |zeros| Initrd::read_up_to(1 << 20, padded(zeros).as_slice());
        assert_eq!(read(500_000).unwrap().entries.len(), 2);
        let error = read(1_200_000).unwrap_err().to_string();
        assert_eq!(
            error,
            "it unpacks to more than 1.0 MiB, the most that is read"
        );
    }

    #[test]
    fn reading_ends_when_the_run_is_stopped() {
        let stop = CancelToken::new().unwrap();
        stop.cancel();
        let error = Initrd::read(padded(100).as_slice(), Some(&stop)).unwrap_err();
        assert!(crate::stop::Stopped::is_in(&error), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            start in prop::sample::select(vec!["070701", "\u{1f}", "", "\0\0"]),
        ) {
            let mut all = start.as_bytes().to_vec();
            all.extend(bytes);
            let _ = Initrd::read(all.as_slice(), None);
        }
    }
}
