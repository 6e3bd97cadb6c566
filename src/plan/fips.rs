//! FIPS 140: where it exists, what it takes besides FIPS builds of the Kairos binaries, and the proof at the end.

use super::step_mut;
use crate::distro::packages::{Chosen, Selection};
use crate::distro::{Arch, DistroId, Facts, Family};
use crate::error::{Error, Result};
use crate::request::Request;
use crate::secret::{Secret, UBUNTU_PRO_TOKEN};
use crate::step::{Action, Step, StepName};

/// Ubuntu releases with FIPS packages, and the packages that are FIPS builds or hold what their self-tests compare with.
const UBUNTU: &[(&str, &[&str])] = &[
    (
        "20.04",
        &[
            "libgcrypt20",
            "libgcrypt20-hmac",
            "libssl1.1",
            "libssl1.1-hmac",
            "linux-image-fips",
            "openssh-client",
            "openssh-client-hmac",
            "openssh-server",
            "openssh-server-hmac",
            "openssl",
            "strongswan",
            "strongswan-hmac",
        ],
    ),
    (
        "22.04",
        &[
            "libgcrypt20",
            "libgcrypt20-hmac",
            "libssl3",
            "linux-image-fips",
            "openssh-client",
            "openssh-server",
            "openssl",
            "openssl-fips-module-3",
            "strongswan",
            "strongswan-hmac",
        ],
    ),
    (
        "24.04",
        &[
            "libgcrypt20",
            "libssl3t64",
            "linux-image-fips",
            "openssh-client",
            "openssh-server",
            "openssl",
            "openssl-fips-module-3",
            "strongswan",
        ],
    ),
];

/// Refuses FIPS where there are no FIPS modules.
///
/// # Errors
///
/// A usage error that says where there are.
pub(super) fn check(facts: &Facts, request: &Request) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::usage(format!("`--fips`: {why}")).hint(
            "bases with FIPS modules: the Red Hat family, SLES, openSUSE Leap, and Ubuntu 20.04, 22.04 and 24.04 with a subscription",
        ))
    };
    if facts.arch == Arch::Riscv64 {
        return refuse("nobody makes FIPS modules for riscv64".into());
    }
    match (facts.distro, facts.family) {
        (_, Family::Redhat) | (DistroId::Sles | DistroId::OpensuseLeap, _) => Ok(()),
        (DistroId::Ubuntu, _) => check_ubuntu(facts, request).or_else(|error| match error {
            Some(error) => Err(error),
            None => refuse(format!(
                "Ubuntu {} has no FIPS packages",
                facts.version.as_deref().unwrap_or_default()
            )),
        }),
        _ => refuse(format!("{} has no FIPS kernel and libraries", facts.distro)),
    }
}

/// Returns `Err(None)` for a release without FIPS packages.
fn check_ubuntu(facts: &Facts, request: &Request) -> std::result::Result<(), Option<Error>> {
    ubuntu_packages(facts).ok_or(None)?;
    match request.secret(UBUNTU_PRO_TOKEN) {
        Err(error) => Err(Some(error)),
        Ok(Some(_)) => Ok(()),
        Ok(None) if super::is_left_out(StepName::INSTALL_KERNEL, request) => Ok(()),
        Ok(None) => Err(Some(
            Error::usage("`--fips`: Ubuntu has its FIPS packages for Ubuntu Pro subscribers only, and no token was given")
                .hint(format!("`--secret id={UBUNTU_PRO_TOKEN},src=FILE`; tokens are at https://ubuntu.com/pro/dashboard"))
                .hint("a base that has the FIPS packages already needs none: `--skip-step installKernel`"),
        )),
    }
}

fn ubuntu_packages(facts: &Facts) -> Option<&'static [&'static str]> {
    let version = facts.version.as_deref()?;
    let found = UBUNTU.iter().find(|(release, _)| *release == version);
    found.map(|(_, packages)| *packages)
}

