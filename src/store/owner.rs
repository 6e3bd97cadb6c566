//! Whose store it is: one user's cannot be used by another, and that is said by name.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kfactory_sandbox::stage::in_stage;
use rustix::fs::Access;

use crate::error::{Error, Result};

/// The owner of what belongs to nobody in this user namespace. Spec: `overflowuid` in proc_sys_fs(5), its default.
const NOBODY: u32 = 65534;
/// What a run writes to.
const WRITTEN: &[&str] = &[
    "lock",
    "blobs/sha256",
    "trees",
    "changes",
    "steps",
    "images",
    "cache",
    "runs",
];

/// Checks that this process may write to the store at `dir`, as far as it exists.
///
/// Best asked where owners have their own IDs, before a user namespace hides them.
///
/// # Errors
///
/// The store, or a part of it, belongs to somebody else who does not let us write, or we are root; who that is, and what to do.
pub fn check_owner(dir: &Path) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    check_roots_own(dir, me)?;
    let Some(owner) = stranger(dir, me) else {
        return WRITTEN.iter().try_for_each(|name| {
            let path = dir.join(name);
            match stranger(&path, me) {
                None => Ok(()),
                Some(owner) => Err(Error::user(format!(
                    "{}, a part of the store, belongs to {}; this is {}",
                    path.display(),
                    user(owner),
                    user(me)
                ))
                .hint(format!(
                    "`sudo chown {me} {}` gives it back; `--store DIR` uses another store",
                    path.display()
                ))),
            }
        });
    };
    Err(Error::user(format!(
        "the store in {} belongs to {}; this is {}",
        dir.display(),
        user(owner),
        user(me)
    ))
    .hint("`--store DIR` or the variable `KFACTORY_STORE` names a store of your own")
    .hint(format!("as {} this one can be used", user(owner))))
}

/// Checks that the store at `dir` is for who runs this: that it is not another user's ([`check_owner`]), and that root makes none
/// among the files of a plain user.
///
/// As [`check_owner`], best asked where owners have their own IDs.
///
/// # Errors
///
/// One of both.
pub fn check_user(dir: &Path) -> Result<()> {
    check_owner(dir)?;
    check_place(dir)
}

/// Checks that root makes no store among the files of a plain user, who could not use it: one at `dir` that is there is right.
///
/// As [`check_owner`], best asked where owners have their own IDs.
///
/// # Errors
///
/// We are root, there is nothing at `dir`, and where it would be made belongs to a user of this machine.
fn check_place(dir: &Path) -> Result<()> {
    let me = rustix::process::geteuid();
    if !me.is_root() || in_stage() || dir.exists() {
        return Ok(());
    }
    let Some((above, owner)) = nearest(dir) else {
        return Ok(());
    };
    // One without an account is whoever a directory was mounted from: nobody who would come back for the store.
    if owner == me.as_raw() || owner == NOBODY || name_of(owner).is_none() {
        return Ok(());
    }
    Err(Error::user(format!(
        "the store in {} would be root's, in the directory {} of {}, who could not use it",
        dir.display(),
        above.display(),
        user(owner)
    ))
    .hint(format!(
        "run the command as {}, without `sudo`",
        user(owner)
    ))
    .hint("`--store DIR` or the variable `KFACTORY_STORE` names a store of root's own"))
}

/// Returns the nearest directory above `dir` that is there, and its owner.
fn nearest(dir: &Path) -> Option<(PathBuf, u32)> {
    let dir = std::path::absolute(dir).ok()?;
    dir.ancestors().skip(1).find_map(|above| {
        let found = fs::metadata(above).ok()?;
        Some((above.to_owned(), found.uid()))
    })
}

/// Checks that root does not work in somebody else's store: its files there would be in that user's way.
///
/// In a user namespace root is whoever made it. The stage is one, and outside of it the question has been asked.
fn check_roots_own(dir: &Path, me: u32) -> Result<()> {
    let owner = fs::metadata(dir).map(|metadata| metadata.uid());
    let Ok(owner) = owner else { return Ok(()) };
    if me != 0 || owner == me || owner == NOBODY || in_stage() {
        return Ok(());
    }
    Err(Error::user(format!(
        "the store in {} belongs to {}, and files of root in it would be in that user's way",
        dir.display(),
        user(owner)
    ))
    .hint(format!(
        "run the command as {}, without `sudo`",
        user(owner)
    ))
    .hint("`--store DIR` or the variable `KFACTORY_STORE` names a store of root's own"))
}

/// Returns the owner of what is at `path` where that is not `me` and keeps `me` from writing to it.
fn stranger(path: &Path, me: u32) -> Option<u32> {
    let metadata = fs::metadata(path).ok()?;
    let mut wanted = Access::WRITE_OK;
    if metadata.is_dir() {
        wanted |= Access::EXEC_OK | Access::READ_OK;
    }
    (metadata.uid() != me && rustix::fs::access(path, wanted).is_err()).then(|| metadata.uid())
}

/// Returns a user's name, where there is one, and number.
fn user(uid: u32) -> String {
    match name_of(uid) {
        Some(name) => format!("user {name} ({uid})"),
        None => format!("user {uid}"),
    }
}

fn name_of(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then_some(name)
    });
    name.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_a_name_and_a_number() {
        assert_eq!(user(0), "user root (0)");
        assert_eq!(user(3_999_999_999), "user 3999999999");
    }

    #[test]
    fn ones_own_store_and_one_that_is_not_there_yet_are_right() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_owner(dir.path()).is_ok());
        assert!(check_owner(&dir.path().join("none")).is_ok());
    }
}
