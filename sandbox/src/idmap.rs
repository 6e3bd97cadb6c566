//! Turns subordinate ID grants into ID map ranges. Pure: text in, ranges out.
//!
//! It must not know where the text comes from, nor who writes the map.

use thiserror::Error;

/// The fewest IDs a stage needs: 0 to 65535, what package managers hand out and what `nobody` is.
pub const MIN_IDS: u64 = 65_536;

/// The most lines the kernel takes in one map.
const MAX_RANGES: usize = 340;

/// The kernel refuses a map text of this many bytes or more, on every page size it supports.
const MAX_TEXT_BYTES: usize = 4096;

/// One line of an ID map: `count` IDs that start at `inside` in the new namespace and at `host` in the parent namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first ID inside the new user namespace.
    pub inside: u32,
    /// The first ID in the namespace of the process that writes the map.
    pub host: u32,
    /// How many IDs; a number, not a last ID.
    pub count: u32,
}

/// Which of the two ID spaces an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdKind {
    /// User IDs, granted in `/etc/subuid`.
    Uid,
    /// Group IDs, granted in `/etc/subgid`.
    Gid,
}

impl IdKind {
    /// Returns the file that holds the grants.
    pub fn file(self) -> &'static str {
        match self {
            Self::Uid => "/etc/subuid",
            Self::Gid => "/etc/subgid",
        }
    }
}

impl std::fmt::Display for IdKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uid => "uid",
            Self::Gid => "gid",
        })
    }
}

/// Why no ID map can be made.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdMapError {
    /// The user has no or too small a grant of subordinate IDs.
    #[error("{user:?} has {found} subordinate {kind}s in {file}, needs {needed}", file = .kind.file())]
    TooFew {
        /// Which IDs are short.
        kind: IdKind,
        /// The name that was looked up, or the numeric ID where the user has no name.
        user: String,
        /// How many IDs usable grants add up to.
        found: u64,
        /// How many are needed.
        needed: u64,
    },
    /// The namespace we are in maps too few IDs to pass on.
    #[error("this user namespace maps {found} {kind}s, needs {needed}")]
    TooFewHere {
        /// Which IDs are short.
        kind: IdKind,
        /// How many IDs are mapped.
        found: u64,
        /// How many are needed.
        needed: u64,
    },
    /// The map is more than the kernel takes.
    #[error(
        "an ID map of {ranges} ranges in {bytes} bytes is more than the kernel takes ({MAX_RANGES} ranges, less than {MAX_TEXT_BYTES} bytes)"
    )]
    TooLarge {
        /// How many ranges.
        ranges: usize,
        /// How long the text is.
        bytes: usize,
    },
}

impl IdMapError {
    /// Returns what the reader can do about it, one command or setting per line.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::TooFew { user, .. } => {
                vec![format!(
                    "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}` as root grants them"
                )]
            }
            Self::TooFewHere { .. } => vec![
                "run outside the container, or give the container a full range of IDs".to_owned(),
            ],
            Self::TooLarge { .. } => {
                vec!["merge adjacent ranges in /etc/subuid and /etc/subgid".to_owned()]
            }
        }
    }
}

/// How a map reaches the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapWriter {
    /// `newuidmap` and `newgidmap`, which check the grants.
    Helpers,
    /// We write `/proc/<pid>/uid_map` and `gid_map` ourselves, being root.
    Ourselves,
}

/// The user and group ID maps of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// The ranges of user IDs.
    pub uids: Vec<IdRange>,
    /// The ranges of group IDs.
    pub gids: Vec<IdRange>,
    /// Who writes them.
    pub writer: MapWriter,
}

