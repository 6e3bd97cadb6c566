//! apt and dpkg: the command lines, configuration and environment that install packages fast and without a trace.
//!
//! Mechanism only; what is installed and what of it stays in the image is decided elsewhere ([`super::packages`],
//! [`super::debian`]). Nothing here touches a disk. The engine writes [`Workspace::files`] to a tmpfs, mounts its caches
//! beside them and runs the commands with [`Workspace::environment`]; the rootfs itself gets no configuration, so there
//! is none to take out of it again.
//!
//! # Holding back
//!
//! Packages rebuild the initrd whenever one of them is configured: a kernel hook and a dpkg trigger each take longer than
//! installing everything else. Both find their tool through `PATH`, so a directory of commands that do nothing, in front
//! of the others, holds them back. A file in place of the real tool would be in dpkg's way when the package that owns
//! it is unpacked; a diversion or a policy file would have to be removed again.

mod ar;
pub mod deb;
#[cfg(test)]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    clippy::print_stderr,
    reason = "a program that the build script compiles, with tests and lints of this crate"
)]
#[path = "helpers/main.rs"]
mod helpers;
#[cfg(test)]
mod helpers_tests;
mod owners;
mod python;
pub mod uris;
mod ustar;

pub use uris::{PackageHash, PackageUri, UriError, parse_uris};

/// Commands that package scripts call and that must do nothing while an image is built.
///
/// * `dracut`, `update-initramfs`, `mkinitramfs`: the initrd is built once, at the end, by its own step.
/// * `update-grub`, `grub-install`: an image has no disk to configure a boot loader for.
/// * `ssh-keygen`: host keys are made when a machine boots first; keys in an image would be shared by all machines.
/// * `invoke-rc.d`, `start-stop-daemon`: nothing may be started in the rootfs.
/// * `ischroot`: says yes by its exit code, which is what scripts ask before they look for a running machine. That of Debian's
///   `raspi-firmware` fails without one, unless it finds a container's marks.
pub const HELD_BACK: &[&str] = &[
    "dracut",
    "grub-install",
    "invoke-rc.d",
    "ischroot",
    "mkinitramfs",
    "ssh-keygen",
    "start-stop-daemon",
    "update-grub",
    "update-initramfs",
];

/// The body of a held-back command.
const NO_OP: &str = "#!/bin/sh\nexit 0\n";

/// Stands in for `deb-systemd-helper` where what is asked is plain; the file says why.
const SYSTEMD_HELPER: &str = include_str!("deb-systemd-helper.sh");

/// A static program that goes by [`HELPER_NAMES`]; empty where it could not be linked. Its source says what it does.
pub const HELPERS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dpkg-helpers"));

/// The programs that dpkg starts for every package. It starts `rm` as well, but a package's script that looks for that one and
/// writes down where it is must not find it here.
const HELPER_NAMES: &[&str] = &["dpkg-deb", "dpkg-split"];

/// Where the rootfs' own commands are, in the order Debian searches.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A file for the workspace, to be written before apt runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkFile {
    /// Absolute path inside the sandbox.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// The whole content.
    pub content: Vec<u8>,
}

#[cfg(test)]
impl WorkFile {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.content).expect("text")
    }
}

/// The directory inside the sandbox that holds everything apt needs and everything it leaves behind.
///
/// It must not be part of the rootfs that is captured: a tmpfs with mounts in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    root: String,
    source_date_epoch: u64,
}

impl Workspace {
    /// Describes a workspace at `root`, an absolute path without a trailing slash. `source_date_epoch` is in seconds; tools
    /// that record the day (such as useradd in `/etc/shadow`) take it instead of today.
    pub fn new(root: impl Into<String>, source_date_epoch: u64) -> Self {
        Self {
            root: root.into(),
            source_date_epoch,
        }
    }

    /// Where the `.deb` files are taken from and downloaded to. Mount a directory of this build here, filled with
    /// copies of what the shared cache has: apt trusts a file with the right name and size, and locks the directory.
    pub fn archives(&self) -> String {
        format!("{}/archives", self.root)
    }

    /// Where apt looks for archives while it only lists them; empty.
    fn no_archives(&self) -> String {
        format!("{}/no-archives", self.root)
    }

