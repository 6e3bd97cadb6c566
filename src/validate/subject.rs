//! The image under the rules' eyes, with what several of them ask for.

use std::cell::OnceCell;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use kfactory_sandbox::CancelToken;

use super::kernel_image::{self, KernelImage};
use super::{Facts, Scope};
use crate::error::{Context as _, Result};
use crate::initrd::Initrd;
use crate::installed::{self, Depth, Installed};
use crate::stop::Stopped;
use crate::tree::{Found, Tree};

/// Where a kernel's modules are; one is a link to the other where `/usr` is merged.
const MODULE_DIRS: [&str; 2] = ["usr/lib/modules", "lib/modules"];
/// Where programs are looked for: upstream's own directories first.
const PATH: [&str; 8] = [
    "system/providers",
    "system/discovery",
    "usr/local/sbin",
    "usr/local/bin",
    "usr/sbin",
    "usr/bin",
    "sbin",
    "bin",
];
/// Names of kernels in `/boot`, before the version.
pub(super) const KERNEL_PREFIXES: [&str; 3] = ["vmlinuz-", "vmlinux-", "Image-"];
const READ_BYTES: usize = 1 << 20;

/// The image under the rules' eyes.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Its files.
    pub tree: &'a Tree,
    /// What it is.
    pub facts: Facts,
    /// What is known from elsewhere.
    pub scope: &'a Scope,
    /// Ends whatever reads much.
    pub(super) stop: Option<&'a CancelToken>,
    kernel: Option<KernelFile>,
    initrd: OnceCell<InitrdFile>,
    installed: OnceCell<Installed>,
}

/// The kernel that `/boot/vmlinuz` leads to.
#[derive(Debug)]
pub(super) struct KernelFile {
    /// Its own path.
    pub(super) path: PathBuf,
    /// What it is; `None` when it is no kernel.
    pub(super) image: Option<KernelImage>,
    /// Its version, by its header, its name, or because there are no modules but its own.
    pub(super) version: Option<String>,
}

/// What `/boot/initrd` is.
#[derive(Debug)]
pub(super) enum InitrdFile {
    /// There is none.
    Missing,
    /// An archive, read to its end.
    Whole(Initrd),
    /// Compressed in a way that is not read here; why.
    Unread(String),
    /// No initrd; why.
    Damaged(String),
}

