//! What the user changes about the selection of packages: `--with`, `--without`, `--kernel`, `--firmware`.
//!
//! Everything that cannot work is refused here, before anything runs: a package that is in no list, one that a step needs, one
//! that is asked for and refused at once.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::choice::{FirmwareChoice, KernelChoice};
use crate::distro::kinds::{self, FirmwareSet};
use crate::distro::packages::{Chosen, Selection};
use crate::distro::{self, Family, sizes};
use crate::error::{Error, Result};
use crate::kairos::dracut::{DracutFacts, network_modules};
use crate::request::Request;
use crate::step::{Action, Saving, Step, StepName};

const WITH: &str = "asked for: --with";
const KERNEL: &str = "asked for: --kernel";
const FIRMWARE: &str = "asked for: --firmware";

/// A package that a rule chose and the user did not want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The package's name.
    pub name: String,
    /// The rule that chose it.
    pub rule: &'static str,
    /// The option that left it out.
    pub option: &'static str,
    /// What it takes on the disk by itself, in bytes, where that is known without a package index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// The selection after the user's changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Changed {
    pub(super) selection: Selection,
    pub(super) left_out: Vec<LeftOut>,
    /// The component of the distribution's sources that has to be there.
    pub(super) component: Option<&'static str>,
    /// What to keep of the firmware; `None` keeps everything.
    pub(super) keep_firmware: Option<BTreeSet<String>>,
    /// What the user should know about the result.
    pub(super) notes: Vec<String>,
    /// A kernel from this machine, after the packages of the kernel's step.
    kernel_file: Option<String>,
    uses_apt: bool,
}

/// Changes `selection` as the request says.
///
/// # Errors
///
/// A usage error that names the option, the package and the way out.
pub(super) fn change(
    selection: Selection,
    facts: &distro::Facts,
    request: &Request,
    runs: &dyn Fn(StepName) -> bool,
) -> Result<Changed> {
    let mut changed = Changed {
        selection,
        uses_apt: facts.family == Family::Debian,
        ..Changed::default()
    };
    refuse_contradictions(request)?;
    without(&mut changed, facts, request, runs)?;
    kernel(&mut changed, facts, &request.kernel.parse()?)?;
    firmware(&mut changed, facts, &request.firmware.parse()?)?;
    with(&mut changed, request);
    for left in &mut changed.left_out {
        left.bytes = sizes::installed_bytes(facts, &left.name);
    }
    Ok(changed)
}

impl Changed {
    /// Adds to `steps` what the changes take besides other lists of packages.
    pub(super) fn apply(&self, steps: &mut [Step]) {
        drop_units(steps, &self.left_out);
        if let Some(component) = self.component {
            super::enable_component(steps, component);
        }
        self.report_savings(steps);
        if let (Some(file), Some(step)) = (
            &self.kernel_file,
            super::step_mut(steps, StepName::INSTALL_KERNEL),
        ) {
            step.actions.push(Action::KernelFile { file: file.clone() });
        }
        if let Some(keep) = &self.keep_firmware
            && let Some(kernel) = steps
                .iter_mut()
                .find(|step| step.name == StepName::INSTALL_KERNEL)
        {
            kernel.actions.push(Action::KeepFirmware {
                patterns: keep.iter().cloned().collect(),
            });
        }
    }

    /// Only apt says what an installation would take without making it.
    fn report_savings(&self, steps: &mut [Step]) {
        let mut savings: Vec<Saving> = Vec::new();
        for left in &self.left_out {
            match savings
                .iter_mut()
                .find(|saving| saving.option == left.option)
            {
                Some(saving) => saving.names.push(left.name.clone()),
                None => savings.push(Saving {
                    option: left.option.into(),
                    names: vec![left.name.clone()],
                }),
            }
        }
        let installs = |step: &&mut Step| {
            let packages = |action: &Action| matches!(action, Action::Packages { .. });
            step.actions.iter().any(packages)
        };
        if self.uses_apt
            && !savings.is_empty()
            && let Some(last) = steps.iter_mut().rev().find(installs)
        {
            last.actions.push(Action::ReportSavings { savings });
        }
    }
}

pub(super) fn refuse_contradictions(request: &Request) -> Result<()> {
    match request
        .with
        .iter()
        .find(|name| request.without.contains(name))
    {
        Some(name) => Err(Error::usage(format!(
            "`{name}` is asked for and refused at once: `--with {name} --without {name}`"
        ))
        .hint("leave one of the two out")),
        None => Ok(()),
    }
}

