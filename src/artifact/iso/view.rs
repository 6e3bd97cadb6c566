//! One rendering of the tree: path tables, directories and continuations, as consecutive blocks.
//!
//! A disc has one with upper-case names and Rock Ridge and one with Joliet names, and both again for the partition, whose
//! blocks are counted from its own start. What they take is known before the size of the last file is: a view is measured for
//! the most records that file can have, and rendered with those it has.
//!
//! Spec: ECMA-119, 6.8, 6.9 and 9.

use super::names::{Names, identifiers, sort_key};
use super::record::{CONTINUES, DIRECTORY, Record, record_len, system_use_room};
use super::susp::Fields;
use super::tree::{Kind, Tree};
use super::{BLOCK, IsoError, blocks};

/// The most bytes of a file that one directory record describes: whole blocks, below 4 GiB.
const SECTION: u64 = 0xffff_f800;
/// A path table counts directories in 16 bits.
const MOST_DIRECTORIES: usize = 0xffff;
/// The name of a directory in itself, and in a path table that of the top one.
const DOT: &[u8] = &[0];
/// The name of a directory's parent in it.
const DOT_DOT: &[u8] = &[1];

/// Where the content of a file is, in blocks of the disc and in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) block: u32,
    pub(super) size: u64,
}

/// See the top of this file.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) names: Names,
    time: [u8; 7],
    /// In the order of the path tables, which is by depth; the top directory first.
    dirs: Vec<Directory>,
    /// In bytes, of each of the two.
    pub(super) path_table_len: u32,
    /// In blocks from the first, as `Directory::block` is.
    continuations: u32,
    /// How many blocks it takes.
    pub(super) blocks: u32,
    /// The first of its blocks.
    pub(super) start: u32,
    /// The block that counts as number 0 in it.
    pub(super) base: u32,
}

#[derive(Debug, Clone)]
struct Directory {
    parent: usize,
    identifier: Vec<u8>,
    block: u32,
    blocks: u32,
    dot: Fields,
    dot_dot: Fields,
    /// Sorted.
    items: Vec<Item>,
}

#[derive(Debug, Clone)]
struct Item {
    node: usize,
    identifier: Vec<u8>,
    fields: Fields,
    /// Which of the view's directories it is.
    dir: Option<usize>,
}

impl View {
    /// Measures the view of `tree` without the file `omitted`.
    ///
    /// # Errors
    ///
    /// There are more than 65535 directories, or they take more blocks than a disc can have.
    pub(super) fn measure(
        tree: &Tree,
        names: Names,
        omitted: Option<usize>,
        time: [u8; 7],
    ) -> Result<Self, IsoError> {
        let mut dirs = list(tree, names, omitted, time)?;
        let path_table_len: usize = dirs.iter().map(Directory::path_record_len).sum();
        let mut next = 2 * blocks(path_table_len as u64);
        for dir in &mut dirs {
            let len = dir.measured_len(tree);
            dir.block = block_number(next)?;
            dir.blocks = block_number(blocks(len))?;
            next += blocks(len);
        }
        let mut continued = 0;
        for dir in &mut dirs {
            let items = dir.items.iter_mut().map(|item| &mut item.fields);
            for fields in [&mut dir.dot, &mut dir.dot_dot].into_iter().chain(items) {
                fields.reserve(&mut continued);
            }
        }
        Ok(Self {
            names,
            time,
            dirs,
            path_table_len: path_table_len as u32,
            continuations: block_number(next)?,
            blocks: block_number(next + blocks(continued))?,
            start: 0,
            base: 0,
        })
    }

    /// Puts the view at block `start`, with addresses that count from block `base`.
    pub(super) fn place(&mut self, start: u32, base: u32) {
        (self.start, self.base) = (start, base);
    }

    /// Returns the first block of the path table with the little end first, and of the other, as the view counts them.
    pub(super) fn path_tables(&self) -> [u32; 2] {
        let first = self.start - self.base;
        [first, first + blocks(u64::from(self.path_table_len)) as u32]
    }

    /// Returns the top directory's record, as the volume descriptor holds it.
    pub(super) fn root_record(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.dir_record(0, DOT, &[], &mut bytes);
        bytes
    }

