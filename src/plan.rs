//! The plan: facts about the base and a request become an ordered list of steps.
//!
//! Pure: nothing here touches a disk, a network or a clock, so the same input always gives the same plan.

mod choices;
#[cfg(test)]
mod choices_tests;
mod extensions;
mod fips;
mod listing;
mod model;
#[cfg(test)]
mod provider_tests;
mod providers;
mod text;
mod trusted;
mod yip;

use serde::Serialize;

use crate::distro::packages::{self, Chosen, Selection};
use crate::distro::{self, Arch, Distro, Policy};
use crate::error::{Error, Kind, Result};
use crate::framework::{self, FrameworkError, FrameworkSpec};
use crate::kairos::release::{ReleaseFacts, Software};
use crate::kairos::version::Version;
use crate::location::Location;
use crate::request::{Layers, Request};
use crate::step::{self, Action, Step, StepName};

pub use choices::LeftOut;
pub(crate) use model::{check_arch, check_l4t, check_trusted};
pub use providers::PlannedProvider;
pub(crate) use providers::framework_variant;

/// What is known about the base before anything runs.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The distribution, from `/etc/os-release`.
    pub distro: Distro,
    /// The architecture of the image.
    pub arch: Arch,
}

impl Facts {
    /// Returns the architecture in Go's spelling (`amd64`).
    pub fn architecture(&self) -> &'static str {
        self.arch.as_str()
    }
}

/// An ordered list of steps and what explains it.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// What the plan was made for.
    pub facts: Facts,
    /// The normalised version of the produced system.
    pub version: String,
    /// Every step that runs, in order.
    pub steps: Vec<Step>,
    /// Steps that were left out because the request says so.
    pub skipped: Vec<&'static str>,
    /// Where each package name comes from.
    pub packages: Vec<Chosen>,
    /// The kernel packages and the rule that chose them.
    pub kernel: Vec<Chosen>,
    /// What the choice of packages depends on.
    #[serde(skip)]
    pub selected_for: distro::Facts,
    /// The packages that bring further repositories, installed first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repository: Vec<Chosen>,
    /// Packages that a rule chose and the user did not want.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// What the user should know about the result.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Where the Kairos binaries come from.
    pub framework: String,
    /// What is downloaded for them unless it is cached.
    pub downloads: Vec<String>,
    /// The providers and where each comes from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<PlannedProvider>,
    /// The layers that the steps are gathered into.
    pub layers: Vec<LayerUnit>,
    /// The files of stage extensions, in the order they are read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
}

/// Steps that share a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerUnit {
    /// The name that stands in the image's history.
    pub name: String,
    /// Indices into [`Plan::steps`].
    pub steps: Vec<usize>,
}