fn with(changed: &mut Changed, request: &Request) {
    let known = |name: &String, list: &[Chosen]| list.iter().any(|chosen| chosen.name == *name);
    for name in &request.with {
        let selection = &mut changed.selection;
        if !known(name, &selection.base) && !known(name, &selection.kernel) {
            selection.base.push(chosen(name.clone(), WITH));
        }
    }
    changed.selection.base.sort_by(|a, b| a.name.cmp(&b.name));
}

fn chosen(name: String, rule: &'static str) -> Chosen {
    Chosen { name, rule }
}

fn without(
    changed: &mut Changed,
    facts: &distro::Facts,
    request: &Request,
    runs: &dyn Fn(StepName) -> bool,
) -> Result<()> {
    for name in &request.without {
        if let Some((step, why)) = need(name, facts, request, runs) {
            return Err(
                Error::usage(format!("cannot leave out `{name}`: {why}")).hint(way_out(name, step))
            );
        }
        let before = changed.left_out.len();
        take_out(changed, "--without", |chosen| chosen.name == *name);
        if changed.left_out.len() == before {
            return Err(Error::usage(format!(
                "cannot leave out `{name}`: no rule chooses it for {}",
                facts.distro
            ))
            .hints(nearest(name, &changed.selection))
            .hint("`kfactory packages BASE` lists what is chosen; what the base brings or another package depends on is not"));
        }
    }
    Ok(())
}

/// Moves what `wanted` accepts from both lists to what is left out.
fn take_out(changed: &mut Changed, option: &'static str, wanted: impl Fn(&Chosen) -> bool) {
    let Selection {
        repository,
        base,
        kernel,
    } = &mut changed.selection;
    for list in [repository, base, kernel] {
        let (out, kept): (Vec<Chosen>, Vec<Chosen>) =
            std::mem::take(list).into_iter().partition(&wanted);
        *list = kept;
        changed
            .left_out
            .extend(out.into_iter().map(|chosen| LeftOut {
                name: chosen.name,
                rule: chosen.rule,
                option,
                bytes: None,
            }));
    }
}

/// Packages that a step cannot do without: name, step, why. The steps are checked only where they run.
const NEEDS: &[(&str, StepName, &str)] = &[
    ("dracut", StepName::INITRD, "it builds the initrd"),
    (
        "dracut-live",
        StepName::INITRD,
        "the initrd boots from live media with it",
    ),
    (
        "dracut-network",
        StepName::INITRD,
        "the initrd has its network from it",
    ),
    (
        "multipath-tools",
        StepName::INITRD,
        "the initrd holds multipath",
    ),
    (
        "device-mapper-multipath",
        StepName::INITRD,
        "the initrd holds multipath",
    ),
    (
        "cryptsetup",
        StepName::INITRD,
        "the initrd's immucore module holds it",
    ),
    (
        "dosfstools",
        StepName::INITRD,
        "the initrd's immucore module holds it",
    ),
    (
        "e2fsprogs",
        StepName::INITRD,
        "the initrd's immucore module holds it",
    ),
    (
        "gawk",
        StepName::INITRD,
        "the initrd's immucore module holds it",
    ),
    (
        "lvm2",
        StepName::INITRD,
        "the initrd's immucore module holds it",
    ),
    (
        "rsync",
        StepName::INITRD,
        "the initrd's immucore module holds it",
    ),
    (
        "eudev",
        StepName::INITRD,
        "the initrd finds its devices with it",
    ),
    ("systemd", StepName::INSTALL_PACKAGES, "the image boots it"),
    (
        "systemd-sysv",
        StepName::INSTALL_PACKAGES,
        "/sbin/init is in it",
    ),
    ("openrc", StepName::INSTALL_PACKAGES, "the image boots it"),
    (
        "busybox-openrc",
        StepName::INSTALL_PACKAGES,
        "the image boots it",
    ),
];

