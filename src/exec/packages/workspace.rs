//! What every package manager has on this machine while it runs: a scratch directory with its files, and caches that runs share.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kfactory_layers::root::Root;
use kfactory_sandbox::spec::Mount;

use crate::distro::manager::{Setup, WORKSPACE};
use crate::error::{Context as _, Error, Result};
use crate::exec::Environment;

/// Makes the directories `wanted` of a cache, and waits for other runs that use it; the lock is held by what is returned.
pub(super) fn open_cache(env: &Environment<'_>, cache: &Path, wanted: &[PathBuf]) -> Result<File> {
    let doing = || format!("preparing the package cache in {}", cache.display());
    fs::create_dir_all(cache).context(doing)?;
    for dir in wanted {
        fs::create_dir_all(dir).context(doing)?;
    }
    let lock = File::create(cache.join("lock")).context(doing)?;
    if lock.try_lock().is_err() {
        env.reporter
            .note("waiting for another run to release the package cache");
        lock.lock().context(doing)?;
    }
    Ok(lock)
}

/// Mounts `source` at `target`, to be written to.
pub(super) fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Mount {
    Mount::Bind {
        source: source.into(),
        target: target.into(),
        read_only: false,
    }
}

/// Returns where `path`, below [`WORKSPACE`], is on this machine, where the workspace is `dir`.
pub(super) fn local(dir: &Path, path: &str) -> Result<PathBuf> {
    match path.strip_prefix(WORKSPACE) {
        Some(rest) => Ok(dir.join(rest.trim_start_matches('/'))),
        None => Err(Error::internal(format!("{path} is outside the workspace"))),
    }
}

/// Makes the workspace at `dir`; what is there already stays.
pub(super) fn write(setup: &Setup, dir: &Path) -> Result<()> {
    let doing = || preparing(dir);
    let make_parent = |path: &Path| match path.parent() {
        Some(parent) => fs::create_dir_all(parent).context(doing),
        None => Ok(()),
    };
    fs::create_dir_all(dir).context(doing)?;
    for path in &setup.directories {
        fs::create_dir_all(local(dir, path)?).context(doing)?;
    }
    for file in &setup.files {
        let path = local(dir, &file.path)?;
        make_parent(&path)?;
        fs::write(&path, &file.content).context(doing)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).context(doing)?;
    }
    for (path, target) in &setup.links {
        let path = local(dir, path)?;
        make_parent(&path)?;
        if path.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(target, &path).context(doing)?;
        }
    }
    Ok(())
}

/// Links what the image's own directories hold into those of the workspace at `dir`.
pub(super) fn mirror(setup: &Setup, root: &Root, dir: &Path) -> Result<()> {
    for (from, to) in &setup.mirrored {
        if !root.exists(from)? {
            continue;
        }
        for entry in root.read_dir(from)? {
            let place = local(dir, to)?.join(&entry.name);
            if place.symlink_metadata().is_err() {
                let target = Path::new(from).join(&entry.name);
                std::os::unix::fs::symlink(target, &place).context(|| preparing(dir))?;
            }
        }
    }
    Ok(())
}

fn preparing(dir: &Path) -> String {
    let place = dir.display();
    format!("preparing the package manager's workspace in {place}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distro::manager::pacman::PACMAN;

    #[test]
    fn what_the_image_has_is_found_in_the_workspace_except_what_is_masked() {
        let (image, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let setup = PACMAN.setup();
        write(&setup, dir.path()).unwrap();
        let root = Root::open(image.path()).unwrap();
        mirror(&setup, &root, dir.path()).unwrap();
        let hooks = image.path().join("etc/pacman.d/hooks");
        fs::create_dir_all(&hooks).unwrap();
        for name in ["own.hook", "90-dracut-install.hook"] {
            fs::write(hooks.join(name), "").unwrap();
        }
        for _ in 0..2 {
            mirror(&setup, &root, dir.path()).unwrap();
        }
        let leads = |name: &str| fs::read_link(dir.path().join("hooks").join(name)).unwrap();
        assert_eq!(leads("own.hook"), Path::new("/etc/pacman.d/hooks/own.hook"));
        assert_eq!(leads("90-dracut-install.hook"), Path::new("/dev/null"));
    }

    #[test]
    fn a_setup_can_be_written_twice() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            write(&PACMAN.setup(), dir.path()).unwrap();
        }
        let hook = dir.path().join("hooks/90-mkinitcpio-install.hook");
        assert_eq!(fs::read_link(hook).unwrap(), Path::new("/dev/null"));
    }
}
