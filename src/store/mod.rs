//! The store: what survives between runs, and where a run works.
//!
//! ```text
//! blobs/sha256/<hex>      manifests, configs and layers, named by their bytes
//! trees/<chain hex>       base root filesystems, flattened, read-only from then on
//! changes/<id>            what a layer's steps changed: an overlay upper directory, kept as a lower one
//! steps/<key>.json        step cache: key -> layer and changes directory
//! images/<name>.json      results by name
//! cache/                  packages, framework builds; safe to delete at any time
//! runs/<id>               one directory per live run, locked by it; removed when the lock is free
//! ```
//!
//! Everything under a final name is whole: it is made under `runs/` (or found unreferenced later) and then renamed or
//! recorded. A killed run leaves only things that no record names; the next run removes them.

mod lock;
mod owner;
mod run;
mod usage;
mod whole;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kfactory_layers::blobs::{BlobStore, BlobWriter};
use kfactory_layers::digest::Digest;
use kfactory_layers::input::{kind_name, open_regular};
use kfactory_layers::layer::LayerInfo;
use kfactory_layers::manifest::Descriptor;
use kfactory_layers::source::{BlobSource, verified};
use kfactory_sandbox::CancelToken;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Error, Result};
use crate::progress::Reporter;
use crate::stop::Stoppable;

pub use owner::{check_owner, check_user};
pub use run::{Run, discard_tree, remove_tree};
pub use usage::{Part, PartKind, Usage, size_on_disk};
pub use whole::{Checked, Damage, in_parallel};

/// The store of one user.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    blobs: BlobStore,
    /// Ends reading and writing of blobs.
    stop: Option<CancelToken>,
    /// Held shared by every user of the store; `gc` takes it exclusively.
    _lock: File,
}

/// One row of the step cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepRecord {
    /// The layer's name in the history.
    pub layer: String,
    /// Chain ID of what the steps ran on.
    pub parent: Digest,
    /// The directory below `changes/`.
    pub changes: String,
    /// The moment the layer is dated with in the history, in seconds since 1970.
    pub created: i64,
    /// The layer by compression.
    pub blobs: std::collections::BTreeMap<String, LayerInfo>,
    /// The boot during which the directory was written, see [`boot_id`].
    pub boot: String,
    /// What the steps found out that the user is to know whenever the layer is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

/// A result kept in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The manifest's digest.
    pub manifest: Digest,
    /// The manifest's size in bytes.
    pub size: u64,
}

/// The way out where a store cannot be.
const ELSEWHERE: &str = "`--store DIR` or the variable `KFACTORY_STORE` names another place";

/// Returns the link on the way to `dir` that leads nowhere, and where it leads.
fn dangling_link(dir: &Path) -> Option<(&Path, PathBuf)> {
    let named = dir.ancestors().filter(|path| !path.as_os_str().is_empty());
    let mut missing = named.take_while(|path| !path.exists());
    missing.find_map(|path| Some((path, fs::read_link(path).ok()?)))
}

fn make_in(store: &Path, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)
        .context(|| format!("creating the store in {}", store.display()))
        .map_err(|error| error.hint(ELSEWHERE))
}

impl Store {
    /// Makes the directory of a store, where it is missing.
    ///
    /// # Errors
    ///
    /// Nothing can be written there, with the ways to name another place.
    pub fn make_dir(dir: &Path) -> Result<()> {
        make_in(dir, dir)
    }

    /// Returns the store's directory: `--store`, `KFACTORY_STORE`, `$XDG_DATA_HOME/kfactory` or `~/.local/share/kfactory`.
    ///
    /// # Errors
    ///
    /// A usage error when none of these is known.
    pub fn default_dir() -> Result<PathBuf> {
        let from = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        from("KFACTORY_STORE")
            .or_else(|| {
                // Spec: XDG Base Directory Specification, "Basics": relative paths are invalid and ignored.
                let data = from("XDG_DATA_HOME").filter(|dir| dir.is_absolute());
                data.map(|dir| dir.join("kfactory"))
            })
            .or_else(|| from("HOME").map(|dir| dir.join(".local/share/kfactory")))
            .ok_or_else(|| {
                Error::usage("no place for the store: neither `HOME` nor `XDG_DATA_HOME` is set")
                    .hint("`--store DIR` or the variable `KFACTORY_STORE` names one")
            })
    }