    /// Where the repositories' indexes are. Builds with the same sources can share it one after another, not at once.
    pub fn lists(&self) -> String {
        format!("{}/lists", self.root)
    }

    /// Where decompressed packages wait until they may take the places of those in [`Workspace::archives`]: apt compares sizes
    /// with its lists first. An installation moves what is there before it starts dpkg, and says so with
    /// [`Workspace::dpkg_runs`]; what is ready later may go to its place at once.
    pub fn unpacked(&self) -> String {
        format!("{}/unpacked", self.root)
    }

    /// A file that is there from the moment an installation starts dpkg.
    pub fn dpkg_runs(&self) -> String {
        format!("{}/dpkg-runs", self.root)
    }

    /// The directories to create, parents first. apt changes the owner of the `partial` ones to its download user.
    pub fn directories(&self) -> Vec<String> {
        [
            "",
            "/bin",
            "/cache",
            "/log",
            "/archives",
            "/archives/partial",
            "/lists",
            "/lists/partial",
            "/no-archives",
            "/no-archives/partial",
            "/unpacked",
        ]
        .iter()
        .map(|name| format!("{}{name}", self.root))
        .collect()
    }

    /// The files to write into those directories: apt's configuration and the commands that are held back.
    pub fn files(&self) -> Vec<WorkFile> {
        let config = WorkFile {
            path: self.config_path(),
            mode: 0o644,
            content: self.config().into(),
        };
        let held_back = HELD_BACK.iter().map(|name| WorkFile {
            path: format!("{}/bin/{name}", self.root),
            mode: 0o755,
            content: NO_OP.into(),
        });
        let systemd_helper = WorkFile {
            path: format!("{}/bin/deb-systemd-helper", self.root),
            mode: 0o755,
            content: SYSTEMD_HELPER.into(),
        };
        let names = if HELPERS.is_empty() {
            &[]
        } else {
            HELPER_NAMES
        };
        // Not links: the program knows by its own path which of them it is.
        let helpers = names.iter().map(|name| WorkFile {
            path: format!("{}/bin/{name}", self.root),
            mode: 0o755,
            content: HELPERS.into(),
        });
        let compile_python = WorkFile {
            path: self.compile_python(),
            mode: 0o644,
            content: python::COMPILE_AGAIN.into(),
        };
        [config, systemd_helper, compile_python]
            .into_iter()
            .chain(helpers)
            .chain(held_back)
            .collect()
    }

