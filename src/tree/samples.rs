//! Trees made in memory, for tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kfactory_layers::digest::Digest;

use super::{Content, FileNode, Kind, Node, Source, Tree};

/// A tree under construction; missing parents become directories.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    top: Node,
    next_id: u64,
}

impl Sample {
    pub(crate) fn new() -> Self {
        Self {
            top: Node::directory(0),
            next_id: 1,
        }
    }

    pub(crate) fn tree(self) -> Tree {
        Tree {
            top: self.top,
            source: Source::Memory,
        }
    }

    fn put(mut self, path: &str, mode: u32, kind: Kind) -> Self {
        let mut node = &mut self.top;
        let path = Path::new(path.trim_start_matches('/'));
        for part in path.parent().into_iter().flat_map(Path::components) {
            let Kind::Directory(names) = &mut node.kind else {
                panic!("{path:?} goes through something that is no directory");
            };
            node = names
                .entry(part.as_os_str().to_owned())
                .or_insert_with(|| Node::directory(0));
        }
        let Kind::Directory(names) = &mut node.kind else {
            panic!("{path:?} is below something that is no directory");
        };
        let made = Node {
            kind,
            mode,
            ..Node::directory(0)
        };
        names.insert(path.file_name().expect("a name").to_owned(), made);
        self
    }

    pub(crate) fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.next_id += 1;
        let file = FileNode {
            size: content.len() as u64,
            id: self.next_id,
            digest: Some(Digest::of(content)),
            content: Content::Bytes(Arc::from(content)),
        };
        self.put(path, mode, Kind::File(file))
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.put(path, 0o777, Kind::Symlink(PathBuf::from(target)))
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        self.put(path, mode, Kind::Directory(super::Names::new()))
    }

    /// Says which layer everything that stands at `path` comes from, links not followed.
    pub(crate) fn layer(self, path: &str, layer: usize) -> Self {
        self.edit(path, |node| node.layer = layer)
    }

    /// Changes what stands at `path`, links not followed.
    pub(crate) fn edit(mut self, path: &str, change: impl FnOnce(&mut Node)) -> Self {
        change(
            self.at(path)
                .unwrap_or_else(|| panic!("there is no {path}")),
        );
        self
    }

    /// Removes what stands at `path`, links not followed.
    pub(crate) fn without(mut self, path: &str) -> Self {
        let path = Path::new(path.trim_start_matches('/'));
        let parent = path.parent().and_then(Path::to_str).unwrap_or("");
        let node = self.at(parent).expect("the parent is there");
        let Kind::Directory(names) = &mut node.kind else {
            panic!("{parent} is no directory");
        };
        let gone = names.remove(path.file_name().expect("a name"));
        assert!(gone.is_some(), "there is no {path:?}");
        self
    }

    /// Returns the text at `path`.
    pub(crate) fn text(&mut self, path: &str) -> String {
        let node = self.at(path).expect("it is there");
        match &node.kind {
            Kind::File(FileNode {
                content: Content::Bytes(bytes),
                ..
            }) => String::from_utf8(bytes.to_vec()).expect("text"),
            _ => panic!("{path} is no file"),
        }
    }

    fn at(&mut self, path: &str) -> Option<&mut Node> {
        let mut node = &mut self.top;
        for part in Path::new(path.trim_start_matches('/')).components() {
            let Kind::Directory(names) = &mut node.kind else {
                return None;
            };
            node = names.get_mut(part.as_os_str())?;
        }
        Some(node)
    }
}
