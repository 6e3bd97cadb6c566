//! The plan as yip YAML: what a yip run over the root filesystem would have to do.
//!
//! Actions that depend on the state of the tree are written as the shell commands that come nearest.

use serde_json::{Value, json};

use super::Plan;
use crate::distro::Family;
use crate::error::{Error, Result};
use crate::kairos::StaticFile;
use crate::kairos::dracut::{DracutFacts, dracut_files};
use crate::kairos::files::ssh_hardening;
use crate::provider::bus::{Event, Payload};
use crate::provider::{self, Distribution, Manager};
use crate::step::{Action, Phase, Step};

/// Renders the plan as one yip document with the stages `install` and `init`.
pub(super) fn render(plan: &Plan) -> Result<String> {
    let mut stages = serde_json::Map::new();
    for phase in [Phase::Install, Phase::Init] {
        let steps: Vec<Value> = plan
            .steps
            .iter()
            .filter(|step| step.phase == phase)
            .flat_map(|step| yip_steps(plan, step))
            .collect();
        if !steps.is_empty() {
            stages.insert(phase.name().into(), Value::Array(steps));
        }
    }
    let document = json!({ "name": "Kairos conversion", "stages": stages });
    serde_saphyr::to_string(&document)
        .map_err(|error| Error::internal(format!("writing yip YAML: {error}")))
}

/// One yip step per action: yip runs the parts of one step in an order of its own, so actions must not share a step.
fn yip_steps(plan: &Plan, step: &Step) -> Vec<Value> {
    step.actions
        .iter()
        .map(|action| with_name(step, yip_action(plan, action)))
        .collect()
}

fn with_name(step: &Step, mut body: Value) -> Value {
    let mut out = json!({ "name": step.name.as_str() });
    if let (Some(out), Some(body)) = (out.as_object_mut(), body.as_object_mut()) {
        out.append(body);
    }
    out
}

fn commands(lines: &[String]) -> Value {
    json!({ "commands": lines })
}

/// Writes a word so that the shell reads it back as it is.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn yip_action(plan: &Plan, action: &Action) -> Value {
    match action {
        Action::Directory { path, mode } => {
            json!({ "if": format!("[ ! -d {path} ]"), "directories": [{ "path": path, "permissions": mode, "owner": 0, "group": 0 }] })
        }
        Action::File {
            path,
            mode,
            content,
        } => {
            json!({ "files": [{ "path": path, "permissions": mode, "owner": 0, "group": 0, "content": content }] })
        }
        Action::Link {
            path,
            target,
            if_exists,
            unless_exists,
        } => {
            let mut tests = Vec::new();
            tests.extend(if_exists.iter().map(|p| format!("[ -e {p} ]")));
            tests.extend(unless_exists.iter().map(|p| format!("[ ! -e {p} ]")));
            let mut body = commands(&[format!("ln -sfn {target} {path}")]);
            if !tests.is_empty() {
                body["if"] = Value::String(tests.join(" && "));
            }
            body
        }
        Action::Remove { paths } => commands(&[format!("rm -rf {}", paths.join(" "))]),
        Action::Truncate { path } => {
            commands(&[format!("[ ! -f {path} ] || truncate -s 0 {path}")])
        }
        Action::Permissions { path, mode } => commands(&[
            format!("chown root:root {path}"),
            format!("chmod {mode:o} {path}"),
        ]),
        Action::Release { entries } => {
            json!({ "environment_file": "/etc/kairos-release", "environment": entries })
        }
        Action::Packages { upgrade, install } => {
            json!({ "packages": { "refresh": upgrade, "upgrade": upgrade, "install": install } })
        }
        Action::AptComponent { component } => commands(&[format!(
            "sed -i '/^\\(Components:\\|deb \\).* main/{{/{component}/!s/$/ {component}/}}' /etc/apt/sources.list.d/* /etc/apt/sources.list"
        )]),
        Action::KeepFirmware { patterns } => {
            let kept: Vec<String> = patterns
                .iter()
                .map(|pattern| format!("! -name {}", shell_word(pattern)))
                .collect();
            commands(&[format!(
                "find {} -mindepth 1 -maxdepth 1 {} -exec rm -rf {{}} +",
                crate::distro::kinds::FIRMWARE_DIR,
                kept.join(" ")
            )])
        }
        Action::Run {
            argv,
            if_exists,
            may_fail,
            ..
        } => {
            let words: Vec<String> = argv.iter().map(|word| shell_word(word)).collect();
            let or = if *may_fail { " || true" } else { "" };
            let mut body = commands(&[words.join(" ") + or]);
            if let Some(path) = if_exists {
                body["if"] = Value::String(format!("[ -e {path} ]"));
            }
            body
        }
        Action::Framework { name, path, .. } => {
            commands(&[format!("install -D -m 0755 framework/{name} {path}")])
        }
        Action::Kubernetes {
            distribution,
            version,
            ..
        } => kubernetes(plan, distribution, version),
        Action::ProviderInstall {
            provider, version, ..
        } => publish(&Event::install(&Payload {
            provider: provider.clone(),
            version: version.clone(),
            log_level: "info".into(),
            family: plan.facts.distro.family.as_str().into(),
            ..Payload::default()
        })),
        Action::ProviderInfo { .. } => publish(&Event::info()),
        Action::LinkKernel => commands(&[
            "ln -sfn \"/boot/vmlinuz-$(ls /lib/modules | sort -V | tail -n 1)\" /boot/vmlinuz"
                .into(),
        ]),
        Action::InitramfsConfig => json!({ "files": initramfs_files(plan) }),
        Action::Initrd => commands(&[
            "rm -f /boot/initrd* /boot/initramfs*".into(),
            "depmod -a \"$(ls /lib/modules | sort -V | tail -n 1)\"".into(),
            "dracut -f /boot/initrd \"$(ls /lib/modules | sort -V | tail -n 1)\"".into(),
        ]),
        Action::Services {
            enable,
            disable,
            mask,
        } => {
            json!({ "systemctl": { "enable": enable, "disable": disable, "mask": mask } })
        }
        Action::SshHardening => {
            json!({ "if": "[ -d /etc/ssh ]", "files": [yip_file(&ssh_hardening(false))] })
        }
        Action::CleanPackageCache => commands(&[
            "apt-get clean".into(),
            "rm -rf /var/lib/apt/lists/* /tmp/* /var/tmp/*".into(),
        ]),
    }
}

