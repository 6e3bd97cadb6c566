//! The checksum beside a file, as `sha256sum -c` reads it.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::sync::Arc;

use kfactory_layers::digest::Digest;
use kfactory_layers::input::open_regular;
use kfactory_sandbox::CancelToken;

use super::rule::{Report, telling};
use super::rules;
use crate::artifact::gpt::{SECTOR_BYTES, Table};
use crate::artifact::output::checksum_path;
use crate::artifact::region::Region;
use crate::artifact::sparse;
use crate::error::{Context as _, Result};
use crate::progress::bytes_text;

/// A list of many files has more, but not beside one of them.
const MAX_BYTES: u64 = 64 << 10;

/// Holds `file`, which was opened by `path`, against the checksum beside it, where there is one.
pub(super) fn check(
    report: &mut Report,
    path: &Path,
    file: &File,
    stop: Option<&CancelToken>,
) -> Result<()> {
    let beside = checksum_path(path);
    let shown = beside.file_name().unwrap_or_default().to_string_lossy();
    let list = match open_regular(&beside) {
        Ok(list) => list,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let text = format!("{shown} cannot be read: {}", telling(&error));
            report.hold(&rules::CHECKSUM).add(text);
            return Ok(());
        }
    };
    let mut text = Vec::new();
    list.take(MAX_BYTES)
        .read_to_end(&mut text)
        .context(|| format!("reading {}", beside.display()))?;
    let text = String::from_utf8_lossy(&text);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut held = report.hold(&rules::CHECKSUM);
    let Some(wanted) = text.lines().find_map(|line| checksum_of(line, &name)) else {
        let others: Vec<&str> = text.lines().filter_map(name_of).collect();
        held.add(match others.as_slice() {
            [other] => {
                format!("{shown} is of a file called {other}, not {name}: was one of them renamed?")
            }
            _ => format!("{shown} has no checksum of a file called {name}"),
        });
        return Ok(());
    };
    let doing = || format!("reading {}", path.display());
    let len = file.metadata().context(doing)?.len();
    let digest = |len: u64| sparse::digest(file, len, None, stop).context(doing);
    let found = digest(len)?;
    if found == wanted {
        report.fact("checksum", format!("as {shown} says"));
        return Ok(());
    }
    // Disks are made larger before they boot first, by a tail that holds nothing yet.
    if let Some(made) = len_when_made(file, len)
        && digest(made)? == wanted
    {
        let added = bytes_text(len - made);
        let value = format!("as {shown} says, of what was there before {added} were added");
        report.fact("checksum", value);
        return Ok(());
    }
    let (found, wanted) = (found.hex(), wanted.hex());
    let mut held = report.hold(&rules::CHECKSUM);
    held.add(format!(
        "the file has sha256:{found}, {shown} says {wanted}"
    ));
    Ok(())
}

/// Returns the length that a disk in `file` had when its partition table was written, where it has more now.
fn len_when_made(file: &File, len: u64) -> Option<u64> {
    let disk = Region::of_file(Arc::new(file.try_clone().ok()?), len);
    let table = Table::read_first(&disk).ok()?;
    let made = table.sectors.checked_mul(SECTOR_BYTES)?;
    (made < len).then_some(made)
}

/// Returns the checksum that a line has of the file `name`.
fn checksum_of(line: &str, name: &str) -> Option<Digest> {
    let (digits, _) = line.split_once(' ')?;
    let is_of = name_of(line)? == name;
    is_of.then(|| Digest::from_hex(&digits.to_ascii_lowercase()))?
}

/// Returns the name of the file that a line is of.
fn name_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(' ')?;
    // A blank for text, an asterisk for bytes, which are the same here; AuroraBoot's lists have neither.
    let of = rest.strip_prefix([' ', '*']).unwrap_or(rest);
    Some(of.strip_prefix("./").unwrap_or(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_sha256sum_reads_it() {
        let digits = "0F".repeat(32);
        for (line, is_of) in [
            (format!("{digits}  a.iso"), true),
            (format!("{digits} *a.iso"), true),
            (format!("{digits} a.iso"), true),
            (format!("{digits}  ./a.iso"), true),
            (format!("{digits}  b.iso"), false),
            (format!("{digits}a.iso"), false),
            ("0F a.iso".to_owned(), false),
        ] {
            let found = checksum_of(&line, "a.iso");
            assert_eq!(
                found,
                Digest::from_hex(&"0f".repeat(32)).filter(|_| is_of),
                "{line}"
            );
        }
    }
}
