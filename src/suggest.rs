//! "Did you mean": the known word that a mistyped one is nearest to.

/// Returns the word of `known` that differs from `word` by a slip or two; `None` when none is that near. Case does not count.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    // One slip in a short word, one in three letters of a longer one.
    let most = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|known| {
            let slips = strsim::damerau_levenshtein(&word, &known.to_lowercase());
            (slips, known)
        })
        .filter(|(slips, _)| *slips <= most)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["install", "init", "initrd", "installPackages"];
        for (word, expected) in [
            ("instalpackages", Some("installPackages")),
            ("intird", Some("initrd")),
            ("initt", Some("init")),
            ("grub", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
