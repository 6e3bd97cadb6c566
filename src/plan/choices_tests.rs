//! What `--with`, `--without`, `--kernel` and `--firmware` make of a plan.

use super::{Facts, Plan, left_out_by, plan};
use crate::distro::{Arch, Distro, OsRelease};
use crate::error::Kind;
use crate::kairos::version::Version;
use crate::request::Request;
use crate::step::Action;

const DEBIAN: &str =
    "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
const UBUNTU: &str = "PRETTY_NAME=\"Ubuntu 24.04 LTS\"\nVERSION_ID=\"24.04\"\nID=ubuntu\n";

fn facts(os_release: &str, arch: Arch) -> Facts {
    Facts {
        distro: Distro::detect(&OsRelease::parse(os_release)).unwrap(),
        arch,
    }
}

fn planned(os_release: &str, change: impl FnOnce(&mut Request)) -> crate::error::Result<Plan> {
    let mut request = Request::new("base");
    change(&mut request);
    let version = Version::parse("v1.0.0").unwrap();
    plan(&facts(os_release, Arch::Amd64), &request, &version)
}

fn refused(os_release: &str, change: impl FnOnce(&mut Request)) -> String {
    let error = planned(os_release, change).expect_err("refused");
    assert_eq!(error.kind(), Kind::Usage);
    error.render_text()
}

fn installed(plan: &Plan, step: &str) -> Vec<String> {
    let step = plan.steps.iter().find(|found| found.name.as_str() == step);
    let actions = step.map_or(&[][..], |step| &step.actions);
    let names = actions.iter().filter_map(|action| match action {
        Action::Packages { install, .. } => Some(install.clone()),
        _ => None,
    });
    names.flatten().collect()
}

fn enabled(plan: &Plan) -> Vec<String> {
    let units = plan.steps.iter().flat_map(|step| &step.actions);
    let units = units.filter_map(|action| match action {
        Action::Services { enable, .. } => Some(enable.clone()),
        _ => None,
    });
    units.flatten().collect()
}

#[test]
fn a_package_that_is_left_out_takes_its_services_along() {
    let plain = planned(DEBIAN, |_| {}).unwrap();
    assert!(enabled(&plain).contains(&"fail2ban".to_owned()));
    let plan = planned(DEBIAN, |request| {
        request.without = vec!["fail2ban".into(), "openssh-server".into()];
    })
    .unwrap();
    assert!(!installed(&plan, "installPackages").contains(&"fail2ban".to_owned()));
    let units = enabled(&plan);
    assert!(!units.contains(&"fail2ban".to_owned()) && !units.contains(&"ssh".to_owned()));
    assert!(units.contains(&"systemd-networkd".to_owned()));
    assert_eq!(plan.left_out.len(), 2);
    assert_eq!(plan.left_out[0].option, "--without");
    assert!(plan.left_out[0].bytes.is_some_and(|bytes| bytes > 1 << 20));
    assert!(
        plan.to_text().contains("left out (2)"),
        "{}",
        plan.to_text()
    );
}

#[test]
fn a_package_that_is_asked_for_is_installed_once_with_its_reason() {
    let plan = planned(DEBIAN, |request| {
        request.with = vec!["tmux".into(), "jq".into()]
    })
    .unwrap();
    let names = installed(&plan, "installPackages");
    assert_eq!(names.iter().filter(|name| *name == "jq").count(), 1);
    assert!(names.is_sorted() && names.contains(&"tmux".to_owned()));
    assert!(
        plan.packages_text().contains("tmux"),
        "{}",
        plan.packages_text()
    );
    let tmux = plan
        .packages
        .iter()
        .find(|chosen| chosen.name == "tmux")
        .unwrap();
    assert!(tmux.rule.contains("--with"));
}

#[test]
fn what_a_step_needs_cannot_be_left_out_unless_the_step_is() {
    let without = |name: &str, skip: &str| {
        let (name, skip) = (name.to_owned(), skip.to_owned());
        move |request: &mut Request| {
            request.without = vec![name];
            request.skip_steps = vec![skip];
        }
    };
    for name in ["rsync", "dracut", "isc-dhcp-client", "multipath-tools"] {
        let text = refused(DEBIAN, without(name, "cleanup"));
        assert!(
            text.contains(name) && text.contains("`initrd`") && text.contains("hint:"),
            "{text}"
        );
        assert!(planned(DEBIAN, without(name, "initrd")).is_ok(), "{name}");
    }
    let text = refused(DEBIAN, without("linux-image-amd64", "cleanup"));
    assert!(text.contains("--kernel"), "{text}");
    assert!(refused(DEBIAN, without("systemd-sysv", "cleanup")).contains("/sbin/init"));
}

