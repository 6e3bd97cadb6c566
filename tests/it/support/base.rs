//! Base systems: a real one made by mmdebstrap, and root filesystems of a few files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::tools::find;
use super::world::{cache_dir, within_reach, world};
use super::{run, skipped};

/// An older base would have many packages to upgrade.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A root filesystem of Debian that is made now and then, and kept between runs.
#[derive(Debug)]
pub(crate) struct Bootstrap<'a> {
    /// The tar file's name, without its end.
    pub(crate) name: &'a str,
    /// Debian's release.
    pub(crate) suite: &'a str,
    /// More options of mmdebstrap.
    pub(crate) options: &'a [&'a str],
    /// Its sources, as lines of `sources.list`, where they are not Debian's own.
    pub(crate) sources: &'a [&'a str],
    /// When it is made again.
    pub(crate) max_age: Duration,
}

/// Returns a tar file with the root filesystem of Debian 12, made once a week on a machine; `None` where that cannot be done.
pub(crate) fn debian_tar() -> Option<&'static Path> {
    static TAR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let bootstrap = Bootstrap {
        name: "bookworm",
        suite: "bookworm",
        options: &[],
        sources: &[],
        max_age: MAX_AGE,
    };
    match TAR.get_or_init(|| bootstrap.tar()) {
        Ok(path) => Some(path),
        Err(why) => {
            skipped(why);
            None
        }
    }
}

impl Bootstrap<'_> {
    /// Returns the tar file, or why there is none.
    pub(crate) fn tar(&self) -> Result<PathBuf, String> {
        let made = cache_dir().join(format!("{}.tar", self.name));
        let lock = File::create(made.with_extension("lock")).map_err(|error| error.to_string())?;
        lock.lock().map_err(|error| error.to_string())?;
        let age = made
            .metadata()
            .and_then(|m| m.modified())
            .ok()
            .and_then(|time| time.elapsed().ok());
        let reach = || within_reach(&made).map_err(|error| error.to_string());
        if age.is_some_and(|age| age < self.max_age) {
            return reach();
        }
        if find("mmdebstrap").is_none() {
            return Err("`mmdebstrap` is not installed".into());
        }
        let part = made.with_extension("tar.part");
        let output = Command::new("mmdebstrap")
            .args(["--quiet", "--format=tar", "--variant=apt"])
            .args(self.options)
            .arg(self.suite)
            .arg(&part)
            .args(self.sources)
            .env("SOURCE_DATE_EPOCH", super::program::EPOCH)
            .output()
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            // Its last line says no more than that it failed.
            let why = text.lines().find(|line| line.starts_with("E: "));
            let why = why.or(text.lines().last()).unwrap_or_default();
            return Err(format!("mmdebstrap cannot make a base system: {why}"));
        }
        std::fs::rename(&part, &made).map_err(|error| error.to_string())?;
        reach()
    }
}

/// Writes a root filesystem of `files` (path, mode, content) into a new directory and returns its tar file.
pub(crate) fn small_tar(name: &str, files: &[(&str, u32, &str)]) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    // Several tests may ask for the same one.
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = LOCK
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = world().own_dir(&format!("bases/{name}/rootfs"));
    let tar = dir.with_extension("tar");
    if tar.exists() {
        return tar;
    }
    for (path, mode, content) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).expect("ours");
    }
    pack(&dir, &tar);
    tar
}

/// Writes what is in `dir` to `tar`, as root's, the same bytes each time.
pub(crate) fn pack(dir: &Path, tar: &Path) {
    run(Command::new("tar")
        .arg("--numeric-owner")
        .args(["--owner=0", "--group=0", "--mtime=@0", "--sort=name", "-C"])
        .arg(dir)
        .arg("-cf")
        .arg(tar)
        .arg("."));
}

/// Returns the tar file of a root filesystem that holds nothing but `/etc/os-release`.
pub(crate) fn os_release_tar(name: &str, os_release: &str) -> PathBuf {
    small_tar(name, &[("etc/os-release", 0o644, os_release)])
}

/// As [`small_tar`], with this machine's shell and what it is linked with; `None` where that cannot be told.
pub(crate) fn shell_tar(name: &str, files: &[(&str, u32, &str)]) -> Option<PathBuf> {
    let libraries = Command::new("ldd")
        .arg("/bin/sh")
        .output()
        .ok()
        .filter(|output| output.status.success());
    let Some(libraries) = libraries else {
        skipped("`ldd` does not say what the shell is linked with");
        return None;
    };
    let text = String::from_utf8_lossy(&libraries.stdout).into_owned();
    let dir = world().own_dir(&format!("bases/{name}/rootfs"));
    for path in text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .chain(["/bin/sh"])
    {
        let place = dir.join(&path[1..]);
        std::fs::create_dir_all(place.parent().expect("below the root")).expect("a directory");
        std::fs::copy(path, place).expect("readable by all");
    }
    Some(small_tar(name, files))
}