/// Adds to `selection` the packages that FIPS takes; on Ubuntu in place of the ordinary kernel.
pub(super) fn select(selection: &mut Selection, facts: &Facts) {
    let mut add = |name: &str| {
        if !selection.base.iter().any(|chosen| chosen.name == name) {
            selection.base.push(chosen(name));
        }
    };
    match facts.distro {
        DistroId::Ubuntu => {
            let packages = ubuntu_packages(facts).unwrap_or_default();
            selection.kernel = packages.iter().map(|name| chosen(name)).collect();
        }
        _ if facts.family == Family::Redhat => add("crypto-policies-scripts"),
        _ => add("dracut-fips"),
    }
    selection.base.sort_by(|a, b| a.name.cmp(&b.name));
}

fn chosen(name: &str) -> Chosen {
    Chosen {
        name: name.to_owned(),
        rule: "FIPS 140: certified modules and what works with them",
    }
}

/// Adds to `steps` what FIPS takes besides packages.
pub(super) fn apply(steps: &mut [Step], facts: &Facts, notes: &mut Vec<String>) {
    if facts.distro == DistroId::Ubuntu {
        if let Some(step) = step_mut(steps, StepName::INSTALL_KERNEL) {
            with_subscription(&mut step.actions);
        }
    } else if facts.family == Family::Redhat
        && let Some(step) = step_mut(steps, StepName::INSTALL_PACKAGES)
    {
        let policy = ["update-crypto-policies", "--no-reload", "--set", "FIPS"];
        step.actions.push(Action::run(&policy));
    }
    if facts.trusted {
        notes.push(
            "the kernel enters FIPS mode by `fips=1`, which the UKI has to carry: `--extend-cmdline fips=1` when it is built"
                .into(),
        );
    }
    if let Some(step) = step_mut(steps, StepName::CLEANUP) {
        step.actions.push(Action::ProveFips);
    }
}

/// Puts entering a subscription in front of the actions and leaving it behind them: one step, whose layer holds nothing of it.
fn with_subscription(actions: &mut Vec<Action>) {
    // The token is in no argument: other processes can read those. /run is gone with the command.
    let attach = format!(
        "umask 077 && printf 'token: %s\\nenable_services: []\\n' \"$(cat {})\" >/run/attach.yaml && \
         pro attach --attach-config /run/attach.yaml",
        Secret::target(UBUNTU_PRO_TOKEN)
    );
    let enable = [
        "pro",
        "enable",
        "--access-only",
        "--assume-yes",
        "fips-updates",
    ];
    for action in actions.iter_mut() {
        // What is installed already has to become a FIPS build as well.
        if let Action::Packages { upgrade, .. } = action {
            *upgrade = true;
        }
    }
    actions.splice(
        0..0,
        [
            Action::Packages {
                upgrade: false,
                install: vec!["ca-certificates".into(), "ubuntu-advantage-tools".into()],
            },
            pro(&["sh", "-c", &attach], &[UBUNTU_PRO_TOKEN], false),
            pro(&enable, &[], false),
            Action::ListsChanged,
        ],
    );
    actions.push(pro(&["pro", "detach", "--assume-yes"], &[], true));
    // Whatever became of that: what unlocks the subscription's repositories stays out of the layer.
    actions.push(Action::Remove {
        paths: [
            "/etc/apt/auth.conf.d/90ubuntu-advantage",
            "/etc/apt/sources.list.d/ubuntu-fips*",
            "/etc/apt/sources.list.d/ubuntu-esm*",
            "/var/lib/ubuntu-advantage/private",
            "/var/lib/ubuntu-advantage/machine-token.json",
            "/var/log/ubuntu-advantage*",
        ]
        .map(str::to_owned)
        .into(),
    });
}

fn pro(argv: &[&str], secrets: &[&str], may_fail: bool) -> Action {
    Action::Run {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        network: true,
        secrets: secrets.iter().map(|id| (*id).to_owned()).collect(),
        if_exists: None,
        may_fail,
    }
}