#[test]
fn a_name_that_no_rule_chooses_is_answered_with_the_nearest() {
    let text = refused(DEBIAN, |request| request.without = vec!["fail2bann".into()]);
    assert!(
        text.contains("no rule chooses it") && text.contains("`fail2ban`"),
        "{text}"
    );
    let text = refused(DEBIAN, |request| {
        request.with = vec!["tmux".into()];
        request.without = vec!["tmux".into()];
    });
    assert!(text.contains("asked for and refused at once"), "{text}");
}

#[test]
fn another_kernel_takes_the_place_of_the_chosen_one() {
    let plan = planned(DEBIAN, |request| {
        request.kernel = "linux-image-cloud-amd64=6.1.0-41".into()
    })
    .unwrap();
    assert_eq!(
        installed(&plan, "installKernel"),
        ["firmware-linux-free", "linux-image-cloud-amd64=6.1.0-41"]
    );
    assert_eq!(plan.left_out[0].name, "linux-image-amd64");
    // The same package in a version is the same package.
    let plan = planned(DEBIAN, |request| {
        request.kernel = "linux-image-amd64=6.1".into()
    })
    .unwrap();
    assert_eq!(
        installed(&plan, "installKernel"),
        ["firmware-linux-free", "linux-image-amd64=6.1"]
    );
}

#[test]
fn no_kernel_leaves_out_what_needs_one_and_says_what_the_image_is_good_for() {
    let plan = planned(DEBIAN, |request| {
        request.kernel = "none".into();
        request.firmware = "none".into();
    })
    .unwrap();
    assert!(installed(&plan, "installKernel").is_empty());
    assert_eq!(plan.skipped, ["kernel", "initrd"]);
    assert!(plan.notes[0].contains("UKI"), "{:?}", plan.notes);
}

#[test]
fn the_option_that_leaves_out_a_step_is_told_as_it_was_typed() {
    let mut request = Request::new("x");
    request.kernel = "none".into();
    request.skip_steps = vec!["Initrd".into(), " install".into()];
    for (step, option) in [
        ("kernel", "--kernel none"),
        ("initrd", "--skip-step Initrd"),
        ("grub", "--skip-step install"),
    ] {
        assert_eq!(left_out_by(step, &request), option);
    }
}

#[test]
fn firmware_is_none_all_or_by_vendor() {
    let none = planned(DEBIAN, |request| request.firmware = "none".into()).unwrap();
    assert_eq!(installed(&none, "installKernel"), ["linux-image-amd64"]);
    let intel = planned(DEBIAN, |request| request.firmware = "intel".into()).unwrap();
    assert!(installed(&intel, "installKernel").contains(&"firmware-iwlwifi".to_owned()));
    assert!(
        matches!(&intel.steps[0].actions[0], Action::AptComponent { component } if component == "non-free-firmware")
    );
    let all = planned(DEBIAN, |request| request.firmware = "all".into()).unwrap();
    assert!(installed(&all, "installKernel").len() > 20);
    let text = refused(DEBIAN, |request| request.firmware = "acme".into());
    assert!(
        text.contains("`acme`") && text.contains("known vendors: amd"),
        "{text}"
    );
}

#[test]
fn ubuntu_keeps_what_the_vendors_need_of_its_one_firmware_package() {
    let plan = planned(UBUNTU, |request| request.firmware = "nvidia".into()).unwrap();
    let kernel = plan
        .steps
        .iter()
        .find(|step| step.name.as_str() == "installKernel")
        .unwrap();
    assert!(
        matches!(kernel.actions.last(), Some(Action::KeepFirmware { patterns }) if patterns == &["nvidia"])
    );
}

#[test]
fn what_no_step_installs_cannot_be_asked_for() {
    use crate::request::Stage;
    let init = |request: &mut Request| request.stage = Stage::Init;
    let without = |step: &str, request: &mut Request| request.skip_steps.push(step.into());
    let text = refused(DEBIAN, |it| {
        init(it);
        it.with.push("zsh".into());
    });
    assert!(
        text.contains("`--with zsh` is for step `installPackages`, which is left out"),
        "{text}"
    );
    refused(DEBIAN, |it| {
        without("installPackages", it);
        it.with.push("zsh".into());
    });
    refused(DEBIAN, |it| {
        without("installKernel", it);
        it.kernel = "linux-image-cloud-amd64".into();
    });
    refused(DEBIAN, |it| {
        init(it);
        it.firmware = "intel".into();
    });
    planned(DEBIAN, |it| {
        init(it);
        it.without.push("fail2ban".into());
    })
    .unwrap();
}