impl IdMap {
    /// Returns the map of a plain user: 0 is the user, 1 and up are the subordinate IDs in the order of the files.
    ///
    /// Grants are found by `name` or by `uid`, in both texts, as `subuid(5)` has it. A grant that overlaps the user's own ID or an
    /// earlier grant is passed over, since the kernel refuses such a map as a whole.
    ///
    /// # Errors
    ///
    /// [`IdMapError::TooFew`]: fewer than [`MIN_IDS`] grants are left.
    pub fn for_user(
        uid: u32,
        gid: u32,
        name: &str,
        subuid_text: &str,
        subgid_text: &str,
    ) -> Result<Self, IdMapError> {
        let user = if name.is_empty() {
            uid.to_string()
        } else {
            name.to_owned()
        };
        let ranges = |kind, own, text| {
            let ranges = user_ranges(own, &parse_grants(text, name, uid));
            // The first range is the user's own ID, which is no grant.
            let found: u64 = ranges
                .iter()
                .skip(1)
                .map(|range| u64::from(range.count))
                .sum();
            if found < MIN_IDS {
                return Err(IdMapError::TooFew {
                    kind,
                    user: user.clone(),
                    found,
                    needed: MIN_IDS,
                });
            }
            Ok(ranges)
        };
        Ok(Self {
            uids: ranges(IdKind::Uid, uid, subuid_text)?,
            gids: ranges(IdKind::Gid, gid, subgid_text)?,
            writer: MapWriter::Helpers,
        })
    }

    /// Returns the map of root: every ID this namespace has, under its own number.
    ///
    /// The texts are those of `/proc/self/uid_map` and `/proc/self/gid_map`.
    ///
    /// # Errors
    ///
    /// [`IdMapError::TooFewHere`]: fewer than [`MIN_IDS`] IDs are mapped here.
    pub fn identity(uid_map_text: &str, gid_map_text: &str) -> Result<Self, IdMapError> {
        let ranges = |kind, text| {
            let ranges: Vec<IdRange> = parse_id_map(text)
                .into_iter()
                .map(|range| IdRange {
                    inside: range.inside,
                    host: range.inside,
                    count: range.count,
                })
                .collect();
            let found = total(&ranges);
            if found < MIN_IDS {
                return Err(IdMapError::TooFewHere {
                    kind,
                    found,
                    needed: MIN_IDS,
                });
            }
            Ok(ranges)
        };
        Ok(Self {
            uids: ranges(IdKind::Uid, uid_map_text)?,
            gids: ranges(IdKind::Gid, gid_map_text)?,
            writer: MapWriter::Ourselves,
        })
    }
}

/// Adds up the IDs of `ranges`.
pub fn total(ranges: &[IdRange]) -> u64 {
    ranges.iter().map(|range| u64::from(range.count)).sum()
}

/// Parses the text of a `/proc/<pid>/uid_map`. Lines that are not three numbers are passed over.
pub fn parse_id_map(text: &str) -> Vec<IdRange> {
    text.lines()
        .filter_map(|line| {
            let mut numbers = line
                .split_ascii_whitespace()
                .map(|field| field.parse().ok());
            Some(IdRange {
                inside: numbers.next()??,
                host: numbers.next()??,
                count: numbers.next()??,
            })
        })
        .collect()
}

/// Formats `ranges` as the text for `/proc/<pid>/uid_map` or `gid_map`.
///
/// Write the text with a single `write`: the kernel takes a map once per namespace.
///
/// # Errors
///
/// [`IdMapError::TooLarge`] for more than 340 ranges, or a text of one page (4096 bytes) or more.
///
/// Spec: user_namespaces(7), "User and group ID mappings".
pub fn format_id_map(ranges: &[IdRange]) -> Result<String, IdMapError> {
    let text: String = ranges
        .iter()
        .map(|range| format!("{} {} {}\n", range.inside, range.host, range.count))
        .collect();
    if ranges.len() > MAX_RANGES || text.len() >= MAX_TEXT_BYTES {
        return Err(IdMapError::TooLarge {
            ranges: ranges.len(),
            bytes: text.len(),
        });
    }
    Ok(text)
}

/// Returns `(first ID, count)` of each grant to `name` or `uid`. Lines that are no grants are passed over, as `newuidmap` does.
fn parse_grants(text: &str, name: &str, uid: u32) -> Vec<(u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().splitn(3, ':');
            let owner = fields.next()?;
            let ours = (!name.is_empty() && owner == name) || owner.parse() == Ok(uid);
            let start: u32 = fields.next()?.parse().ok()?;
            let count: u32 = fields.next()?.parse().ok()?;
            (ours && count > 0 && start.checked_add(count).is_some()).then_some((start, count))
        })
        .collect()
}