/// Makes the plan.
///
/// # Errors
///
/// A base for which no kernel package is known.
pub fn plan(facts: &Facts, request: &Request, version: &Version) -> Result<Plan> {
    let policy = Policy::new(&facts.distro, facts.arch);
    let base = distro::Facts::new(&facts.distro, facts.arch, request.model()?, request.trusted);
    let runs = |name| !is_left_out(name, request);
    model::check(&base, request)?;
    let mut selection = packages::select(&base);
    model::select(&mut selection, &base);
    if request.fips {
        fips::check(&base, request)?;
        fips::select(&mut selection, &base);
    }
    let mut changed = choices::change(selection, &base, request, &runs)?;
    let selection = &changed.selection;
    if policy.has_packages {
        refuse_missing_kernel(facts, request, selection)?;
    }
    let spec: FrameworkSpec = request.framework.parse().map_err(|error: FrameworkError| {
        Error::from_source(&error)
            .hints(error.hints())
            .kind_is(Kind::Usage)
    })?;

    let providers = request.providers()?;
    let known = step::provider::known(&providers, runs(StepName::BUILD_PROVIDER));
    let mut all = step::install::steps(&policy, selection);
    all.extend(step::provider::steps(&providers));
    let entries = release_entries(facts, request, version, &known);
    request.expected.check(&entries)?;
    all.extend(step::init::steps(&policy, entries));
    known.apply(&mut all);
    changed.apply(&mut all);
    model::apply(&mut all, &base, request, &mut changed.notes);
    if request.fips {
        fips::apply(&mut all, &base, &mut changed.notes);
    }
    if request.trusted {
        trusted::apply(&mut all, &base, request);
    }
    changed.notes.extend(other_spelling(request, version));
    let planned = providers::planned(&providers, &runs, facts.arch)?;
    changed
        .notes
        .extend(providers::without_fips(&planned, request));
    let (steps, skipped) = choose(all, request);
    refuse_unused_secrets(&policy, &steps, request)?;
    let runs = |name| steps.iter().any(|step| step.name == name);
    refuse_unused_packages(request, runs)?;
    let layers = group(&steps, request.layers);
    let variant = framework_variant(&steps);
    Ok(Plan {
        facts: facts.clone(),
        version: version.to_string(),
        steps,
        skipped,
        packages: changed.selection.base,
        kernel: changed.selection.kernel,
        repository: changed.selection.repository,
        left_out: changed.left_out,
        selected_for: base,
        notes: changed.notes,
        framework: request.framework.clone(),
        downloads: framework::downloads(&spec, facts.arch, variant, request.fips),
        providers: planned,
        layers,
        extensions: Vec::new(),
    })
}

impl Plan {
    /// Returns the plan for people.
    pub fn to_text(&self) -> String {
        text::render(self)
    }

    /// Returns the packages alone, with the rule behind each, for people.
    pub fn packages_text(&self) -> String {
        listing::text(self)
    }

    /// Returns the packages alone as one JSON object.
    pub fn packages_json(&self) -> serde_json::Value {
        listing::json(self)
    }

    /// Returns the plan as yip YAML, stage by stage.
    ///
    /// # Errors
    ///
    /// An internal error if the value cannot be written as YAML.
    pub fn to_yip(&self) -> Result<String> {
        yip::render(self)
    }
}

/// Says that the version has another form in the system than the user gave it, after which nobody would find it.
fn other_spelling(request: &Request, version: &Version) -> Option<String> {
    let places = request.destinations.iter();
    let tags = places.filter_map(|place| place.parse::<Location>().ok()?.tag().map(str::to_owned));
    let mut given = request.version.iter().cloned().chain(tags);
    let given = given.find(|text| Version::parse(text).is_ok_and(|found| found == *version))?;
    let canonical = version.to_string();
    (given != canonical)
        .then(|| format!("the version `{given}` is written `{canonical}` in the system"))
}

fn is_skipped(step: &Step, request: &Request) -> bool {
    names_step(step.name, request)
        || is_named(step.phase.name(), request)
        || (request.has_no_kernel() && NEED_A_KERNEL.contains(&step.name))
}

/// Steps that have nothing to work on in an image without a kernel.
const NEED_A_KERNEL: [StepName; 2] = [StepName::KERNEL, StepName::INITRD];

fn is_named(name: &str, request: &Request) -> bool {
    request
        .skip_steps
        .iter()
        .any(|skip| skip.trim().eq_ignore_ascii_case(name))
}

fn names_step(name: StepName, request: &Request) -> bool {
    request.skip_steps.iter().any(|skip| name.is_named(skip))
}

/// Tells whether the request leaves a step out.
fn is_left_out(name: StepName, request: &Request) -> bool {
    let phase = step::NAMES
        .iter()
        .find(|info| info.name == name)
        .and_then(|info| info.phase);
    let phase_out = phase
        .is_some_and(|phase| !request.stage.includes(phase) || is_named(phase.name(), request));
    phase_out
        || names_step(name, request)
        || (request.has_no_kernel() && NEED_A_KERNEL.contains(&name))
}

