//! apk: one text with a paragraph a package, its files in it.

use super::{Depth, Installed, Package, TooMuch};
use crate::error::Result;
use crate::tree::Tree;

/// The second where `/usr` is merged.
const DATABASES: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];

pub(super) fn reads(path: &str) -> bool {
    DATABASES.contains(&path)
}

/// Spec: Alpine wiki, "Apk spec": `P:` name, `V:` version, `F:` directory, `R:` file in it, `f:` what is broken.
pub(super) fn read(tree: &Tree, depth: Depth, out: &mut Installed) -> Result<()> {
    // One may be a link to the other.
    let Some(database) = DATABASES.into_iter().find(|path| tree.has(path)) else {
        return Ok(());
    };
    let text = tree.text(database)?.unwrap_or_default();
    if let Err(why) = text
        .split("\n\n")
        .try_for_each(|entry| package(entry, database, depth, out))
    {
        out.unread(database, why.to_string());
    }
    Ok(())
}

fn package(
    entry: &str,
    origin: &str,
    depth: Depth,
    out: &mut Installed,
) -> std::result::Result<(), TooMuch> {
    let field = |key: &str| {
        entry
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
    };
    let (Some(name), Some(version)) = (field("P"), field("V")) else {
        return Ok(());
    };
    out.add(Package {
        name: name.to_owned(),
        version: version.to_owned(),
        manager: "apk",
        broken: field("f").and_then(broken),
        origin: origin.into(),
    })?;
    if depth == Depth::Packages {
        return Ok(());
    }
    let mut dir = "";
    for line in entry.lines() {
        match line.split_once(':') {
            Some(("F", value)) => dir = value,
            Some(("R", value)) => {
                let path = match dir {
                    "" => format!("/{value}"),
                    dir => format!("/{dir}/{value}"),
                };
                out.own(path, name)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Other letters of the field say how attributes are kept.
fn broken(flags: &str) -> Option<String> {
    let what = match flags {
        _ if flags.contains('f') => "files are missing",
        _ if flags.contains('s') => "a script failed",
        _ if flags.contains('x') => "attributes are missing",
        _ => return None,
    };
    Some(what.to_owned())
}