    /// Returns whether there is a store at `dir`: who only looks should not make one.
    ///
    /// # Errors
    ///
    /// It cannot be told, or something else is there.
    pub fn exists(dir: &Path) -> Result<bool> {
        use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
        let lock = dir.join("lock");
        let unusable = |error: Error| {
            let named = format!("cannot use the store in {}", dir.display());
            error.context(named).hint(ELSEWHERE)
        };
        match fs::symlink_metadata(&lock) {
            Ok(found) if found.is_file() => Ok(true),
            Ok(found) => Err(unusable(Error::user(format!(
                "{} is {}, not a file",
                lock.display(),
                kind_name(found.file_type())
            )))),
            Err(error) if error.kind() == NotFound => match dangling_link(dir) {
                None => Ok(false),
                Some((link, target)) => Err(unusable(
                    Error::user(format!(
                        "{} is a link to {}, where nothing is",
                        link.display(),
                        target.display()
                    ))
                    .hint("make that directory, or remove the link"),
                )),
            },
            Err(error) => {
                let remedy = match error.kind() {
                    PermissionDenied => Some(format!(
                        "`namei -l {}` shows which directory on the way is closed to this user",
                        lock.display()
                    )),
                    NotADirectory => Some("remove the file that is in the way of the store".into()),
                    _ => None,
                };
                let looking = format!("looking at {}", lock.display());
                Err(unusable(Error::from(error).context(looking)).hints(remedy))
            }
        }
    }

    /// Opens the store at `dir`, made where it is missing, for this run alone, and sweeps what dead runs left behind.
    ///
    /// # Errors
    ///
    /// The directory cannot be made, belongs to somebody else or would be in such a one, or another run is using it.
    pub fn open_alone(dir: &Path) -> Result<Self> {
        Self::open_locked(dir, |lock| {
            lock.try_lock().map_err(|_| {
                Error::user(format!(
                    "the store in {} is in use by another run",
                    dir.display()
                ))
                .hint("wait for it to end and try again")
            })
        })
    }

    /// Opens the store at `dir` beside other runs. Says so where it has to wait for one that has the store for itself, and ends
    /// waiting, and every reading and writing of a blob through [`stoppable`](Self::stoppable) and
    /// [`blob_writer`](Self::blob_writer), when `cancel` is cancelled.
    ///
    /// # Errors
    ///
    /// Those of [`open_alone`](Self::open_alone) but the last; [`Kind::Interrupted`](crate::error::Kind::Interrupted).
    pub fn open_beside(dir: &Path, cancel: &CancelToken, reporter: &Reporter) -> Result<Self> {
        let mut store = Self::open_locked(dir, |lock| lock::shared(lock, dir, cancel, reporter))?;
        store.stop = Some(cancel.clone());
        Ok(store)
    }

    /// Opens a store for a test, which says nothing and is never stopped.
    #[cfg(test)]
    pub(crate) fn for_test(dir: &Path) -> Result<Self> {
        let reporter = Reporter::new(crate::progress::Mode::None);
        Self::open_beside(dir, &CancelToken::new().expect("a token"), &reporter)
    }

    fn open_locked(dir: &Path, take: impl FnOnce(&File) -> Result<()>) -> Result<Self> {
        check_user(dir)?;
        Self::exists(dir)?;
        for name in ["trees", "changes", "steps", "images", "cache", "runs"] {
            make_in(dir, &dir.join(name))?;
        }
        let lock = lock::file(&dir.join("lock"))
            .context(|| format!("opening the store's lock in {}", dir.display()))
            .map_err(|error| error.hint(ELSEWHERE))?;
        take(&lock)?;
        let blobs =
            BlobStore::ensure(dir).context(|| format!("opening the blobs in {}", dir.display()))?;
        let store = Self {
            dir: dir.to_owned(),
            blobs,
            stop: None,
            _lock: lock,
        };
        store.sweep();
        Ok(store)
    }

    /// Returns the store's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the blobs.
    pub fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Makes a reader or writer end when the run is stopped.
    pub fn stoppable<T>(&self, inner: T) -> Stoppable<T> {
        Stoppable::new(inner, self.stop.as_ref())
    }

    /// Starts a blob whose digest is not known yet.
    ///
    /// # Errors
    ///
    /// Its file cannot be made.
    pub fn blob_writer(&self) -> Result<Stoppable<BlobWriter>> {
        Ok(self.stoppable(self.blobs.writer()?))
    }

