//! Directories and files as yip makes them: modes of missing parents, owners by name, links followed.

use std::path::{Component, Path, PathBuf};

use kfactory_layers::root::Root;

use super::accounts;
use crate::error::{Error, Result};
use crate::step::Owner;

/// What nobody but the owner may get of a directory that is made: container builds have this umask, and nothing in the
/// dialect changes a mode after the fact.
const UMASK: u32 = 0o022;
/// Most links followed to where a file is written.
const MAX_LINKS: usize = 40;

/// Makes a directory, or gives mode and owner to the one that is there.
pub(super) fn directory(root: &Root, path: &str, mode: u32, owner: &Owner) -> Result<()> {
    match root.metadata_opt(path)? {
        Some(found) if found.is_dir() => {
            let (uid, gid) = numbers(root, owner, (found.uid, found.gid))?;
            let real = real_path(root, path)?;
            if (uid, gid) != (found.uid, found.gid) {
                root.set_owner(&real, uid, gid)?;
            }
            root.set_mode(&real, mode)?;
            Ok(())
        }
        Some(_) => Err(Error::user(format!("{path} is there and is no directory"))),
        None => {
            let ids = numbers(root, owner, (0, 0))?;
            missing_directories(root, Path::new(path), mode, ids)
        }
    }
}

/// Makes `path` and every missing directory above it, all with this owner, and this mode within [`UMASK`].
pub(super) fn missing_directories(
    root: &Root,
    path: &Path,
    mode: u32,
    (uid, gid): (u32, u32),
) -> Result<()> {
    let mut missing: Vec<&Path> = Vec::new();
    for ancestor in path.ancestors() {
        if ancestor.as_os_str().is_empty() || ancestor == Path::new("/") || root.exists(ancestor)? {
            break;
        }
        missing.push(ancestor);
    }
    for dir in missing.into_iter().rev() {
        root.create_dir_all(dir, mode & !UMASK)?;
        if (uid, gid) != (0, 0) {
            root.set_owner(dir, uid, gid)?;
        }
    }
    Ok(())
}

/// The mode of directories that a file of `mode` makes: its owner can enter them.
pub(super) fn parent_mode(mode: u32) -> u32 {
    if mode < 0o700 { mode + 0o100 } else { mode }
}

/// A file to write.
#[derive(Debug)]
pub(super) struct NewFile<'a> {
    pub(super) path: &'a str,
    pub(super) mode: u32,
    pub(super) owner: &'a Owner,
    pub(super) parents: &'a Owner,
}

/// Writes a file; what is there is replaced, behind a link where there is one.
pub(super) fn file(root: &Root, file: &NewFile<'_>, content: &[u8]) -> Result<()> {
    prepare_parents(root, file)?;
    let (path, (uid, gid)) = destination(root, file)?;
    root.write(path, content, file.mode, uid, gid)?;
    Ok(())
}

/// As [`file`], from a file of this machine.
pub(super) fn copy(root: &Root, file: &NewFile<'_>, content: std::fs::File) -> Result<()> {
    prepare_parents(root, file)?;
    let (path, (uid, gid)) = destination(root, file)?;
    root.copy_in(content, path, file.mode, uid, gid)?;
    Ok(())
}

fn prepare_parents(root: &Root, file: &NewFile<'_>) -> Result<()> {
    match Path::new(file.path).parent() {
        Some(parent) => {
            let ids = numbers(root, file.parents, (0, 0))?;
            missing_directories(root, parent, parent_mode(file.mode), ids)
        }
        None => Ok(()),
    }
}

fn destination(root: &Root, file: &NewFile<'_>) -> Result<(PathBuf, (u32, u32))> {
    let path = real_path(root, file.path)?;
    let before = root.metadata_opt(&path)?;
    if before.as_ref().is_some_and(|found| found.is_dir()) {
        return Err(Error::user(format!("{} is a directory", file.path)));
    }
    let kept = before.map_or((0, 0), |found| (found.uid, found.gid));
    Ok((path, numbers(root, file.owner, kept)?))
}

/// Follows links in last place, also to what does not exist yet.
pub(super) fn real_path(root: &Root, path: &str) -> Result<PathBuf> {
    let mut at = PathBuf::from(path);
    for _ in 0..MAX_LINKS {
        let Some(target) = root.read_link_opt(&at)? else {
            return Ok(at);
        };
        at = match target.is_absolute() {
            true => target,
            false => at.parent().unwrap_or(Path::new("/")).join(target),
        };
    }
    Err(Error::user(format!(
        "{path} leads through more than {MAX_LINKS} links"
    )))
}

