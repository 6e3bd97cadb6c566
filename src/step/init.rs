//! The steps of the init phase: release file, kernel, initrd, services, fixes, cleanup. None needs the network.

use std::collections::BTreeMap;

use super::{Action, Group, Phase, Step, StepName};

/// Returns the steps of the init phase in the order they run; `release` holds the keys of `/etc/kairos-release`.
pub fn steps(release: BTreeMap<String, String>) -> Vec<Step> {
    vec![
        step(
            StepName::KAIROS_RELEASE,
            vec![Action::Release { entries: release }],
        ),
        step(StepName::KERNEL, vec![Action::LinkKernel]),
        step(StepName::INITRAMFS_CONFIGS, vec![Action::InitramfsConfig]),
        step(StepName::INITRD, vec![Action::Initrd]),
        step(StepName::SERVICES, services()),
        step(StepName::SSH_HARDENING, vec![Action::SshHardening]),
        step(StepName::WORKAROUNDS, workarounds()),
        step(StepName::CLEANUP, cleanup()),
    ]
}

fn step(name: StepName, actions: Vec<Action>) -> Step {
    Step::new(name, Phase::Init, Group::Init, actions)
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// What Debian and Ubuntu need; kairos-init section 16.1.
fn services() -> Vec<Action> {
    let wait_for_any_link = "# One link that is up is enough: a machine with an unplugged port must not wait for it.\n\
        [Service]\nExecStart=\nExecStart=/usr/lib/systemd/systemd-networkd-wait-online --any\n";
    vec![
        Action::File {
            path: "/etc/systemd/system/systemd-networkd-wait-online.service.d/override-yip.conf"
                .into(),
            mode: 0o644,
            content: wait_for_any_link.into(),
        },
        Action::Services {
            enable: words(&["fail2ban", "systemd-timesyncd", "ssh", "systemd-networkd"]),
            disable: Vec::new(),
            mask: words(&["systemd-firstboot.service"]),
        },
    ]
}

fn link(path: &str, target: &str) -> Action {
    Action::Link {
        path: path.into(),
        target: target.into(),
        if_exists: Some(target.into()),
        unless_exists: Some(path.into()),
    }
}

fn workarounds() -> Vec<Action> {
    vec![
        // The cloud-configs call grub2-editenv by that name.
        link("/usr/bin/grub2-editenv", "/usr/bin/grub-editenv"),
        Action::Permissions {
            path: "/usr/bin/sudo".into(),
            mode: 0o4755,
        },
        // snapd's mount point must exist in a read-only root.
        Action::Directory {
            path: "/snap".into(),
            mode: 0o755,
        },
        link("/usr/bin/nvidia-smi", "/usr/sbin/nvidia-smi"),
    ]
}

fn cleanup() -> Vec<Action> {
    vec![
        Action::Remove {
            paths: words(&[
                "/var/lib/dbus/machine-id",
                "/etc/ssh/ssh_host_*_key*",
                "/var/lib/systemd/random-seed",
            ]),
        },
        Action::Truncate {
            path: "/etc/machine-id".into(),
        },
        Action::Truncate {
            path: "/etc/hostname".into(),
        },
        Action::CleanPackageCache,
    ]
}