    /// Returns a directory below `cache/`, created if missing.
    ///
    /// # Errors
    ///
    /// The directory cannot be made.
    pub fn cache_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join("cache").join(name);
        fs::create_dir_all(&dir).context(|| format!("creating {}", dir.display()))?;
        Ok(dir)
    }

    /// Returns where the flattened tree of `chain` stands or would stand.
    pub fn tree(&self, chain: &Digest) -> PathBuf {
        self.dir.join("trees").join(chain.hex())
    }

    /// Returns the changes directory named `id`.
    pub fn changes(&self, id: &str) -> PathBuf {
        self.dir.join("changes").join(id)
    }

    /// Returns the step record of `key` if it is there, with those of its blobs that are in the store.
    pub fn step(&self, key: &Digest) -> Option<StepRecord> {
        let mut record: StepRecord = self.read_json(&self.step_path(key))?;
        record
            .blobs
            .retain(|_, info| self.blobs.contains(&info.digest));
        Some(record)
    }

    /// Returns the changes directory of `record` if it can be trusted.
    ///
    /// Blobs are synced to disk, changes are not: after a crash of the machine a directory may be incomplete although
    /// its record is not. So changes count only during the boot that wrote them; later the blob serves instead.
    pub fn trusted_changes(&self, record: &StepRecord) -> Option<PathBuf> {
        let dir = self.changes(&record.changes);
        (record.boot == boot_id() && dir.is_dir()).then_some(dir)
    }

    /// Returns the flattened tree of `chain` if it is whole, see [`Store::trusted_changes`].
    pub fn trusted_tree(&self, chain: &Digest) -> Option<PathBuf> {
        let tree = self.tree(chain);
        let boot: Option<String> = self.read_json(&tree.with_extension("json"));
        (boot? == boot_id() && tree.is_dir()).then_some(tree)
    }

    /// Moves a finished tree to its place; a tree that is already there is kept when it is whole.
    ///
    /// # Errors
    ///
    /// The tree cannot be moved.
    pub fn put_tree(&self, chain: &Digest, made: &Path) -> Result<PathBuf> {
        if let Some(tree) = self.trusted_tree(chain) {
            discard_tree(made);
            return Ok(tree);
        }
        // One at a time: between its rename and its mark, a tree of another run would be taken for a broken one.
        let lock = lock::file(&self.dir.join("trees/lock"))
            .context(|| "opening the lock of the unpacked bases".into())?;
        lock.lock()
            .context(|| "locking the unpacked bases".into())?;
        if let Some(tree) = self.trusted_tree(chain) {
            discard_tree(made);
            return Ok(tree);
        }
        let tree = self.tree(chain);
        discard_tree(&tree);
        fs::rename(made, &tree)
            .context(|| format!("moving the unpacked base to {}", tree.display()))?;
        self.write_json(&tree.with_extension("json"), &boot_id())?;
        Ok(tree)
    }

    /// Writes the step record of `key`.
    ///
    /// # Errors
    ///
    /// The record cannot be written.
    pub fn put_step(&self, key: &Digest, record: &StepRecord) -> Result<()> {
        self.write_json(&self.step_path(key), record)
    }

    /// Returns the record of the image called `name`.
    pub fn image(&self, name: &str) -> Option<ImageRecord> {
        self.read_json(&self.image_path(name))
    }

    /// Writes the record of the image called `name`.
    ///
    /// # Errors
    ///
    /// The record cannot be written.
    pub fn put_image(&self, name: &str, record: &ImageRecord) -> Result<()> {
        self.write_json(&self.image_path(name), record)
    }

    /// Forgets the image called `name`; its blobs stay until a garbage collection.
    ///
    /// # Errors
    ///
    /// The record cannot be removed.
    pub fn remove_image(&self, name: &str) -> Result<()> {
        let path = self.image_path(name);
        fs::remove_file(&path).context(|| format!("removing {}", path.display()))
    }

    /// Returns every image's name and record, sorted by name.
    ///
    /// # Errors
    ///
    /// A record cannot be read: an image that is passed over would lose its blobs to the next garbage collection.
    pub fn images(&self) -> Result<Vec<(String, ImageRecord)>> {
        let names = self.image_names()?.into_iter();
        names
            .map(|name| Ok((name.clone(), self.read_image(&name)?)))
            .collect()
    }

    /// Returns the record of the image called `name`, which is one of [`image_names`](Self::image_names).
    ///
    /// # Errors
    ///
    /// The record cannot be read.
    pub fn read_image(&self, name: &str) -> Result<ImageRecord> {
        let path = self.image_path(name);
        let doing = || format!("reading the record of image `{name}`, {}", path.display());
        let read = || -> Result<ImageRecord> {
            Ok(serde_json::from_reader(std::io::BufReader::new(
                open_regular(&path)?,
            ))?)
        };
        read().map_err(|error| forgettable(error.context(doing()), name))
    }

    /// Returns the names of all images, also of those whose record cannot be read, sorted.
    ///
    /// # Errors
    ///
    /// The directory of the records cannot be read.
    pub fn image_names(&self) -> Result<Vec<String>> {
        let dir = self.dir.join("images");
        let doing = || format!("reading the names of images in {}", dir.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).context(doing)? {
            let name = entry.context(doing)?.file_name().into_string();
            let name = name.unwrap_or_default();
            names.extend(name.strip_suffix(".json").map(decode_name));
        }
        names.sort();
        Ok(names)
    }

    /// Returns every step record with its key in hexadecimal, sorted by key.
    pub fn steps(&self) -> Vec<(String, StepRecord)> {
        self.records("steps")
    }

    fn step_path(&self, key: &Digest) -> PathBuf {
        self.dir.join("steps").join(format!("{}.json", key.hex()))
    }

    fn image_path(&self, name: &str) -> PathBuf {
        self.dir
            .join("images")
            .join(format!("{}.json", encode_name(name)))
    }

    fn records<T: DeserializeOwned>(&self, kind: &str) -> Vec<(String, T)> {
        entries(&self.dir.join(kind))
            .into_iter()
            .filter_map(|(name, path)| {
                Some((
                    name.strip_suffix(".json")?.to_owned(),
                    self.read_json(&path)?,
                ))
            })
            .collect()
    }

    fn read_json<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn write_json<T: Serialize>(&self, path: &Path, value: &T) -> Result<()> {
        let doing = || format!("writing {}", path.display());
        let dir = path.parent().unwrap_or(Path::new("."));
        let file = tempfile::NamedTempFile::new_in(dir).context(doing)?;
        serde_json::to_writer(&file, value).context(doing)?;
        file.as_file().sync_data().context(doing)?;
        file.persist(path)
            .map_err(|error| error.error)
            .context(doing)?;
        Ok(())
    }
}

