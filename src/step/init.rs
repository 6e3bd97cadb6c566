//! The steps of the init phase: release file, kernel, initrd, services, fixes, cleanup. None needs the network.

use std::collections::BTreeMap;

use super::{Action, Group, Phase, Step, StepName};
use crate::distro::policy::{Fixes, InitramfsTool, Policy, Services};
use crate::kairos::mkinitfs;

/// Returns the steps of the init phase in the order they run; `release` holds the keys of `/etc/kairos-release`.
pub fn steps(policy: &Policy, release: BTreeMap<String, String>) -> Vec<Step> {
    let tool = policy.initramfs;
    vec![
        step(
            StepName::KAIROS_RELEASE,
            vec![Action::Release { entries: release }],
        ),
        step(StepName::KERNEL, vec![Action::LinkKernel]),
        step(StepName::INITRAMFS_CONFIGS, initramfs_configs(tool)),
        step(StepName::INITRD, vec![Action::Initrd { tool }]),
        step(StepName::SERVICES, services(&policy.services)),
        step(StepName::SSH_HARDENING, vec![Action::SshHardening]),
        step(StepName::WORKAROUNDS, workarounds(&policy.fixes)),
        step(StepName::CLEANUP, cleanup(policy.caches)),
    ]
}

/// dracut's configuration follows what is installed; Alpine's is always the same.
fn initramfs_configs(tool: InitramfsTool) -> Vec<Action> {
    match tool {
        InitramfsTool::Dracut => vec![Action::InitramfsConfig],
        InitramfsTool::Mkinitfs => mkinitfs::files().map(Action::from).into(),
    }
}

fn step(name: StepName, actions: Vec<Action>) -> Step {
    Step::new(name, Phase::Init, Group::Init, actions)
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// kairos-init section 16.1.
fn services(services: &Services) -> Vec<Action> {
    if !services.runlevels.is_empty() {
        let runlevel = |(level, names): &(&str, Vec<&str>)| Action::Runlevel {
            level: (*level).to_owned(),
            services: words(names),
        };
        return services.runlevels.iter().map(runlevel).collect();
    }
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
            unmask: words(&services.unmask),
            enable: words(&services.enable),
            optional: words(&services.optional),
            disable: words(&services.disable),
            mask: words(&services.mask),
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

fn workarounds(fixes: &Fixes) -> Vec<Action> {
    // The cloud-configs call grub2-editenv by that name.
    let mut actions = vec![link("/usr/bin/grub2-editenv", "/usr/bin/grub-editenv")];
    let permissions = fixes.permissions.iter();
    actions.extend(permissions.map(|(path, mode)| Action::Permissions {
        path: (*path).into(),
        mode: *mode,
    }));
    let directories = fixes.directories.iter();
    actions.extend(directories.map(|path| Action::Directory {
        path: (*path).into(),
        mode: 0o755,
    }));
    actions.extend(fixes.files.iter().map(Action::from));
    actions.push(link("/usr/bin/nvidia-smi", "/usr/sbin/nvidia-smi"));
    actions
}

fn cleanup(caches: &[&str]) -> Vec<Action> {
    let mut paths = words(caches);
    paths.extend(words(&["/tmp/*", "/var/tmp/*"]));
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
        Action::CleanPackageCache { paths },
    ]
}
