//! Directories, from the top one down.

use std::collections::HashSet;

use super::fields::Fields;
use super::record::{Record, record, top_record};
use super::source::{Source, damaged};
use super::volume::ucs2;
use super::{Entry, Kind, ReadError};
use crate::artifact::iso::BLOCK;
use crate::artifact::iso::names::Names;
use crate::artifact::iso::record::{CONTINUES, DIRECTORY};
use crate::artifact::region::Extent;

/// The longest path that Linux opens.
const LONGEST_PATH: usize = 4096;
const MOST_ENTRIES: u64 = 1 << 20;
/// The flag of a file that belongs to another one, as resource forks do.
const ASSOCIATED: u8 = 0x04;
/// The type bits of a mode, and two of their values.
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const WHAT: &str = "a directory record";

/// What one descriptor leads to.
pub(super) struct Tree {
    /// By path.
    pub(super) entries: Vec<Entry>,
    pub(super) directories: Vec<Directory>,
    pub(super) rock_ridge: bool,
    /// Whether deep directories stand elsewhere than where they belong.
    pub(super) has_moved: bool,
}

/// A directory as path tables know it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Directory {
    pub(super) identifier: Vec<u8>,
    pub(super) block: u32,
    /// The block of its parent.
    pub(super) parent: u32,
}

/// A directory to read.
struct Todo {
    path: Vec<u8>,
    block: u32,
    size: u32,
    parent: u32,
    was_moved: bool,
}

/// Reads everything below `top`.
pub(super) fn walk(
    source: &mut Source<'_>,
    names: Names,
    top: Record<'_>,
) -> Result<Tree, ReadError> {
    let mut walk = Walk {
        source,
        names,
        tree: Tree {
            entries: Vec::new(),
            directories: Vec::new(),
            rock_ridge: false,
            has_moved: false,
        },
        seen: HashSet::new(),
        todo: Vec::new(),
        skip: 0,
    };
    walk.tree.directories.push(Directory {
        identifier: vec![0],
        block: top.block,
        parent: top.block,
    });
    walk.todo.push(Todo {
        path: Vec::new(),
        block: top.block,
        size: top.size,
        parent: top.block,
        was_moved: false,
    });
    while let Some(todo) = walk.todo.pop() {
        walk.directory(&todo)?;
    }
    let mut tree = walk.tree;
    tree.entries.sort_by(|one, other| one.path.cmp(&other.path));
    let twice = tree
        .entries
        .windows(2)
        .any(|two| two[0].path == two[1].path);
    match twice {
        true => Err(damaged(
            "the tree",
            u64::from(top.block) * BLOCK,
            "has two entries of the same name",
        )),
        false => Ok(tree),
    }
}

struct Walk<'a, 'b> {
    source: &'a mut Source<'b>,
    names: Names,
    tree: Tree,
    /// The directories that were read; in a cycle one would be read twice.
    seen: HashSet<u32>,
    todo: Vec<Todo>,
    /// What Rock Ridge passes over in each record.
    skip: usize,
}

impl Walk<'_, '_> {
    fn directory(&mut self, todo: &Todo) -> Result<(), ReadError> {
        let start = u64::from(todo.block) * BLOCK;
        if !self.seen.insert(todo.block) {
            return Err(damaged("a directory", start, "is in the tree twice"));
        }
        let bytes = self.source.bytes("a directory", start, todo.size.into())?;
        let mut at = 0;
        let mut number = 0;
        // The file whose next record is to come, and that file's identifier.
        let mut open: Option<(Vec<u8>, Entry)> = None;
        while at < bytes.len() {
            let offset = start + at as u64;
            let block_end = (at + 1).next_multiple_of(BLOCK as usize).min(bytes.len());
            if bytes[at] == 0 {
                // A record never crosses the end of a block, so what is left of this one is empty.
                at = block_end;
                continue;
            }
            let (record, len) =
                record(&bytes[at..block_end]).map_err(|why| damaged(WHAT, offset, why))?;
            let here = Place {
                offset,
                dir: todo,
                number,
            };
            at += len;
            number += 1;
            match number {
                1 | 2 => self.dots(&record, &here)?,
                _ => self.entry(&record, &here, &mut open)?,
            }
        }
        match (number, open) {
            (0 | 1, _) => Err(damaged("a directory", start, "lacks `.` or `..`")),
            (_, Some(_)) => Err(damaged("a directory", start, "lacks the end of a file")),
            (_, None) => Ok(()),
        }
    }

    /// Takes in `.` and `..`, which must lead where they say.
    fn dots(&mut self, record: &Record<'_>, here: &Place<'_>) -> Result<(), ReadError> {
        let (dir, is_dot) = (here.dir, here.number == 0);
        if record.identifier != [u8::from(!is_dot)] || record.flags & DIRECTORY == 0 {
            return Err(here.damaged("stands where `.` or `..` belongs"));
        }
        let is_right = match is_dot {
            true => record.block == dir.block,
            // Of a moved directory it leads to where that is; in Joliet trees of libisofs, to the directory itself.
            false => dir.was_moved || [dir.parent, dir.block].contains(&record.block),
        };
        if !is_right {
            return Err(here.damaged("is `.` or `..` and leads elsewhere"));
        }
        if !is_dot {
            return Ok(());
        }
        let is_top = dir.path.is_empty();
        if is_top && self.names == Names::Primary {
            let fields = Fields::read(self.source, record.system_use, here.offset)?;
            self.tree.rock_ridge = fields.skip.is_some();
            self.skip = fields.skip.unwrap_or(0).into();
        }
        let skip = if is_top { 0 } else { self.skip };
        let fields = self.fields(record, here, skip)?;
        self.push(Entry {
            path: dir.path.clone(),
            kind: Kind::Dir,
            posix: fields.posix,
            time_secs: fields.time_secs.unwrap_or(record.time_secs),
        })
    }

