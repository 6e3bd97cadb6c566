//! Chain IDs: the name of a stack of layers.

use crate::digest::Digest;

/// Returns the chain ID of the rootfs made by applying `diff_ids` in order.
///
/// `diff_ids` runs from the base layer (index 0) upward, as in the config's `rootfs.diff_ids`. One layer is its own
/// chain ID; each further layer hashes the ASCII text `"<chain id> <diff id>"`. Returns `None` for no layers: an empty
/// rootfs has no chain ID.
///
/// Spec: image-spec `config.md`, "Layer ChainID".
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(
        rest.iter()
            .fold(*first, |chain, diff_id| extend(chain, *diff_id)),
    )
}

/// Returns the chain ID of the stack `chain` with one more layer on top.
pub fn extend(chain: Digest, diff_id: Digest) -> Digest {
    Digest::of(format!("{chain} {diff_id}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_layers_have_no_chain_id_and_one_layer_is_its_own() {
        let layer = Digest::of(b"a");
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(&[layer]), Some(layer));
    }

    #[test]
    fn each_layer_hashes_the_chain_below_it() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| Digest::of(text));
        let two = Digest::of(format!("{a} {b}").as_bytes());
        let three = Digest::of(format!("{two} {c}").as_bytes());
        assert_eq!(chain_id(&[a, b]), Some(two));
        assert_eq!(chain_id(&[a, b, c]), Some(three));
        assert_ne!(chain_id(&[a, c, b]), Some(three));
    }
}