    /// The environment of every apt command, complete: nothing of the caller's environment belongs in it but proxies.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let fixed = [
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBIAN_PRIORITY", "critical"),
            ("DEBCONF_NOWARNINGS", "yes"),
            ("APT_LISTCHANGES_FRONTEND", "none"),
            ("NEEDRESTART_SUSPEND", "1"),
            ("UCF_FORCE_CONFFOLD", "1"),
            // Kernel hooks of dracut and initramfs-tools do nothing then, and no link to an initrd that never comes is made.
            ("INITRD", "No"),
            // Some two thousand programs start, and each would open all twelve files of a locale where only the character set matters.
            ("LC_ALL", ""),
            ("LANG", "C"),
            ("LC_CTYPE", "C.UTF-8"),
            ("HOME", "/root"),
        ];
        let mut environment: Vec<_> = fixed.map(|(name, value)| (name, value.to_owned())).into();
        environment.push(("PATH", self.path()));
        environment.push(("SOURCE_DATE_EPOCH", self.source_date_epoch.to_string()));
        environment
    }

    /// Builds the command line that does `operation`.
    ///
    /// # Errors
    ///
    /// [`InvalidPackage`] for a name that is an option, a pattern or an action to apt (`foo-` removes `foo`).
    pub fn command(&self, operation: Operation<'_>) -> Result<Vec<String>, InvalidPackage> {
        self.arguments(operation, &[])
    }

    /// Builds the command line that lists what `operation` would download, for [`parse_uris`], and changes nothing.
    ///
    /// What is in [`Workspace::archives`] already is listed as well: apt removes an archive there whose size is not what its lists
    /// say, as that of a decompressed one is not, even when it only lists, and dpkg may be reading them at that moment.
    ///
    /// # Errors
    ///
    /// As [`Workspace::command`].
    pub fn list_downloads(&self, operation: Operation<'_>) -> Result<Vec<String>, InvalidPackage> {
        let elsewhere = format!("--option=Dir::Cache::Archives={}", self.no_archives());
        self.arguments(operation, &["--print-uris", &elsewhere])
    }

    fn arguments(
        &self,
        operation: Operation<'_>,
        options: &[&str],
    ) -> Result<Vec<String>, InvalidPackage> {
        let config = self.config_option();
        let (verb, names) = match operation {
            Operation::Update => ("update", &[][..]),
            Operation::Upgrade => ("upgrade", &[][..]),
            Operation::Install(names) => ("install", names),
        };
        let before_dpkg = format!("--option=DPkg::Pre-Invoke::={}", self.before_dpkg());
        let mut line = vec!["apt-get", config.as_str(), "--quiet"];
        line.extend(options);
        if matches!(operation, Operation::Install(_)) && options.is_empty() {
            line.push(&before_dpkg);
        }
        line.push(verb);
        for name in names {
            line.push(package_name(name)?);
        }
        Ok(line.into_iter().map(str::to_owned).collect())
    }

    /// Returns the option that makes `apt-get` or `apt-cache` work in this directory.
    pub fn config_option(&self) -> String {
        format!("--config-file={}", self.config_path())
    }

    /// The mark comes first: what becomes whole in between is then moved by one or the other.
    fn before_dpkg(&self) -> String {
        format!(
            ": >{}; mv {}/*.deb {} 2>/dev/null; :",
            self.dpkg_runs(),
            self.unpacked(),
            self.archives()
        )
    }

    fn config_path(&self) -> String {
        format!("{}/apt.conf", self.root)
    }

    fn compile_python(&self) -> String {
        format!("{}/compile-python", self.root)
    }

    fn path(&self) -> String {
        format!("{}/bin:{SYSTEM_PATH}", self.root)
    }

    /// Writes apt's configuration. It goes on the command line: what `APT_CONFIG` names is read before the rootfs' own
    /// files, which would then win. Hooks of the rootfs are cleared: they clean caches that lie elsewhere now, write
    /// indexes nobody asked for, or ask questions before package scripts ask them again.
    fn config(&self) -> String {
        let root = &self.root;
        let path = self.path();
        let compile_python = self.compile_python();
        format!(
            r#"APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
APT::Get::List-Cleanup "false";
APT::Keep-Downloaded-Packages "true";
Binary::apt-get::APT::Keep-Downloaded-Packages "true";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
DPkg::Post-Invoke {{ "sh {compile_python}"; }};
Acquire::Languages "none";
Acquire::GzipIndexes "false";
Acquire::Retries "3";
Acquire::ForceHash "SHA256";
Dir::Cache "{root}/cache";
Dir::Cache::Archives "{root}/archives";
Dir::State::Lists "{root}/lists";
Dir::Log "{root}/log";
Dir::Log::Planner "/dev/null";
DPkg::Use-Pty "0";
DPkg::Path "{path}";
DPkg::Options {{ "--force-unsafe-io"; "--force-confdef"; "--force-confold"; "--log=/dev/null"; }};
"#
        )
    }
}

/// What apt is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Fetch the repositories' indexes.
    Update,
    /// Bring every installed package up to date; removes nothing.
    Upgrade,
    /// Install these packages and what they depend on, without what they only recommend.
    Install(&'a [&'a str]),
}

/// A name that apt would not read as one package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a package name")]
pub struct InvalidPackage {
    /// The name as it was given.
    pub name: String,
}

