//! Rock Ridge: POSIX names, modes, times and symbolic links in the system-use bytes of directory records, and in blocks
//! apart for what finds no room there.
//!
//! Spec: IEEE P1281 (SUSP 1.10: `SP`, `CE`, `ER`) and IEEE P1282 (RRIP 1.10: `PX`, `TF`, `NM`, `SL`).

use super::BLOCK;
use super::record::both32;
use super::tree::{Kind, Node};

/// The length of a `CE` field, which leads to a continuation.
const CE_LEN: usize = 28;
/// The most bytes of a name or link target in one field: the length of a field is a byte, of which five are its header.
const PIECE: usize = 250;
/// The flag by which a field, or a component of a target, goes on in the next one.
const CONTINUE: u8 = 1;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// The fields of one record: those inside it, and those that are continued elsewhere.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    inside: Vec<u8>,
    /// Each at most a block long with the `CE` field that leads to the next.
    continued: Vec<Vec<u8>>,
    /// Where each of `continued` is, in bytes from the start of the continuation area.
    places: Vec<u64>,
}

impl Fields {
    /// Returns the fields of an entry that has a name.
    pub(super) fn of_entry(node: &Node, time: [u8; 7], room: usize) -> Self {
        let mut fields = vec![posix(node), times(time)];
        fields.extend(name(&node.name));
        if let Kind::Link(target) = &node.kind {
            fields.extend(link(target));
        }
        Self::split(fields, room)
    }

    /// Returns the fields of `.` or `..`, which stand for the directory `node`. `.` of the top directory, which is the first
    /// record of all, says that the disc has Rock Ridge.
    pub(super) fn of_dots(node: &Node, time: [u8; 7], room: usize, is_first: bool) -> Self {
        let mut fields = vec![posix(node), times(time)];
        if is_first {
            fields.insert(0, vec![b'S', b'P', 7, 1, 0xbe, 0xef, 0]);
            fields.push(extension());
        }
        Self::split(fields, room)
    }

    /// Keeps in the record what fits there, in order, and puts the rest into continuations.
    fn split(fields: Vec<Vec<u8>>, room: usize) -> Self {
        let mut split = Self::default();
        if fields.iter().map(Vec::len).sum::<usize>() <= room {
            split.inside = fields.concat();
            return split;
        }
        for field in fields {
            let (part, limit) = match split.continued.last_mut() {
                None => (&mut split.inside, room - CE_LEN),
                Some(last) => (last, BLOCK as usize - CE_LEN),
            };
            if part.len() + field.len() <= limit {
                part.extend(field);
            } else {
                split.continued.push(field);
            }
        }
        split
    }

    /// Returns how many bytes of the record they take.
    pub(super) fn len(&self) -> usize {
        self.inside.len() + if self.continued.is_empty() { 0 } else { CE_LEN }
    }

    /// Takes room for the continuations in the area, of which `used` bytes are taken; none of them crosses a block's end.
    pub(super) fn reserve(&mut self, used: &mut u64) {
        for at in 0..self.continued.len() {
            let len = self.continued_len(at) as u64;
            if *used % BLOCK + len > BLOCK {
                *used = used.next_multiple_of(BLOCK);
            }
            self.places.push(*used);
            *used += len;
        }
    }

    /// Returns what the record holds, where `area` is the first block of the continuations.
    pub(super) fn inside(&self, area: u32) -> Vec<u8> {
        let mut bytes = self.inside.clone();
        self.lead_to(0, area, &mut bytes);
        bytes
    }

    /// Returns the continuations and where each is in the area.
    pub(super) fn continuations(&self, area: u32) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.places.iter().enumerate().map(move |(at, place)| {
            let mut bytes = self.continued[at].clone();
            self.lead_to(at + 1, area, &mut bytes);
            (*place, bytes)
        })
    }

    fn continued_len(&self, at: usize) -> usize {
        let is_last = at + 1 == self.continued.len();
        self.continued[at].len() + if is_last { 0 } else { CE_LEN }
    }

    /// Appends the field that leads to continuation `at`, if there is one.
    fn lead_to(&self, at: usize, area: u32, out: &mut Vec<u8>) {
        let Some(place) = self.places.get(at) else {
            return;
        };
        out.extend([b'C', b'E', CE_LEN as u8, 1]);
        out.extend(both32(area + (place / BLOCK) as u32));
        out.extend(both32((place % BLOCK) as u32));
        out.extend(both32(self.continued_len(at) as u32));
    }
}

