//! "Did you mean": the known word that a mistyped one is nearest to.

/// As [`nearest`], of names of files: those of a directory are not made for one thing, so only what is nearly the same counts.
pub fn nearest_name<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const SHORT: usize = 8;
    let most = if name.chars().count() > SHORT { 2 } else { 1 };
    within(most, name, known)
}

/// Returns the word of `known` that differs from `word` by a slip or two; `None` when none is that near. Case does not count.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // One slip in a short word, one in three letters of a longer one.
    let most = (word.chars().count() / 3).max(1);
    within(most, word, known)
}

fn within<'a>(
    most: usize,
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase();
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

    #[test]
    fn of_the_names_in_a_directory_only_one_that_is_nearly_the_same_is_meant() {
        let known = ["profile", "passwd", "base.tar", "kairos-recipe.yaml"];
        for (name, expected) in [
            ("nofile", None),
            ("token", None),
            ("profil", Some("profile")),
            ("bsae.tar", Some("base.tar")),
            ("kairos-recpie.yml", Some("kairos-recipe.yaml")),
        ] {
            assert_eq!(nearest_name(name, known), expected, "{name}");
        }
    }
}
