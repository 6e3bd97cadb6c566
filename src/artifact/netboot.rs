//! `kfactory netboot`: what a machine loads over the network to boot an image: kernel, initrd, root filesystem, and an iPXE script that
//! names them.
//!
//! The script asks iPXE where it was loaded from, so the directory can be served from anywhere. Older builds of iPXE do not know: for
//! them the address stands in the script, which `kfactory netboot serve` sees to by itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use kfactory_sandbox::CancelToken;

use super::boot_files::BootFiles;
use super::flat::{Copies, Flat};
use super::medium::Medium;
use super::squashfs::{Compressor, Squashfs, Target};
use crate::error::{Context as _, Error, Result};
use crate::staging::Staging;
use crate::stop::Stoppable;

/// What a machine is to be told beside where things are.
#[derive(Debug, Clone)]
pub struct Netboot<'a> {
    /// How the names of the files begin.
    pub name: &'a str,
    /// Replaces the kernel arguments that say how to boot and install.
    pub cmdline: Option<&'a str>,
    /// A configuration for the installation, which the machine fetches from beside the script.
    pub cloud_config: Option<&'a [u8]>,
    /// Where the directory will be served, with a slash at the end; `None`: wherever the script is loaded from.
    pub url: Option<&'a str>,
}

/// What iPXE puts the address of the script's directory in place of. Spec: ipxe.org/cfg/cwduri.
const HERE: &str = "${cwduri}";
/// What ends a script that needs it on an iPXE that does not know it.
const GUARD: &str = "isset ${cwduri} || goto old\n";
const GUARDED: &str = ":old\n\
    echo This iPXE does not say where a script comes from.\n\
    echo Make the files with kfactory netboot --url, or serve them with kfactory netboot serve.\n\
    shell\n";

/// The kernel arguments that say how to boot and install.
const CMDLINE: &str = "rd.live.overlay.overlayfs rd.neednet=1 ip=dhcp rd.cos.disable netboot install-mode \
     console=tty1 console=ttyS0 console=tty0";
/// The name of the script, which has no prefix: it is what a DHCP server is configured with.
pub const SCRIPT: &str = "boot.ipxe";
/// What a name may have, so that endings fit behind it.
const MAX_NAME_BYTES: usize = 200;
/// The name of the configuration.
pub(super) const CONFIG: &str = "config.yaml";

/// How the root filesystem of an image is made.
#[derive(Debug, Clone, Copy)]
pub struct Squash {
    /// How it is compressed.
    pub compressor: Compressor,
    /// The time of making, in seconds since 1970.
    pub created: i64,
    /// Threads that compress.
    pub threads: usize,
}

/// Where the files that the script names are to be.
#[derive(Debug)]
pub struct Files {
    kernel: PathBuf,
    initrd: PathBuf,
    squashfs: PathBuf,
}

impl Files {
    /// Makes them of `flat`.
    ///
    /// # Errors
    ///
    /// The image has no kernel or no initrd, a layer is damaged, the disk is full, or the user stops the run.
    pub fn make(&self, flat: &Flat<'_>, squash: Squash, cancel: &CancelToken) -> Result<()> {
        let boot = BootFiles::find(flat.tree)?;
        let mut kernel = create(&self.kernel)?;
        let mut initrd = create(&self.initrd)?;
        let mut copies: Copies<'_> = BTreeMap::new();
        copies.insert(boot.kernel.id, &mut kernel);
        copies.insert(boot.initrd.id, &mut initrd);
        let squashfs = Squashfs::start(&Target {
            file: &self.squashfs,
            offset: 0,
            compressor: squash.compressor,
            root: flat.tree.top(),
            created: squash.created,
            threads: squash.threads,
        })?;
        squashfs.feed(cancel, |out| flat.write_tar(out, &mut copies))
    }

    /// Copies them from a live medium.
    ///
    /// # Errors
    ///
    /// The medium cannot be read, the disk is full, or the user stops the run.
    pub fn copy(&self, medium: &Medium, cancel: &CancelToken) -> Result<()> {
        for (content, path) in [
            (&medium.kernel, &self.kernel),
            (&medium.initrd, &self.initrd),
            (&medium.squashfs, &self.squashfs),
        ] {
            let mut content = Stoppable::new(content.reader(), Some(cancel));
            io::copy(&mut content, &mut create(path)?)
                .context(|| format!("copying to {}", path.display()))?;
        }
        Ok(())
    }
}

fn create(path: &Path) -> Result<File> {
    File::create(path).context(|| format!("writing {}", path.display()))
}

impl Netboot<'_> {
    /// Fills `dir`, which is missing or empty: kernel, initrd and root filesystem come from `fill`. All of it appears there when it is
    /// whole, and `check` is content with it.
    ///
    /// # Errors
    ///
    /// What `fill` and `check` say, or a file that cannot be written.
    pub fn write(
        &self,
        dir: &Path,
        fill: impl FnOnce(&Files) -> Result<()>,
        check: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        check_name(self.name)?;
        let staging = Staging::start(dir)?;
        let doing = || format!("writing into {}", dir.display());
        let place = |suffix: &str| staging.path().join(format!("{}{suffix}", self.name));
        fill(&Files {
            kernel: place("-kernel"),
            initrd: place("-initrd"),
            squashfs: place(".squashfs"),
        })?;
        if let Some(config) = self.cloud_config {
            fs::write(staging.path().join(CONFIG), config).context(doing)?;
        }
        fs::write(staging.path().join(SCRIPT), self.script()).context(doing)?;
        check(&staging.path())?;
        staging.finish()
    }

    /// Returns the iPXE script. Spec: ipxe.org/scripting.
    fn script(&self) -> String {
        let name = self.name;
        let cmdline = self.cmdline.unwrap_or(CMDLINE);
        let config = match self.cloud_config {
            Some(_) => format!(" config_url={HERE}{CONFIG}"),
            None => String::new(),
        };
        let script = format!(
            "#!ipxe\n{GUARD}\
             kernel {name}-kernel initrd={name}-initrd root=live:{HERE}{name}.squashfs{config} {cmdline}\n\
             initrd {name}-initrd\n\
             boot\n{GUARDED}"
        );
        match self.url {
            Some(url) => at(&script, url),
            None => script,
        }
    }
}