    /// Returns all of its blocks, where `extent` says of every file where it is.
    pub(super) fn render(&self, extent: impl Fn(usize) -> Option<Extent>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for is_little in [true, false] {
            self.path_table(is_little, &mut bytes);
        }
        for at in 0..self.dirs.len() {
            self.directory(at, &extent, &mut bytes);
        }
        let area = bytes.len();
        bytes.resize(self.blocks as usize * BLOCK as usize, 0);
        for dir in &self.dirs {
            let items = dir.items.iter().map(|item| &item.fields);
            for fields in [&dir.dot, &dir.dot_dot].into_iter().chain(items) {
                for (place, continued) in fields.continuations(self.area()) {
                    let at = area + place as usize;
                    bytes[at..at + continued.len()].copy_from_slice(&continued);
                }
            }
        }
        bytes
    }

    /// Returns where continuations start, as the view counts blocks.
    fn area(&self) -> u32 {
        self.start + self.continuations - self.base
    }

    fn path_table(&self, is_little: bool, out: &mut Vec<u8>) {
        for dir in &self.dirs {
            out.extend([dir.identifier.len() as u8, 0]);
            out.extend(ordered(self.block_of(dir).to_le_bytes(), is_little));
            out.extend(ordered((dir.parent as u16 + 1).to_le_bytes(), is_little));
            out.extend(&dir.identifier);
            out.resize(out.len().next_multiple_of(2), 0);
        }
        out.resize(out.len().next_multiple_of(BLOCK as usize), 0);
    }

    fn directory(&self, at: usize, extent: &impl Fn(usize) -> Option<Extent>, out: &mut Vec<u8>) {
        let dir = &self.dirs[at];
        let end = out.len() + dir.blocks as usize * BLOCK as usize;
        self.dir_record(at, DOT, &dir.dot.inside(self.area()), out);
        self.dir_record(dir.parent, DOT_DOT, &dir.dot_dot.inside(self.area()), out);
        for item in &dir.items {
            let system_use = item.fields.inside(self.area());
            let len = record_len(item.identifier.len(), system_use.len());
            if let Some(at) = item.dir {
                keep_whole(out, len);
                self.dir_record(at, &item.identifier, &system_use, out);
                continue;
            }
            for section in sections(extent(item.node)) {
                keep_whole(out, len);
                let record = Record {
                    identifier: &item.identifier,
                    block: section.block.map_or(0, |block| block - self.base),
                    size: section.size,
                    flags: if section.goes_on { CONTINUES } else { 0 },
                    time: self.time,
                    system_use: &system_use,
                };
                record.encode(out);
            }
        }
        // The last file may have fewer records than there is room for.
        out.resize(end, 0);
    }

    fn block_of(&self, dir: &Directory) -> u32 {
        self.start + dir.block - self.base
    }

    fn dir_record(&self, at: usize, identifier: &[u8], system_use: &[u8], out: &mut Vec<u8>) {
        let dir = &self.dirs[at];
        Record {
            identifier,
            block: self.block_of(dir),
            size: dir.blocks * BLOCK as u32,
            flags: DIRECTORY,
            time: self.time,
            system_use,
        }
        .encode(out);
    }
}

impl Directory {
    /// Returns how many bytes its records take when every file has as many as it can have.
    fn measured_len(&self, tree: &Tree) -> u64 {
        let mut len = 0;
        for (identifier, fields) in [(DOT, &self.dot), (DOT_DOT, &self.dot_dot)] {
            len += record_len(identifier.len(), fields.len());
        }
        let mut len = len as u64;
        for item in &self.items {
            let record = record_len(item.identifier.len(), item.fields.len()) as u64;
            let records = tree
                .content(item.node)
                .map_or(1, |content| content.most_bytes().div_ceil(SECTION).max(1));
            for _ in 0..records {
                if len % BLOCK + record > BLOCK {
                    len = len.next_multiple_of(BLOCK);
                }
                len += record;
            }
        }
        len
    }

    fn path_record_len(&self) -> usize {
        (8 + self.identifier.len()).next_multiple_of(2)
    }
}

