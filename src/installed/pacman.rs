//! pacman: a directory a package, with a text about it and one with its files.

use super::{Depth, Installed, Package};
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
        if depth == Depth::Files {
            out.owners
                .insert(format!("/{LOCAL}/{dir}"), name.to_owned());
            let list = tree.text(format!("{LOCAL}/{dir}/files"))?;
            for path in section(&list.unwrap_or_default(), "FILES") {
                out.owners
                    .insert(format!("/{}", path.trim_end_matches('/')), name.to_owned());
            }
        }
        out.packages.push(Package {
            name: name.to_owned(),
            version: version.to_owned(),
            manager: "pacman",
            broken: None,
            origin: origin.into(),
        });
    }
    Ok(())
}

/// Returns the lines below the heading `%name%`.
fn section<'t>(text: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    let heading = format!("%{name}%");
    text.lines()
        .skip_while(move |line| *line != heading)
        .skip(1)
        .take_while(|line| !line.is_empty())
}
