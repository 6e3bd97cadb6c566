//! Volume descriptors: what a disc says of itself from block 16 on.
//!
//! Spec: ECMA-119, 8; Joliet, "SVD Escape Sequences" and "SVD Volume Identifier"; El Torito 1.0, 3.0.

use super::BLOCK;
use super::disc::Identifiers;
use super::names::Names;
use super::record::{both16, both32};
use super::time::{NEVER, Stamp};
use super::view::View;

/// The first block with a descriptor, counted from where a volume starts.
pub(super) const FIRST: u32 = 16;
/// The text by which firmware knows the descriptor of the boot catalog.
pub(super) const EL_TORITO: &[u8; 23] = b"EL TORITO SPECIFICATION";
/// What says in a supplementary descriptor that its tree is Joliet's, level 3.
pub(super) const JOLIET_ESCAPE: [u8; 3] = *b"%/E";

/// Returns the descriptor of one view of the tree in a volume of `blocks`.
pub(super) fn volume(
    view: &View,
    identifiers: &Identifiers,
    stamp: &Stamp,
    blocks: u32,
) -> Vec<u8> {
    let is_joliet = view.names == Names::Joliet;
    let text = |text: &str, len: usize| match is_joliet {
        true => wide(text, len),
        false => narrow(text, len),
    };
    let mut bytes = header(if is_joliet { 2 } else { 1 });
    bytes.push(0);
    bytes.extend(text(&identifiers.system, 32));
    bytes.extend(text(&identifiers.volume, 32));
    bytes.extend([0; 8]);
    bytes.extend(both32(blocks));
    let mut escape = [0; 32];
    if is_joliet {
        escape[..3].copy_from_slice(&JOLIET_ESCAPE);
    }
    bytes.extend(escape);
    // The only volume of its set, and blocks as long as sectors.
    bytes.extend([both16(1), both16(1), both16(BLOCK as u16)].concat());
    bytes.extend(both32(view.path_table_len));
    let [little, big] = view.path_tables();
    bytes.extend(little.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(big.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(view.root_record());
    for identifier in [
        &identifiers.volume_set,
        &identifiers.publisher,
        &identifiers.preparer,
        &identifiers.application,
    ] {
        bytes.extend(text(identifier, 128));
    }
    // No files with copyright, abstract and bibliography.
    for _ in 0..3 {
        bytes.extend(text("", 37));
    }
    // Created, changed, expires, valid from.
    bytes.extend([stamp.long, stamp.long, NEVER, NEVER].concat());
    // The version of the structure of directories.
    bytes.push(1);
    whole_block(bytes)
}

/// Returns the descriptor that leads to the El Torito catalog.
pub(super) fn boot(catalog: u32) -> Vec<u8> {
    let mut bytes = header(0);
    bytes.extend(EL_TORITO);
    bytes.resize(0x47, 0);
    bytes.extend(catalog.to_le_bytes());
    whole_block(bytes)
}

/// Returns the descriptor after the last.
pub(super) fn end() -> Vec<u8> {
    whole_block(header(255))
}

fn header(kind: u8) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(b"CD001");
    bytes.push(1);
    bytes
}

fn whole_block(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(BLOCK as usize, 0);
    bytes
}

fn narrow(text: &str, len: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(len, b' ');
    bytes
}

/// UCS-2, cut to what fits; of an odd length the last byte stays zero.
fn wide(text: &str, len: usize) -> Vec<u8> {
    let units = text
        .encode_utf16()
        .chain(std::iter::repeat(u16::from(b' ')));
    let mut bytes: Vec<u8> = units.take(len / 2).flat_map(u16::to_be_bytes).collect();
    bytes.resize(len, 0);
    bytes
}
