//! What can be known to be wrong with a step before it runs, and what will not do what it seems to.

use super::content;
use super::entity;
use super::pattern;
use super::problem::Problems;
use super::schema::{Access, Document, File, Step, Systemctl, Text, User};
use super::system;
use super::template;
use crate::step::Hook;

/// Stages that run on a machine, not in a build.
const BOOT_STAGES: [&str; 14] = [
    "rootfs",
    "initramfs",
    "fs",
    "boot",
    "network",
    "reconcile",
    "after-install",
    "after-install-chroot",
    "after-upgrade",
    "after-upgrade-chroot",
    "after-reset",
    "after-reset-chroot",
    "before-upgrade",
    "before-reset",
];

/// Checks every stage of `document` that a build runs, and names those it does not.
pub(super) fn document(document: &Document, problems: &mut Problems) {
    for stage in &document.stages {
        match Hook::from_name(&stage.name.value) {
            Some(hook) => stage
                .steps
                .iter()
                .for_each(|found| step(found, hook, problems)),
            None => unknown_stage(document, stage, problems),
        }
    }
}

fn unknown_stage(document: &Document, stage: &super::schema::Stage, problems: &mut Problems) {
    let name = &stage.name;
    let does_nothing = stage.steps.iter().all(|step| {
        *step
            == Step {
                line: step.line,
                ..Step::default()
            }
    });
    if document.is_cloud_config && does_nothing {
        return;
    }
    let bare = name
        .value
        .trim_end_matches(".before")
        .trim_end_matches(".after");
    let hooks: Vec<&str> = Hook::ALL.iter().map(|hook| hook.name()).collect();
    if !BOOT_STAGES.contains(&bare)
        && let Some(near) = super::fields::nearest(&name.value, &hooks)
    {
        let message = format!("a build has no stage {:?}", name.value);
        problems.error_with(name.line, message, format!("did you mean `{near}`?"));
        return;
    }
    problems.warning(
        name.line,
        format!(
            "the stage `{}` does not run in a build, only {}",
            name.value,
            hooks.join(", ")
        ),
    );
}

fn step(step: &Step, hook: Hook, problems: &mut Problems) {
    conditions(step, problems);
    boot_only(step, problems);
    templates(step, problems);
    for file in &step.files {
        self::file(file, problems);
    }
    for directory in &step.directories {
        required(
            &directory.path,
            directory.line,
            "a directory",
            "path",
            problems,
        );
        access(&directory.access, directory.line, &directory.path, problems);
    }
    for download in &step.downloads {
        required(
            &download.path,
            download.line,
            "a download",
            "path",
            problems,
        );
        url(&download.url, download.line, problems);
        access(&download.access, download.line, &download.path, problems);
    }
    if let Some(git) = &step.git {
        required(&git.url, git.line, "`git`", "url", problems);
        required(&git.path, git.line, "`git`", "path", problems);
        repository(&git.url, problems);
    }
    for found in step.ensure_entities.iter().chain(&step.delete_entities) {
        if let Err(why) = entity::check(&found.entity.value) {
            problems.error(found.entity.line.max(found.line), why);
        }
    }
    for (name, account) in &step.users {
        user(name, account, problems);
    }
    for (name, _) in &step.authorized_keys {
        if !is_user_name(&name.value) {
            problems.error(name.line, format!("{:?} is no user name", name.value));
        }
    }
    if let Some(units) = &step.systemctl {
        systemctl(units, problems);
    }
    for image in &step.unpack_images {
        required(
            &image.source,
            image.line,
            "an image to unpack",
            "source",
            problems,
        );
        required(
            &image.target,
            image.line,
            "an image to unpack",
            "target",
            problems,
        );
        if !image.platform.is_empty()
            && let Err(error) = kfactory_layers::platform::Platform::parse(&image.platform.value)
        {
            problems.error(image.platform.line, error.to_string());
        }
    }
    without_effect(step, hook, problems);
}

fn required(text: &Text, line: usize, what: &str, key: &str, problems: &mut Problems) {
    if text.value.trim().is_empty() {
        problems.error(line, format!("{what} needs a `{key}`"));
    }
}

fn url(text: &Text, line: usize, problems: &mut Problems) {
    let is_http = reqwest::Url::parse(&text.value)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !is_http {
        let message = format!("{:?} is no http or https URL", text.value);
        problems.error(text.line.max(line), message);
    }
}

/// A path would lead to the machine that builds.
fn repository(url: &Text, problems: &mut Problems) {
    let has_transport = reqwest::Url::parse(&url.value).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https" | "ssh" | "git") && url.has_host()
    });
    let is_short = url.value.split_once(':').is_some_and(|(host, path)| {
        host.contains('@') && !host.contains('/') && !host.starts_with('-') && !path.is_empty()
    });
    if !url.is_empty() && !has_transport && !is_short {
        problems.error_with(
            url.line,
            format!("{:?} is no URL of a repository", url.value),
            "https, http, ssh and git are known",
        );
    }
}

