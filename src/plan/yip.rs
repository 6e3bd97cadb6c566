//! The plan as yip YAML: what a yip run over the root filesystem would have to do.
//!
//! Actions that depend on the state of the tree are written as the shell commands that come nearest.

use serde_json::{Value, json};

use super::Plan;
use crate::distro::Family;
use crate::distro::policy::InitramfsTool;
use crate::error::Result;
use crate::kairos::StaticFile;
use crate::kairos::dracut::{DracutFacts, dracut_files};
use crate::kairos::files::ssh_hardening;
use crate::provider::bus::{Event, Payload};
use crate::provider::{self, Distribution, Manager};
use crate::step::{Action, Hook, Phase, Step};

/// Renders the plan as one yip document: the stages `install` and `init`, and those that extensions add steps to.
///
/// It has the form in which yip programs print what they loaded, so that either loads it and prints the same.
/// Steps of extensions are printed as they were written, in the stage they were written for.
pub(super) fn render(plan: &Plan) -> Result<String> {
    let mut stages = serde_json::Map::new();
    for hook in Hook::ALL {
        let steps: Vec<Value> = plan
            .steps
            .iter()
            .filter(|step| stage_of(step) == hook)
            .flat_map(|step| yip_steps(plan, step))
            .collect();
        if !steps.is_empty() {
            stages.insert(hook.name().into(), Value::Array(steps));
        }
    }
    let document = json!({ "name": "Kairos conversion", "stages": stages });
    crate::yip::printed(&document)
}

fn stage_of(step: &Step) -> Hook {
    match (&step.extension, step.phase) {
        (Some(extension), _) => extension.stage,
        (None, Phase::Install) => Hook::Install,
        (None, Phase::Init) => Hook::Init,
    }
}

/// One yip step per action: yip runs the parts of one step in an order of its own, so actions must not share a step.
fn yip_steps(plan: &Plan, step: &Step) -> Vec<Value> {
    if let Some(extension) = &step.extension {
        return vec![extension.yip.clone()];
    }
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
        Action::Prerequisites { install, url, .. } => match url {
            Some(url) => commands(&[format!(
                "dnf install -y {} || dnf install -y {url}",
                install.join(" ")
            )]),
            None => json!({ "packages": { "install": install } }),
        },
        Action::ImportKeys => commands(&["zypper -n --gpg-auto-import-keys refresh".into()]),
        Action::EnableRepository { id } => commands(&[format!("dnf config-manager --enable {id}")]),
        Action::RemovePackages { names } => json!({ "packages": { "remove": names } }),
        Action::Move { from, to } => {
            let mut body = commands(&[format!("mv {from} {to}")]);
            body["if"] = Value::String(format!("[ -e {from} ]"));
            body
        }
        Action::AptComponent { component } => commands(&[format!(
            "sed -i '/^\\(Components:\\|deb \\).* main/{{/{component}/!s/$/ {component}/}}' /etc/apt/sources.list.d/* /etc/apt/sources.list"
        )]),
        Action::KernelFile { file } => commands(&[format!(
            "install -D -m 0644 {} /boot/",
            shell_word(file)
        )]),
        // Says something and changes nothing.
        Action::ReportSavings { .. } => commands(&["true".into()]),
        // yip installs from lists that it refreshes itself.
        Action::ListsChanged => commands(&["apt-get -y update".into()]),
        Action::RepositoryKey { url, path } => commands(&[format!(
            "curl -fsSL {url} | gpg --dearmor --yes -o {path}"
        )]),
        Action::Require { path, remedy } => commands(&[format!(
            "[ -e {path} ] || {{ echo {} >&2; exit 1; }}",
            shell_word(remedy)
        )]),
        Action::NvdimmModules => commands(&[
            "K=$(ls /lib/modules | sort -V | tail -n 1); cd /tmp && apt-get download linux-modules-extra-$K && dpkg-deb -x linux-modules-extra-*.deb x \
             && mkdir -p /usr/lib/modules/$K/kernel/drivers/nvdimm \
             && cp -a x/lib/modules/$K/kernel/drivers/nvdimm/. /usr/lib/modules/$K/kernel/drivers/nvdimm/ && depmod -a $K"
                .into(),
        ]),
        Action::MeasureUki => commands(&["du -sm --exclude=/boot --exclude=/proc --exclude=/sys /".into()]),
        Action::ProveFips => commands(&["ls /boot/.vmlinuz.hmac && lsinitrd /boot/initrd | grep -q fips".into()]),
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
        Action::Initrd { tool } => {
            let output = match tool {
                InitramfsTool::Dracut => "-f",
                InitramfsTool::Mkinitfs => "-o",
            };
            let kernel = "\"$(ls /lib/modules | sort -V | tail -n 1)\"";
            commands(&[
                "rm -f /boot/initrd* /boot/initramfs*".into(),
                format!("depmod -a {kernel}"),
                format!("{} {output} /boot/initrd {kernel}", tool.as_str()),
            ])
        }
        Action::Services {
            unmask,
            enable,
            optional,
            disable,
            mask,
        } => {
            // The engine's own list has no word for these two.
            let mut lines: Vec<String> = Vec::new();
            if !unmask.is_empty() {
                lines.push(format!("systemctl unmask {}", unmask.join(" ")));
            }
            lines.extend(
                optional
                    .iter()
                    .map(|unit| format!("systemctl enable {unit} || true")),
            );
            let mut body =
                json!({ "systemctl": { "enable": enable, "disable": disable, "mask": mask } });
            if !lines.is_empty() {
                body["commands"] = json!(lines);
            }
            body
        }
        Action::Runlevel { level, services } => {
            let add = services
                .iter()
                .map(|service| format!("rc-update add {service} {level}"));
            commands(&add.collect::<Vec<_>>())
        }
        Action::SshHardening => {
            json!({ "if": "[ -d /etc/ssh ]", "files": [yip_file(&ssh_hardening(false))] })
        }
        Action::CleanPackageCache { paths } => commands(&[format!("rm -rf {}", paths.join(" "))]),
        // Only extensions have these, and their steps are printed whole.
        Action::Plugin(plugin) => json!({ "name": plugin.describe() }),
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
        version: distro.base_version.as_deref().unwrap_or_default(),
        model: "generic",
        has_network_manager: distro.family == Family::Redhat,
        has_networkd: true,
        has_resolved: true,
        has_legacy_network: true,
        fips: false,
        built_in: &[],
        trusted: false,
    };
    dracut_files(&facts).iter().map(yip_file).collect()
}

fn yip_file(file: &StaticFile) -> Value {
    json!({ "path": file.path, "permissions": file.mode, "owner": 0, "group": 0, "content": file.content })
}