/// `PX`: type and permissions, links, owner and group, which are 0.
fn posix(node: &Node) -> Vec<u8> {
    let kind = match &node.kind {
        Kind::Dir(_) => S_IFDIR,
        Kind::File(_) => S_IFREG,
        Kind::Link(_) => S_IFLNK,
    };
    let mut field = vec![b'P', b'X', 36, 1];
    for number in [kind | node.mode, node.links, 0, 0] {
        field.extend(both32(number));
    }
    field
}

/// `TF`: last change of the content, last access, last change of the attributes.
fn times(time: [u8; 7]) -> Vec<u8> {
    let mut field = vec![b'T', b'F', 26, 1, 0b1110];
    field.extend([time; 3].concat());
    field
}

/// `NM`: the name, in as many fields as it takes.
fn name(name: &[u8]) -> Vec<Vec<u8>> {
    let pieces: Vec<&[u8]> = name.chunks(PIECE).collect();
    pieces
        .iter()
        .enumerate()
        .map(|(at, piece)| {
            let flags = if at + 1 < pieces.len() { CONTINUE } else { 0 };
            let mut field = vec![b'N', b'M', (5 + piece.len()) as u8, 1, flags];
            field.extend(*piece);
            field
        })
        .collect()
}

/// `SL`: the target of a symbolic link, component by component.
fn link(target: &[u8]) -> Vec<Vec<u8>> {
    const CURRENT: u8 = 2;
    const PARENT: u8 = 4;
    const ROOT: u8 = 8;
    let mut bodies = vec![Vec::new()];
    let mut put = |flags: u8, text: &[u8]| {
        let last = bodies.last_mut().expect("never empty");
        // Of a component that is split, some of its text comes along.
        if last.len() + 2 + text.len().min(1) > PIECE {
            bodies.push(Vec::new());
        }
        let body = bodies.last_mut().expect("never empty");
        let taken = text.len().min(PIECE - 2 - body.len());
        let goes_on = if taken < text.len() { CONTINUE } else { 0 };
        body.extend([flags | goes_on, taken as u8]);
        body.extend(&text[..taken]);
        taken
    };
    if target.starts_with(b"/") {
        put(ROOT, b"");
    }
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" => {}
            b"." => _ = put(CURRENT, b""),
            b".." => _ = put(PARENT, b""),
            mut rest => {
                while !rest.is_empty() {
                    rest = &rest[put(0, rest)..];
                }
            }
        }
    }
    let count = bodies.len();
    let fields = bodies.into_iter().enumerate().map(|(at, body)| {
        let flags = if at + 1 < count { CONTINUE } else { 0 };
        let mut field = vec![b'S', b'L', (5 + body.len()) as u8, 1, flags];
        field.extend(body);
        field
    });
    fields.collect()
}

/// `ER`: which extension the fields follow, in the words that RRIP prescribes.
fn extension() -> Vec<u8> {
    const ID: &[u8] = b"RRIP_1991A";
    const DESCRIPTOR: &[u8] =
        b"THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS";
    const SOURCE: &[u8] = b"PLEASE CONTACT DISC PUBLISHER FOR SPECIFICATION SOURCE.  SEE PUBLISHER IDENTIFIER IN PRIMARY VOLUME DESCRIPTOR FOR CONTACT INFORMATION.";
    let parts = [ID, DESCRIPTOR, SOURCE];
    let mut field = vec![b'E', b'R', 8, 1];
    field.extend(parts.map(|part| part.len() as u8));
    field.push(1);
    field.extend(parts.concat());
    field[2] = field.len() as u8;
    field
}
