//! Reads files out of a tar archive, plain or compressed with gzip or zstd. Writes nothing.

use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use kfactory_layers::input::open_regular;
use tar_core::EntryType;
use tar_core::parse::{Limits, ParseError, ParseEvent, Parser};

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The bytes could not be read or decompressed, or end early.
    #[error("reading the archive")]
    Io(#[from] io::Error),
    /// The archive is not in order.
    #[error("parsing the archive")]
    Parse(#[from] ParseError),
    /// A program is stored as a link, which says nothing without the rest of the tree.
    #[error("entry {0:?} is a link")]
    Link(String),
    /// A program is stored with holes, which no Go program has.
    #[error("entry {0:?} is a sparse file")]
    Sparse(String),
}

/// Longest accepted entry path in bytes: `PATH_MAX`.
const MAX_PATH_LEN: u32 = 4096;

/// Opens an archive, and its compression, which the first bytes tell.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = open_regular(path)?;
    let mut magic = Vec::with_capacity(4);
    file.by_ref().take(4).read_to_end(&mut magic)?;
    file.rewind()?;
    let file = BufReader::with_capacity(1 << 17, file);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    })
}

/// Calls `each` with the path and content of every regular file that `wanted` says yes to, in archive order.
///
/// Paths are given without a leading `./` or `/`. Entries that are not wanted are skipped unseen, so their names and
/// types cannot do harm.
///
/// # Errors
///
/// [`ArchiveError`] as an `E`, or what `each` returned.
pub(super) fn for_each_file<E: From<ArchiveError>>(
    mut tar: impl Read,
    wanted: impl Fn(&[u8]) -> bool,
    mut each: impl FnMut(&[u8], &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut parser = Parser::new(Limits {
        max_path_len: Some(MAX_PATH_LEN),
        ..Limits::default()
    });
    let mut head = Vec::new();
    while let Some(entry) = next_entry(&mut parser, &mut tar, &mut head)? {
        let mut content = tar.by_ref().take(entry.size_bytes);
        if wanted(&entry.path) {
            refuse_special(&entry)?;
            each(&entry.path, &mut content)?;
        }
        let rest = content.limit() + (entry.size_bytes.next_multiple_of(512) - entry.size_bytes);
        skip(&mut tar, rest).map_err(ArchiveError::Io)?;
    }
    // The compression's own checksum comes after the last entry, and is compared only when it is read.
    io::copy(&mut tar, &mut io::sink()).map_err(ArchiveError::Io)?;
    Ok(())
}

/// One header with its extensions applied.
struct Entry {
    path: Vec<u8>,
    kind: EntryType,
    sparse: bool,
    size_bytes: u64,
}

fn next_entry(
    parser: &mut Parser,
    tar: &mut impl Read,
    head: &mut Vec<u8>,
) -> Result<Option<Entry>, ArchiveError> {
    head.clear();
    loop {
        let (consumed, found) = match parser.parse(head)? {
            ParseEvent::NeedData { min_bytes } => {
                if !fill(tar, head, min_bytes)? {
                    return Ok(None);
                }
                continue;
            }
            ParseEvent::Entry { consumed, entry } => {
                let path = relative(&entry.path).to_vec();
                (
                    consumed,
                    Some(Entry {
                        path,
                        kind: entry.entry_type,
                        sparse: false,
                        size_bytes: entry.size,
                    }),
                )
            }
            ParseEvent::SparseEntry {
                consumed, entry, ..
            } => {
                let path = relative(&entry.path).to_vec();
                (
                    consumed,
                    Some(Entry {
                        path,
                        kind: entry.entry_type,
                        sparse: true,
                        size_bytes: entry.size,
                    }),
                )
            }
            ParseEvent::GlobalExtensions { consumed, .. } => (consumed, None),
            ParseEvent::End { .. } => return Ok(None),
        };
        head.drain(..consumed);
        if found.is_some() {
            return Ok(found);
        }
    }
}

/// Reads until `head` has `len` bytes. Returns `false` where the archive ends instead of a further header.
fn fill(tar: &mut impl Read, head: &mut Vec<u8>, len: usize) -> Result<bool, ArchiveError> {
    let missing = len.saturating_sub(head.len()) as u64;
    let read = tar.take(missing).read_to_end(head)? as u64;
    match read {
        _ if read == missing => Ok(true),
        0 if head.is_empty() => Ok(false),
        _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

fn refuse_special(entry: &Entry) -> Result<(), ArchiveError> {
    let name = || String::from_utf8_lossy(&entry.path).into_owned();
    match entry.kind {
        EntryType::Symlink | EntryType::Link => Err(ArchiveError::Link(name())),
        _ if entry.sparse => Err(ArchiveError::Sparse(name())),
        _ => Ok(()),
    }
}

fn relative(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"./").or_else(|| path.strip_prefix(b"/")) {
        path = rest;
    }
    path
}

fn skip(tar: &mut impl Read, len: u64) -> io::Result<()> {
    let skipped = io::copy(&mut tar.take(len), &mut io::sink())?;
    if skipped == len {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    /// Makes a tar of `(path, content)` pairs with the system's second judge out of the way: plain ustar headers.
    pub(in crate::framework) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (path, content) in files {
            out.extend(header(path, content.len(), b'0', ""));
            out.extend(*content);
            out.resize(out.len().next_multiple_of(512), 0);
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    fn header(path: &str, len: usize, kind: u8, link: &str) -> [u8; 512] {
        let mut h = [0u8; 512];
        h[..path.len()].copy_from_slice(path.as_bytes());
        h[100..108].copy_from_slice(b"0000755\0");
        h[108..124].copy_from_slice(b"0000000\x000000000\0");
        h[124..136].copy_from_slice(format!("{len:011o}\0").as_bytes());
        h[136..148].copy_from_slice(b"00000000000\0");
        h[148..156].fill(b' ');
        h[156] = kind;
        h[157..157 + link.len()].copy_from_slice(link.as_bytes());
        h[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
        h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        h
    }

    pub(in crate::framework) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("to memory");
        encoder.finish().expect("to memory")
    }

    fn read_all(bytes: Vec<u8>) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), bytes).expect("temporary file");
        let mut found = Vec::new();
        for_each_file(
            open(file.path())?,
            |path| path.starts_with(b"usr"),
            |path, content| {
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes)?;
                found.push((String::from_utf8_lossy(path).into_owned(), bytes));
                Ok::<_, ArchiveError>(())
            },
        )?;
        Ok(found)
    }

    #[test]
    fn plain_gzip_and_zstd_give_the_same_files() {
        let long = "usr/".to_owned() + &"d/".repeat(40) + "f";
        let tar = tar_of(&[
            ("README", b"no"),
            ("./usr/bin/a", &[7; 1000]),
            ("/usr/b", b""),
            (&long, b"x"),
        ]);
        let expected = [
            ("usr/bin/a".to_owned(), vec![7; 1000]),
            ("usr/b".to_owned(), Vec::new()),
            (long.clone(), b"x".to_vec()),
        ];
        let zstd = zstd::encode_all(tar.as_slice(), 1).expect("to memory");
        for bytes in [tar.clone(), gzip(&tar), zstd] {
            assert_eq!(read_all(bytes).expect("a good archive"), expected);
        }
    }

    #[test]
    fn a_wanted_link_is_refused_and_an_unwanted_one_is_not_seen() {
        let mut tar = header("etc/passwd", 0, b'2', "../../x").to_vec();
        tar.extend(tar_of(&[("usr/a", b"1")]));
        assert_eq!(read_all(tar).expect("nothing wanted is a link").len(), 1);
        let mut tar = header("usr/bin/immucore", 0, b'2', "kairos").to_vec();
        tar.extend([0; 1024]);
        assert!(
            matches!(read_all(tar), Err(ArchiveError::Link(name)) if name == "usr/bin/immucore")
        );
    }

    #[test]
    fn an_archive_that_ends_early_is_an_error_wherever_it_is_cut() {
        let tar = tar_of(&[("usr/a", &[1; 700])]);
        for len in [1, 100, 511, 513, 600, 1300] {
            assert!(read_all(tar[..len].to_vec()).is_err(), "cut after {len}");
        }
        let packed = gzip(&tar);
        assert!(read_all(packed[..packed.len() - 9].to_vec()).is_err());
    }
}
