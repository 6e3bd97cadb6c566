//! Real base systems of releases of Debian and Ubuntu, made from their archives once a week on a machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::base::{Bootstrap, MAX_AGE};
use super::skipped;
use super::world::{cache_dir, within_reach};

const UBUNTU: &str = "http://archive.ubuntu.com/ubuntu";
const UBUNTU_KEYRING: &str = "/usr/share/keyrings/ubuntu-archive-keyring.gpg";
/// Releases of Ubuntu by the name of their suite, oldest first.
const UBUNTU_SUITES: [&str; 5] = ["focal", "jammy", "noble", "questing", "resolute"];
/// Those from before Ubuntu 24.04, whose official image has its sources in `/etc/apt/sources.list`.
const OLDER: [&str; 2] = ["focal", "jammy"];

/// Merges the directories of the root `$1`, still empty, as the official images of these releases have them. mmdebstrap's own hook
/// asks for a package that they lack.
const MERGED_DIRECTORIES: &str = r#"set -e
for dir in bin sbin lib lib32 lib64 libx32; do
    mkdir -p "$1/usr/$dir"
    ln -s "usr/$dir" "$1/$dir"
done
"#;

/// Gives the root `$1` what the official container image of Ubuntu has besides packages.
const LIKE_AN_IMAGE: &str = r#"set -e
cd "$1"
mkdir -p etc/apt/apt.conf.d etc/dpkg/dpkg.cfg.d
cat >etc/apt/apt.conf.d/docker-clean <<'END'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
END
echo 'Acquire::GzipIndexes "true";' >etc/apt/apt.conf.d/docker-gzip-indexes
echo 'Acquire::Languages "none";' >etc/apt/apt.conf.d/docker-no-languages
echo force-unsafe-io >etc/dpkg/dpkg.cfg.d/docker-apt-speedup
printf 'path-exclude=/usr/share/%s\n' 'man/*' 'doc/*' 'locale/*/LC_MESSAGES/*.mo' >etc/dpkg/dpkg.cfg.d/excludes
echo 'path-include=/usr/share/doc/*/copyright' >>etc/dpkg/dpkg.cfg.d/excludes
"#;

/// Moves the sources of the root `$1` to where they are since Ubuntu 24.04.
const NEW_SOURCES: &str = r#"set -e
cd "$1"
suite=$(sed -n 's/^VERSION_CODENAME=//p' etc/os-release)
echo '# Ubuntu sources have moved to /etc/apt/sources.list.d/ubuntu.sources' >etc/apt/sources.list
for suites in "$suite $suite-updates $suite-backports" "$suite-security"; do
    printf 'Types: deb\nURIs: http://archive.ubuntu.com/ubuntu/\nSuites: %s\n' "$suites"
    printf 'Components: main universe restricted multiverse\nSigned-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg\n\n'
done >etc/apt/sources.list.d/ubuntu.sources
"#;

/// Returns a tar file with the root filesystem of the release whose suite is called `suite`; `None` where that cannot be made.
pub(crate) fn system_tar(suite: &'static str) -> Option<PathBuf> {
    static MADE: Mutex<BTreeMap<&str, Result<PathBuf, String>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    match made.entry(suite).or_insert_with(|| bootstrap(suite)) {
        Ok(path) => Some(path.clone()),
        Err(why) => {
            skipped(why);
            None
        }
    }
}

fn bootstrap(suite: &str) -> Result<PathBuf, String> {
    // A mirror that does not answer is to be noticed soon.
    let mut options = vec!["--aptopt=Acquire::http::Timeout \"20\"".to_owned()];
    let mut sources = Vec::new();
    if UBUNTU_SUITES.contains(&suite) {
        options.push(format!("--keyring={}", ubuntu_keyring()?.display()));
        options.push(format!("--customize-hook={LIKE_AN_IMAGE}"));
        if OLDER.contains(&suite) {
            // Newer ones have merged directories by themselves.
            options.push(format!("--setup-hook={MERGED_DIRECTORIES}"));
        } else {
            options.push(format!("--customize-hook={NEW_SOURCES}"));
        }
        sources = ["", "-updates", "-security"]
            .map(|part| format!("deb {UBUNTU} {suite}{part} main restricted universe multiverse"))
            .to_vec();
    }
    Bootstrap {
        name: suite,
        suite,
        options: &options.iter().map(String::as_str).collect::<Vec<_>>(),
        sources: &sources.iter().map(String::as_str).collect::<Vec<_>>(),
        max_age: MAX_AGE,
    }
    .tar()
}

/// Returns the keys of Ubuntu's archive: this machine's own, or those that Debian packages.
fn ubuntu_keyring() -> Result<PathBuf, String> {
    if Path::new(UBUNTU_KEYRING).exists() {
        return Ok(UBUNTU_KEYRING.into());
    }
    let made = cache_dir().join("ubuntu-archive-keyring.gpg");
    let reach = |made: &Path| within_reach(made).map_err(|error| error.to_string());
    if made.exists() {
        return reach(&made);
    }
    let tar = Bootstrap {
        name: "ubuntu-archive-keyring",
        suite: "trixie",
        options: &["--variant=extract", "--include=ubuntu-archive-keyring"],
        sources: &[],
        max_age: Duration::from_secs(365 * 24 * 60 * 60),
    }
    .tar()?;
    let output = Command::new("tar")
        .arg("-xOf")
        .arg(tar)
        .arg(format!(".{UBUNTU_KEYRING}"))
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err("Debian's package of the keys of Ubuntu's archive does not hold them".into());
    }
    let part = made.with_extension("part");
    fs::write(&part, output.stdout).map_err(|error| error.to_string())?;
    fs::rename(&part, &made).map_err(|error| error.to_string())?;
    reach(&made)
}
