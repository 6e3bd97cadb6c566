//! A step as a yip document has it, in the form in which yip programs print it.
//!
//! Keys come in the dialect's own order, empty ones are left out, and secrets are masked.

use serde_json::{Map, Value, json};

use super::schema::{Access, Step, Text, User};

/// Returns the step as a mapping.
pub(super) fn step(step: &Step) -> Value {
    let mut out = Map::new();
    let mut add = |key: &str, value: Value| {
        let is_empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(entries) => entries.is_empty(),
            _ => false,
        };
        if !is_empty {
            out.insert(key.to_owned(), value);
        }
    };
    add("commands", texts(&step.commands));
    add(
        "files",
        step.files
            .iter()
            .map(|file| {
                access(
                    &file.path,
                    None,
                    &file.access,
                    &[
                        ("content", json!(file.content.value)),
                        ("encoding", json!(file.encoding.value)),
                    ],
                    true,
                )
            })
            .collect(),
    );
    add(
        "downloads",
        step.downloads
            .iter()
            .map(|download| {
                access(
                    &download.path,
                    Some(&download.url),
                    &download.access,
                    &[("timeout", json!(download.timeout_secs))],
                    true,
                )
            })
            .collect(),
    );
    add(
        "directories",
        step.directories
            .iter()
            .map(|dir| access(&dir.path, None, &dir.access, &[], false))
            .collect(),
    );
    add("if", text(&step.if_));
    let entity = |entity: &super::schema::Entity| json!({ "path": entity.path.value, "entity": entity.entity.value });
    add(
        "ensure_entities",
        step.ensure_entities.iter().map(entity).collect(),
    );
    add(
        "delete_entities",
        step.delete_entities.iter().map(entity).collect(),
    );
    add(
        "dns",
        step.dns.as_ref().map_or(Value::Null, |dns| {
            kept(&[
                ("nameservers", texts(&dns.nameservers)),
                ("search", texts(&dns.search)),
                ("options", texts(&dns.options)),
                ("path", text(&dns.path)),
            ])
        }),
    );
    add("hostname", text(&step.hostname));
    add("name", Value::String(step.name.clone()));
    add(
        "authorized_keys",
        step.authorized_keys
            .iter()
            .map(|(user, keys)| (user.value.clone(), texts(keys)))
            .collect(),
    );
    add(
        "users",
        step.users
            .iter()
            .map(|(name, account)| (name.value.clone(), user(account)))
            .collect(),
    );
    add(
        "systemctl",
        step.systemctl.as_ref().map_or(Value::Null, |units| {
            let overrides = units.overrides.iter().map(|found| {
                kept(&[
                    ("service", text(&found.service)),
                    ("content", text(&found.content)),
                    ("name", text(&found.name)),
                ])
            });
            kept(&[
                ("enable", texts(&units.enable)),
                ("disable", texts(&units.disable)),
                ("start", texts(&units.start)),
                ("mask", texts(&units.mask)),
                ("overrides", overrides.collect()),
            ])
        }),
    );
    add("environment", pairs(&step.environment));
    add("environment_file", text(&step.environment_file));
    add("package_pins", pairs(&step.package_pins));
    add(
        "packages",
        step.packages.as_ref().map_or(Value::Null, |packages| {
            kept(&[
                ("install", texts(&packages.install)),
                ("remove", texts(&packages.remove)),
                ("refresh", flag(packages.refresh)),
                ("upgrade", flag(packages.upgrade)),
            ])
        }),
    );
    add(
        "unpack_images",
        step.unpack_images
            .iter()
            .map(|image| {
                kept(&[
                    ("source", text(&image.source)),
                    ("target", text(&image.target)),
                    ("platform", text(&image.platform)),
                ])
            })
            .collect(),
    );
    add(
        "after",
        step.after
            .iter()
            .map(|name| json!({ "name": name.value }))
            .collect(),
    );
    add("systemd_firstboot", pairs(&step.systemd_firstboot));
    add("timesyncd", pairs(&step.timesyncd));
    add(
        "git",
        step.git.as_ref().map_or(Value::Null, |git| {
            kept(&[
                (
                    "auth",
                    kept(&[
                        ("username", text(&git.username)),
                        ("password", masked(&git.password)),
                        ("private_key", masked(&git.private_key)),
                        ("insecure", flag(git.insecure)),
                        ("public_key", text(&git.public_key)),
                    ]),
                ),
                ("url", text(&git.url)),
                ("path", text(&git.path)),
                ("branch", text(&git.branch)),
                ("branch_only", flag(git.branch_only)),
            ])
        }),
    );
    add("only_os", text(&step.only_os));
    add("only_os_version", text(&step.only_os_version));
    add("only_arch", text(&step.only_arch));
    add("only_service_manager", text(&step.only_service_manager));
    add(
        "if_files",
        step.if_files
            .iter()
            .map(|(kind, paths)| (kind.value.clone(), texts(paths)))
            .collect(),
    );
    Value::Object(out)
}

/// Keeps the keys that hold something.
fn kept(pairs: &[(&str, Value)]) -> Value {
    let held = pairs.iter().filter(|(_, value)| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        _ => true,
    });
    held.map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

fn text(text: &Text) -> Value {
    Value::String(text.value.clone())
}

fn texts(list: &[Text]) -> Value {
    list.iter().map(text).collect()
}

fn pairs(list: &[(Text, Text)]) -> Value {
    list.iter()
        .map(|(key, value)| (key.value.clone(), text(value)))
        .collect()
}

fn flag(value: bool) -> Value {
    Value::Bool(value)
}

/// A password's hash may be seen; a password may not.
fn masked(secret: &Text) -> Value {
    let hidden = if secret.is_empty() { "" } else { "(hidden)" };
    Value::String(hidden.to_owned())
}

/// A file, a download or a directory: these print all their keys, also the empty ones.
fn access(
    path: &Text,
    url: Option<&Text>,
    access: &Access,
    more: &[(&str, Value)],
    owner_string: bool,
) -> Value {
    let mut out = Map::new();
    out.insert("path".into(), text(path));
    if let Some(url) = url {
        out.insert("url".into(), text(url));
    }
    out.insert("permissions".into(), json!(access.permissions.unwrap_or(0)));
    out.insert("owner".into(), json!(access.owner));
    out.insert("group".into(), json!(access.group));
    for (key, value) in more {
        out.insert((*key).into(), value.clone());
    }
    if owner_string {
        out.insert("ownerstring".into(), text(&access.owner_string));
    }
    Value::Object(out)
}

fn user(user: &User) -> Value {
    let is_hash = user.passwd.value.starts_with('$') || user.passwd.value.starts_with('!');
    kept(&[
        ("name", json!(user.name)),
        (
            "passwd",
            if is_hash {
                text(&user.passwd)
            } else {
                masked(&user.passwd)
            },
        ),
        ("ssh_authorized_keys", texts(&user.ssh_authorized_keys)),
        ("gecos", json!(user.gecos)),
        ("homedir", text(&user.homedir)),
        ("no_create_home", flag(user.no_create_home)),
        ("primary_group", text(&user.primary_group)),
        ("groups", texts(&user.groups)),
        ("no_user_group", flag(user.no_user_group)),
        ("system", flag(user.system)),
        ("no_log_init", flag(user.no_log_init)),
        ("shell", text(&user.shell)),
        ("lock_passwd", flag(user.lock_passwd)),
        ("uid", text(&user.uid)),
    ])
}
