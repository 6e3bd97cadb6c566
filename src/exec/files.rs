//! File actions: directories, files, links, removals, and the Kairos binaries.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Cursor, Read, Seek};
use std::path::Path;
use std::sync::Arc;

use kfactory_layers::root::Root;

use super::{Environment, Target};
use crate::error::{Context as _, Error, Result};
use crate::framework::Component;
use crate::kairos::dotenv;
use crate::progress::Reporter;

/// The mode of parent directories that an action has to make.
const PARENT_MODE: u32 = 0o755;
/// Files are compared in pieces of this size, in bytes.
const COMPARE_BYTES: usize = 64 * 1024;
const RELEASE_FILE: &str = "/etc/kairos-release";

pub(super) fn directory(root: &Root, path: &str, mode: u32) -> Result<()> {
    if root.exists(path)? {
        return Ok(());
    }
    make_parents(root, path)?;
    root.create_dir_all(path, mode)?;
    Ok(())
}

pub(super) fn file(root: &Root, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    ensure(root, path, mode, Cursor::new(content))
}

/// Makes `path` a file of root's with this content, streamed from `content`.
///
/// One that is like that already is left alone: written again it would differ in its time only, and in an image that is
/// converted a second time that alone would put the whole file into the new layer.
pub(super) fn ensure(
    root: &Root,
    path: &str,
    mode: u32,
    mut content: impl Read + Seek,
) -> Result<()> {
    if is_in_place(root, path, mode, &mut content)? {
        return Ok(());
    }
    content.rewind().context(|| format!("writing {path}"))?;
    make_parents(root, path)?;
    root.copy_in(content, path, mode, 0, 0)?;
    Ok(())
}

fn is_in_place(root: &Root, path: &str, mode: u32, content: impl Read) -> Result<bool> {
    let Some(found) = root.symlink_metadata_opt(path)? else {
        return Ok(false);
    };
    let alike = found.is_file()
        && (found.mode & 0o7777, found.uid, found.gid) == (mode, 0, 0)
        && root.xattrs(path)?.is_empty();
    if !alike {
        return Ok(false);
    }
    match root.open_file_opt(path)? {
        Some(present) => same_content(present, content)
            .context(|| format!("comparing {path} with what it is to be")),
        None => Ok(false),
    }
}

/// Returns whether two streams hold the same bytes.
fn same_content(a: impl Read, b: impl Read) -> io::Result<bool> {
    let mut a = BufReader::with_capacity(COMPARE_BYTES, a);
    let mut b = BufReader::with_capacity(COMPARE_BYTES, b);
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let count = left.len().min(right.len());
        if count == 0 {
            return Ok(left.len() == right.len());
        }
        if left[..count] != right[..count] {
            return Ok(false);
        }
        a.consume(count);
        b.consume(count);
    }
}

pub(super) fn link(
    root: &Root,
    path: &str,
    target: &str,
    if_exists: Option<&str>,
    unless_exists: Option<&str>,
) -> Result<()> {
    let wanted = match if_exists {
        Some(path) => root.exists(path)?,
        None => true,
    };
    let blocked = match unless_exists {
        // A dangling link is there too: replacing it is not this action's business.
        Some(path) => root.symlink_metadata_opt(path)?.is_some(),
        None => false,
    };
    if wanted && !blocked {
        make_parents(root, path)?;
        root.symlink(target, path)?;
    }
    Ok(())
}

/// Refuses a tree without `path`.
pub(super) fn require(root: &Root, path: &str, remedy: &str) -> Result<()> {
    if root.exists(path)? {
        return Ok(());
    }
    Err(Error::user(format!("the image has no {path}")).hint(remedy))
}

/// Removes what matches each pattern; `*` is understood in the last component. What is mounted in the tree is left alone.
pub(super) fn remove_all(target: &Target<'_>, patterns: &[String]) -> Result<()> {
    let root = &target.root;
    for pattern in patterns {
        let path = Path::new(pattern);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
        else {
            return Err(Error::internal(format!(
                "pattern {pattern:?} has no parent"
            )));
        };
        if !name.contains('*') {
            if !target.is_mounted(path) {
                root.remove_all(path)?;
            }
            continue;
        }
        if !root.exists(parent)? {
            continue;
        }
        for entry in root.read_dir(parent)? {
            if entry
                .name
                .to_str()
                .is_some_and(|candidate| matches(name, candidate))
                && !target.is_mounted(&parent.join(&entry.name))
            {
                root.remove_all(parent.join(&entry.name))?;
            }
        }
    }
    Ok(())
}