/// Returns the step that needs the package, and says so, if one does.
fn need(
    name: &str,
    facts: &distro::Facts,
    request: &Request,
    runs: &dyn Fn(StepName) -> bool,
) -> Option<(StepName, String)> {
    if kinds::is_kernel(name) && runs(StepName::INSTALL_KERNEL) {
        return Some((StepName::INSTALL_KERNEL, "it is the kernel".into()));
    }
    let initrd = runs(StepName::INITRD) && !facts.trusted;
    let applies = |step: StepName| {
        if step == StepName::INITRD {
            initrd
        } else {
            runs(step)
        }
    };
    if initrd && module_packages(facts, request).contains(&name) {
        let why = "step `initrd` needs it: the initrd has its network from it";
        return Some((StepName::INITRD, why.into()));
    }
    NEEDS
        .iter()
        .find(|(needed, step, _)| *needed == name && applies(*step))
        .map(|(_, step, why)| (*step, format!("step `{}` needs it: {why}", step.as_str())))
}

/// Returns the packages behind the initrd's network modules.
fn module_packages(facts: &distro::Facts, request: &Request) -> Vec<&'static str> {
    let modules = network_modules(&DracutFacts {
        distro: facts.distro.as_str(),
        family: facts.family.as_str(),
        version: facts.version.as_deref().unwrap_or_default(),
        model: facts.model.as_str(),
        has_network_manager: facts.family == Family::Redhat,
        has_networkd: true,
        has_resolved: true,
        has_legacy_network: true,
        fips: request.fips,
        built_in: &[],
        trusted: facts.trusted,
    });
    let mut packages = Vec::new();
    for module in modules {
        packages.extend_from_slice(match module {
            "network-legacy" => &["isc-dhcp-client", "dhcp-client"][..],
            "systemd-resolved" => &["systemd-resolved"],
            "systemd-networkd" => &["systemd-networkd"],
            "network-manager" => &["NetworkManager"],
            _ => &[],
        });
    }
    packages
}

fn way_out(name: &str, step: StepName) -> String {
    if kinds::is_kernel(name) {
        "`--kernel PACKAGE` takes another kernel, `--kernel none` takes none".to_owned()
    } else {
        format!(
            "keep it, or leave out the step as well: `--skip-step {}`",
            step.as_str()
        )
    }
}

/// Returns a hint with the chosen name that is nearest to `name`: one that holds it, or that begins like it.
fn nearest(name: &str, selection: &Selection) -> Vec<String> {
    let all = selection
        .base
        .iter()
        .chain(&selection.kernel)
        .map(|chosen| chosen.name.as_str());
    let common = |other: &str| {
        name.bytes()
            .zip(other.bytes())
            .take_while(|(a, b)| a == b)
            .count()
    };
    all.filter(|other| other.contains(name) || common(other) >= 3)
        .max_by_key(|other| common(other))
        .map(|other| format!("the nearest is `{other}`"))
        .into_iter()
        .collect()
}

fn kernel(changed: &mut Changed, facts: &distro::Facts, choice: &KernelChoice) -> Result<()> {
    let mut wanted = Vec::new();
    match choice {
        KernelChoice::Default => return Ok(()),
        KernelChoice::None => changed.notes.push(
            "no kernel is installed (`--kernel none`): the image boots only with a kernel from outside, in a UKI or \
             given by the machine that runs it"
                .into(),
        ),
        KernelChoice::File(path) => {
            if facts.family != Family::Debian && path.extension().is_some_and(|end| end == "deb") {
                return Err(Error::usage(format!(
                    "`--kernel {}`: {} installs no .deb packages",
                    path.display(),
                    facts.distro
                )));
            }
            changed.kernel_file = Some(path.display().to_string());
        }
        KernelChoice::Package { name, version } => {
            // What belongs to the kernel has to be of its version.
            let selection = &changed.selection;
            let listed: Vec<&str> = selection.base.iter().chain(&selection.kernel)
                .map(|chosen| chosen.name.as_str())
                .filter(|listed| kinds::is_kernel(listed))
                .collect();
            let names = if listed.contains(&name.as_str()) { listed } else { vec![name.as_str()] };
            for name in names {
                wanted.push(with_version(name, version.as_deref(), facts.family)?);
            }
        }
    }
    if facts.model.has_own_drivers() {
        return Err(Error::usage(format!(
            "`--kernel` cannot be changed for model `{}`: its drivers are built for its own kernel",
            facts.model
        )));
    }
    let is_kernel = |chosen: &Chosen| kinds::is_kernel(&chosen.name);
    let kept: Vec<String> = wanted.clone();
    take_out(changed, "--kernel", |chosen| is_kernel(chosen));
    changed.left_out.retain(|left| !kept.contains(&left.name));
    let kernel = &mut changed.selection.kernel;
    kernel.extend(wanted.into_iter().map(|name| chosen(name, KERNEL)));
    kernel.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}

