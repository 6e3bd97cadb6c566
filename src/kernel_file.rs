//! A kernel that the user brings as a file: an image with its modules beside it, or a package of the distribution.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use walkdir::WalkDir;

use crate::error::{Context as _, Error, Result};
use crate::given;
use kfactory_layers::input::open_regular;

/// Where the modules of a kernel are, relative to the directory of its image: as `make modules_install` leaves them, and as an
/// unpacked package has them.
const MODULE_DIRS: [&str; 3] = ["lib/modules", "usr/lib/modules", "modules"];
/// Links to the sources on the machine that built the kernel.
const SOURCES: [&str; 2] = ["build", "source"];
/// A release is a file name, and short.
const MAX_RELEASE: usize = 64;

/// What a file given as `--kernel` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelFile {
    /// A package that the package manager installs.
    Package(PathBuf),
    /// An image that goes to `/boot/vmlinuz-RELEASE`.
    Image {
        /// The image.
        path: PathBuf,
        /// The kernel's release (`uname -r`).
        release: String,
        /// The directory of its modules; `None` where the base has to bring them.
        modules: Option<PathBuf>,
    },
}

impl KernelFile {
    /// Looks at the file.
    ///
    /// # Errors
    ///
    /// It cannot be read, is neither an image nor a package, or does not say which release it is.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("cannot take the kernel in `{}`", path.display());
        given::file(path).context(doing)?;
        let mut file = open_regular(path).context(doing)?;
        if path.extension().is_some_and(|end| end == "deb") {
            return Ok(Self::Package(path.to_owned()));
        }
        if path
            .extension()
            .is_some_and(|end| end == "rpm" || end == "apk" || end == "zst")
        {
            return Err(
                Error::usage("package files are taken with apt only: `.deb`")
                    .context(doing())
                    .hint("`--kernel PACKAGE[=VERSION]` takes one from a repository of the base"),
            );
        }
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let release = match x86_release(&mut file).context(doing)? {
            Some(release) => release,
            None if is_arm_image(&mut file).context(doing)? => {
                only_modules(&dir).map_err(|error| error.context(doing()))?
            }
            None => {
                return Err(Error::usage("it is neither a kernel image (bzImage, arm64 Image, gzip of one) nor a package (.deb)")
                    .context(doing()));
            }
        };
        let modules = MODULE_DIRS
            .iter()
            .map(|name| dir.join(name).join(&release))
            .find(|dir| dir.is_dir());
        Ok(Self::Image {
            path: path.to_owned(),
            release,
            modules,
        })
    }

    /// Returns a digest of everything that the image takes from the file and its modules.
    ///
    /// # Errors
    ///
    /// Something cannot be read.
    pub fn digest(&self) -> Result<String> {
        let mut hasher = Sha256::new();
        let (path, modules) = match self {
            Self::Package(path) => (path, None),
            Self::Image { path, modules, .. } => (path, modules.as_ref()),
        };
        hash_file(&mut hasher, path)?;
        for entry in modules
            .map(|dir| module_files(dir))
            .transpose()?
            .unwrap_or_default()
        {
            hasher.update(entry.relative.as_os_str().as_encoded_bytes());
            match &entry.link {
                Some(target) => hasher.update(target.as_os_str().as_encoded_bytes()),
                None => hash_file(&mut hasher, &entry.path)?,
            }
        }
        Ok(hasher
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }
}

/// A file or a link among a kernel's modules.
#[derive(Debug)]
pub(crate) struct ModuleFile {
    /// Where it is on this machine.
    pub(crate) path: PathBuf,
    /// Where it is below the directory of the release.
    pub(crate) relative: PathBuf,
    /// What it points at, for a link.
    pub(crate) link: Option<PathBuf>,
}

/// Lists the files of a directory of modules, sorted; links to sources are left out.
pub(crate) fn module_files(dir: &Path) -> Result<Vec<ModuleFile>> {
    let doing = || format!("reading the modules in {}", dir.display());
    let mut files = Vec::new();
    for entry in WalkDir::new(dir).sort_by_file_name() {
        let entry = entry.context(doing)?;
        let kind = entry.file_type();
        let is_source = entry.depth() == 1 && SOURCES.iter().any(|name| entry.file_name() == *name);
        if kind.is_dir() || is_source {
            continue;
        }
        let relative = entry
            .path()
            .strip_prefix(dir)
            .expect("below the directory walked");
        let link = kind
            .is_symlink()
            .then(|| std::fs::read_link(entry.path()).context(doing))
            .transpose()?;
        files.push(ModuleFile {
            relative: relative.to_owned(),
            path: entry.into_path(),
            link,
        });
    }
    Ok(files)
}