/// Returns whether `name` matches `pattern`, in which `*` stands for any run of characters.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len())
                .filter(|i| tail.is_char_boundary(*i))
                .any(|i| matches(rest, &tail[i..]))
        }),
    }
}

/// Moves `from` over `to`, if it is there.
pub(super) fn rename(root: &Root, from: &str, to: &str) -> Result<()> {
    if root.symlink_metadata_opt(from)?.is_some() {
        root.rename(from, to)?;
    }
    Ok(())
}

pub(super) fn truncate(root: &Root, path: &str) -> Result<()> {
    // Rewriting an empty file would only change its time.
    match root.metadata_opt(path)? {
        Some(metadata) if metadata.size > 0 => root.truncate(path, 0).map_err(Error::from),
        _ => Ok(()),
    }
}

pub(super) fn permissions(
    root: &Root,
    path: &str,
    mode: u32,
    reporter: &Arc<Reporter>,
) -> Result<()> {
    let Some(metadata) = root.metadata_opt(path)? else {
        reporter.warn(&format!("{path} is missing: its permissions were not set"));
        return Ok(());
    };
    // chown clears setuid, so the owner comes first.
    if (metadata.uid, metadata.gid) != (0, 0) {
        root.set_owner(path, 0, 0)?;
    }
    if metadata.mode & 0o7777 != mode || (metadata.uid, metadata.gid) != (0, 0) {
        root.set_mode(path, mode)?;
    }
    Ok(())
}

pub(super) fn release(root: &Root, entries: &BTreeMap<String, String>) -> Result<()> {
    let existing = root.read_to_string_opt(RELEASE_FILE)?.unwrap_or_default();
    let mut keys =
        dotenv::parse(&existing).context(|| format!("reading {RELEASE_FILE} of the base"))?;
    keys.extend(entries.clone());
    file(root, RELEASE_FILE, 0o644, dotenv::render(&keys).as_bytes())
}

pub(super) fn framework(
    env: &Environment<'_>,
    root: &Root,
    name: &str,
    path: &str,
    required: bool,
    unless_exists: &[String],
) -> Result<()> {
    for present in unless_exists {
        if root.exists(present)? {
            return Ok(());
        }
    }
    let framework = (env.framework)()?;
    let Some(binary) = framework.files.iter().find(|file| file.component == name) else {
        let text = format!("the framework `{}` holds no {name}", env.request.framework);
        if required {
            return Err(Error::user(text));
        }
        let loss = Component::find(name).map_or("", |component| component.loss);
        env.reporter.warn(&format!("{text}: without it {loss}"));
        return Ok(());
    };
    let content = std::fs::File::open(&binary.source)
        .context(|| format!("opening {}", binary.source.display()))?;
    ensure(root, path, 0o755, content)
}

pub(super) fn make_parents(root: &Root, path: &str) -> Result<()> {
    match Path::new(path).parent() {
        Some(parent) if parent != Path::new("/") && !root.exists(parent)? => {
            Ok(root.create_dir_all(parent, PARENT_MODE)?)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_that_is_right_is_left_alone_and_any_other_is_replaced() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        if !rustix::process::geteuid().is_root() {
            let why = "skipped: only root can give files to root";
            return writeln!(io::stderr(), "{why}").unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let at = dir.path().join("f");
        let inode = || std::fs::symlink_metadata(&at).unwrap().ino();
        let ensure = || file(&root, "/f", 0o644, b"right").unwrap();
        ensure();
        let first = inode();
        ensure();
        assert_eq!(inode(), first);
        type Spoil = fn(&Path);
        let spoil: [Spoil; 5] = [
            |at| std::fs::write(at, "wrong").unwrap(),
            |at| std::fs::write(at, "right, but longer").unwrap(),
            |at| std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o600)).unwrap(),
            |at| std::os::unix::fs::chown(at, Some(1), None).unwrap(),
            |at| {
                std::fs::rename(at, at.with_extension("target")).unwrap();
                std::os::unix::fs::symlink("f.target", at).unwrap();
            },
        ];
        for (number, spoil) in spoil.into_iter().enumerate() {
            spoil(&at);
            ensure();
            let found = std::fs::symlink_metadata(&at).unwrap();
            assert!(found.is_file(), "{number}");
            assert_eq!((found.mode() & 0o7777, found.uid()), (0o644, 0), "{number}");
            assert_eq!(std::fs::read(&at).unwrap(), b"right", "{number}");
        }
    }

    #[test]
    fn a_star_matches_any_run_of_characters() {
        assert!(matches("ssh_host_*_key*", "ssh_host_rsa_key.pub"));
        assert!(matches("*", "anything"));
        assert!(!matches("initrd*", "vmlinuz"));
        assert!(!matches("a*b", "ac"));
    }
}
