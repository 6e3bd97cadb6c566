//! From a checked yip step to a step of the one step model: its plugins in the order the dialect runs them.
//!
//! Spec: yip, "execution order inside one step".

use std::collections::BTreeMap;

use super::order::Op;
use super::schema::{Access, Download, File, Git, Step as YipStep, Systemctl, Text, User};
use super::{content, render};
use crate::printable;
use crate::step::{
    Action, Condition, Content, Extension, GitAuth, Group, Hook, Owner, Plugin, Secret, Source,
    Step, StepName, Unit, UserAccount,
};

/// Directories that no file asked a mode for.
const DIRECTORY_MODE: u32 = 0o755;
/// The nine bits that the dialect uses.
const PERMISSION_BITS: u32 = 0o777;

/// Translates a step that hooks into `stage`.
pub(super) fn step(op: &Op<'_>, stage: Hook) -> Step {
    let source = Source {
        file: printable::name(&op.document.file),
        line: op.step.line,
    };
    let mut actions = Vec::new();
    let mut add = |plugin: Plugin| actions.push(Action::Plugin(plugin));
    let yip = op.step;
    actions_before_commands(yip, &mut add);
    for command in &yip.commands {
        add(Plugin::Shell {
            script: command.value.clone(),
        });
    }
    actions_after_commands(yip, &mut add);
    if let Some(units) = &yip.systemctl {
        systemctl(units, &mut actions);
    }
    last_actions(yip, &mut |plugin| actions.push(Action::Plugin(plugin)));
    Step {
        name: StepName::STAGE_EXTENSIONS,
        phase: stage.phase(),
        group: Group::Extensions,
        actions,
        extension: Some(Box::new(Extension {
            label: label(op),
            stage,
            source: Some(source),
            conditions: conditions(yip),
            yip: render::step(yip),
        })),
    }
}

/// Names a step for people: what the file calls it, else its file's last name and which of its steps it is. On one line, whatever
/// the name is made of: it stands in progress, in plans and in the image's history.
fn label(op: &Op<'_>) -> String {
    if !op.step.name.is_empty() {
        return printable::name(op.step.name.trim_end_matches('\n'));
    }
    let file = op
        .document
        .file
        .rsplit('/')
        .next()
        .unwrap_or(&op.document.file);
    format!("{}, step {}", printable::name(file), op.number)
}

fn conditions(step: &YipStep) -> Vec<Condition> {
    let mut out = Vec::new();
    let text = |text: &Text| (!text.is_empty()).then(|| text.value.clone());
    out.extend(text(&step.if_).map(|script| Condition::Shell { script }));
    out.extend(text(&step.only_os).map(|pattern| Condition::Os { pattern }));
    out.extend(text(&step.only_os_version).map(|pattern| Condition::OsVersion { pattern }));
    out.extend(text(&step.only_arch).map(|pattern| Condition::Arch { pattern }));
    out.extend(
        text(&step.only_service_manager).map(|name| Condition::ServiceManager {
            name: name.to_lowercase(),
        }),
    );
    if !step.if_files.is_empty() {
        let values = |list: &[Text]| list.iter().map(|text| text.value.clone()).collect();
        let checks = step
            .if_files
            .iter()
            .map(|(kind, paths)| (kind.value.clone(), values(paths)));
        out.push(Condition::Files {
            checks: checks.collect(),
        });
    }
    out
}

fn actions_before_commands(step: &YipStep, add: &mut dyn FnMut(Plugin)) {
    if let Some(dns) = step.dns.as_ref().filter(|dns| !dns.nameservers.is_empty()) {
        add(resolver(dns));
    }
    for found in &step.downloads {
        add(download(found));
    }
    if let Some(found) = &step.git {
        add(git(found));
    }
    for entity in &step.ensure_entities {
        add(Plugin::EnsureEntity {
            path: optional(&entity.path),
            entity: entity.entity.value.clone(),
        });
    }
    for directory in &step.directories {
        add(Plugin::MakeDirectory {
            path: absolute(&directory.path),
            mode: mode(&directory.access),
            owner: ids(&directory.access),
        });
    }
    for found in &step.files {
        add(file(found));
    }
}