/// Returns user and group as numbers; names are looked up in the tree, never on this machine.
pub(super) fn numbers(root: &Root, owner: &Owner, kept: (u32, u32)) -> Result<(u32, u32)> {
    match owner {
        Owner::Ids { uid, gid } => Ok((uid.unwrap_or(kept.0), gid.unwrap_or(kept.1))),
        Owner::Name(name) => {
            let (user, group) = name
                .split_once(':')
                .map_or((name.as_str(), None), |(user, group)| (user, Some(group)));
            let unknown = |what: &str, name: &str| {
                Error::user(format!("the image has no {what} `{name}`"))
                    .hint("make it in an earlier step: `files` come before `users` in the same one")
            };
            let found = accounts::user(root, user)?.ok_or_else(|| unknown("user", user))?;
            let gid = match group.filter(|group| !group.is_empty()) {
                Some(group) => {
                    accounts::group_id(root, group)?.ok_or_else(|| unknown("group", group))?
                }
                None => found.gid,
            };
            Ok((found.uid, gid))
        }
    }
}

/// Returns whether a path names no place in a tree: nothing, the root itself, or something that climbs out of it.
pub(super) fn is_unusable(path: &str) -> bool {
    !Path::new(path)
        .components()
        .any(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn mode(dir: &tempfile::TempDir, path: &str) -> u32 {
        std::fs::metadata(dir.path().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    }

    fn write(root: &Root, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let new = NewFile {
            path,
            mode,
            owner: &Owner::ROOT,
            parents: &Owner::ROOT,
        };
        file(root, &new, content)
    }

    #[test]
    fn row_09_and_10_parents_get_the_files_mode_and_the_right_to_enter() {
        let (dir, root) = root();
        write(&root, "/testarea/dir/subdir/foo", 0o640, b"x").unwrap();
        assert_eq!(mode(&dir, "testarea/dir/subdir/foo"), 0o640);
        for parent in ["testarea", "testarea/dir", "testarea/dir/subdir"] {
            assert_eq!(mode(&dir, parent), 0o740, "{parent}");
        }
        write(&root, "/none", 0, b"").unwrap();
        assert_eq!(mode(&dir, "none"), 0);
        assert_eq!(parent_mode(0), 0o100);
        assert_eq!(parent_mode(0o755), 0o755);
    }

    #[test]
    fn row_16_17_and_18_directories_are_made_or_changed() {
        let (dir, root) = root();
        std::fs::create_dir_all(dir.path().join("tmp/dir")).unwrap();
        std::fs::set_permissions(
            dir.path().join("tmp"),
            std::fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        directory(&root, "/tmp/dir", 0o740, &Owner::ROOT).unwrap();
        assert_eq!(mode(&dir, "tmp/dir"), 0o740);
        directory(&root, "/tmp/a/b/c", 0o740, &Owner::ROOT).unwrap();
        assert_eq!(mode(&dir, "tmp"), 0o755);
        for made in ["tmp/a", "tmp/a/b", "tmp/a/b/c"] {
            assert_eq!(mode(&dir, made), 0o740, "{made}");
        }
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(directory(&root, "/file", 0o755, &Owner::ROOT).is_err());
    }

    #[test]
    fn a_directory_that_is_made_is_not_for_others_to_write_and_one_that_is_there_gets_what_is_asked_for()
     {
        let (dir, root) = root();
        directory(&root, "/wide/open", 0o777, &Owner::ROOT).unwrap();
        assert_eq!(
            (mode(&dir, "wide"), mode(&dir, "wide/open")),
            (0o755, 0o755)
        );
        directory(&root, "/wide/open", 0o777, &Owner::ROOT).unwrap();
        assert_eq!(
            (mode(&dir, "wide"), mode(&dir, "wide/open")),
            (0o755, 0o777)
        );
        write(&root, "/new/file", 0o666, b"").unwrap();
        assert_eq!((mode(&dir, "new"), mode(&dir, "new/file")), (0o744, 0o666));
    }

    #[test]
    fn a_file_is_written_behind_its_link_and_never_outside_the_tree() {
        let (dir, root) = root();
        std::os::unix::fs::symlink("/etc/target", dir.path().join("etc/link")).unwrap();
        write(&root, "/etc/link", 0o644, b"x").unwrap();
        assert!(dir.path().join("etc/link").is_symlink());
        assert_eq!(std::fs::read(dir.path().join("etc/target")).unwrap(), b"x");
        std::os::unix::fs::symlink("../../../../../escaped", dir.path().join("etc/out")).unwrap();
        write(&root, "/etc/out", 0o644, b"x").unwrap();
        assert!(dir.path().join("escaped").exists());
    }

    #[test]
    fn an_owner_by_name_is_one_of_the_image() {
        let (_dir, root) = root();
        assert_eq!(
            numbers(&root, &Owner::Name("root".into()), (7, 7)).unwrap(),
            (0, 0)
        );
        let error = numbers(&root, &Owner::Name("nobody-here".into()), (0, 0)).unwrap_err();
        assert!(error.to_string().contains("nobody-here"));
        let kept = Owner::Ids {
            uid: None,
            gid: Some(3),
        };
        assert_eq!(numbers(&root, &kept, (5, 6)).unwrap(), (5, 3));
    }
}
