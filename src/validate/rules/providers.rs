//! Standard images: the provider, and the Kubernetes distribution that it installed.

use super::programs::loss;
use crate::error::Result;
use crate::step::StepName;
use crate::validate::{Facts, Rule, Severity, Subject, Violations};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "provider-programs",
        severity: Severity::Error,
        demand: "a standard image has a provider plugin that may be executed, and edgevpn",
        remedy: "let the step `providerBinaries` run, with a framework that has both",
        steps: &[StepName::PROVIDER_BINARIES],
        when: is_standard,
        check: programs,
    },
    Rule {
        id: "provider-distribution",
        severity: Severity::Error,
        demand: "the Kubernetes distribution that the release file names is installed",
        remedy: "let the step `buildProvider` run",
        steps: &[StepName::BUILD_PROVIDER],
        when: is_standard,
        check: distribution,
    },
];

fn is_standard(facts: &Facts) -> bool {
    facts.standard
}

fn programs(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const DIR: &str = "system/providers";
    let is_plugin = |name: &&str| name.starts_with("agent-provider-");
    let plugins: Vec<&str> = subject.names(DIR).into_iter().filter(is_plugin).collect();
    let works = |name: &&str| subject.tree.has_executable(format!("{DIR}/{name}"));
    if !plugins.iter().any(works) {
        let text = "there is no agent-provider-* that may be executed";
        found.at(DIR, format!("{text}{}", loss("provider-kairos")));
    }
    if subject.program("edgevpn").is_none() {
        found.at(
            "usr/bin/edgevpn",
            format!("it does not exist{}", loss("edgevpn")),
        );
    }
    Ok(())
}

fn distribution(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let name = subject.release("KAIROS_SOFTWARE_VERSION_PREFIX");
    // What other providers install is not known here.
    if matches!(name, "k3s" | "k0s") && subject.program(name).is_none() {
        found.add(format!("{name} is nowhere on the PATH"));
    }
    Ok(())
}