/// Returns the option that leaves out the step called `name`, as it is typed.
pub(crate) fn left_out_by(name: &str, request: &Request) -> String {
    let names = |skip: &&String| {
        let found = step::NAMES.iter().find(|info| info.name.as_str() == name);
        found.is_some_and(|info| {
            info.name.is_named(skip)
                || info
                    .phase
                    .is_some_and(|phase| phase.name().eq_ignore_ascii_case(skip.trim()))
        })
    };
    match request.skip_steps.iter().find(names) {
        Some(skip) => format!("--skip-step {}", skip.trim()),
        None => format!("--kernel {}", request.kernel),
    }
}

fn step_mut(steps: &mut [Step], name: StepName) -> Option<&mut Step> {
    steps.iter_mut().find(|step| step.name == name)
}

/// Has `component` of the distribution's sources enabled before the first packages are installed.
fn enable_component(steps: &mut [Step], component: &str) {
    let enable = Action::AptComponent {
        component: component.into(),
    };
    let installs = |step: &&mut Step| {
        let packages = |action: &Action| matches!(action, Action::Packages { .. });
        step.actions.iter().any(packages)
    };
    // Both: one of the two may be left out.
    for step in steps.iter_mut().filter(installs) {
        if !step.actions.contains(&enable) {
            step.actions.insert(0, enable.clone());
        }
    }
}

fn choose(all: Vec<Step>, request: &Request) -> (Vec<Step>, Vec<&'static str>) {
    let (run, left_out): (Vec<Step>, Vec<Step>) = all
        .into_iter()
        .filter(|step| request.stage.includes(step.phase))
        .partition(|step| !is_skipped(step, request));
    (
        run,
        left_out.iter().map(|step| step.name.as_str()).collect(),
    )
}

/// A secret that no step reads would leave the user believing that something was unlocked.
fn refuse_unused_secrets(policy: &Policy, steps: &[Step], request: &Request) -> Result<()> {
    let actions = || steps.iter().flat_map(|step| &step.actions);
    let read: Vec<&String> = actions().flat_map(step::Action::secrets).collect();
    let installs = actions().any(|action| matches!(action, step::Action::Packages { .. }));
    for text in &request.secrets {
        let secret: crate::secret::Secret = text.parse()?;
        let opens = installs && policy.secrets.contains(&secret.id.as_str());
        if !opens && !read.contains(&&secret.id) {
            return Err(Error::usage(format!(
                "no step of this conversion reads the secret `{}`",
                secret.id
            ))
            .hint("leave `--secret` out; `kfactory plan` shows which steps read one"));
        }
    }
    Ok(())
}

/// Refuses choices of packages that go with no base.
///
/// # Errors
///
/// A usage error that names the options.
pub(crate) fn check_choices(request: &Request) -> Result<()> {
    choices::refuse_contradictions(request)?;
    refuse_unused_packages(request, |name| !is_left_out(name, request))
}

/// What is asked for where nothing installs it would be missing without a word.
fn refuse_unused_packages(request: &Request, runs: impl Fn(StepName) -> bool) -> Result<()> {
    let some = |text: &str| !text.is_empty() && text != "none";
    for (option, value, step) in [
        ("--with", request.with.join(","), StepName::INSTALL_PACKAGES),
        ("--kernel", request.kernel.clone(), StepName::INSTALL_KERNEL),
        (
            "--firmware",
            request.firmware.clone(),
            StepName::INSTALL_KERNEL,
        ),
    ] {
        if some(&value) && !runs(step) {
            return Err(Error::usage(format!(
                "`{option} {value}` is for step `{}`, which is left out",
                step.as_str()
            ))
            .hint(format!("leave `{option}` out, or let the step run")));
        }
    }
    Ok(())
}

