//! What is good passes, and every rule is seen broken once.

mod damage;
mod disk;
mod disk_sample;
mod foreign;
mod forms;
mod medium;
mod netboot;
mod sample;

use std::collections::BTreeSet;

use super::{Report, rules};

/// The rules that are broken in a report: the one that it is about, and behind it those that cannot hold then.
type Case = (&'static str, Report);

/// Fails with what `report` says, unless it has nothing to say.
fn assert_clean(report: &Report) {
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

#[test]
fn every_rule_is_seen_broken_in_what_lacks_only_that() {
    let (mut seen, mut missed) = (BTreeSet::new(), Vec::new());
    let cases = [
        medium::cases(),
        netboot::cases(),
        disk::cases(),
        forms::cases(),
    ];
    for (rules, report) in cases.into_iter().flatten() {
        let found = report.findings.iter().map(|it| it.rule.as_str());
        let wanted: BTreeSet<&str> = rules.split(' ').collect();
        if found.collect::<BTreeSet<_>>() == wanted {
            seen.extend(rules.split(' ').next());
        } else {
            missed.push((rules, report.findings));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
    let all: BTreeSet<&str> = rules::ALL.iter().map(|rule| rule.id).collect();
    assert_eq!(seen, all);
}

#[test]
fn a_rule_has_one_name_one_demand_and_one_line_of_remedy() {
    let ids: BTreeSet<&str> = rules::ALL.iter().map(|rule| rule.id).collect();
    assert_eq!(ids.len(), rules::ALL.len());
    for rule in rules::ALL {
        assert!(
            !rule.demand.is_empty() && !rule.remedy.is_empty(),
            "{}",
            rule.id
        );
        assert!(!rule.remedy.contains('\n'), "{}", rule.id);
    }
}
