//! The step model: what changes an image, as plain data.
//!
//! A [`Step`] has a name, a phase, a group (its layer) and a list of [`Action`]s. Steps are made by [`crate::plan`]
//! from facts and a request without touching a disk, so they can be printed, hashed and compared with golden files.
//! What depends on the state of the tree (which kernel is installed?) is an action that finds out when it runs.

mod extension;
pub mod init;
pub mod install;
mod names;
mod plugin;
pub mod provider;

pub use extension::{Condition, Extension, Hook, Source};
pub use names::{NAMES, StepName, check_skip_name};
pub use plugin::{Content, GitAuth, Owner, Plugin, Secret, Unit, UserAccount};

use serde::{Deserialize, Serialize};

use crate::distro::policy::InitramfsTool;
use crate::printable::counted;

/// Which half of the conversion a step belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Packages, kernel, files and binaries.
    Install,
    /// Release file, initramfs, services, cleanup.
    Init,
}

impl Phase {
    /// Returns the name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Install => "install",
            Phase::Init => "init",
        }
    }
}

/// The default layer a step's changes go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Base packages.
    Packages,
    /// The kernel package.
    Kernel,
    /// Kairos files and binaries.
    Kairos,
    /// Kubernetes.
    Provider,
    /// Everything of the init phase.
    Init,
    /// Steps of stage extensions, wherever they stand.
    Extensions,
}

impl Group {
    /// Returns the name used in history entries and progress lines.
    pub fn name(self) -> &'static str {
        match self {
            Group::Packages => "packages",
            Group::Kernel => "kernel",
            Group::Kairos => "kairos",
            Group::Provider => "provider",
            Group::Init => "init",
            Group::Extensions => "extensions",
        }
    }
}

/// One unit of change, in the order it is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The name that `--skip-step` takes.
    pub name: StepName,
    /// Which half it belongs to.
    pub phase: Phase,
    /// Its default layer.
    pub group: Group,
    /// What it does, in order.
    pub actions: Vec<Action>,
    /// Where it comes from and what it depends on; `None` for a step of our own.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub extension: Option<Box<Extension>>,
}

impl Step {
    /// Makes a step of our own.
    pub fn new(name: StepName, phase: Phase, group: Group, actions: Vec<Action>) -> Self {
        Self {
            name,
            phase,
            group,
            actions,
            extension: None,
        }
    }

    /// Returns the name that people see: that of the extension's step where it comes from one.
    pub fn label(&self) -> &str {
        self.extension
            .as_ref()
            .map_or(self.name.as_str(), |extension| &extension.label)
    }

    /// Returns where it was written, in parentheses behind a blank; nothing for a step of our own.
    pub fn place(&self) -> String {
        let source = self.extension.as_ref().and_then(|it| it.source.as_ref());
        source
            .map(|source| format!(" ({source})"))
            .unwrap_or_default()
    }

    /// Returns the step without where it was written and what it is called: neither changes what is made.
    #[must_use]
    pub fn without_place(&self) -> Self {
        let mut step = self.clone();
        if let Some(extension) = &mut step.extension {
            extension.source = None;
            extension.label.clear();
        }
        step
    }
}

/// Packages that an option left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Saving {
    /// The option.
    pub option: String,
    /// The packages' names.
    pub names: Vec<String>,
}

