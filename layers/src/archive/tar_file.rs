//! A tar archive on disk as a table of members that can be read in any order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, HEADER_SIZE};

use super::ArchiveError;
use crate::compress::{Format, PROBE_LEN, decoder};
use crate::input::open_input;
use crate::manifest::MAX_DOCUMENT_SIZE;

/// Most members of an archive. A layout has some three per image and one per layer; this is room for thousands of images.
const MAX_MEMBERS: usize = 200_000;

/// Longest name of a member in bytes: what the kernel takes as a path.
const MAX_NAME_LEN: u32 = 4096;

/// Links followed from one member to another before giving up.
const MAX_LINKS: usize = 8;

/// The place of a member's content in the archive, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) offset: u64,
    pub(super) size: u64,
}

#[derive(Debug)]
enum Member {
    File(Section),
    Link(Vec<u8>),
}

/// An archive that was indexed.
#[derive(Debug, Clone)]
pub(super) struct TarFile {
    path: PathBuf,
    file: Arc<File>,
    members: Arc<HashMap<Vec<u8>, Member>>,
}

impl TarFile {
    /// Opens and indexes the archive at `path`; a compressed one, or a pipe, is first copied into an unnamed file in
    /// `scratch`.
    pub(super) fn open(path: &Path, scratch: &Path) -> Result<Self, ArchiveError> {
        let file = open_input(path).map_err(ArchiveError::io("opening", path))?;
        let file = plain_file(file, path, scratch)?;
        let members = index(&file).map_err(|source| ArchiveError::NotTar {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            members: Arc::new(members),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Finds a member's content, following links inside the archive.
    pub(super) fn find(&self, name: &[u8]) -> Option<Section> {
        let mut name = normalize(b"", name)?;
        for _ in 0..MAX_LINKS {
            match self.members.get(&name)? {
                Member::File(section) => return Some(*section),
                Member::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    /// Reads a document, or says which archive of which `kind` lacks it.
    pub(super) fn document(&self, name: &str, kind: &'static str) -> Result<Vec<u8>, ArchiveError> {
        let Some(section) = self.find(name.as_bytes()) else {
            return Err(ArchiveError::NoMember {
                path: self.path.clone(),
                kind,
                member: name.to_owned(),
            });
        };
        self.read_limited(section)
            .map_err(|source| ArchiveError::Member {
                path: self.path.clone(),
                member: name.to_owned(),
                source,
            })
    }

    fn read_limited(&self, section: Section) -> io::Result<Vec<u8>> {
        if section.size > MAX_DOCUMENT_SIZE {
            let message = format!("{} bytes, more than {MAX_DOCUMENT_SIZE}", section.size);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut bytes = Vec::new();
        self.read(section).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Returns the first bytes of a member, enough for [`Format::detect`].
    pub(super) fn head(&self, section: Section) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        self.read(section)
            .take(PROBE_LEN as u64)
            .read_to_end(&mut head)?;
        Ok(head)
    }

    /// Reads a member, independent of any other reader.
    pub(super) fn read(&self, section: Section) -> SectionReader {
        SectionReader {
            file: Arc::clone(&self.file),
            offset: section.offset,
            left: section.size,
        }
    }
}

/// Reads a part of a file without moving its position.
#[derive(Debug)]
pub(super) struct SectionReader {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for SectionReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        let len = self.file.read_at(&mut buf[..most], self.offset)?;
        if len == 0 && most > 0 {
            // The archive was whole when it was indexed.
            return Err(truncated(self.offset));
        }
        self.offset += len as u64;
        self.left -= len as u64;
        Ok(len)
    }
}

/// Returns a file whose bytes are the plain tar: `file` itself where it is one.
fn plain_file(mut file: File, path: &Path, scratch: &Path) -> Result<File, ArchiveError> {
    let not_tar = |source| ArchiveError::NotTar {
        path: path.to_owned(),
        source,
    };
    let is_regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if is_regular {
        let mut head = [0; PROBE_LEN];
        let len = read_at_most(&file, &mut head, 0).map_err(ArchiveError::io("reading", path))?;
        if len == 0 {
            return Err(not_tar(invalid("the file is empty")));
        }
        let format = Format::detect(&head[..len]).map_err(|error| not_tar(invalid(error)))?;
        if format == Format::Tar {
            return Ok(file);
        }
    }
    let mut spool =
        tempfile::tempfile_in(scratch).map_err(ArchiveError::io("creating a file in", scratch))?;
    let mut tar = decoder(&mut file).map_err(not_tar)?;
    io::copy(&mut tar, &mut spool).map_err(ArchiveError::io("decompressing", path))?;
    Ok(spool)
}

/// What lies at one place of the archive: where the next header is, and the member, if it can be read.
struct Found {
    content: Section,
    member: Option<(Vec<u8>, Member)>,
}

fn index(file: &File) -> io::Result<HashMap<Vec<u8>, Member>> {
    let end = file.metadata()?.len();
    let mut parser = Parser::new(Limits {
        max_path_len: Some(MAX_NAME_LEN),
        ..Limits::default()
    });
    let mut members = HashMap::new();
    let mut at = 0;
    // Some writers leave the end marker out; the end of the file then ends the archive.
    while at < end {
        let Some(found) = read_header(file, &mut parser, at, end)? else {
            break;
        };
        at = after(found.content, end)?;
        members.extend(found.member);
        if members.len() > MAX_MEMBERS {
            return Err(invalid(format!("more than {MAX_MEMBERS} members")));
        }
    }
    Ok(members)
}

/// Reads the header at byte `at`, however long its extensions are; `None` for the end marker.
fn read_header(file: &File, parser: &mut Parser, at: u64, end: u64) -> io::Result<Option<Found>> {
    let mut buffer = vec![0; HEADER_SIZE];
    loop {
        let len = read_at_most(file, &mut buffer, at)?;
        let found = |consumed: usize, size: u64, member| {
            let offset = at + consumed as u64;
            let content = Section { offset, size };
            Ok(Some(Found { content, member }))
        };
        match parser.parse(&buffer[..len]) {
            Err(error) => return Err(invalid(format!("at byte {at}: {error}"))),
            Ok(ParseEvent::End { .. }) => return Ok(None),
            Ok(ParseEvent::NeedData { .. }) if len < buffer.len() => return Err(truncated(end)),
            Ok(ParseEvent::NeedData { min_bytes }) => {
                buffer.resize(min_bytes.next_multiple_of(HEADER_SIZE), 0);
            }
            Ok(ParseEvent::GlobalExtensions { consumed, .. }) => return found(consumed, 0, None),
            // Sparse content does not lie in one piece; no tool stores blobs that way.
            Ok(ParseEvent::SparseEntry {
                consumed, entry, ..
            }) => return found(consumed, entry.size, None),
            Ok(ParseEvent::Entry { consumed, entry }) => {
                let offset = at + consumed as u64;
                return found(consumed, entry.size, member(&entry, offset));
            }
        }
    }
}

fn member(entry: &ParsedEntry<'_>, offset: u64) -> Option<(Vec<u8>, Member)> {
    let name = normalize(b"", &entry.path)?;
    let target = || entry.link_target.as_deref();
    let member = match entry.entry_type {
        EntryType::Symlink => Member::Link(normalize(parent(&name), target()?)?),
        EntryType::Link => Member::Link(normalize(b"", target()?)?),
        kind if kind.is_file() || kind.is_contiguous() => Member::File(Section {
            offset,
            size: entry.size,
        }),
        _ => return None,
    };
    Some((name, member))
}

/// Returns where the header after `content` is, if all of the content is in the archive.
fn after(content: Section, end: u64) -> io::Result<u64> {
    let last = content.offset.checked_add(content.size);
    match last.filter(|last| *last <= end) {
        Some(last) => Ok(last.next_multiple_of(HEADER_SIZE as u64)),
        None => Err(truncated(end)),
    }
}

fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], offset + len as u64)? {
            0 => break,
            more => len += more,
        }
    }
    Ok(len)
}

fn parent(name: &[u8]) -> &[u8] {
    name.iter()
        .rposition(|b| *b == b'/')
        .map_or(b"", |slash| &name[..slash])
}

/// Returns `name`, seen from directory `dir`, without `.`, `..` and doubled slashes; `None` when it leaves the archive.
fn normalize(dir: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = dir
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty())
        .collect();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn truncated(end: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("the archive is cut off at byte {end}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_brought_to_one_form_inside_the_archive() {
        for (dir, name, expected) in [
            ("", "./a//b", Some("a/b")),
            ("", "/a", Some("a")),
            ("x", "../y/layer.tar", Some("y/layer.tar")),
            ("x", "../../y", None),
            ("", "..", None),
        ] {
            let normal = normalize(dir.as_bytes(), name.as_bytes());
            assert_eq!(
                normal.as_deref(),
                expected.map(str::as_bytes),
                "{dir} {name}"
            );
        }
    }
}
