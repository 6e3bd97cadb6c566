//! Which kernel and initrd of an image boot it.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::tree::Tree;

/// Where the kernel is: upstream's link, and what Jetson images have.
const KERNELS: [&str; 2] = ["boot/vmlinuz", "boot/Image"];
/// Where the initrd is.
const INITRDS: [&str; 1] = ["boot/initrd"];

/// One file of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFile {
    /// Its own path, free of links.
    pub path: PathBuf,
    /// Its [`id`](crate::tree::FileNode::id).
    pub id: u64,
    /// Size in bytes.
    pub size: u64,
}

/// The kernel and the initrd of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// The kernel.
    pub kernel: BootFile,
    /// The initrd.
    pub initrd: BootFile,
    /// The kernel's version, as its name says it: `6.1.0-38-amd64` of `/boot/vmlinuz-6.1.0-38-amd64`.
    pub version: Option<String>,
}

impl BootFiles {
    /// Finds them; links are followed inside of the image only.
    ///
    /// # Errors
    ///
    /// One of them is missing, by the path at which it is looked for.
    pub fn find(tree: &Tree) -> Result<Self> {
        let kernel = first(tree, &KERNELS).ok_or_else(|| missing("kernel", KERNELS[0]))?;
        let initrd = first(tree, &INITRDS).ok_or_else(|| missing("initrd", INITRDS[0]))?;
        let name = kernel.path.file_name().unwrap_or_default();
        let version = name.to_str().and_then(|name| name.split_once('-'));
        let version = version.map(|(_, version)| version.to_owned());
        Ok(Self {
            kernel,
            initrd,
            version,
        })
    }

    /// Returns whether the kernel was built with `option`, such as `CONFIG_SQUASHFS_ZSTD`; not, where its configuration is not in the image.
    ///
    /// # Errors
    ///
    /// The configuration cannot be read.
    pub fn has_option(&self, tree: &Tree, option: &str) -> Result<bool> {
        let Some(version) = &self.version else {
            return Ok(false);
        };
        let text = tree.text(format!("boot/config-{version}"))?;
        let is_set = |line: &str| {
            let value = line
                .strip_prefix(option)
                .and_then(|it| it.strip_prefix('='));
            matches!(value, Some("y" | "m"))
        };
        Ok(text.is_some_and(|text| text.lines().any(is_set)))
    }
}

fn first(tree: &Tree, paths: &[&str]) -> Option<BootFile> {
    paths.iter().find_map(|path| {
        let found = tree.find(path)?;
        let file = found.node.file()?;
        Some(BootFile {
            id: file.id,
            size: file.size,
            path: found.path,
        })
    })
}

fn missing(what: &str, path: &str) -> Error {
    Error::user(format!("the image has no {what}: /{path} leads to no file"))
        .hint("`kfactory convert` makes it; `kfactory validate` tells what else is missing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::samples::Sample;

    #[test]
    fn the_kernel_is_what_the_absolute_link_leads_to_inside_of_the_image() {
        let tree = Sample::new()
            .file("boot/vmlinuz-5.10", 0o644, b"old")
            .file("boot/vmlinuz-6.1", 0o644, b"newer")
            .file("boot/initrd", 0o600, b"i")
            .file(
                "boot/config-6.1",
                0o644,
                b"CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n",
            )
            .link("boot/vmlinuz", "/boot/vmlinuz-6.1")
            .tree();
        let found = BootFiles::find(&tree).unwrap();
        assert_eq!(
            (found.kernel.size, found.version.as_deref()),
            (5, Some("6.1"))
        );
        let has = |option| found.has_option(&tree, option).unwrap();
        assert!(has("CONFIG_A") && has("CONFIG_B") && !has("CONFIG_C") && !has("CONFIG"));
    }

    #[test]
    fn what_is_missing_is_named_by_its_path() {
        let tree = Sample::new().file("boot/vmlinuz", 0o644, b"k").tree();
        let error = BootFiles::find(&tree).unwrap_err().render_text();
        assert!(error.contains("no initrd: /boot/initrd"), "{error}");
    }
}
