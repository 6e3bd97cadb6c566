//! rpm: a database of package headers, in one of the forms that rpm has had.
//!
//! [`sqlite`] is that of Fedora, Enterprise Linux and Amazon Linux, [`ndb`] that of SUSE; both hold the same [`header`]s. Berkeley
//! DB, which releases before these had, is refused by name.

mod header;
mod ndb;
mod sqlite;

use std::io;

use super::{Depth, Installed, Package};
use crate::error::Result;
use crate::tree::{Tree, Window};
use header::Header;

/// Where rpm keeps its database: the older place, the newer one, and that of image-based systems.
const DIRS: [&str; 3] = ["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"];
/// Keys to trust, which the database lists as if they were packages.
const KEY: &str = "gpg-pubkey";

/// The largest header, in bytes; rpm itself takes none that is larger. Spec: rpm, `lib/header.c`, `HEADER_DATA_MAX`.
const MAX_HEADER_BYTES: u64 = 256 << 20;

/// Where a database is damaged, and how.
type Damage = String;
/// What every header found is given to.
type Visit<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), Damage>;
/// Reads a database.
type Reader = fn(&Files<'_>, Visit<'_>) -> Result<(), Damage>;

/// What a database consists of.
struct Files<'a> {
    database: Window<'a>,
    /// What the last writer left beside it.
    journal: Option<Window<'a>>,
}

/// How many bytes of a file nothing has claimed yet. Parts of a hostile one may overlap, and would be read over and over.
struct Unclaimed(u64);

impl Unclaimed {
    /// Takes as many as `part` has, one of those called `parts`.
    fn claim(&mut self, part: &[u8], parts: &str) -> Result<(), Damage> {
        let left = self.0.checked_sub(part.len() as u64);
        self.0 = left.ok_or_else(|| format!("two {parts} of it share their bytes"))?;
        Ok(())
    }
}

/// The forms: the name of the file, and that of a journal beside it.
const FORMS: [(&str, Option<&str>, Reader); 3] = [
    ("rpmdb.sqlite", Some("rpmdb.sqlite-wal"), sqlite::read),
    ("Packages.db", None, ndb::read),
    ("Packages", None, berkeley),
];

pub(super) fn reads(path: &str) -> bool {
    DIRS.iter().any(|dir| {
        let name = path
            .strip_prefix(dir)
            .and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| {
            FORMS
                .iter()
                .any(|(file, journal, _)| name == *file || Some(name) == *journal)
        })
    })
}

pub(super) fn read(tree: &Tree, depth: Depth, out: &mut Installed) -> Result<()> {
    let mut seen = Vec::new();
    for dir in DIRS {
        for (file, journal, reader) in FORMS {
            let path = format!("{dir}/{file}");
            // One directory may be a link to the other.
            let Some(found) = tree.find(&path).filter(|it| !seen.contains(&it.path)) else {
                continue;
            };
            seen.push(found.path);
            let Some(database) = tree.window(&path)? else {
                continue;
            };
            let journal = match journal {
                Some(name) => tree.window(format!("{dir}/{name}"))?,
                None => None,
            };
            let files = Files { database, journal };
            let read = reader(&files, &mut |blob| package(blob, &path, depth, out));
            if let Err(why) = read {
                out.unread(&path, why);
            }
        }
    }
    Ok(())
}

fn package(blob: &[u8], origin: &str, depth: Depth, out: &mut Installed) -> Result<(), Damage> {
    let header = Header::parse(blob)?;
    let (Some(name), Some(version), Some(release)) = (
        header.text(header::NAME),
        header.text(header::VERSION),
        header.text(header::RELEASE),
    ) else {
        return Err("a package has no name, version or release".into());
    };
    if name == KEY {
        return Ok(());
    }
    let epoch = header.number(header::EPOCH, 0);
    if depth == Depth::Files {
        for path in header.files()? {
            out.own(path, name).map_err(|why| why.to_string())?;
        }
    }
    let package = Package {
        name: name.to_owned(),
        version: match epoch {
            Some(epoch) => format!("{epoch}:{version}-{release}"),
            None => format!("{version}-{release}"),
        },
        manager: "rpm",
        broken: None,
        origin: origin.into(),
    };
    out.add(package).map_err(|why| why.to_string())
}

fn berkeley(_: &Files<'_>, _: Visit<'_>) -> Result<(), Damage> {
    Err("it is in the form of Berkeley DB, which no supported release writes".into())
}

/// Reads `N` bytes at `offset`.
fn bytes_at<const N: usize>(file: &Window<'_>, offset: u64) -> Result<[u8; N], Damage> {
    let mut bytes = [0; N];
    fill(file, offset, &mut bytes)?;
    Ok(bytes)
}

fn fill(file: &Window<'_>, offset: u64, buffer: &mut [u8]) -> Result<(), Damage> {
    file.read_exact_at(buffer, offset)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                format!("it ends before byte {}", offset + buffer.len() as u64)
            }
            _ => error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::installed::read;
    use crate::tree::samples::Sample;

    fn unread(path: &str, content: &[u8]) -> String {
        let tree = Sample::new().file(path, 0o644, content).tree();
        let found = read(&tree, Depth::Files).unwrap();
        assert!(found.packages.is_empty());
        found
            .unread
            .first()
            .map(|it| it.why.clone())
            .unwrap_or_default()
    }

    #[test]
    fn an_old_form_is_refused_by_name() {
        let why = unread("var/lib/rpm/Packages", b"x");
        assert!(why.contains("Berkeley DB"), "{why}");
    }

    #[test]
    fn an_empty_file_is_an_empty_database() {
        assert_eq!(unread("var/lib/rpm/rpmdb.sqlite", b""), "");
    }

    #[test]
    fn a_directory_under_two_names_is_read_once() {
        let tree = Sample::new()
            .file("usr/lib/sysimage/rpm/Packages", 0o644, b"x")
            .link("var/lib/rpm", "../../usr/lib/sysimage/rpm")
            .tree();
        assert_eq!(read(&tree, Depth::Packages).unwrap().unread.len(), 1);
    }
}
