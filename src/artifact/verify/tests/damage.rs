//! Whatever the bytes are, there is an answer, and soon.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::sample::{Medium, verify_bytes};

fn medium() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| Medium::new().bytes())
}

/// Places in `bytes` where a number stands that others follow: most of a medium is zero.
fn places(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len()).filter(|at| bytes[*at] != 0).collect()
}

/// Changes `bytes` at some of its places, and cuts off what is behind `keep` parts of 1000.
fn damage(bytes: &[u8], changes: &[(prop::sample::Index, u8)], keep: usize) -> Vec<u8> {
    let places = places(bytes);
    let mut bytes = bytes.to_vec();
    for (place, value) in changes {
        bytes[places[place.index(places.len())]] = *value;
    }
    bytes.truncate(bytes.len() * keep / 1000);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_damage_to_a_medium_is_answered(
        changes in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..24),
        keep in prop_oneof![Just(1000usize), 0..1000usize],
    ) {
        // An error or a report.
        let _ = verify_bytes(&damage(medium(), &changes, keep));
    }
}
