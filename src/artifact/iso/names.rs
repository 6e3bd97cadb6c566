//! Names as the two trees of a disc write them: upper case and short, or UCS-2; each once in its directory.
//!
//! Rock Ridge keeps the real names beside the first kind. Spec: ECMA-119, 7.5, 7.6 and 10.2 (level 2); Joliet
//! specification, "Relaxed file name rules".

use std::collections::{HashMap, HashSet};

/// The most characters of an identifier at level 2, the dot among them.
const PRIMARY_LIMIT: usize = 31;
/// The most characters of a Joliet identifier.
const JOLIET_LIMIT: usize = 64;
/// An extension keeps so many characters at most, so that the name before it keeps some too.
const EXTENSION_LIMIT: usize = 15;
const DOT: u16 = b'.' as u16;

/// Which names a tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Upper-case ones, with the real ones in Rock Ridge fields.
    Primary,
    /// UCS-2.
    Joliet,
}

/// Returns the identifiers of the entries of one directory, in the order of `entries`, which are names and whether each is a
/// directory's.
pub(super) fn identifiers(names: Names, entries: &[(&[u8], bool)]) -> Vec<Vec<u8>> {
    let mut taken = HashSet::new();
    let mut counters = HashMap::new();
    entries
        .iter()
        .map(|(name, is_dir)| {
            let wish = Parts::of(names, name, *is_dir);
            let counter = counters.entry(wish.shown()).or_insert(0);
            let mut parts = wish.clone();
            while !taken.insert(parts.shown()) {
                *counter += 1;
                parts = wish.numbered(*counter);
            }
            parts.encode()
        })
        .collect()
}

/// A name, taken apart at the dot before its extension.
#[derive(Clone)]
struct Parts {
    names: Names,
    is_dir: bool,
    stem: Vec<u16>,
    extension: Vec<u16>,
}

impl Parts {
    fn of(names: Names, name: &[u8], is_dir: bool) -> Self {
        let name = String::from_utf8_lossy(name);
        // The dot that hides a file begins no extension, and directories have none.
        let dot = name.rfind('.').filter(|at| *at > 0 && !is_dir);
        let (stem, extension) = match dot {
            Some(at) => (&name[..at], &name[at + 1..]),
            None => (&*name, ""),
        };
        let convert = |text: &str| text.chars().map(|c| allowed(names, c)).collect::<Vec<_>>();
        let mut parts = Self {
            names,
            is_dir,
            stem: convert(stem),
            extension: convert(extension),
        };
        parts.extension.truncate(EXTENSION_LIMIT);
        parts.stem.truncate(parts.room());
        parts
    }

    /// How many characters the part before the extension may have.
    fn room(&self) -> usize {
        let limit = match self.names {
            Names::Primary => PRIMARY_LIMIT,
            Names::Joliet => JOLIET_LIMIT,
        };
        limit - usize::from(self.has_dot()) - self.extension.len()
    }

    /// The identifier of a file in the primary tree has a dot even where nothing follows it.
    fn has_dot(&self) -> bool {
        !self.extension.is_empty() || (self.names == Names::Primary && !self.is_dir)
    }

    /// The same name with `_` and a number, cut where it would become too long.
    fn numbered(&self, number: usize) -> Self {
        let suffix: Vec<u16> = format!("_{number}").encode_utf16().collect();
        let mut other = self.clone();
        other.stem.truncate(self.room() - suffix.len());
        other.stem.extend(suffix);
        other
    }

    /// What must be unique, which is what systems show: of a file `A.`, as of a directory `A`, the `A`.
    fn shown(&self) -> Vec<u16> {
        let mut units = self.stem.clone();
        if !self.extension.is_empty() {
            units.push(DOT);
            units.extend(&self.extension);
        }
        units
    }

    fn encode(&self) -> Vec<u8> {
        let mut units = self.shown();
        if self.has_dot() && self.extension.is_empty() {
            units.push(DOT);
        }
        match self.names {
            Names::Joliet => units.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
            Names::Primary => {
                let version: &[u8] = if self.is_dir { b"" } else { b";1" };
                let ascii = units.iter().map(|unit| *unit as u8);
                ascii.chain(version.iter().copied()).collect()
            }
        }
    }
}