/// Accepts a package name with an optional architecture and version: `libc6`, `libc6:amd64`, `jq=1.6-2`.
///
/// A name ends in `-` or `+` only where that is part of it: `g++` is a package, `foo-` an order to remove one.
fn package_name(name: &str) -> Result<&str, InvalidPackage> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".+-:=~".contains(&b);
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let valid = starts_well && name.bytes().all(allowed) && !name.ends_with('-');
    valid.then_some(name).ok_or_else(|| InvalidPackage {
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> Workspace {
        Workspace::new("/run/kfactory/apt", 1_700_000_000)
    }

    #[test]
    fn command_lines_are_as_documented() {
        let workspace = workspace();
        let install = Operation::Install(&["g++", "jq=1.6-2.1", "libc6:amd64"]);
        for (built, expected) in [
            (workspace.command(Operation::Update), "update"),
            (workspace.command(Operation::Upgrade), "upgrade"),
            (
                workspace.command(install),
                "--option=DPkg::Pre-Invoke::=: >/run/kfactory/apt/dpkg-runs; mv /run/kfactory/apt/unpacked/*.deb \
                 /run/kfactory/apt/archives 2>/dev/null; : install g++ jq=1.6-2.1 libc6:amd64",
            ),
            (
                workspace.list_downloads(Operation::Upgrade),
                "--print-uris --option=Dir::Cache::Archives=/run/kfactory/apt/no-archives upgrade",
            ),
        ] {
            let built = built.expect("valid names").join(" ");
            assert_eq!(
                built,
                format!("apt-get --config-file=/run/kfactory/apt/apt.conf --quiet {expected}")
            );
        }
    }

    #[test]
    fn names_that_mean_something_else_to_apt_are_refused() {
        for name in [
            "",
            "-y",
            "--force-yes",
            "sudo-",
            "./x.deb",
            "/x.deb",
            "a b",
            "lib*",
            "^x",
            "?essential",
            "x\n",
            "task^",
        ] {
            let refused = workspace().command(Operation::Install(&["jq", name]));
            assert_eq!(
                refused,
                Err(InvalidPackage {
                    name: name.to_owned()
                })
            );
        }
    }

    #[test]
    fn everything_apt_writes_besides_packages_lies_in_the_workspace() {
        let files = workspace().files();
        let config = &files[0];
        assert_eq!(config.path, "/run/kfactory/apt/apt.conf");
        for key in [
            "Dir::Cache ",
            "Dir::Cache::Archives ",
            "Dir::State::Lists ",
            "Dir::Log ",
        ] {
            let line = config
                .text()
                .lines()
                .find(|line| line.starts_with(key))
                .expect(key);
            assert!(line.contains("\"/run/kfactory/apt/"), "{line}");
        }
        let directories = workspace().directories();
        for file in &files {
            let (parent, _) = file.path.rsplit_once('/').expect("absolute");
            assert!(
                directories.iter().any(|directory| directory == parent),
                "{}",
                file.path
            );
        }
    }

    #[test]
    fn the_one_hook_after_dpkg_is_a_program_of_the_workspace() {
        let files = workspace().files();
        let cleared = files[0].text().split("#clear DPkg::Post-Invoke;").nth(1);
        let hook = "DPkg::Post-Invoke { \"sh /run/kfactory/apt/compile-python\"; };";
        assert!(cleared.is_some_and(|after| after.contains(hook)));
        let program = files
            .iter()
            .find(|file| file.path == "/run/kfactory/apt/compile-python");
        let program = program.expect("written");
        assert_eq!(
            (program.mode, program.text()),
            (0o644, python::COMPILE_AGAIN)
        );
    }

    #[test]
    fn helpers_have_the_names_that_dpkg_calls_in_the_directory_searched_first() {
        let files = workspace().files();
        let names: Vec<_> = files
            .iter()
            .filter(|file| file.content == HELPERS)
            .filter_map(|file| file.path.strip_prefix("/run/kfactory/apt/bin/"))
            .collect();
        let can_link = !HELPERS.is_empty();
        assert_eq!(names, if can_link { HELPER_NAMES } else { &[] });
    }

    #[test]
    fn held_back_commands_come_first_for_apt_and_for_package_scripts() {
        let first = "/run/kfactory/apt/bin:/usr/local/sbin:";
        let workspace = workspace();
        let path = workspace
            .environment()
            .into_iter()
            .find(|(name, _)| *name == "PATH")
            .expect("PATH")
            .1;
        assert!(path.starts_with(first));
        assert!(
            workspace.files()[0]
                .text()
                .contains(&format!("DPkg::Path \"{first}"))
        );
        for name in ["dracut", "ischroot", "update-initramfs", "ssh-keygen"] {
            let path = format!("/run/kfactory/apt/bin/{name}");
            let file = workspace
                .files()
                .into_iter()
                .find(|file| file.path == path)
                .expect("held back");
            assert_eq!((file.mode, file.text()), (0o755, NO_OP));
        }
    }
}