impl BlobSource for Store {
    fn open_blob(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send + '_>> {
        let file = self.blobs.open_file(&blob.digest)?;
        Ok(verified(self.stoppable(file), blob))
    }
}

/// Adds to an error about what the image `name` is made of how the image is forgotten.
pub fn forgettable(error: Error, name: &str) -> Error {
    error.hint(format!("`kfactory store rm '{name}'` forgets the image"))
}

/// Returns an identifier that changes with every boot of the machine.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Returns the name and path of everything in a directory, sorted; nothing where it cannot be read.
pub(crate) fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let mut list: Vec<(String, PathBuf)> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect();
    list.sort();
    list
}

/// Makes one file name of an image name: `/` and `%` are written as `%2f` and `%25`.
fn encode_name(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2f")
}

fn decode_name(name: &str) -> String {
    name.replace("%2f", "/").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::for_test(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn a_record_keeps_its_changes_and_survives_the_round_trip() {
        let (dir, store) = store();
        let run = store.start_run().unwrap();
        let key = Digest::of(b"key");
        let id = run.changes_id(1);
        fs::create_dir_all(store.changes(&id)).unwrap();
        let record = StepRecord {
            layer: "x".into(),
            parent: key,
            changes: id.clone(),
            created: 0,
            blobs: Default::default(),
            boot: boot_id(),
            findings: Vec::new(),
        };
        store.put_step(&key, &record).unwrap();
        drop(run);
        drop(store);
        let store = Store::for_test(dir.path()).unwrap();
        let record = store.step(&key).unwrap();
        assert_eq!(store.trusted_changes(&record), Some(store.changes(&id)));
        assert_eq!(
            store.trusted_changes(&StepRecord {
                boot: "another".into(),
                ..record
            }),
            None
        );
    }

    #[test]
    fn image_names_with_slashes_are_kept() {
        let (_dir, store) = store();
        let record = ImageRecord {
            manifest: Digest::of(b"m"),
            size: 1,
        };
        store.put_image("me/os:v1%", &record).unwrap();
        assert_eq!(store.images().unwrap()[0].0, "me/os:v1%");
        assert!(store.image("me/os:v1%").is_some());
    }

    #[test]
    fn a_lock_that_is_a_link_is_refused_and_its_target_stays() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        fs::write(&target, "precious").unwrap();
        let store = dir.path().join("store");
        fs::create_dir(&store).unwrap();
        std::os::unix::fs::symlink(&target, store.join("lock")).unwrap();
        let error = Store::for_test(&store).unwrap_err();
        assert!(
            error.to_string().contains("cannot use the store"),
            "{error}"
        );
        assert!(lock::file(&store.join("lock")).is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }

    #[test]
    fn where_no_store_can_be_made_another_place_is_proposed() {
        // No directory can be made there, by root neither.
        let text = Store::for_test(Path::new("/proc/home/kfactory"))
            .unwrap_err()
            .render_text();
        assert!(text.contains("creating the store in"), "{text}");
        assert!(
            text.contains("hint: `--store DIR` or the variable `KFACTORY_STORE`"),
            "{text}"
        );
    }

    #[test]
    fn an_exclusive_lock_is_refused_while_another_run_lives() {
        let (dir, _store) = store();
        assert!(
            Store::open_alone(dir.path())
                .unwrap_err()
                .to_string()
                .contains("in use")
        );
    }
}