fn conditions(step: &Step, problems: &mut Problems) {
    for (key, text) in [
        ("only_os", &step.only_os),
        ("only_os_version", &step.only_os_version),
        ("only_arch", &step.only_arch),
    ] {
        if let Err(why) = pattern::compile(&text.value) {
            problems.error(
                text.line,
                format!("`{key}` is no regular expression: {why}"),
            );
        }
    }
    let manager = &step.only_service_manager;
    if !manager.is_empty()
        && !["systemd", "openrc"].contains(&manager.value.to_lowercase().as_str())
    {
        problems.error_with(
            manager.line,
            format!("`only_service_manager` does not know {:?}", manager.value),
            "write `systemd` or `openrc`",
        );
    }
    for (kind, paths) in &step.if_files {
        if !["any", "all", "none"].contains(&kind.value.as_str()) {
            let message = format!("`if_files` does not know {:?}", kind.value);
            problems.error_with(kind.line, message, "known are any, all, none");
        } else if paths.is_empty() {
            problems.warning(kind.line, "an empty list makes all of `if_files` hold");
        }
    }
    if !step.node.is_empty() {
        problems.error_with(
            step.node.line,
            "`node` asks for the host name of a machine, and a build has none",
            "ask for `only_os`, `only_arch` or `if_files`, or run the step at boot",
        );
    }
}

/// Keys that work on a running machine, each with what does the same for an image.
fn boot_only(step: &Step, problems: &mut Problems) {
    if let Some((key, _)) = step.sysctl.first() {
        problems.error_with(
            key.line,
            "`sysctl` changes the running kernel, not the image",
            "write a file below /etc/sysctl.d with `files`",
        );
    }
    if let Some(module) = step.modules.first() {
        problems.error_with(
            module.line,
            "`modules` loads into the running kernel, not into the image",
            "write a file below /etc/modules-load.d with `files`",
        );
    }
    for (key, line) in [("layout", step.layout), ("datasource", step.datasource)] {
        if let Some(line) = line {
            problems.error_with(
                line,
                format!("`{key}` works on the machine that boots, not on an image"),
                "write a cloud-config with this key below /system/oem with `files`",
            );
        }
    }
    if let Some(dns) = &step.dns {
        if dns.path.is_empty() || dns.path.value == "/etc/resolv.conf" {
            problems.error_with(
                dns.line,
                "`dns` writes /etc/resolv.conf, which a machine makes anew when it boots",
                "give it another `path`, or write a file below /etc/systemd/resolved.conf.d with `files`",
            );
        } else if dns.nameservers.is_empty() {
            problems.warning(dns.line, "`dns` without `nameservers` does nothing");
        }
    }
}

/// Checks every text that is a template.
fn templates(step: &Step, problems: &mut Problems) {
    let packages = step
        .packages
        .iter()
        .flat_map(|p| p.install.iter().chain(&p.remove));
    let entities = step
        .ensure_entities
        .iter()
        .chain(&step.delete_entities)
        .map(|found| &found.entity);
    let texts = std::iter::once(&step.if_)
        .chain(&step.commands)
        .chain(step.environment.iter().map(|(_, value)| value))
        .chain(packages)
        .chain(entities);
    for text in texts {
        check_template(&text.value, text.line, true, problems);
    }
    for file in &step.files {
        match file.encoding.value.as_str() {
            "" => check_template(&file.content.value, file.content.line, true, problems),
            encoding => {
                let bytes = content::decode(encoding, &file.content.value).unwrap_or_default();
                if let Ok(text) = String::from_utf8(bytes) {
                    check_template(&text, file.content.line, false, problems);
                }
            }
        }
    }
    let name = &step.hostname;
    if let Err((_, why)) = system::System::default().render_hostname(&name.value, None) {
        problems.error(name.line, format!("`hostname`: {why}"));
    }
}

fn check_template(text: &str, line: usize, has_lines: bool, problems: &mut Problems) {
    const ESCAPE: &str = "to get the braces themselves, write {{`{{`}}";
    if !text.contains("{{") {
        return;
    }
    let at = |within: usize| if has_lines { line + within } else { line };
    match template::parse(text) {
        Err(failure) if failure.is_refusal => {
            problems.error_with(at(failure.line), failure.message, ESCAPE);
        }
        Err(failure) => problems.warning(
            at(failure.line),
            format!(
                "this is no template and stays as it is: {}",
                failure.message
            ),
        ),
        Ok(template) => template.paths(&mut |within, path| {
            if let Some(what) = system::refusal(path) {
                let message = format!(
                    "`.{}` is {what}, which must not get into an image",
                    path.join(".")
                );
                problems.error_with(at(within), message, ESCAPE);
            }
        }),
    }
}