impl<'a> Subject<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        scope: &'a Scope,
        stop: Option<&'a CancelToken>,
    ) -> Result<Self> {
        let mut facts = Facts::read(tree, scope)?;
        let kernel = kernel(tree)?;
        facts.kernel = kernel.as_ref().and_then(|kernel| kernel.version.clone());
        Ok(Self {
            tree,
            facts,
            scope,
            stop,
            kernel,
            initrd: OnceCell::new(),
            installed: OnceCell::new(),
        })
    }

    pub(super) fn kernel(&self) -> Option<&KernelFile> {
        self.kernel.as_ref()
    }

    /// Returns what `/boot/initrd` is; it is read once.
    pub(super) fn initrd_file(&self) -> Result<&InitrdFile> {
        if let Some(read) = self.initrd.get() {
            return Ok(read);
        }
        let read = match self.tree.open("boot/initrd")? {
            None => InitrdFile::Missing,
            Some(input) => {
                match Initrd::read(BufReader::with_capacity(READ_BYTES, input), self.stop) {
                    Ok(initrd) => InitrdFile::Whole(initrd),
                    Err(error) if Stopped::is_in(&error) => return Err(Stopped.into()),
                    Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                        InitrdFile::Unread(error.to_string())
                    }
                    Err(error) => InitrdFile::Damaged(error.to_string()),
                }
            }
        };
        Ok(self.initrd.get_or_init(|| read))
    }

    /// Returns what is installed; the databases are read once.
    pub(super) fn installed(&self) -> Result<&Installed> {
        if let Some(read) = self.installed.get() {
            return Ok(read);
        }
        let read = installed::read(self.tree, Depth::Packages)?;
        Ok(self.installed.get_or_init(|| read))
    }

    /// Returns what the initrd holds, where it could be read.
    pub(super) fn initrd(&self) -> Result<Option<&Initrd>> {
        Ok(match self.initrd_file()? {
            InitrdFile::Whole(initrd) => Some(initrd),
            _ => None,
        })
    }

    /// Returns the versions that have a directory of modules, sorted.
    pub(super) fn module_versions(&self) -> Vec<String> {
        module_versions(self.tree)
    }

    /// Returns the directory with the modules of the kernel that boots.
    pub(super) fn modules(&self) -> Option<PathBuf> {
        let version = self.facts.kernel.as_deref()?;
        modules_of(self.tree, version)
    }

    /// Returns whether there is a kernel of this version, wherever distributions put it.
    pub(super) fn has_kernel(&self, version: &str) -> bool {
        KERNEL_PREFIXES
            .iter()
            .any(|prefix| self.tree.has(format!("boot/{prefix}{version}")))
            || modules_of(self.tree, version).is_some_and(|dir| {
                self.tree.has(dir.join("vmlinuz")) || self.tree.has(dir.join("Image"))
            })
    }

    /// Returns the kernel's configuration, where the image has it.
    pub(super) fn kernel_config(&self) -> Result<Option<String>> {
        let Some(version) = self.facts.kernel.as_deref() else {
            return Ok(None);
        };
        if let Some(text) = self.tree.text(format!("boot/config-{version}"))? {
            return Ok(Some(text));
        }
        match self.modules() {
            Some(dir) => self.tree.text(dir.join("config")),
            None => Ok(None),
        }
    }

    /// Finds a program as a shell would, in Kairos' own directories first.
    pub(super) fn program(&self, name: &str) -> Option<Found<'_>> {
        PATH.iter()
            .filter_map(|dir| self.tree.find(Path::new(dir).join(name)))
            .find(|found| found.node.file().is_some())
    }

    /// Returns the names of the directory at `path`, links followed, as far as they are text.
    pub(super) fn names(&self, path: impl AsRef<Path>) -> Vec<&str> {
        self.tree
            .names(path)
            .filter_map(|(name, _)| name.to_str())
            .collect()
    }

    /// Returns the value of a key of `/etc/kairos-release`, or nothing.
    pub(super) fn release(&self, key: &str) -> &str {
        self.facts.release.get(key).map_or("", String::as_str)
    }
}

fn modules_of(tree: &Tree, version: &str) -> Option<PathBuf> {
    MODULE_DIRS
        .iter()
        .map(|dir| Path::new(dir).join(version))
        .find(|dir| tree.find(dir).is_some_and(|found| found.node.is_dir()))
}

fn module_versions(tree: &Tree) -> Vec<String> {
    let mut versions: Vec<String> = MODULE_DIRS
        .iter()
        .flat_map(|dir| tree.names(dir))
        .filter(|(_, node)| node.is_dir())
        .filter_map(|(name, _)| name.to_str().map(str::to_owned))
        .collect();
    versions.sort();
    versions.dedup();
    versions
}

fn kernel(tree: &Tree) -> Result<Option<KernelFile>> {
    let Some(found) = tree
        .find("boot/vmlinuz")
        .filter(|found| found.node.file().is_some())
    else {
        return Ok(None);
    };
    let image = match tree.open(&found.path)? {
        Some(input) => kernel_image::read(input)
            .context(|| format!("reading the kernel {}", found.path.display()))?,
        None => None,
    };
    let by_name = || {
        let name = found.path.file_name()?.to_str()?;
        KERNEL_PREFIXES
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .filter(|version| version.starts_with(|c: char| c.is_ascii_digit()))
            .map(str::to_owned)
    };
    let alone = || match module_versions(tree).as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    };
    let version = image
        .as_ref()
        .and_then(|image| image.version.clone())
        .or_else(by_name)
        .or_else(alone);
    Ok(Some(KernelFile {
        path: found.path,
        image,
        version,
    }))
}
