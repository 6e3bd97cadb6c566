//! A package's header: numbered values of a few types, as rpm stores them.
//!
//! Two counts, an index of 16 bytes an entry, and the values that it points to; all numbers big-endian.
//!
//! Spec: rpm, `docs/manual/format_header.md` and `lib/header.c`.

use super::Damage;

/// Number of the name.
pub(super) const NAME: u32 = 1000;
/// Number of the version.
pub(super) const VERSION: u32 = 1001;
/// Number of the release.
pub(super) const RELEASE: u32 = 1002;
/// Number of the epoch.
pub(super) const EPOCH: u32 = 1003;
/// Full paths, in headers of old packages.
const OLD_FILE_NAMES: u32 = 1027;
/// For each file, which of [`DIR_NAMES`] it is in.
const DIR_INDEXES: u32 = 1116;
/// For each file, its name.
const BASE_NAMES: u32 = 1117;
/// Directories, with a slash at the end.
const DIR_NAMES: u32 = 1118;

const INT32: u32 = 4;
const STRING: u32 = 6;
const STRING_ARRAY: u32 = 8;
const TRANSLATED: u32 = 9;
const ENTRY_BYTES: usize = 16;
/// Paths may be this much longer than the header that they are put together from; in real ones they are shorter.
const MOST_PATH_RATIO: usize = 64;
/// But no longer than this together, in bytes.
const MOST_PATH_BYTES: usize = 256 << 20;
/// Values that a header may have; rpm itself takes no more. Spec: rpm, `lib/header.c`, `HEADER_TAGS_MAX`.
const MOST_ENTRIES: usize = 0xffff;

/// A header, borrowed from the database.
#[derive(Debug)]
pub(super) struct Header<'a> {
    index: &'a [u8],
    store: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    kind: u32,
    count: usize,
    /// The store from the first value on.
    values: &'a [u8],
}

impl Entry<'_> {
    fn number(&self, index: usize) -> Option<u32> {
        (self.kind == INT32 && index < self.count)
            .then(|| number(self.values, index * 4))
            .flatten()
    }
}

impl<'a> Header<'a> {
    pub(super) fn parse(blob: &'a [u8]) -> Result<Self, Damage> {
        let torn = || "a package's header is cut off".to_owned();
        let entries = number(blob, 0).ok_or_else(torn)? as usize;
        let bytes = number(blob, 4).ok_or_else(torn)? as usize;
        let index_bytes = entries.checked_mul(ENTRY_BYTES).ok_or_else(torn)?;
        if entries > MOST_ENTRIES {
            return Err(format!(
                "a package's header has more than {MOST_ENTRIES} values"
            ));
        }
        let rest = &blob[8..];
        let (index, rest) = rest.split_at_checked(index_bytes).ok_or_else(torn)?;
        let store = rest.get(..bytes).ok_or_else(torn)?;
        Ok(Self { index, store })
    }

    fn entry(&self, tag: u32) -> Option<Entry<'a>> {
        let raw = self
            .index
            .chunks_exact(ENTRY_BYTES)
            .find(|raw| number(raw, 0) == Some(tag))?;
        let offset = number(raw, 8)? as usize;
        Some(Entry {
            kind: number(raw, 4)?,
            count: number(raw, 12)? as usize,
            values: self.store.get(offset..)?,
        })
    }

    /// Returns a text, the untranslated one where there are several.
    pub(super) fn text(&self, tag: u32) -> Option<&'a str> {
        self.texts(tag).next()
    }

    /// Returns the number at `index` of a list of them.
    pub(super) fn number(&self, tag: u32, index: usize) -> Option<u32> {
        self.entry(tag)?.number(index)
    }

    fn texts(&self, tag: u32) -> impl Iterator<Item = &'a str> + use<'a> {
        let entry = self
            .entry(tag)
            .filter(|it| [STRING, STRING_ARRAY, TRANSLATED].contains(&it.kind));
        let (values, count) = entry.map_or((&[][..], 0), |entry| (entry.values, entry.count));
        values
            .split(|byte| *byte == 0)
            .take(count)
            .map_while(|text| std::str::from_utf8(text).ok())
    }

    /// Returns the absolute paths of the package's files.
    pub(super) fn files(&self) -> Result<Vec<String>, Damage> {
        let dirs: Vec<&str> = self.texts(DIR_NAMES).collect();
        let indexes = self.entry(DIR_INDEXES);
        let mut left = (self.store.len() * MOST_PATH_RATIO).min(MOST_PATH_BYTES);
        let in_dir = |(index, name): (usize, &str)| {
            let dir = dirs.get(indexes?.number(index)? as usize)?;
            left = left.checked_sub(dir.len() + name.len())?;
            Some(format!("{dir}{name}"))
        };
        let names = self.texts(BASE_NAMES).enumerate();
        let files: Option<Vec<String>> = names.map(in_dir).collect();
        let mut files =
            files.ok_or_else(|| "a package lists files that it cannot have".to_owned())?;
        files.extend(self.texts(OLD_FILE_NAMES).map(str::to_owned));
        Ok(files)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let raw = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*raw))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Builds a header of (tag, kind, count, values).
    fn blob(entries: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
        let (mut index, mut store) = (Vec::new(), Vec::<u8>::new());
        for (tag, kind, count, values) in entries {
            for number in [*tag, *kind, store.len() as u32, *count] {
                index.extend(u32::to_be_bytes(number));
            }
            store.extend(*values);
        }
        let counts = [entries.len() as u32, store.len() as u32];
        let mut out: Vec<u8> = counts.iter().flat_map(|n| n.to_be_bytes()).collect();
        out.extend(index);
        out.extend(store);
        out
    }

    fn sample() -> Vec<u8> {
        blob(&[
            (NAME, STRING, 1, b"bash\0"),
            (VERSION, STRING, 1, b"5.2\0"),
            (EPOCH, INT32, 1, &[0, 0, 0, 3]),
            (DIR_INDEXES, INT32, 2, &[0, 0, 0, 1, 0, 0, 0, 0]),
            (BASE_NAMES, STRING_ARRAY, 2, b"bash\0bash.conf\0"),
            (DIR_NAMES, STRING_ARRAY, 2, b"/etc/\0/usr/bin/\0"),
        ])
    }

    #[test]
    fn values_are_found_by_their_number_and_kind() {
        let blob = sample();
        let header = Header::parse(&blob).unwrap();
        assert_eq!(header.text(NAME), Some("bash"));
        assert_eq!(header.text(RELEASE), None);
        assert_eq!(header.number(EPOCH, 0), Some(3));
        assert_eq!(header.number(EPOCH, 1), None);
        assert_eq!(header.number(NAME, 0), None);
        assert_eq!(header.files().unwrap(), ["/usr/bin/bash", "/etc/bash.conf"]);
    }

    #[test]
    fn a_header_of_more_than_any_package_has_is_refused() {
        let mut many = vec![0, 1, 0, 0, 0, 0, 0, 0];
        many.resize(8 + (MOST_ENTRIES + 1) * ENTRY_BYTES, 0);
        let error = Header::parse(&many).unwrap_err();
        assert!(error.contains("more than 65535 values"), "{error}");
    }

    proptest! {
        #[test]
        fn no_damage_makes_a_header_reach_outside_itself(at in 0usize..160, byte: u8, len in 0usize..160) {
            let mut blob = sample();
            let at = at % blob.len();
            blob[at] = byte;
            blob.truncate(len);
            if let Ok(header) = Header::parse(&blob) {
                let _ = (header.text(NAME), header.number(EPOCH, 0), header.files());
            }
        }
    }
}