fn file(file: &File, problems: &mut Problems) {
    required(&file.path, file.line, "a file", "path", problems);
    access(&file.access, file.line, &file.path, problems);
    if let Err(why) = content::decode(&file.encoding.value, &file.content.value) {
        let line = if file.encoding.is_empty() {
            file.line
        } else {
            file.encoding.line
        };
        problems.error(line, why);
    }
}

fn access(access: &Access, line: usize, path: &Text, problems: &mut Problems) {
    match access.permissions {
        None => problems.warning(
            line,
            format!(
                "{} gets no permission bits at all, since `permissions` is left out",
                path.value
            ),
        ),
        Some(bits) if bits & !0o777 != 0 => problems.warning(
            line,
            format!(
                "of the permissions {bits:o} of {} only {:o} is used",
                path.value,
                bits & 0o777
            ),
        ),
        Some(_) => {}
    }
}

fn user(name: &Text, account: &User, problems: &mut Problems) {
    if !is_user_name(&name.value) {
        problems.error(name.line, format!("{:?} is no user name", name.value));
    }
    if !account.uid.is_empty() && account.uid.value.parse::<u32>().is_err() {
        problems.error(
            account.uid.line,
            format!("{:?} is no user number", account.uid.value),
        );
    }
    for (key, text) in [
        ("gecos", account.gecos.as_str()),
        ("homedir", &account.homedir.value),
        ("shell", &account.shell.value),
    ] {
        if text.contains([':', '\n']) {
            problems.error(
                account.line,
                format!(
                    "`{key}` of {} cannot hold a colon or a line break",
                    name.value
                ),
            );
        }
    }
    if account.passwd.value.contains([':', '\n']) {
        problems.error(
            account.passwd.line,
            format!(
                "`passwd` of {} cannot hold a colon or a line break",
                name.value
            ),
        );
    }
    if account.passwd.is_empty() && !account.lock_passwd {
        problems.warning(
            name.line,
            format!(
                "{} can log in without a password; `lock_passwd: true` keeps to keys",
                name.value
            ),
        );
    }
    for (key, is_set) in [
        ("no_user_group", account.no_user_group),
        ("system", account.system),
        ("no_log_init", account.no_log_init),
    ] {
        if is_set {
            problems.warning(name.line, format!("`{key}` has no effect in this dialect"));
        }
    }
}

fn is_user_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-$@".contains(c))
}

fn systemctl(units: &Systemctl, problems: &mut Problems) {
    if let Some(unit) = units.start.first() {
        problems.error_with(
            unit.line,
            format!("nothing can be started in a build: `{}`", unit.value),
            "`enable` starts it when the machine boots",
        );
    }
    for found in &units.overrides {
        if found.service.is_empty() || found.content.is_empty() {
            problems.warning(
                found.line,
                "an override without `service` or `content` is left out",
            );
        }
        for part in [&found.service, &found.name] {
            if part.value.contains('/') {
                problems.error(part.line, format!("{:?} is no name of a file", part.value));
            }
        }
    }
    for unit in units.enable.iter().chain(&units.disable).chain(&units.mask) {
        if unit.value.trim().is_empty() {
            problems.error(unit.line, "a unit without a name");
        }
    }
}

/// What is written down and comes to nothing, or too early.
fn without_effect(step: &Step, hook: Hook, problems: &mut Problems) {
    if let Some(packages) = &step.packages {
        let works = packages.refresh || !packages.install.is_empty() || !packages.remove.is_empty();
        if packages.upgrade && !works {
            problems.warning(
                step.line,
                "`upgrade` alone does nothing; add `refresh: true`",
            );
        }
        if works && !step.commands.is_empty() {
            problems.warning(
                step.line,
                "`commands` run before `packages` of the same step, whatever their order; use two steps if they need them",
            );
        }
        if works && step.systemctl.is_some() {
            problems.warning(
                step.line,
                "`systemctl` works before `packages` of the same step, whatever their order; use two steps for units of these packages",
            );
        }
    }
    if step.environment.is_empty() && !step.environment_file.is_empty() {
        problems.warning(
            step.environment_file.line,
            "`environment_file` without `environment` does nothing",
        );
    }
    if !step.hostname.is_empty() && hook < Hook::Init {
        problems.warning(
            step.hostname.line,
            "the cleanup at the end of the init phase empties /etc/hostname; set it in the stage `init` or at boot",
        );
    }
    for (name, value) in &step.environment {
        let is_name = !name.is_empty()
            && name
                .value
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        if !is_name {
            problems.error(
                name.line.max(value.line),
                format!("{:?} is no name of a variable", name.value),
            );
        }
    }
    for (key, value) in &step.timesyncd {
        if [key, value].iter().any(|text| text.value.contains('\n')) {
            problems.error(
                key.line.max(value.line),
                format!("`timesyncd`: {:?} cannot hold a line break", key.value),
            );
        }
    }
    if !step.environment_file.is_empty() && !step.environment_file.value.starts_with('/') {
        problems.error(
            step.environment_file.line,
            "`environment_file` is no absolute path",
        );
    }
}