fn actions_after_commands(step: &YipStep, add: &mut dyn FnMut(Plugin)) {
    for entity in &step.delete_entities {
        add(Plugin::DeleteEntity {
            path: optional(&entity.path),
            entity: entity.entity.value.clone(),
        });
    }
    if !step.hostname.is_empty() {
        add(Plugin::Hostname {
            name: step.hostname.value.clone(),
        });
    }
    if !step.users.is_empty() {
        let users = step
            .users
            .iter()
            .map(|(name, account)| (name.value.clone(), user(account)));
        add(Plugin::Users {
            users: users.collect(),
        });
    }
    for (user, keys) in &step.authorized_keys {
        add(Plugin::AuthorizedKeys {
            user: user.value.clone(),
            keys: strings(keys),
        });
    }
    if !step.timesyncd.is_empty() {
        add(Plugin::Timesyncd {
            entries: entries(&step.timesyncd),
        });
    }
}

fn last_actions(step: &YipStep, add: &mut dyn FnMut(Plugin)) {
    if !step.environment.is_empty() {
        let path = match step.environment_file.is_empty() {
            true => "/etc/environment".to_owned(),
            false => absolute(&step.environment_file),
        };
        add(Plugin::Environment {
            path,
            entries: entries(&step.environment),
        });
    }
    if !step.systemd_firstboot.is_empty() {
        add(Plugin::SystemdFirstboot {
            arguments: firstboot(&step.systemd_firstboot),
        });
    }
    if !step.package_pins.is_empty() {
        add(Plugin::PackagePins {
            pins: entries(&step.package_pins),
        });
    }
    if let Some(packages) = &step.packages
        && (packages.refresh || !packages.install.is_empty() || !packages.remove.is_empty())
    {
        add(Plugin::InstallPackages {
            refresh: packages.refresh,
            upgrade: packages.upgrade,
            install: strings(&packages.install),
            remove: strings(&packages.remove),
        });
    }
    for image in &step.unpack_images {
        add(Plugin::UnpackImage {
            source: image.source.value.clone(),
            target: absolute(&image.target),
            platform: optional(&image.platform),
        });
    }
}

fn strings(list: &[Text]) -> Vec<String> {
    list.iter().map(|text| text.value.clone()).collect()
}

fn entries(list: &[(Text, Text)]) -> BTreeMap<String, String> {
    list.iter()
        .map(|(key, value)| (key.value.clone(), value.value.clone()))
        .collect()
}

fn optional(text: &Text) -> Option<String> {
    (!text.is_empty()).then(|| text.value.clone())
}

/// Commands run in the root directory, and so paths without a slash begin there.
fn absolute(path: &Text) -> String {
    match path.value.starts_with('/') {
        true => path.value.clone(),
        false => format!("/{}", path.value),
    }
}

fn mode(access: &Access) -> u32 {
    access.permissions.unwrap_or(0) & PERMISSION_BITS
}

/// The owner by numbers; -1 leaves what is there, as it does for chown(2).
fn ids(access: &Access) -> Owner {
    Owner::Ids {
        uid: u32::try_from(access.owner).ok(),
        gid: u32::try_from(access.group).ok(),
    }
}

fn owner(access: &Access) -> Owner {
    match access.owner_string.is_empty() {
        true => ids(access),
        false => Owner::Name(access.owner_string.value.clone()),
    }
}

