//! What a disc holds: directories, files and symbolic links, by path; contents come later.

use std::collections::BTreeMap;

use super::IsoError;

/// The longest name that Linux shows, in bytes.
const NAME_MAX: usize = 255;
/// The longest target of a symbolic link that Linux follows, in bytes.
const TARGET_MAX: usize = 4095;

/// A file of a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(super) usize);

/// Where the bytes of a file come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// From here: they are written together with the metadata.
    Bytes(Vec<u8>),
    /// From the caller, who writes so many of them at the file's offset.
    Later(u64),
    /// As `Later`, with a size that only [`finish`](super::Layout::finish) is told. At most one file of a disc, which
    /// becomes the last thing on it.
    Last {
        /// The most bytes it can have; room for their directory records is kept.
        at_most: u64,
    },
}

impl Content {
    /// Returns the size, or the largest one that it can have.
    pub(super) fn most_bytes(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Later(size) => *size,
            Content::Last { at_most } => *at_most,
        }
    }
}

/// The directories, files and symbolic links of a disc; all belong to user and group 0.
///
/// Paths are bytes without a null byte, relative to the top directory; a `/` in front changes nothing. Parents that are not
/// there are made, with mode 0755. Of a mode, the permission bits count.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The top directory first.
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) name: Vec<u8>,
    /// Permission bits.
    pub(super) mode: u32,
    /// How many names lead to it: of a directory one from above, one from within, and one from each directory below.
    pub(super) links: u32,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// By name, in the order of the bytes.
    Dir(BTreeMap<Vec<u8>, usize>),
    File(Content),
    /// To what a symbolic link leads.
    Link(Vec<u8>),
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// Creates a tree that holds the top directory alone, with mode 0755.
    pub fn new() -> Self {
        Self {
            nodes: vec![Node::dir(Vec::new())],
        }
    }

    /// Adds a directory, or sets the mode of one that is there.
    ///
    /// # Errors
    ///
    /// As for [`file`](Self::file); a directory may be there already.
    pub fn dir(&mut self, path: impl AsRef<[u8]>, mode: u32) -> Result<(), IsoError> {
        let path = path.as_ref();
        let mut at = 0;
        for name in components(path)? {
            at = self.descend(at, name, path)?;
        }
        self.nodes[at].mode = mode & 0o7777;
        Ok(())
    }

    /// Adds a file.
    ///
    /// # Errors
    ///
    /// [`IsoError::Path`]: a component of the path is `..`, longer than 255 bytes or the like, a parent is no directory, or
    /// something has that path already.
    pub fn file(
        &mut self,
        path: impl AsRef<[u8]>,
        mode: u32,
        content: Content,
    ) -> Result<FileId, IsoError> {
        self.add(path.as_ref(), mode, Kind::File(content))
            .map(FileId)
    }

    /// Adds a symbolic link. Slashes in a row in `target`, and those at its end, become one and none.
    ///
    /// # Errors
    ///
    /// As for [`file`](Self::file), and a target that is empty, longer than 4095 bytes or holds a null byte.
    pub fn symlink(
        &mut self,
        path: impl AsRef<[u8]>,
        target: impl AsRef<[u8]>,
    ) -> Result<(), IsoError> {
        let (path, target) = (path.as_ref(), target.as_ref());
        if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
            return Err(IsoError::path(
                path,
                "has a target that is empty, longer than 4095 bytes or holds a null byte",
            ));
        }
        self.add(path, 0o777, Kind::Link(target.to_vec()))?;
        Ok(())
    }

    /// Returns the path of a file, relative to the top directory.
    pub fn path(&self, file: FileId) -> Vec<u8> {
        let mut found = Vec::new();
        self.each_file(|path, node| {
            if node == file.0 {
                found = path.to_vec();
            }
        });
        found
    }

    pub(super) fn content(&self, node: usize) -> Option<&Content> {
        match &self.nodes.get(node)?.kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    /// Calls `act` with every file's path and node, by path, component by component.
    pub(super) fn each_file(&self, mut act: impl FnMut(&[u8], usize)) {
        let mut todo = vec![(Vec::new(), 0)];
        while let Some((path, at)) = todo.pop() {
            match &self.nodes[at].kind {
                Kind::File(_) => act(&path, at),
                Kind::Link(_) => {}
                Kind::Dir(children) => {
                    for (name, child) in children.iter().rev() {
                        let mut path = path.clone();
                        if !path.is_empty() {
                            path.push(b'/');
                        }
                        path.extend(name);
                        todo.push((path, *child));
                    }
                }
            }
        }
    }

    fn add(&mut self, path: &[u8], mode: u32, kind: Kind) -> Result<usize, IsoError> {
        let names = components(path)?;
        let Some((last, parents)) = names.split_last() else {
            return Err(IsoError::path(path, "is the top directory"));
        };
        let mut at = 0;
        for name in parents {
            at = self.descend(at, name, path)?;
        }
        let new = self.nodes.len();
        let Kind::Dir(children) = &mut self.nodes[at].kind else {
            return Err(IsoError::path(path, "has a parent that is no directory"));
        };
        if children.contains_key(*last) {
            return Err(IsoError::path(path, "is there twice"));
        }
        children.insert(last.to_vec(), new);
        self.nodes.push(Node {
            name: last.to_vec(),
            mode: mode & 0o7777,
            links: 1,
            kind,
        });
        Ok(new)
    }

    /// Returns the directory `name` below `at`, made where it is missing.
    fn descend(&mut self, at: usize, name: &[u8], path: &[u8]) -> Result<usize, IsoError> {
        let new = self.nodes.len();
        let Kind::Dir(children) = &mut self.nodes[at].kind else {
            return Err(IsoError::path(path, "has a parent that is no directory"));
        };
        let child = *children.entry(name.to_vec()).or_insert(new);
        if child == new {
            self.nodes[at].links += 1;
            self.nodes.push(Node::dir(name.to_vec()));
        }
        match self.nodes[child].kind {
            Kind::Dir(_) => Ok(child),
            _ => Err(IsoError::path(
                path,
                "is or has a parent that is no directory",
            )),
        }
    }
}