/// One thing a step does.
///
/// Paths are absolute inside the root filesystem. Modes are octal permission bits; owners are root unless said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Creates the directory and its missing parents (0755).
    Directory {
        /// The directory.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Writes the file, replacing what is there; missing parents become 0755 directories.
    File {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
        /// Its whole content.
        content: String,
    },
    /// Makes a symbolic link, replacing a link or file that is there.
    Link {
        /// The link.
        path: String,
        /// What it points at.
        target: String,
        /// Only when this path exists.
        #[serde(skip_serializing_if = "Option::is_none")]
        if_exists: Option<String>,
        /// Only when this path does not exist.
        #[serde(skip_serializing_if = "Option::is_none")]
        unless_exists: Option<String>,
    },
    /// Removes everything that matches; a pattern's last component may hold `*`.
    Remove {
        /// Absolute patterns.
        paths: Vec<String>,
    },
    /// Empties the file if it exists.
    Truncate {
        /// The file.
        path: String,
    },
    /// Sets owner root:root and the permission bits of an existing file; a missing one is left out with a warning.
    Permissions {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Merges keys into `/etc/kairos-release`.
    Release {
        /// Keys and unquoted values.
        entries: std::collections::BTreeMap<String, String>,
    },
    /// Brings package lists up to date, upgrades once and installs.
    Packages {
        /// Whether to refresh the lists and upgrade what is installed first.
        upgrade: bool,
        /// Names, sorted and unique.
        install: Vec<String>,
    },
    /// Installs packages before all others and apart from them: they bring the repositories the others come from.
    Prerequisites {
        /// Names, sorted and unique.
        install: Vec<String>,
        /// The address of the one package where no repository has it.
        #[serde(skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// Whether packages of the base that conflict may be replaced.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        replace: bool,
    },
    /// Refreshes the repositories and trusts the keys they state.
    ImportKeys,
    /// Enables a repository that the base knows and leaves off.
    EnableRepository {
        /// Its section in `/etc/yum.repos.d`.
        id: String,
    },
    /// Removes packages where they are installed.
    RemovePackages {
        /// Their names.
        names: Vec<String>,
    },
    /// Moves a file over another one, if it exists.
    Move {
        /// The file.
        from: String,
        /// Its new path.
        to: String,
    },
    /// Enables a component of the distribution's own apt sources, where it is not enabled yet.
    AptComponent {
        /// The component: `non-free-firmware`.
        component: String,
    },
    /// Installs a kernel from a file of this machine: an image with the modules beside it, or a package.
    KernelFile {
        /// The file, on this machine.
        file: String,
    },
    /// Says what leaving packages out saved.
    ReportSavings {
        /// By option.
        savings: Vec<Saving>,
    },
    /// Says that there are other repositories now: the lists are brought up to date before the next packages.
    ListsChanged,
    /// Fetches the key that a repository is signed with and writes it without its armour.
    RepositoryKey {
        /// Where it is, an https address.
        url: String,
        /// The keyring to write.
        path: String,
    },
    /// Stops unless the path exists.
    Require {
        /// What has to be there.
        path: String,
        /// How it gets there.
        remedy: String,
    },
    /// Takes the drivers for memory that outlives a boot out of Ubuntu's package of extra modules, and nothing else of it.
    NvdimmModules,
    /// Says how large the image is as a signed EFI image, and what that is compared with.
    MeasureUki,
    /// Checks that kernel, initrd and Kairos binaries are what FIPS mode needs.
    ProveFips,
    /// Removes all firmware for devices but what matches.
    KeepFirmware {
        /// Patterns relative to `/usr/lib/firmware`, for names at its top.
        patterns: Vec<String>,
    },
    /// Runs a command of the image in the sandbox.
    Run {
        /// The command and its arguments.
        argv: Vec<String>,
        /// Whether it asks for a network.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        network: bool,
        /// Names of the secrets it reads below [`crate::secret::DIR`]. One that was not given is not there.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        secrets: Vec<String>,
        /// Only when this path exists.
        #[serde(skip_serializing_if = "Option::is_none")]
        if_exists: Option<String>,
        /// Whether its failure is a warning rather than an error.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        may_fail: bool,
    },
    /// Puts one Kairos binary in place.
    Framework {
        /// Its name among the framework's files.
        name: String,
        /// Where it goes.
        path: String,
        /// Whether a framework without it is an error rather than a warning.
        required: bool,
        /// Nothing is written if one of these exists.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        unless_exists: Vec<String>,
    },
    /// Installs a Kubernetes distribution from its release: the program, its links, and a service for each role, none enabled.
    Kubernetes {
        /// The distribution's name.
        distribution: String,
        /// The release, with its `v`.
        version: String,
        /// Whether the user gave a configuration file for it.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        config: bool,
    },
    /// Asks the provider plugins in the image to install a provider; exactly one must do it.
    ProviderInstall {
        /// The provider's name.
        provider: String,
        /// The version; empty: the plugin's choice.
        #[serde(skip_serializing_if = "String::is_empty")]
        version: String,
        /// Whether the user gave a configuration file for it.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        config: bool,
    },
    /// Finds out which provider the image holds and merges its name and version into `/etc/kairos-release`.
    ProviderInfo {
        /// The providers that were asked for.
        providers: Vec<String>,
    },
    /// Chooses the kernel and makes `/boot/vmlinuz` name it.
    LinkKernel,
    /// Builds `/boot/initrd` for the chosen kernel.
    Initrd {
        /// What gathers its files.
        tool: InitramfsTool,
    },
    /// Writes the initramfs configuration that fits what is installed by now.
    InitramfsConfig,
    /// Unmasks, enables, disables and masks units, in this order.
    Services {
        /// Units that container images mask.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        unmask: Vec<String>,
        /// Units to enable; a missing one is a warning.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        enable: Vec<String>,
        /// Units to enable where they are installed.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        optional: Vec<String>,
        /// Units to disable.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        disable: Vec<String>,
        /// Units to mask.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        mask: Vec<String>,
    },
    /// Adds OpenRC services to a run level; a missing one is a warning.
    Runlevel {
        /// The run level.
        level: String,
        /// The services.
        services: Vec<String>,
    },
    /// Writes the sshd hardening file if the installed OpenSSH understands it, and drops weak moduli.
    SshHardening,
    /// Clears package managers' caches and temporary files.
    CleanPackageCache {
        /// Absolute patterns, as for [`Action::Remove`].
        paths: Vec<String>,
    },
    /// One piece of work of a stage extension's step.
    Plugin(Plugin),
}

impl Action {
    /// Returns a command that must end well and gets neither network nor secrets.
    pub fn run(argv: &[&str]) -> Self {
        Action::Run {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            network: false,
            secrets: Vec::new(),
            if_exists: None,
            may_fail: false,
        }
    }

    /// Returns the names of the secrets that the action reads.
    pub fn secrets(&self) -> &[String] {
        match self {
            Action::Run { secrets, .. } => secrets,
            _ => &[],
        }
    }

    /// Returns one line that says what the action does.
    pub fn describe(&self) -> String {
        match self {
            Action::Directory { path, mode } => format!("create directory {path} ({mode:04o})"),
            Action::File {
                path,
                mode,
                content,
            } => format!("write {path} ({mode:04o}, {})", counted(content.len(), "byte")),
            Action::Link {
                path,
                target,
                if_exists,
                unless_exists,
            } => {
                let mut line = format!("link {path} -> {target}");
                if let Some(path) = if_exists {
                    line.push_str(&format!(", if {path} exists"));
                }
                if let Some(path) = unless_exists {
                    line.push_str(&format!(", unless {path} exists"));
                }
                line
            }
            Action::Remove { paths } => format!("remove {}", paths.join(" ")),
            Action::Truncate { path } => format!("empty {path}"),
            Action::Permissions { path, mode } => format!("set {path} to root:root {mode:04o}"),
            Action::Release { entries } => {
                format!("set {} keys in /etc/kairos-release", entries.len())
            }
            Action::Packages { upgrade, install } => {
                let upgrade = if *upgrade { "refresh, upgrade, " } else { "" };
                format!(
                    "{upgrade}install {}",
                    counted(install.len(), "package")
                )
            }
            Action::Prerequisites {
                install,
                url,
                replace,
            } => {
                let mut line = format!("install first {}", install.join(" "));
                if let Some(url) = url {
                    line.push_str(&format!(", where no repository has it from {url}"));
                }
                if *replace {
                    line.push_str(", replacing what conflicts");
                }
                line
            }
            Action::ImportKeys => "refresh the repositories and trust the keys they state".into(),
            Action::EnableRepository { id } => format!("enable the repository {id}"),
            Action::RemovePackages { names } => {
                format!("remove {}, where installed", names.join(" "))
            }
            Action::Move { from, to } => format!("move {from} to {to}, if it exists"),
            Action::AptComponent { component } => {
                format!("enable component {component} in the apt sources")
            }
            Action::KernelFile { file } => format!("install the kernel in {file}"),
            Action::ReportSavings { savings } => {
                let parts: Vec<String> = savings
                    .iter()
                    .map(|saving| format!("{} ({})", saving.option, saving.names.join(" ")))
                    .collect();
                format!("say what was saved by {}", parts.join(", "))
            }
            Action::ListsChanged => "bring the package lists up to date before the next packages".into(),
            Action::RepositoryKey { url, path } => format!("fetch the key {url} as {path}"),
            Action::Require { path, .. } => format!("require {path}"),
            Action::NvdimmModules => {
                "install the nvdimm drivers out of linux-modules-extra of the chosen kernel, if there is such a package".into()
            }
            Action::MeasureUki => "measure kernel and root filesystem against the limits of a UKI".into(),
            Action::ProveFips => "prove that kernel, initrd and Kairos binaries are FIPS builds".into(),
            Action::KeepFirmware { patterns } if patterns.is_empty() => {
                "remove all firmware for devices".into()
            }
            Action::KeepFirmware { patterns } => {
                format!("remove firmware for devices but {}", patterns.join(" "))
            }
            Action::Run {
                argv,
                secrets,
                if_exists,
                may_fail,
                ..
            } => {
                let mut line = format!("run `{}`", argv.join(" "));
                if let Some(path) = if_exists {
                    line.push_str(&format!(", if {path} exists"));
                }
                if !secrets.is_empty() {
                    line.push_str(&format!(", reading the secret {}", secrets.join(", ")));
                }
                if *may_fail {
                    line.push_str("; may fail");
                }
                line
            }
            Action::Framework {
                name,
                path,
                unless_exists,
                ..
            } => {
                let unless = if unless_exists.is_empty() {
                    String::new()
                } else {
                    format!(", unless {} exists", unless_exists.join(" or "))
                };
                format!("install {name} as {path} (0755){unless}")
            }
            Action::Kubernetes {
                distribution,
                version,
                config,
            } => {
                let config = if *config {
                    ", with the given configuration"
                } else {
                    ""
                };
                format!("install {distribution} {version} with its services, none enabled{config}")
            }
            Action::ProviderInstall {
                provider,
                version,
                config,
            } => {
                let version = if version.is_empty() {
                    ""
                } else {
                    &format!(" {version}")
                };
                let config = if *config {
                    ", with the given configuration"
                } else {
                    ""
                };
                format!("ask the image's provider plugins to install {provider}{version}{config}")
            }
            Action::ProviderInfo { providers } => format!(
                "ask the image for the version of {} and set 2 keys in /etc/kairos-release",
                providers.join(", ")
            ),
            Action::LinkKernel => {
                "choose the highest kernel version and link /boot/vmlinuz to it".into()
            }
            Action::Initrd { tool } => {
                format!("depmod, {}, compress and write /boot/initrd", tool.as_str())
            }
            Action::InitramfsConfig => {
                "write dracut configuration and the immucore module for what is installed".into()
            }
            Action::Services {
                unmask,
                enable,
                optional,
                disable,
                mask,
            } => {
                let mut parts = Vec::new();
                for (verb, units) in [
                    ("unmask", unmask),
                    ("enable", enable),
                    ("enable where installed", optional),
                    ("disable", disable),
                    ("mask", mask),
                ] {
                    if !units.is_empty() {
                        parts.push(format!("{verb} {}", units.join(" ")));
                    }
                }
                parts.join("; ")
            }
            Action::Runlevel { level, services } => {
                format!("add to run level {level}: {}", services.join(" "))
            }
            Action::SshHardening => {
                "harden sshd (OpenSSH 8.5 or newer) and drop moduli below 2047 bits".into()
            }
            Action::CleanPackageCache { paths } => {
                format!(
                    "clear package caches and temporary files: {}",
                    paths.join(" ")
                )
            }
            Action::Plugin(plugin) => plugin.describe(),
        }
    }
}
