//! File actions: directories, files, links, removals, and the Kairos binaries.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kfactory_layers::root::Root;

use super::Environment;
use crate::error::{Context as _, Error, Result};
use crate::kairos::dotenv;
use crate::progress::Reporter;

/// The mode of parent directories that an action has to make.
const PARENT_MODE: u32 = 0o755;
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
    make_parents(root, path)?;
    root.write(path, content, mode, 0, 0)?;
    Ok(())
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

/// Removes what matches each pattern; `*` is understood in the last component.
pub(super) fn remove_all(root: &Root, patterns: &[String]) -> Result<()> {
    for pattern in patterns {
        let path = Path::new(pattern);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
        else {
            return Err(Error::internal(format!(
                "pattern {pattern:?} has no parent"
            )));
        };
        if !name.contains('*') {
            root.remove_all(path)?;
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
        env.reporter.warn(&format!(
            "{text}: the image boots, but cannot do what it is for"
        ));
        return Ok(());
    };
    let content = std::fs::File::open(&binary.source)
        .context(|| format!("opening {}", binary.source.display()))?;
    make_parents(root, path)?;
    root.copy_in(content, path, 0o755, 0, 0)?;
    Ok(())
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
    use super::*;

    #[test]
    fn a_star_matches_any_run_of_characters() {
        assert!(matches("ssh_host_*_key*", "ssh_host_rsa_key.pub"));
        assert!(matches("*", "anything"));
        assert!(!matches("initrd*", "vmlinuz"));
        assert!(!matches("a*b", "ac"));
    }
}