    fn entry(
        &mut self,
        record: &Record<'_>,
        here: &Place<'_>,
        open: &mut Option<(Vec<u8>, Entry)>,
    ) -> Result<(), ReadError> {
        if record.flags & ASSOCIATED != 0 {
            return Ok(());
        }
        let fields = self.fields(record, here, self.skip)?;
        let goes_on = record.flags & CONTINUES != 0;
        if let Some((identifier, mut entry)) = open.take() {
            if identifier != record.identifier || record.flags & DIRECTORY != 0 {
                return Err(here.damaged("stands where another file goes on"));
            }
            if let Kind::File(extents) = &mut entry.kind {
                extents.push(self.extent(record, here)?);
            }
            return self.close(identifier, entry, goes_on, open);
        }
        let name = self.name(record, &fields);
        if name.is_empty()
            || name == b"."
            || name == b".."
            || name.iter().any(|byte| matches!(byte, 0 | b'/'))
        {
            return Err(here.damaged("has a name that no file can have"));
        }
        let mut path = here.dir.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(name);
        if path.len() > LONGEST_PATH {
            return Err(here.damaged("has a path of more than 4096 bytes"));
        }
        if record.flags & DIRECTORY != 0 || fields.moved_to.is_some() {
            return self.descend(record, here, &fields, path);
        }
        let mode = fields.posix.map_or(S_IFREG, |posix| posix.mode & S_IFMT);
        let kind = match (mode, fields.target) {
            (S_IFLNK, Some(target)) => Kind::Link(target),
            (S_IFREG, None) => Kind::File(vec![self.extent(record, here)?]),
            (S_IFLNK, None) | (_, Some(_)) => {
                return Err(here.damaged("has a target and is no symbolic link, or the reverse"));
            }
            _ => Kind::Other,
        };
        let entry = Entry {
            path,
            kind,
            posix: fields.posix,
            time_secs: fields.time_secs.unwrap_or(record.time_secs),
        };
        self.close(record.identifier.to_vec(), entry, goes_on, open)
    }

    /// Keeps a file open that goes on in the next record.
    fn close(
        &mut self,
        identifier: Vec<u8>,
        entry: Entry,
        goes_on: bool,
        open: &mut Option<(Vec<u8>, Entry)>,
    ) -> Result<(), ReadError> {
        if goes_on {
            *open = Some((identifier, entry));
            return Ok(());
        }
        self.push(entry)
    }

    fn descend(
        &mut self,
        record: &Record<'_>,
        here: &Place<'_>,
        fields: &Fields,
        path: Vec<u8>,
    ) -> Result<(), ReadError> {
        // It is read where it belongs.
        if fields.is_moved {
            self.tree.has_moved = true;
            return Ok(());
        }
        self.source.spend(path.len() as u64)?;
        let mut todo = Todo {
            path,
            block: record.block,
            size: record.size,
            parent: here.dir.block,
            was_moved: false,
        };
        if let Some(block) = fields.moved_to {
            let first = self.source.block("a moved directory", block)?;
            let moved = top_record(&first).ok_or_else(|| here.damaged("leads to no directory"))?;
            (todo.block, todo.size, todo.was_moved) = (block, moved.size, true);
            self.tree.has_moved = true;
        }
        self.tree.directories.push(Directory {
            identifier: record.identifier.to_vec(),
            block: todo.block,
            parent: here.dir.block,
        });
        self.todo.push(todo);
        Ok(())
    }

    fn push(&mut self, entry: Entry) -> Result<(), ReadError> {
        self.source.spend(entry.path.len() as u64)?;
        if self.tree.entries.len() as u64 == MOST_ENTRIES {
            return Err(ReadError::TooMany {
                what: "entries",
                limit: MOST_ENTRIES,
            });
        }
        self.tree.entries.push(entry);
        Ok(())
    }

    fn fields(
        &mut self,
        record: &Record<'_>,
        here: &Place<'_>,
        skip: usize,
    ) -> Result<Fields, ReadError> {
        if !self.tree.rock_ridge {
            return Ok(Fields::default());
        }
        let bytes = record.system_use.get(skip..).unwrap_or_default();
        Fields::read(self.source, bytes, here.offset)
    }

    fn name(&self, record: &Record<'_>, fields: &Fields) -> Vec<u8> {
        match (&fields.name, self.names) {
            (Some(name), _) => name.clone(),
            (None, Names::Joliet) => {
                let name = ucs2(record.identifier);
                name.strip_suffix(";1").unwrap_or(&name).as_bytes().to_vec()
            }
            (None, Names::Primary) => {
                let version = record.identifier.iter().position(|byte| *byte == b';');
                let name = &record.identifier[..version.unwrap_or(record.identifier.len())];
                name.strip_suffix(b".").unwrap_or(name).to_vec()
            }
        }
    }

    /// Returns where the bytes of a record are, which must be on the disc.
    fn extent(&self, record: &Record<'_>, here: &Place<'_>) -> Result<Extent, ReadError> {
        let extent = Extent {
            start: u64::from(record.block) * BLOCK,
            len: record.size.into(),
        };
        match extent.len > 0 && extent.start + extent.len > self.source.len() {
            true => Err(here.damaged("has content past the end of the disc")),
            false => Ok(extent),
        }
    }
}

/// Where a record stands.
struct Place<'a> {
    offset: u64,
    dir: &'a Todo,
    /// How many come before it.
    number: usize,
}

impl Place<'_> {
    fn damaged(&self, why: &'static str) -> ReadError {
        damaged(WHAT, self.offset, why)
    }
}