impl Node {
    fn dir(name: Vec<u8>) -> Self {
        Self {
            name,
            mode: 0o755,
            links: 2,
            kind: Kind::Dir(BTreeMap::new()),
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir(_))
    }
}

fn components(path: &[u8]) -> Result<Vec<&[u8]>, IsoError> {
    let names: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .collect();
    for name in &names {
        if [&b"."[..], b".."].contains(name) {
            return Err(IsoError::path(path, "has a component `.` or `..`"));
        }
        if name.len() > NAME_MAX {
            return Err(IsoError::path(
                path,
                "has a component of more than 255 bytes",
            ));
        }
        if name.contains(&0) {
            return Err(IsoError::path(path, "holds a null byte"));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_made_and_nothing_is_there_twice() {
        let mut tree = Tree::new();
        let kernel = tree
            .file("/boot/kernel", 0o644, Content::Later(1))
            .expect("new");
        tree.dir("boot", 0o700).expect("there");
        assert_eq!(tree.path(kernel), b"boot/kernel");
        assert_eq!(tree.nodes[1].mode, 0o700);
        for path in ["boot/kernel", "boot", "boot/kernel/x", "", "/", "a/../b"] {
            assert!(
                tree.file(path, 0o644, Content::Later(1)).is_err(),
                "{path:?}"
            );
        }
        assert!(tree.dir("boot/kernel", 0o755).is_err());
        assert!(tree.symlink("link", "").is_err());
        assert!(tree.dir("x".repeat(256), 0o755).is_err());
        assert!(tree.dir("a\0b", 0o755).is_err());
    }

    #[test]
    fn files_come_by_path() {
        let mut tree = Tree::new();
        for path in ["b", "a/z", "a/b/c", "a.b"] {
            tree.file(path, 0o644, Content::Later(0)).expect("new");
        }
        let mut seen = Vec::new();
        tree.each_file(|path, _| seen.push(String::from_utf8_lossy(path).into_owned()));
        assert_eq!(seen, ["a/b/c", "a/z", "a.b", "b"]);
    }
}
