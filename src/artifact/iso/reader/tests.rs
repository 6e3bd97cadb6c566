//! Discs that lie are errors, whatever they say.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::artifact::iso::tests::{bootable, write};
use crate::artifact::iso::{BLOCK, Content, Tree};

fn sample() -> Vec<u8> {
    let mut tree = Tree::new();
    let long = "n".repeat(255);
    tree.file(format!("a/b/{long}"), 0o644, Content::Later(5000))
        .expect("new");
    tree.symlink("a/link", "../".repeat(700)).expect("new");
    let mut disc = bootable(tree);
    disc.uefi = None;
    let region = write(&disc, 0);
    let mut bytes = vec![0; region.len() as usize];
    region.read_exact_at(&mut bytes, 0).expect("read");
    bytes
}

fn read_bytes(bytes: &[u8]) -> Result<Image, ReadError> {
    let file = Arc::new(tempfile::tempfile().expect("a file"));
    let region = Region::of_file(file, bytes.len() as u64);
    region.write_all_at(bytes, 0).expect("written");
    read(&region)
}

/// Returns the place of the only occurrence of `pattern` at or after `from`.
fn find(bytes: &[u8], pattern: &[u8], from: usize) -> usize {
    let found = bytes[from..]
        .windows(pattern.len())
        .position(|window| window == pattern);
    from + found.expect("there")
}

#[test]
fn a_file_that_is_no_disc_is_said_to_be_none() {
    for len in [0, 1, 512, 16 * 2048, 17 * 2048, 100_000] {
        let error = read_bytes(&vec![0; len]).expect_err("no disc");
        assert!(matches!(error, ReadError::NotADisc), "{len}: {error}");
    }
}

#[test]
fn a_disc_that_was_cut_off_is_an_error() {
    let bytes = sample();
    for len in (0..bytes.len()).step_by(BLOCK as usize) {
        assert!(read_bytes(&bytes[..len]).is_err(), "{len}");
    }
}

#[test]
fn a_directory_that_contains_itself_is_an_error() {
    let mut bytes = sample();
    // The record of `b` in `a` gets the place of `a`.
    let place = |bytes: &[u8], at: usize| bytes[at + 2..at + 10].to_vec();
    let a = find(&bytes, &[1, b'A'], 20 * 2048 + 4096) - 32;
    let own = place(&bytes, a);
    let b = find(&bytes, &[1, b'B'], a) - 32;
    bytes[b + 2..b + 10].copy_from_slice(&own);
    let error = read_bytes(&bytes).expect_err("a cycle").to_string();
    assert!(error.starts_with("a directory at byte "), "{error}");
    assert!(error.ends_with("is in the tree twice"), "{error}");
}

#[test]
fn a_name_that_leads_out_of_the_disc_is_an_error() {
    for name in [&b"../x"[..], b"x/..", b"x\0yz"] {
        let mut bytes = sample();
        let at = find(&bytes, b"NM\x09\x01\x00link", 0) + 5;
        bytes[at..at + 4].copy_from_slice(&name[..4]);
        let error = read_bytes(&bytes).expect_err("hostile").to_string();
        assert!(
            error.contains("has a name that no file can have"),
            "{error}"
        );
    }
}

#[test]
fn continuations_in_a_circle_end() {
    let mut bytes = sample();
    // The continuation of the long name's fields leads to itself.
    let record = find(&bytes, b"CE\x1c\x01", 20 * 2048);
    let lead = bytes[record..record + 28].to_vec();
    let block = u32::from_le_bytes(lead[4..8].try_into().expect("four"));
    let at = u32::from_le_bytes(lead[12..16].try_into().expect("four"));
    let start = block as usize * 2048 + at as usize;
    bytes[start..start + 28].copy_from_slice(&lead);
    let error = read_bytes(&bytes).expect_err("a circle").to_string();
    assert!(error.contains("Rock Ridge field"), "{error}");
}

#[test]
fn path_tables_that_lead_elsewhere_are_an_error() {
    for (at, what) in [(140, "little"), (148, "big")] {
        let mut bytes = sample();
        let field = 16 * 2048 + at;
        let number: [u8; 4] = bytes[field..field + 4].try_into().expect("four");
        let block = match what {
            "little" => u32::from_le_bytes(number),
            _ => u32::from_be_bytes(number),
        };
        // A digit of the second directory's place.
        let second = block as usize * 2048 + 10;
        bytes[second + if what == "little" { 2 } else { 5 }] ^= 1;
        let error = read_bytes(&bytes).expect_err(what).to_string();
        assert!(error.contains("other directories than the tree"), "{error}");
    }
}

#[test]
fn a_damaged_partition_table_is_told_and_the_rest_is_read() {
    let sound = sample();
    for at in [512 + 40, 1024, sound.len() - 512 + 40] {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        let image = read_bytes(&bytes).expect("a disc");
        assert!(image.gpt.expect("promised").is_err(), "{at}");
        assert_eq!(image.primary.identifiers.volume, "COS_LIVE");
    }
}

#[test]
fn a_boot_image_that_was_changed_does_not_have_its_checksum() {
    let mut bytes = sample();
    let image = read_bytes(&bytes).expect("sound");
    let block = image.boot.expect("a catalog").entries[0].block;
    bytes[block as usize * 2048 + 5000] ^= 1;
    let image = read_bytes(&bytes).expect("still a disc");
    let info = image.boot.expect("a catalog").entries[0].info;
    assert!(!info.expect("a table").checksum_holds);
}

proptest! {
    #[test]
    fn whatever_bytes_are_changed_nothing_panics(
        changes in prop::collection::vec((0..1usize << 20, any::<u8>()), 1..40),
    ) {
        static SAMPLE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(sample);
        let mut bytes = SAMPLE.clone();
        // Most of a disc is content, which is not read.
        let metadata = 48 * 2048;
        for (at, byte) in changes {
            bytes[16 * 2048 + at % metadata] = byte;
        }
        let _ = read_bytes(&bytes);
    }
}