/// Returns `c` as the tree may write it; `_` stands for what it may not.
fn allowed(names: Names, c: char) -> u16 {
    let fits = match names {
        Names::Primary => c.is_ascii_alphanumeric(),
        Names::Joliet => {
            c >= ' '
                && !matches!(c, '*' | '/' | ':' | ';' | '?' | '\\' | '\u{fffd}')
                && c.len_utf16() == 1
        }
    };
    match names {
        _ if !fits => u16::from(b'_'),
        Names::Primary => c.to_ascii_uppercase() as u16,
        Names::Joliet => c as u16,
    }
}

/// Returns the parts of an identifier by which a directory is sorted, the earlier the weightier.
///
/// Spec: ECMA-119, 9.3: names are compared before extensions, as if both were filled up with spaces.
pub(super) fn sort_key(names: Names, identifier: &[u8]) -> (Vec<u8>, Vec<u8>) {
    if names == Names::Joliet {
        return (identifier.to_vec(), Vec::new());
    }
    let plain = identifier.strip_suffix(b";1").unwrap_or(identifier);
    let mut parts = plain.splitn(2, |byte| *byte == b'.').map(<[u8]>::to_vec);
    let stem = parts.next().unwrap_or_default();
    (stem, parts.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(names: &[&str]) -> Vec<String> {
        let entries: Vec<_> = names.iter().map(|name| (name.as_bytes(), false)).collect();
        let identifiers = identifiers(Names::Primary, &entries);
        let text = |bytes| String::from_utf8(bytes).expect("ASCII");
        identifiers.into_iter().map(text).collect()
    }

    #[test]
    fn names_become_upper_case_with_one_dot_and_a_version() {
        assert_eq!(
            primary(&["kernel", "rootfs.squashfs", ".hidden", "a.tar.gz", "käse"]),
            [
                "KERNEL.;1",
                "ROOTFS.SQUASHFS;1",
                "_HIDDEN.;1",
                "A_TAR.GZ;1",
                "K_SE.;1"
            ]
        );
        let entries = [(&b"grub.d"[..], true)];
        assert_eq!(identifiers(Names::Primary, &entries), [b"GRUB_D"]);
    }

    #[test]
    fn names_that_become_the_same_get_numbers() {
        assert_eq!(
            primary(&["a-b", "a+b", "a_b", "a_b_1"]),
            ["A_B.;1", "A_B_1.;1", "A_B_2.;1", "A_B_1_1.;1"]
        );
        let long = "x".repeat(200);
        let many: Vec<String> = (0..200).map(|n| format!("{long}{n}.conf")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let unique: HashSet<String> = primary(&many).into_iter().collect();
        assert_eq!(unique.len(), 200);
        assert!(unique.iter().all(|name| name.len() <= 33), "{unique:?}");
        // A directory and a file that would be shown alike.
        let entries = [(&b"boot"[..], true), (&b"BOOT"[..], false)];
        let both = identifiers(Names::Primary, &entries);
        assert_eq!(both, [&b"BOOT"[..], b"BOOT_1.;1"]);
    }

    #[test]
    fn joliet_keeps_what_ucs_2_can_say() {
        let long = format!("{}.conf", "ü".repeat(100));
        let entries = [
            ("Käse ☃.txt".as_bytes(), false),
            ("a:b?🧀".as_bytes(), false),
            (&b"\xff\xfe"[..], false),
            (long.as_bytes(), false),
        ];
        let text: Vec<String> = identifiers(Names::Joliet, &entries)
            .iter()
            .map(|bytes| {
                let units = bytes
                    .chunks(2)
                    .map(|two| u16::from_be_bytes([two[0], two[1]]));
                String::from_utf16(&units.collect::<Vec<_>>()).expect("UCS-2")
            })
            .collect();
        assert_eq!(text[..3], ["Käse ☃.txt", "a_b__", "__"]);
        assert_eq!(text[3], format!("{}.conf", "ü".repeat(59)));
    }

    #[test]
    fn a_name_comes_before_the_same_name_with_more_of_an_extension() {
        let mut identifiers = [&b"A.B1;1"[..], b"A.B;1", b"A1.;1", b"A.;1"];
        identifiers.sort_by_key(|identifier| sort_key(Names::Primary, identifier));
        assert_eq!(identifiers, [&b"A.;1"[..], b"A.B;1", b"A.B1;1", b"A1.;1"]);
    }
}
