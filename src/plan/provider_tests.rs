//! What `--provider` makes of a plan.

use super::{Facts, Plan, plan};
use crate::distro::{Arch, Distro, OsRelease};
use crate::kairos::version::Version;
use crate::provider::ProviderSource;
use crate::request::Request;
use crate::step::Action;

const DEBIAN: &str =
    "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";

fn planned(arch: Arch, change: impl FnOnce(&mut Request)) -> crate::error::Result<Plan> {
    let mut request = Request::new("base");
    change(&mut request);
    let facts = Facts {
        distro: Distro::detect(&OsRelease::parse(DEBIAN)).unwrap(),
        arch,
    };
    plan(&facts, &request, &Version::parse("v1.0.0").unwrap())
}

fn with(providers: &[&str], change: impl FnOnce(&mut Request)) -> Plan {
    planned(Arch::Amd64, |request| {
        request.providers = providers.iter().map(|it| (*it).to_owned()).collect();
        change(request);
    })
    .unwrap()
}

fn actions(plan: &Plan, name: &str) -> Vec<Action> {
    let step = plan.steps.iter().find(|step| step.name.as_str() == name);
    step.map_or_else(Vec::new, |step| step.actions.clone())
}

fn release(plan: &Plan, key: &str) -> Option<String> {
    let found = actions(plan, "kairosRelease").into_iter();
    let mut entries = found.filter_map(|action| match action {
        Action::Release { entries } => Some(entries),
        _ => None,
    });
    entries.next().expect("one").get(key).cloned()
}

fn asks(plan: &Plan) -> Vec<String> {
    let found = actions(plan, "kairosRelease").into_iter();
    let mut asks = found.filter_map(|action| match action {
        Action::ProviderInfo { providers } => Some(providers),
        _ => None,
    });
    asks.next().unwrap_or_default()
}

#[test]
fn a_core_image_has_nothing_of_providers() {
    let plan = with(&[""], |_| {});
    assert!(actions(&plan, "providerBinaries").is_empty());
    assert!(actions(&plan, "buildProvider").is_empty());
    assert_eq!(release(&plan, "KAIROS_VARIANT").as_deref(), Some("core"));
    assert_eq!(release(&plan, "KAIROS_SOFTWARE_VERSION"), None);
    let groups: Vec<_> = plan.layers.iter().map(|layer| &layer.name).collect();
    assert_eq!(groups, ["packages", "kernel", "kairos", "init"]);
    assert!(!plan.to_text().contains("provider-kairos"));
}

#[test]
fn k3s_makes_a_standard_image_with_a_layer_for_it() {
    let plan = with(&["k3s"], |_| {});
    assert_eq!(actions(&plan, "providerBinaries").len(), 3);
    let groups: Vec<_> = plan.layers.iter().map(|layer| &layer.name).collect();
    assert_eq!(groups, ["packages", "kernel", "kairos", "provider", "init"]);
    for (key, value) in [
        ("KAIROS_VARIANT", "standard"),
        ("KAIROS_NAME", "kairos-standard-debian-12"),
        ("KAIROS_SOFTWARE_VERSION_PREFIX", "k3s"),
    ] {
        assert_eq!(release(&plan, key).as_deref(), Some(value));
    }
    let version = release(&plan, "KAIROS_SOFTWARE_VERSION").expect("known");
    assert!(asks(&plan).is_empty(), "nothing is left to ask");
    let text = plan.to_text();
    for line in [
        format!("provider   k3s {version}"),
        format!("install k3s {version} with its services, none enabled"),
        "/releases/download/".into(),
        "edgevpn-v".into(),
    ] {
        assert!(text.contains(&line), "no {line} in:\n{text}");
    }
}

#[test]
fn what_only_the_image_knows_is_asked_for() {
    for (plan, asked) in [
        (with(&["edge", "k3s"], |_| {}), vec!["edge"]),
        (
            with(&["k3s"], |it| it.skip_steps = vec!["kubernetes".into()]),
            vec!["k3s"],
        ),
        (
            with(&["k3s"], |it| it.stage = crate::request::Stage::Init),
            vec!["k3s"],
        ),
        (
            with(&["k3s"], |it| it.provider_source = ProviderSource::Plugin),
            vec!["k3s"],
        ),
    ] {
        assert_eq!(asks(&plan), asked);
        assert_eq!(
            release(&plan, "KAIROS_VARIANT").as_deref(),
            Some("standard")
        );
    }
}

#[test]
fn the_steps_can_be_left_out_by_every_name_they_have() {
    for (name, left) in [
        ("providerBinaries", "buildProvider"),
        ("buildProvider", "providerBinaries"),
        ("kubernetes", "providerBinaries"),
    ] {
        let plan = with(&["k3s"], |it| it.skip_steps = vec![name.into()]);
        assert_eq!(plan.skipped.len(), 1, "{name}");
        assert!(!actions(&plan, left).is_empty(), "{name}");
    }
    let plan = with(&["k3s"], |it| it.skip_steps = vec!["kubernetes".into()]);
    assert!(plan.providers.is_empty(), "nothing of it is downloaded");
    let plan = with(&["k3s"], |it| {
        it.skip_steps = vec!["providerBinaries".into()]
    });
    assert!(!plan.downloads.iter().any(|url| url.contains("edgevpn")));
}

#[test]
fn an_architecture_without_releases_is_refused_by_the_plan() {
    let k3s = |request: &mut Request| request.providers = vec!["k3s".into()];
    let error = planned(Arch::Riscv64, k3s).expect_err("there are none");
    assert!(
        error
            .to_string()
            .contains("k3s has no releases for riscv64"),
        "{error}"
    );
}
