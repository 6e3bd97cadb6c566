//! Finds extension files: in directories of this machine, and in the base image.

use std::path::{Path, PathBuf};

use kfactory_layers::input::open_regular;
use kfactory_layers::metadata::FileKind;
use kfactory_layers::root::Root;

use super::yaml::MAX_BYTES;
use crate::error::{Context as _, Error, Result};
use crate::given;

/// Where a base image carries its own extensions.
pub const DIRECTORY_IN_IMAGE: &str = "/etc/kairos-init/stage-extensions";

/// More directories inside one another than this are a mistake.
const MAX_DEPTH: usize = 32;

/// A file of extensions, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceText {
    /// The file, as the user would name it.
    pub file: String,
    /// What it holds.
    pub text: String,
}

/// Returns whether a file of this name is read: `.yaml` or `.yml`, in lower case.
pub fn is_extension_file(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// Reads every extension file below `dir`, in lexical order per level; linked directories are not entered.
///
/// # Errors
///
/// It is no directory, or something in it cannot be read.
pub fn read_dir(dir: &Path) -> Result<Vec<SourceText>> {
    let shown = dir.display();
    let doing = || format!("cannot read the stage extensions in `{shown}`");
    given::exists(dir).context(doing)?;
    let metadata = std::fs::metadata(dir).context(doing)?;
    if !metadata.is_dir() {
        return Err(
            Error::usage(format!("`{shown}` is no directory of stage extensions"))
                .hint("name the directory that holds the .yaml files"),
        );
    }
    let mut files: Vec<PathBuf> = Vec::new();
    let walk = walkdir::WalkDir::new(dir)
        .max_depth(MAX_DEPTH)
        .sort_by_file_name();
    for entry in walk {
        let entry = entry.map_err(|error| Error::from_source(&error))?;
        let is_wanted = entry.file_name().to_str().is_some_and(is_extension_file);
        // A link may lead to a file; one that leads to a directory is passed over.
        if is_wanted && !entry.file_type().is_dir() && !entry.path().is_dir() {
            files.push(entry.into_path());
        }
    }
    files.iter().map(|path| read_file(path)).collect()
}

fn read_file(path: &Path) -> Result<SourceText> {
    use std::io::Read as _;
    let doing = || format!("cannot read the stage extension `{}`", path.display());
    let mut bytes = Vec::new();
    open_regular(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .context(doing)?;
    text(path.display().to_string(), bytes)
}

fn text(file: String, bytes: Vec<u8>) -> Result<SourceText> {
    let doing = || format!("cannot read the stage extension `{file}`");
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::user(format!("it has more than {MAX_BYTES} bytes")).context(doing()));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(SourceText { file, text }),
        Err(_) => Err(Error::usage("it is not UTF-8 text").context(doing())),
    }
}

/// Reads the extension files that the tree at `root` carries; none where it has no such directory.
///
/// # Errors
///
/// Something in it cannot be read.
pub fn read_root(root: &Root) -> Result<Vec<SourceText>> {
    let mut out = Vec::new();
    let is_dir = root
        .metadata_opt(DIRECTORY_IN_IMAGE)?
        .is_some_and(|found| found.is_dir());
    if is_dir {
        walk_root(root, Path::new(DIRECTORY_IN_IMAGE), 0, &mut out)?;
    }
    Ok(out)
}

fn walk_root(root: &Root, dir: &Path, depth: usize, out: &mut Vec<SourceText>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    for entry in root.read_dir(dir)? {
        let path = dir.join(&entry.name);
        let is_wanted = entry.name.to_str().is_some_and(is_extension_file);
        if entry.kind == FileKind::Directory {
            walk_root(root, &path, depth + 1, out)?;
        } else if is_wanted
            && root
                .metadata_opt(&path)?
                .is_none_or(|found| !found.is_dir())
        {
            let bytes = root.read_at_most(&path, MAX_BYTES)?.ok_or_else(|| {
                Error::user(format!(
                    "the base's stage extension {} is a link to nothing",
                    path.display()
                ))
            })?;
            out.push(text(in_base(&path), bytes)?);
        }
    }
    Ok(())
}

/// Names a file of the base.
pub fn in_base(path: &Path) -> String {
    format!("base:{}", path.display())
}
