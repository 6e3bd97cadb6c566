//! pacman: a directory a package, with a text about it and one with its files.

use super::{Depth, Installed, Package, TooMuch};
use crate::error::Result;
use crate::tree::Tree;

const LOCAL: &str = "var/lib/pacman/local";

pub(super) fn reads(path: &str, depth: Depth) -> bool {
    let Some((_, file)) = path
        .strip_prefix("var/lib/pacman/local/")
        .and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    file == "desc" || depth == Depth::Files && file == "files"
}

pub(super) fn read(tree: &Tree, depth: Depth, out: &mut Installed) -> Result<()> {
    for (dir, _) in tree.names(LOCAL).filter(|(_, node)| node.is_dir()) {
        let Some(dir) = dir.to_str() else { continue };
        let origin = format!("{LOCAL}/{dir}/desc");
        let Some(text) = tree.text(&origin)? else {
            out.unread(origin, "the text about the package is missing");
            continue;
        };
        let (Some(name), Some(version)) = (
            section(&text, "NAME").next(),
            section(&text, "VERSION").next(),
        ) else {
            out.unread(origin, "it states no name and version");
            continue;
        };
        let list = match depth {
            Depth::Files => Some(
                tree.text(format!("{LOCAL}/{dir}/files"))?
                    .unwrap_or_default(),
            ),
            Depth::Packages => None,
        };
        let package = Package {
            name: name.to_owned(),
            version: version.to_owned(),
            manager: "pacman",
            broken: None,
            origin: origin.into(),
        };
        if let Err(why) = add(package, dir, list.as_deref(), out) {
            out.unread(LOCAL, why.to_string());
            return Ok(());
        }
    }
    Ok(())
}

/// Adds a package, which has the directory `dir`, and, where files are asked for, those of its `list`.
fn add(
    package: Package,
    dir: &str,
    list: Option<&str>,
    out: &mut Installed,
) -> std::result::Result<(), TooMuch> {
    if let Some(list) = list {
        out.own(format!("/{LOCAL}/{dir}"), &package.name)?;
        for path in section(list, "FILES") {
            out.own(format!("/{}", path.trim_end_matches('/')), &package.name)?;
        }
    }
    out.add(package)
}

/// Returns the lines below the heading `%name%`.
fn section<'t>(text: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    let heading = format!("%{name}%");
    text.lines()
        .skip_while(move |line| *line != heading)
        .skip(1)
        .take_while(|line| !line.is_empty())
}