fn resolver(dns: &super::schema::Dns) -> Plugin {
    let mut text = String::new();
    let search = strings(&dns.search).join(" ");
    if !search.is_empty() && search.trim() != "." {
        text.push_str(&format!("search {search}\n"));
    }
    for server in &dns.nameservers {
        text.push_str(&format!("nameserver {}\n", server.value));
    }
    let options = strings(&dns.options).join(" ");
    if !options.trim().is_empty() {
        text.push_str(&format!("options {options}\n"));
    }
    Plugin::WriteFile {
        path: absolute(&dns.path),
        mode: 0o644,
        owner: Owner::ROOT,
        parents: Owner::ROOT,
        content: Content(text.into_bytes()),
        template: false,
    }
}

fn file(file: &File) -> Plugin {
    // A content that cannot be decoded has been refused.
    let bytes = content::decode(&file.encoding.value, &file.content.value).unwrap_or_default();
    Plugin::WriteFile {
        path: absolute(&file.path),
        mode: mode(&file.access),
        owner: owner(&file.access),
        parents: ids(&file.access),
        content: Content(bytes),
        template: true,
    }
}

fn download(download: &Download) -> Plugin {
    Plugin::Download {
        url: download.url.value.clone(),
        path: absolute(&download.path),
        mode: mode(&download.access),
        owner: owner(&download.access),
        timeout_secs: download.timeout_secs,
    }
}

fn git(git: &Git) -> Plugin {
    let secret = |text: &Text| optional(text).map(Secret::new);
    let auth = GitAuth {
        username: optional(&git.username),
        password: secret(&git.password),
        private_key: secret(&git.private_key),
        public_key: optional(&git.public_key),
        insecure: git.insecure,
    };
    let has_auth = auth.username.is_some()
        || auth.password.is_some()
        || auth.private_key.is_some()
        || auth.public_key.is_some()
        || auth.insecure;
    Plugin::Git {
        url: git.url.value.clone(),
        path: absolute(&git.path),
        branch: optional(&git.branch),
        branch_only: git.branch_only,
        auth: has_auth.then_some(auth),
    }
}

fn user(user: &User) -> UserAccount {
    UserAccount {
        password: optional(&user.passwd).map(Secret::new),
        lock_password: user.lock_passwd,
        gecos: user.gecos.clone(),
        home: user.homedir.value.clone(),
        no_home: user.no_create_home,
        primary_group: user.primary_group.value.clone(),
        groups: strings(&user.groups),
        shell: user.shell.value.clone(),
        uid: user.uid.value.parse().ok(),
        keys: strings(&user.ssh_authorized_keys),
    }
}

fn systemctl(units: &Systemctl, actions: &mut Vec<Action>) {
    for (verb, list) in [
        (Unit::Enable, &units.enable),
        (Unit::Disable, &units.disable),
        (Unit::Mask, &units.mask),
    ] {
        for unit in list {
            actions.push(Action::Plugin(Plugin::Systemctl {
                verb,
                unit: unit.value.clone(),
            }));
        }
    }
    for found in units
        .overrides
        .iter()
        .filter(|found| !found.service.is_empty() && !found.content.is_empty())
    {
        let with_end = |name: &str, end: &str| match name.ends_with(end) {
            true => name.to_owned(),
            false => format!("{name}{end}"),
        };
        let service = with_end(&found.service.value, ".service");
        let name = match found.name.is_empty() {
            true => "override-yip.conf".to_owned(),
            false => with_end(&found.name.value, ".conf"),
        };
        let dir = format!("/etc/systemd/system/{service}.d");
        actions.push(Action::Directory {
            path: dir.clone(),
            mode: DIRECTORY_MODE,
        });
        actions.push(Action::File {
            path: format!("{dir}/{name}"),
            mode: 0o644,
            content: found.content.value.clone(),
        });
    }
}

/// Writes the arguments of systemd-firstboot, sorted; `true` makes a bare flag.
fn firstboot(list: &[(Text, Text)]) -> Vec<String> {
    let mut out: Vec<String> = list
        .iter()
        .map(|(key, value)| {
            let key = key.value.to_lowercase();
            match value.value.as_str() {
                "true" => format!("--{key}"),
                value => format!("--{key}={value}"),
            }
        })
        .collect();
    out.sort();
    out
}