fn refuse_missing_kernel(facts: &Facts, request: &Request, selection: &Selection) -> Result<()> {
    let skipped = is_left_out(StepName::INSTALL_KERNEL, request) || !request.kernel.is_empty();
    let kernel = |chosen: &Chosen| !distro::kinds::is_firmware(&chosen.name);
    // A board may have it among its base packages.
    let in_base = |chosen: &Chosen| distro::kinds::is_kernel(&chosen.name);
    let found = selection.kernel.iter().any(kernel) || selection.base.iter().any(in_base);
    if !found && !skipped {
        return Err(Error::user(format!(
            "no kernel package is known for {} on {}",
            facts.distro.name,
            facts.architecture()
        ))
        .hint("`--kernel PACKAGE` names one; or install it into the base image and pass `--skip-step installKernel`"));
    }
    Ok(())
}

/// Returns the name and the release that the image is known by.
///
/// A derivative goes by what it is made from, in the numbers of that: the tools that write boot media look for `ubuntu`, whose
/// signed boot loader Mint and Pop!_OS have. CentOS Stream has a name of its own in Kairos.
fn flavor(distro: &Distro) -> (&str, &str) {
    match &distro.base_version {
        _ if distro.id == "centos" => (&distro.id, &distro.version),
        Some(version) if distro.is_derivative() => (distro.base.as_str(), version),
        _ => (distro.base.as_str(), &distro.version),
    }
}

fn release_entries(
    facts: &Facts,
    request: &Request,
    version: &Version,
    known: &step::provider::Known,
) -> std::collections::BTreeMap<String, String> {
    let software = known
        .software
        .as_ref()
        .map(|(provider, version)| Software { provider, version });
    let (distro, distro_version) = flavor(&facts.distro);
    ReleaseFacts {
        distro,
        distro_version,
        family: facts.distro.family.as_str(),
        arch: facts.architecture(),
        model: &request.model,
        standard: request.is_standard(),
        version,
        fips: request.fips,
        trusted_boot: request.trusted,
        tool_version: concat!("v", env!("CARGO_PKG_VERSION")),
        software,
    }
    .keys()
}

fn group(steps: &[Step], layers: Layers) -> Vec<LayerUnit> {
    let mut units: Vec<LayerUnit> = Vec::new();
    let mut last_name = None;
    for (index, step) in steps.iter().enumerate() {
        let name = match layers {
            Layers::Group => step.group.name(),
            Layers::Step => step.label(),
            Layers::Phase => step.phase.name(),
            Layers::One => "kairos",
        };
        // What a change of the init phase makes anew must not hold anything of the install phase.
        let same_phase =
            |unit: &LayerUnit| layers == Layers::One || steps[unit.steps[0]].phase == step.phase;
        let before = last_name.replace(name);
        match units.last_mut() {
            Some(last) if before == Some(name) && same_phase(last) => last.steps.push(index),
            _ => units.push(LayerUnit {
                name: unused(name, &units),
                steps: vec![index],
            }),
        }
    }
    units
}

/// Returns `name`, or, where a layer has it already, as when a stage extension stands between two parts, `name-2` and so on.
fn unused(name: &str, units: &[LayerUnit]) -> String {
    let is_free = |name: &String| units.iter().all(|unit| unit.name != *name);
    let mut names = (2..).map(|number| format!("{name}-{number}"));
    Some(name.to_owned())
        .filter(is_free)
        .or_else(|| names.find(is_free))
        .expect("numbers do not end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distro::OsRelease;

    #[test]
    fn derivatives_go_by_what_they_are_made_from_and_centos_by_its_own_name() {
        for (text, expected) in [
            ("ID=debian\nVERSION_ID=12", ("debian", "12")),
            (
                "ID=linuxmint\nID_LIKE=ubuntu\nVERSION_ID=22\nUBUNTU_CODENAME=noble",
                ("ubuntu", "24.04"),
            ),
            (
                "ID=centos\nID_LIKE='rhel fedora'\nVERSION_ID=9",
                ("centos", "9"),
            ),
            ("ID=debian\nVERSION_CODENAME=forky", ("debian", "forky")),
        ] {
            let distro = Distro::detect(&OsRelease::parse(text)).expect(text);
            assert_eq!(flavor(&distro), expected, "{text}");
        }
    }
}