/// Returns `script` for an iPXE that is not asked where it comes from: from the directory at `url`, which ends in a slash.
pub fn at(script: &str, url: &str) -> String {
    let script = script.replace(GUARD, "").replace(GUARDED, "");
    script.replace(HERE, url)
}

/// Checks that `text` is the address of a directory, and returns it with a slash at its end.
///
/// # Errors
///
/// A usage error for anything but an absolute `http` or `https` address of plain characters.
pub fn check_url(text: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]@!&'()*+,;=%".contains(c);
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|it| text.strip_prefix(it));
    let is_plain = rest.is_some_and(|rest| rest.chars().all(plain));
    let has_host = |uri: axum::http::Uri| uri.host().is_some_and(|host| !host.is_empty());
    if is_plain && text.parse().is_ok_and(has_host) {
        return Ok(format!("{}/", text.trim_end_matches('/')));
    }
    Err(
        Error::usage(format!("`{text}` is no address of a directory"))
            .hint("`http://HOST[:PORT][/DIRECTORY]`, as machines are to reach it"),
    )
}

/// Checks that `name` can begin the name of a file and stand in a script and on a kernel's command line.
///
/// # Errors
///
/// A usage error, where it cannot.
pub fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len());
    if fits && !name.starts_with(['.', '-']) && name.chars().all(plain) {
        return Ok(());
    }
    Err(
        Error::usage(format!("`{name}` cannot begin the names of files here"))
            .hint("up to 200 letters, digits, `.`, `_`, `+` and `-`, the first of them a letter or a digit"),
    )
}

/// Checks that `text` is a kernel command line of one line.
///
/// # Errors
///
/// A usage error where it holds a control character, which a script or a menu would take for its end.
pub fn check_cmdline(text: &str) -> Result<()> {
    match text.chars().find(|c| c.is_control()) {
        None => Ok(()),
        Some(c) => Err(Error::usage(format!(
            "the kernel arguments hold the control character U+{:04X}",
            u32::from(c)
        ))
        .hint("arguments are separated by single spaces")),
    }
}

/// Checks that `text` can stand on a line of a script.
///
/// # Errors
///
/// As [`check_cmdline`]; or a word of it ends a command of iPXE's.
pub fn check_script_cmdline(text: &str) -> Result<()> {
    check_cmdline(text)?;
    let ends = |word: &&str| ["||", "&&", ";"].contains(word) || word.starts_with('#');
    match text.split(' ').find(ends) {
        None => Ok(()),
        Some(word) => Err(Error::usage(format!(
            "the kernel arguments hold `{word}`, where iPXE ends them"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netboot<'a>() -> Netboot<'a> {
        Netboot {
            name: "kairos",
            cmdline: None,
            cloud_config: None,
            url: None,
        }
    }

    #[test]
    fn the_script_names_everything_relative_to_itself() {
        let script = netboot().script();
        assert!(script.starts_with("#!ipxe\n"), "{script}");
        assert!(
            script.contains("\nkernel kairos-kernel initrd=kairos-initrd "),
            "{script}"
        );
        assert!(
            script.contains(" root=live:${cwduri}kairos.squashfs "),
            "{script}"
        );
        assert!(!script.contains("config_url"), "{script}");
        let with_config = Netboot {
            cloud_config: Some(b"#cloud-config\n"),
            cmdline: Some("quiet"),
            ..netboot()
        };
        let script = with_config.script();
        assert!(
            script.contains(" config_url=${cwduri}config.yaml quiet\n"),
            "{script}"
        );
    }

    #[test]
    fn a_script_of_a_known_place_asks_for_nothing() {
        let script = Netboot {
            url: Some("http://h:1/d/"),
            ..netboot()
        };
        let script = script.script();
        assert!(
            script.contains(" root=live:http://h:1/d/kairos.squashfs "),
            "{script}"
        );
        assert!(
            !script.contains("cwduri") && script.ends_with("boot\n"),
            "{script}"
        );
        assert_eq!(check_url("http://h:1/d").unwrap(), "http://h:1/d/");
        for bad in [
            "",
            "h:1",
            "ftp://h",
            "http://",
            "http://h d",
            "http://h/${x}",
            "http://h\n",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_a_script_would_read_otherwise_are_refused() {
        for bad in ["", "a b", "a/b", "-a", "..", "a$b", "ä"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name("kairos-1.0").is_ok());
        assert!(check_cmdline("a b").is_ok() && check_cmdline("a\nboot").is_err());
        for bad in ["a || shell", "a # b", "; a", "a && b", "a\nb"] {
            assert!(check_script_cmdline(bad).is_err(), "{bad}");
        }
        assert!(check_script_cmdline("a=b;c d#e console=ttyS0").is_ok());
    }
}