/// Gives an event to the plugins where most of them are.
fn publish(event: &Event) -> Value {
    let input = String::from_utf8_lossy(&event.message("").stdin).into_owned();
    commands(&[format!(
        "for plugin in /system/providers/agent-provider-*; do printf %s {} | \"$plugin\" {}; done",
        shell_word(&input),
        event.name
    )])
}

/// The program, its links and its services; without the checksum, which is known only when the release was asked.
fn kubernetes(plan: &Plan, name: &str, version: &str) -> Value {
    let Some(distribution) = Distribution::find(name) else {
        return commands(&[]);
    };
    let manager = match plan.facts.distro.family {
        Family::Alpine => Manager::OpenRc,
        _ => Manager::Systemd,
    };
    let url = provider::url(distribution, version, plan.facts.arch).unwrap_or_default();
    let target = distribution.target;
    let mut lines = vec![
        format!("curl -fsSL -o {target} {url}"),
        format!("chmod 0755 {target}"),
    ];
    for command in distribution.links {
        lines.push(format!(
            "command -v {command} || ln -s {name} /usr/bin/{command}"
        ));
    }
    let files: Vec<Value> = provider::files(distribution, manager)
        .iter()
        .map(yip_file)
        .collect();
    json!({ "files": files, "commands": lines })
}

/// What the step writes on a system with the packages of the plan and nothing besides.
fn initramfs_files(plan: &Plan) -> Vec<Value> {
    let distro = &plan.facts.distro;
    let facts = DracutFacts {
        distro: distro.base.as_str(),
        family: distro.family.as_str(),
        version: &distro.version,
        model: "generic",
        has_network_manager: false,
        has_networkd: true,
        has_resolved: true,
        fips: false,
        trusted: false,
    };
    dracut_files(&facts).iter().map(yip_file).collect()
}

fn yip_file(file: &StaticFile) -> Value {
    json!({ "path": file.path, "permissions": file.mode, "owner": 0, "group": 0, "content": file.content })
}