/// Returns the directories by depth, then by parent, then by identifier, each with its sorted entries.
fn list(
    tree: &Tree,
    names: Names,
    omitted: Option<usize>,
    time: [u8; 7],
) -> Result<Vec<Directory>, IsoError> {
    let dots = |node: usize, identifier: &[u8], is_first| match names {
        Names::Joliet => Fields::default(),
        Names::Primary => {
            let room = system_use_room(identifier.len());
            Fields::of_dots(&tree.nodes[node], time, room, is_first)
        }
    };
    let new = |node, parent, parent_node, identifier: &[u8]| Directory {
        parent,
        identifier: identifier.to_vec(),
        block: 0,
        blocks: 0,
        dot: dots(node, DOT, node == 0),
        dot_dot: dots(parent_node, DOT_DOT, false),
        items: Vec::new(),
    };
    let mut dirs = vec![new(0, 0, 0, DOT)];
    let mut nodes = vec![0];
    let mut at = 0;
    while at < dirs.len() {
        let mut items = items(tree, names, nodes[at], omitted, time);
        for item in &mut items {
            if tree.nodes[item.node].is_dir() {
                item.dir = Some(dirs.len());
                dirs.push(new(item.node, at, nodes[at], &item.identifier));
                nodes.push(item.node);
            }
        }
        if dirs.len() > MOST_DIRECTORIES {
            return Err(IsoError::Directories);
        }
        dirs[at].items = items;
        at += 1;
    }
    Ok(dirs)
}

/// Returns the entries of one directory, sorted; which directories they are is not filled in yet.
fn items(
    tree: &Tree,
    names: Names,
    dir: usize,
    omitted: Option<usize>,
    time: [u8; 7],
) -> Vec<Item> {
    let Kind::Dir(children) = &tree.nodes[dir].kind else {
        return Vec::new();
    };
    let listed: Vec<(&[u8], bool)> = children
        .iter()
        .map(|(name, child)| (name.as_slice(), tree.nodes[*child].is_dir()))
        .collect();
    let mut items: Vec<Item> = children
        .values()
        .zip(identifiers(names, &listed))
        // Left out only now: names must not depend on the view.
        .filter(|(node, _)| Some(**node) != omitted)
        // UCS-2 cannot say where a link leads.
        .filter(|(node, _)| {
            names == Names::Primary || !matches!(tree.nodes[**node].kind, Kind::Link(_))
        })
        .map(|(node, identifier)| Item {
            node: *node,
            fields: match names {
                Names::Joliet => Fields::default(),
                Names::Primary => {
                    let room = system_use_room(identifier.len());
                    Fields::of_entry(&tree.nodes[*node], time, room)
                }
            },
            identifier,
            dir: None,
        })
        .collect();
    items.sort_by_cached_key(|item| sort_key(names, &item.identifier));
    items
}

/// A part of a file that one record describes.
struct Section {
    /// None for what has no content, as a symbolic link.
    block: Option<u32>,
    size: u32,
    goes_on: bool,
}

fn sections(extent: Option<Extent>) -> Vec<Section> {
    let Some(extent) = extent else {
        return vec![Section {
            block: None,
            size: 0,
            goes_on: false,
        }];
    };
    let count = extent.size.div_ceil(SECTION).max(1);
    (0..count)
        .map(|at| {
            let start = at * SECTION;
            Section {
                block: Some(extent.block + (start / BLOCK) as u32),
                size: (extent.size - start).min(SECTION) as u32,
                goes_on: at + 1 < count,
            }
        })
        .collect()
}

/// Starts a new block where a record of `len` bytes would cross the end of this one.
fn keep_whole(out: &mut Vec<u8>, len: usize) {
    let block = BLOCK as usize;
    if out.len() % block + len > block {
        out.resize(out.len().next_multiple_of(block), 0);
    }
}

fn ordered<const N: usize>(mut little: [u8; N], is_little: bool) -> [u8; N] {
    if !is_little {
        little.reverse();
    }
    little
}

fn block_number(blocks: u64) -> Result<u32, IsoError> {
    u32::try_from(blocks).map_err(|_| IsoError::Size)
}
