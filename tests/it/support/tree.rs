//! An unpacked root filesystem: what is where, and how to look at it without leaving it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use super::user::is_root;

/// An unpacked root filesystem.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) dir: PathBuf,
}

/// Everything that two unpackers must agree on, as one line.
pub(crate) type Listing = BTreeMap<PathBuf, String>;

impl Tree {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Reads a file, links followed inside the tree.
    #[track_caller]
    pub(crate) fn read(&self, path: &str) -> String {
        let place = self
            .resolve(path)
            .unwrap_or_else(|| panic!("{path} is missing"));
        let bytes = fs::read(&place).unwrap_or_else(|error| panic!("{path}: {error}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Tells whether something is at `path`, links followed inside the tree.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.resolve(path).is_some()
    }

    /// Returns where `path` leads on this machine, links followed inside the tree; `None` where it leads nowhere.
    pub(crate) fn resolve(&self, path: &str) -> Option<PathBuf> {
        let mut todo: Vec<PathBuf> = vec![PathBuf::from(path)];
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(next) = todo.pop() {
            let mut parts = next.components();
            let Some(part) = parts.next() else { continue };
            let rest = parts.as_path().to_owned();
            todo.push(rest);
            match part {
                Component::RootDir => at = PathBuf::new(),
                Component::ParentDir => drop(at.pop()),
                Component::Normal(name) => {
                    at.push(name);
                    let place = self.dir.join(&at);
                    if place.symlink_metadata().ok()?.is_symlink() {
                        links += 1;
                        if links > 40 {
                            return None;
                        }
                        at.pop();
                        todo.push(fs::read_link(&place).ok()?);
                    }
                }
                _ => {}
            }
        }
        Some(self.dir.join(at))
    }

    /// Returns the metadata of `path` itself.
    #[track_caller]
    pub(crate) fn metadata(&self, path: &str) -> fs::Metadata {
        self.dir
            .join(path)
            .symlink_metadata()
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Returns the names in a directory; none where it is missing.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.dir.join(path))
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Returns every path in the tree, relative, with its metadata; what a plain user may not look into is left out.
    pub(crate) fn walk(&self) -> Vec<(PathBuf, fs::Metadata)> {
        let mut out = Vec::new();
        for entry in walkdir::WalkDir::new(&self.dir)
            .min_depth(1)
            .sort_by_file_name()
        {
            let found = entry.and_then(|entry| Ok((entry.path().to_owned(), entry.metadata()?)));
            match found {
                Ok((path, metadata)) => out.push((
                    path.strip_prefix(&self.dir).expect("below").to_owned(),
                    metadata,
                )),
                Err(error) => assert!(!is_root(), "the tree can be read: {error}"),
            }
        }
        out
    }

    /// Returns every symbolic link below `dir`, relative to the root, with its target.
    pub(crate) fn walk_links(&self, dir: &str) -> Vec<(String, String)> {
        let links = self
            .walk()
            .into_iter()
            .filter(|(path, metadata)| metadata.is_symlink() && path.starts_with(dir));
        let text = |path: &Path| path.to_string_lossy().into_owned();
        links
            .map(|(path, _)| {
                (
                    text(&path),
                    text(&fs::read_link(self.dir.join(&path)).expect("a link")),
                )
            })
            .collect()
    }

    /// Lists the tree: kind, mode, owner, size, time, content, attributes, and which names are one file.
    pub(crate) fn listing(&self) -> Listing {
        let mut first_names: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
        let mut out = Listing::new();
        for (path, metadata) in self.walk() {
            let place = self.dir.join(&path);
            let first = match metadata.nlink() > 1 && !metadata.is_dir() {
                true => first_names
                    .entry((metadata.dev(), metadata.ino()))
                    .or_insert_with(|| path.clone())
                    .clone(),
                false => path.clone(),
            };
            let mut line = format!(
                "{:o} {}:{} {}",
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.mtime()
            );
            if first != path {
                line.push_str(&format!(" = {}", first.display()));
            }
            line.push_str(&content_of(&place, &metadata));
            for (name, value) in attributes(&place) {
                line.push_str(&format!(" {name}={value}"));
            }
            out.insert(path, line);
        }
        out
    }
}

/// Returns what [`Tree::listing`] says of the content of `place`.
pub(crate) fn content_of(place: &Path, metadata: &fs::Metadata) -> String {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        format!(" -> {}", fs::read_link(place).expect("a link").display())
    } else if kind.is_file() {
        let mut hasher = kfactory_layers::digest::Hasher::new();
        let mut file = fs::File::open(place).expect("readable");
        let mut buffer = vec![0; 1 << 18];
        while let Ok(count @ 1..) = std::io::Read::read(&mut file, &mut buffer) {
            hasher.update(&buffer[..count]);
        }
        format!(" {} {}", metadata.len(), hasher.finish())
    } else if kind.is_char_device() || kind.is_block_device() {
        format!(" device {:x}", metadata.rdev())
    } else {
        String::new()
    }
}

/// Returns the extended attributes of `place` itself, sorted.
fn attributes(place: &Path) -> Vec<(String, String)> {
    let mut names = vec![0; 4096];
    let count = rustix::fs::llistxattr(place, &mut names).unwrap_or(0);
    let mut out: Vec<(String, String)> = names[..count]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = String::from_utf8_lossy(name).into_owned();
            let mut value = vec![0; 4096];
            let count = rustix::fs::lgetxattr(place, name.as_str(), &mut value).unwrap_or(0);
            let hex = value[..count]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            (name, hex)
        })
        .collect();
    out.sort();
    out
}

/// Says where two listings differ, at most `limit` lines.
pub(crate) fn differences(left: &Listing, right: &Listing, limit: usize) -> Vec<String> {
    let mut out = Vec::new();
    let paths: std::collections::BTreeSet<&PathBuf> = left.keys().chain(right.keys()).collect();
    for path in paths {
        let (one, other) = (left.get(path), right.get(path));
        if one != other && out.len() < limit {
            let show = |line: Option<&String>| line.map_or("(missing)", String::as_str).to_owned();
            out.push(format!("{path:?}: {} | {}", show(one), show(other)));
        }
    }
    out
}
