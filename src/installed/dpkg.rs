//! dpkg: one text with a paragraph a package, and a list of files for each.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Depth, Installed, Package, TooMuch};
use crate::error::Result;
use crate::tree::Tree;

const STATUS: &str = "var/lib/dpkg/status";
const INFO: &str = "var/lib/dpkg/info";

pub(super) fn reads(path: &str, depth: Depth) -> bool {
    let is_list = || path.starts_with("var/lib/dpkg/info/") && path.ends_with(".list");
    path == STATUS || depth == Depth::Files && is_list()
}

/// Spec: deb822(5), dpkg-query(1) for the words of `Status`.
pub(super) fn read(tree: &Tree, depth: Depth, out: &mut Installed) -> Result<()> {
    let Some(text) = tree.text(STATUS)? else {
        return Ok(());
    };
    // Packages that may be installed for several architectures have theirs in the name of the list.
    let lists: BTreeMap<&str, PathBuf> = tree
        .names(INFO)
        .filter_map(|(file, _)| file.to_str()?.strip_suffix(".list"))
        .map(|name| {
            let package = name.split(':').next().unwrap_or(name);
            (package, PathBuf::from(format!("{INFO}/{name}.list")))
        })
        .collect();
    for entry in text.split("\n\n") {
        let package = package(entry).map(|package| Package {
            origin: lists
                .get(package.name.as_str())
                .cloned()
                .unwrap_or(package.origin),
            ..package
        });
        if let Some(Err(why)) = package.map(|package| out.add(package)) {
            out.unread(STATUS, why.to_string());
            return Ok(());
        }
    }
    if depth == Depth::Files {
        for (file, _) in tree.names(INFO) {
            let Some(file) = file.to_str() else { continue };
            let text = match file.ends_with(".list") {
                true => tree.text(format!("{INFO}/{file}"))?.unwrap_or_default(),
                false => String::new(),
            };
            if let Err(why) = files(file, &text, out) {
                out.unread(INFO, why.to_string());
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Notes whose the file `file` of [`INFO`] is, and the paths of its `text`.
fn files(file: &str, text: &str, out: &mut Installed) -> std::result::Result<(), TooMuch> {
    let Some((name, _)) = file.rsplit_once('.') else {
        return Ok(());
    };
    let package = name.split(':').next().unwrap_or(name);
    out.own(format!("/{INFO}/{file}"), package)?;
    text.lines()
        .try_for_each(|path| out.own(path.to_owned(), package))
}

/// Returns the package of a paragraph; `None` where it is not installed.
fn package(entry: &str) -> Option<Package> {
    let field = |name: &str| {
        entry.lines().find_map(|line| {
            line.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(": "))
        })
    };
    let mut words = field("Status")?.split(' ');
    let (_, error, state) = (words.next()?, words.next()?, words.next()?);
    let broken = match (error, state) {
        (_, "not-installed" | "config-files") => return None,
        ("ok", "installed") => None,
        ("ok", state) => Some(state.to_owned()),
        (error, _) => Some(error.to_owned()),
    };
    Some(Package {
        name: field("Package")?.to_owned(),
        version: field("Version")?.to_owned(),
        manager: "dpkg",
        broken,
        origin: STATUS.into(),
    })
}
