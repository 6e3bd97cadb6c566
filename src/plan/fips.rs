//! FIPS 140: where it exists, what it takes besides FIPS builds of the Kairos binaries, and the proof at the end.

use super::step_mut;
use crate::distro::{Arch, DistroId, Facts, Family};
use crate::error::{Error, Result};
use crate::request::Request;
use crate::secret::{self, Secret, UBUNTU_PRO_TOKEN};
use crate::step::{Action, Step, StepName};

/// Ubuntu releases with FIPS packages, and the packages that are FIPS builds or hold what their self-tests compare with.
const UBUNTU: &[(&str, &[&str])] = &[
    (
        "20.04",
        &[
            "libgcrypt20", "libgcrypt20-hmac", "libssl1.1", "libssl1.1-hmac", "linux-image-fips", "openssh-client",
            "openssh-client-hmac", "openssh-server", "openssh-server-hmac", "openssl", "strongswan", "strongswan-hmac",
        ],
    ),
    (
        "22.04",
        &[
            "libgcrypt20", "libgcrypt20-hmac", "libssl3", "linux-image-fips", "openssh-client", "openssh-server",
            "openssl", "openssl-fips-module-3", "strongswan", "strongswan-hmac",
        ],
    ),
    (
        "24.04",
        &[
            "libgcrypt20", "libssl3t64", "linux-image-fips", "openssh-client", "openssh-server", "openssl",
            "openssl-fips-module-3", "strongswan",
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

/// Adds to `steps` what FIPS takes.
pub(super) fn apply(steps: &mut [Step], facts: &Facts, notes: &mut Vec<String>) {
    match facts.distro {
        DistroId::Ubuntu => {
            if let (Some(packages), Some(step)) =
                (ubuntu_packages(facts), step_mut(steps, StepName::INSTALL_KERNEL))
            {
                step.actions = ubuntu_pro(packages);
            }
        }
        _ if facts.family == Family::Redhat => {
            add_package(steps, "crypto-policies-scripts");
            if let Some(step) = step_mut(steps, StepName::INSTALL_PACKAGES) {
                let policy = ["update-crypto-policies", "--no-reload", "--set", "FIPS"];
                step.actions.push(Action::run(&policy));
            }
        }
        _ => add_package(steps, "dracut-fips"),
    }
    if facts.trusted {
        notes.push(
            "the kernel enters FIPS mode by `fips=1`, which the UKI has to carry: `--extend-cmdline fips=1` when it is built".into(),
        );
    }
    if let Some(step) = step_mut(steps, StepName::CLEANUP) {
        step.actions.push(Action::ProveFips);
    }
}

fn add_package(steps: &mut [Step], name: &str) {
    let Some(step) = step_mut(steps, StepName::INSTALL_PACKAGES) else {
        return;
    };
    let last = step.actions.iter_mut().rev().find_map(|action| match action {
        Action::Packages { install, .. } => Some(install),
        _ => None,
    });
    if let Some(install) = last
        && !install.iter().any(|known| known == name)
    {
        install.push(name.to_owned());
        install.sort();
    }
}

/// The subscription is entered, used and left in one step, whose layer holds nothing of it.
fn ubuntu_pro(packages: &[&str]) -> Vec<Action> {
    // The token is in no argument: other processes can read those. /run is gone with the command.
    let attach = format!(
        "umask 077 && printf 'token: %s\\nenable_services: []\\n' \"$(cat {})\" >/run/attach.yaml && \
         pro attach --attach-config /run/attach.yaml",
        Secret::target(UBUNTU_PRO_TOKEN)
    );
    let pro = |argv: &[&str], secrets: &[&str], may_fail| Action::Run {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        network: true,
        secrets: secrets.iter().map(|id| (*id).to_owned()).collect(),
        if_exists: None,
        may_fail,
    };
    debug_assert!(secret::KNOWN.iter().any(|known| known.id == UBUNTU_PRO_TOKEN));
    vec![
        Action::Packages {
            upgrade: false,
            install: vec!["ca-certificates".into(), "ubuntu-advantage-tools".into()],
        },
        pro(&["sh", "-c", &attach], &[UBUNTU_PRO_TOKEN], false),
        pro(&["pro", "enable", "--access-only", "--assume-yes", "fips-updates"], &[], false),
        Action::ListsChanged,
        Action::Packages {
            upgrade: true,
            install: packages.iter().map(|name| (*name).to_owned()).collect(),
        },
        pro(&["pro", "detach", "--assume-yes"], &[], true),
        // Whatever became of that: what unlocks the subscription's repositories stays out of the layer.
        Action::Remove {
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
        },
    ]
}