fn hash_file(hasher: &mut Sha256, path: &Path) -> Result<()> {
    let mut file = File::open(path).context(|| format!("reading {}", path.display()))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file
            .read(&mut buffer)
            .context(|| format!("reading {}", path.display()))?
        {
            0 => return Ok(()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Reads the release that an x86 image states; `None` for a file that is none.
///
/// Spec: Linux `Documentation/arch/x86/boot.rst`, fields `header` and `kernel_version`.
fn x86_release(file: &mut File) -> std::io::Result<Option<String>> {
    let head = read_at(file, 0, 0x210)?;
    if head.len() < 0x210 || &head[0x202..0x206] != b"HdrS" {
        return Ok(None);
    }
    let offset = u64::from(u16::from_le_bytes([head[0x20e], head[0x20f]])) + 0x200;
    let text = read_at(file, offset, MAX_RELEASE + 1)?;
    let end = text
        .iter()
        .position(|byte| matches!(byte, 0 | b' '))
        .unwrap_or(text.len());
    Ok(std::str::from_utf8(&text[..end])
        .ok()
        .filter(|release| is_release(release))
        .map(str::to_owned))
}

/// Tells whether the file is an image for arm64, or something that boot loaders unpack before they start it.
fn is_arm_image(file: &mut File) -> std::io::Result<bool> {
    let head = read_at(file, 0, 64)?;
    Ok(head.starts_with(&[0x1f, 0x8b]) || head.get(56..60) == Some(b"ARM\x64"))
}

fn read_at(file: &mut File, offset: u64, count: usize) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(count as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the one release that there are modules of: an arm64 image does not say its own.
fn only_modules(dir: &Path) -> Result<String> {
    for name in MODULE_DIRS {
        let Ok(entries) = std::fs::read_dir(dir.join(name)) else {
            continue;
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_release(name))
            .collect();
        if let (Some(release), true) = (names.pop(), names.is_empty()) {
            return Ok(release);
        }
    }
    Err(Error::user("an image for arm64 does not say its release, and there is no single directory of modules beside it")
        .hint("put its modules into `lib/modules/RELEASE` beside the file"))
}

fn is_release(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._+-~".contains(c);
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.len() <= MAX_RELEASE
        && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes what the loader reads of an x86 image.
    fn x86(path: &Path, version: &str) {
        let mut bytes = vec![0; 0x400];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        bytes[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn an_x86_image_says_its_release_and_finds_its_modules() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinuz");
        x86(&path, "6.12.3-mine (me@here) #1 SMP");
        let modules = dir.path().join("lib/modules/6.12.3-mine");
        let image = |modules| KernelFile::Image {
            path: path.clone(),
            release: "6.12.3-mine".into(),
            modules,
        };
        assert_eq!(KernelFile::open(&path).unwrap(), image(None));
        std::fs::create_dir_all(modules.join("kernel")).unwrap();
        std::fs::write(modules.join("kernel/a.ko"), "a").unwrap();
        std::os::unix::fs::symlink("/usr/src", modules.join("build")).unwrap();
        let found = KernelFile::open(&path).unwrap();
        assert_eq!(found, image(Some(modules.clone())));
        assert_eq!(module_files(&modules).unwrap().len(), 1);
        let before = found.digest().unwrap();
        std::fs::write(modules.join("kernel/a.ko"), "b").unwrap();
        assert_ne!(
            found.digest().unwrap(),
            before,
            "the modules are part of it"
        );
    }

    #[test]
    fn an_arm_image_is_of_the_release_of_the_only_modules_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Image");
        let mut bytes = vec![0; 64];
        bytes[56..60].copy_from_slice(b"ARM\x64");
        std::fs::write(&path, bytes).unwrap();
        let text = KernelFile::open(&path).unwrap_err().render_text();
        assert!(text.contains("lib/modules/RELEASE"), "{text}");
        std::fs::create_dir_all(dir.path().join("modules/6.6.1-tegra")).unwrap();
        assert!(
            matches!(KernelFile::open(&path).unwrap(), KernelFile::Image { release, .. } if release == "6.6.1-tegra")
        );
    }

    #[test]
    fn what_is_no_kernel_is_refused_with_what_would_be_one() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content, word) in [
            ("text", "hello", "neither a kernel image"),
            ("k.rpm", "x", "`.deb`"),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            let text = KernelFile::open(&path).unwrap_err().render_text();
            assert!(text.contains(word), "{text}");
        }
        assert!(KernelFile::open(dir.path()).is_err());
        assert!(KernelFile::open(&dir.path().join("missing")).is_err());
        // A release that is no file name stays outside.
        let path = dir.path().join("vmlinuz");
        x86(&path, "../../etc");
        assert!(KernelFile::open(&path).is_err());
        let deb = dir.path().join("k.deb");
        std::fs::write(&deb, "x").unwrap();
        assert_eq!(KernelFile::open(&deb).unwrap(), KernelFile::Package(deb));
    }
}