/// Writes a package with its version as the family's package manager takes it.
fn with_version(name: &str, version: Option<&str>, family: Family) -> Result<String> {
    Ok(match (version, family) {
        (None, _) => name.to_owned(),
        (Some(version), Family::Debian | Family::Suse | Family::Alpine) => {
            format!("{name}={version}")
        }
        (Some(version), Family::Redhat) => format!("{name}-{version}"),
        (Some(version), Family::Arch | Family::Hadron) => {
            return Err(Error::usage(format!(
                "`--kernel {name}={version}`: the package manager of {family} installs the newest version only"
            ))
            .hint(format!("`--kernel {name}`, or a base whose repository has that version")));
        }
    })
}

fn firmware(changed: &mut Changed, facts: &distro::Facts, choice: &FirmwareChoice) -> Result<()> {
    if *choice == FirmwareChoice::Default {
        return Ok(());
    }
    let Some(system) = kinds::firmware_of(facts) else {
        return Err(Error::usage(format!(
            "`--firmware` cannot be changed: which packages of {} hold whose firmware is not known here",
            facts.distro
        ))
        .hint("`--with` and `--without` take packages by name"));
    };
    let set = match choice {
        FirmwareChoice::Default | FirmwareChoice::None => system.none(),
        FirmwareChoice::All => system.all(facts.arch),
        FirmwareChoice::Vendors(vendors) => system
            .of_vendors(vendors, facts.arch)
            .ok_or_else(|| unknown_vendor(vendors, system))?,
    };
    let FirmwareSet {
        packages,
        component,
        keep,
    } = set;
    take_out(changed, "--firmware", |chosen| {
        kinds::is_firmware(&chosen.name)
    });
    changed
        .left_out
        .retain(|left| !packages.contains(&left.name));
    let kernel = &mut changed.selection.kernel;
    kernel.extend(packages.into_iter().map(|name| chosen(name, FIRMWARE)));
    kernel.sort_by(|a, b| a.name.cmp(&b.name));
    changed.component = component;
    changed.keep_firmware = keep;
    Ok(())
}

fn unknown_vendor(vendors: &[String], system: &kinds::FirmwareSystem) -> Error {
    let known: Vec<&str> = system.vendors().collect();
    let bad = vendors.iter().find(|v| !known.contains(&v.as_str()));
    Error::usage(format!(
        "`--firmware`: no firmware of `{}` is known for this distribution",
        bad.map_or("", String::as_str)
    ))
    .hint(format!("known vendors: {}", known.join(", ")))
}

/// Which package brings a unit, where that is not a package of the same name.
const UNITS: &[(&str, &[&str])] = &[
    ("ssh", &["openssh-server"]),
    ("sshd", &["openssh-server", "openssh"]),
    ("chronyd", &["chrony"]),
    ("iscsi", &["open-iscsi"]),
    ("iscsid", &["open-iscsi"]),
    ("ntpd", &["busybox-openrc"]),
    ("crond", &["busybox-openrc"]),
    ("syslog", &["busybox-openrc"]),
    ("acpid", &["busybox-openrc"]),
    ("udev", &["eudev"]),
    ("udev-trigger", &["eudev"]),
];

/// Takes the units of packages that were left out from the steps: they are neither enabled nor missed.
fn drop_units(steps: &mut [Step], left_out: &[LeftOut]) {
    let gone = |unit: &String| {
        let name = unit.split('.').next().unwrap_or(unit);
        let known = UNITS.iter().find(|(known, _)| *known == name);
        left_out.iter().any(|left| match known {
            Some((_, packages)) => packages.contains(&left.name.as_str()),
            None => left.name == name,
        })
    };
    for action in steps.iter_mut().flat_map(|step| &mut step.actions) {
        match action {
            Action::Services {
                enable,
                optional,
                disable,
                ..
            } => {
                for units in [enable, optional, disable] {
                    units.retain(|unit| !gone(unit));
                }
            }
            Action::Runlevel { services, .. } => services.retain(|service| !gone(service)),
            _ => {}
        }
    }
}