/// Lays out the user's own ID as 0 and the grants above it.
fn user_ranges(own: u32, grants: &[(u32, u32)]) -> Vec<IdRange> {
    let mut ranges = vec![IdRange {
        inside: 0,
        host: own,
        count: 1,
    }];
    let mut next = 1u32;
    for &(start, count) in grants {
        let overlaps = ranges
            .iter()
            .any(|range| start < range.host + range.count && range.host < start + count);
        let Some(end) = next.checked_add(count) else {
            break;
        };
        if overlaps || ranges.len() == MAX_RANGES {
            continue;
        }
        ranges.push(IdRange {
            inside: next,
            host: start,
            count,
        });
        next = end;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANT: &str = "root:1:65536\nann:100000:65536\n";

    fn range(inside: u32, host: u32, count: u32) -> IdRange {
        IdRange {
            inside,
            host,
            count,
        }
    }

    #[test]
    fn the_user_is_root_inside_and_the_grant_follows() {
        let map = IdMap::for_user(1000, 1001, "ann", GRANT, GRANT).unwrap();
        assert_eq!(map.uids, [range(0, 1000, 1), range(1, 100_000, 65_536)]);
        assert_eq!(map.gids, [range(0, 1001, 1), range(1, 100_000, 65_536)]);
        assert_eq!(map.writer, MapWriter::Helpers);
    }

    #[test]
    fn a_grant_may_be_given_to_the_number() {
        let map =
            IdMap::for_user(1000, 1000, "", "1000:200000:65536", "1000:200000:65536").unwrap();
        assert_eq!(map.uids[1], range(1, 200_000, 65_536));
    }

    #[test]
    fn several_grants_follow_each_other() {
        let text = "ann:100000:30000\n# a comment\nbob:1:2\nann:500000:40000\n";
        let map = IdMap::for_user(1000, 1000, "ann", text, text).unwrap();
        assert_eq!(
            map.uids[1..],
            [range(1, 100_000, 30_000), range(30_001, 500_000, 40_000)]
        );
    }

    #[test]
    fn overlapping_grants_are_passed_over() {
        let text = "ann:900:200\nann:100000:65536\nann:165000:65536\n";
        let map = IdMap::for_user(1000, 1000, "ann", text, text).unwrap();
        assert_eq!(map.uids[1..], [range(1, 100_000, 65_536)]);
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        for line in [
            "ann",
            "ann:",
            "ann:1",
            "ann:x:65536",
            "ann:1:-5",
            "ann:4294967295:65536",
            "ann:5:0",
            "",
            ":::::",
        ] {
            let error = IdMap::for_user(1000, 1000, "ann", line, line).unwrap_err();
            assert!(
                matches!(error, IdMapError::TooFew { found: 0, .. }),
                "{line}: {error}"
            );
        }
    }

    #[test]
    fn a_missing_group_grant_is_named_with_its_remedy() {
        let error = IdMap::for_user(1000, 1000, "ann", GRANT, "").unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"ann\" has 0 subordinate gids in /etc/subgid, needs 65536"
        );
        assert_eq!(
            error.hints(),
            [
                "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann` as root grants them"
            ]
        );
    }

    #[test]
    fn root_maps_everything_it_has_onto_itself() {
        let whole = "         0          0 4294967295\n";
        let map = IdMap::identity(whole, whole).unwrap();
        assert_eq!(map.uids, [range(0, 0, u32::MAX)]);
        let nested = "0 1000 1\n1 100000 65536\n";
        let map = IdMap::identity(nested, nested).unwrap();
        assert_eq!(map.uids, [range(0, 0, 1), range(1, 1, 65_536)]);
    }

    #[test]
    fn root_of_a_single_id_namespace_is_told() {
        let error = IdMap::identity("0 1000 1", "0 1000 1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "this user namespace maps 1 uids, needs 65536"
        );
    }

    #[test]
    fn the_map_text_is_one_line_per_range() {
        assert_eq!(
            format_id_map(&[range(0, 1000, 1), range(1, 100_000, 65_536)]).unwrap(),
            "0 1000 1\n1 100000 65536\n"
        );
    }

    #[test]
    fn the_kernels_limits_are_kept() {
        let many = vec![range(1, 1, 1); 341];
        assert!(matches!(
            format_id_map(&many),
            Err(IdMapError::TooLarge { ranges: 341, .. })
        ));
        let long = vec![range(1_000_000_000, 1_000_000_000, 1_000_000_000); 200];
        assert!(matches!(
            format_id_map(&long),
            Err(IdMapError::TooLarge { bytes: 6600, .. })
        ));
        assert!(format_id_map(&vec![range(1, 1, 1); 340]).is_ok());
    }
}
