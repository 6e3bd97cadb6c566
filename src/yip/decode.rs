//! From the tree of a file to its steps: which keys there are and what each holds.

use super::cloud_config;
use super::fields::{Fields, texts};
use super::problem::Problems;
use super::schema::{
    Access, Directory, Dns, Document, Download, Entity, File, Git, Override, Packages, Stage, Step,
    Systemctl, Text, UnpackImage, User,
};
use super::yaml::{self, Node, Value};

/// Reads one file's text.
///
/// This is the whole way from bytes to values, for any text: what is wrong ends in `problems`, never in a panic.
pub(super) fn document(file: &str, text: &str, problems: &mut Problems) -> Document {
    let mut document = Document {
        file: file.to_owned(),
        ..Document::default()
    };
    document.is_cloud_config = cloud_config::has_header(text);
    let Some(root) = yaml::parse(text, problems) else {
        return document;
    };
    let Some(mut fields) = Fields::open(&root, "the document", problems) else {
        return document;
    };
    document.stages = if document.is_cloud_config {
        cloud_config::stages(&mut fields, problems)
    } else {
        document.name = fields.string("name", problems);
        stages(&mut fields, problems)
    };
    fields.finish(problems);
    document
}

/// Reads the key `stages`.
pub(super) fn stages(fields: &mut Fields<'_>, problems: &mut Problems) -> Vec<Stage> {
    let found = fields.entries("stages", problems, |node, problems| match &node.value {
        Value::List(items) => Some(
            items
                .iter()
                .filter_map(|item| step(item, problems))
                .collect(),
        ),
        _ if node.is_null() => Some(Vec::new()),
        _ => {
            problems.error(
                node.line,
                format!("a stage is a list of steps, not {}", node.kind()),
            );
            None
        }
    });
    found
        .into_iter()
        .map(|(name, steps)| Stage { name, steps })
        .collect()
}

fn step(node: &Node, problems: &mut Problems) -> Option<Step> {
    let mut fields = Fields::open(node, "a step", problems)?;
    let f = &mut fields;
    let step = Step {
        line: f.line(),
        name: f.string("name", problems),
        after: f.list("after", problems, after),
        if_: f.text("if", problems),
        only_os: f.text("only_os", problems),
        only_os_version: f.text("only_os_version", problems),
        only_arch: f.text("only_arch", problems),
        only_service_manager: f.text("only_service_manager", problems),
        if_files: f.entries("if_files", problems, |node, problems| {
            Some(if node.is_null() {
                Vec::new()
            } else {
                texts(node, "if_files", problems)
            })
        }),
        node: f.text("node", problems),
        dns: f.node("dns").and_then(|node| dns(node, problems)),
        downloads: f.list("downloads", problems, download),
        git: f.node("git").and_then(|node| git(node, problems)),
        ensure_entities: f.list("ensure_entities", problems, entity),
        directories: f.list("directories", problems, directory),
        files: f.list("files", problems, file),
        commands: f.texts("commands", problems),
        delete_entities: f.list("delete_entities", problems, entity),
        hostname: f.text("hostname", problems),
        sysctl: f.pairs("sysctl", problems),
        users: f.entries("users", problems, user),
        authorized_keys: f.entries("authorized_keys", problems, |node, problems| {
            Some(if node.is_null() {
                Vec::new()
            } else {
                texts(node, "authorized_keys", problems)
            })
        }),
        modules: f.texts("modules", problems),
        timesyncd: f.pairs("timesyncd", problems),
        systemctl: f
            .node("systemctl")
            .and_then(|node| systemctl(node, problems)),
        environment: f.pairs("environment", problems),
        environment_file: f.path("environment_file", problems),
        systemd_firstboot: f.pairs("systemd_firstboot", problems),
        datasource: f.node("datasource").map(|node| node.line),
        layout: f.node("layout").map(|node| node.line),
        package_pins: f.pairs("package_pins", problems),
        packages: f.node("packages").and_then(|node| packages(node, problems)),
        unpack_images: f.list("unpack_images", problems, unpack_image),
    };
    fields.finish(problems);
    Some(step)
}

fn after(node: &Node, problems: &mut Problems) -> Option<Text> {
    let mut fields = Fields::open(node, "an entry of `after`", problems)?;
    let name = fields.text("name", problems);
    fields.finish(problems);
    Some(Text {
        line: node.line,
        ..name
    })
}

fn access(fields: &mut Fields<'_>, problems: &mut Problems) -> Access {
    let permissions = fields.integer("permissions", problems);
    let mut id = |key| {
        let value = fields.integer(key, problems).unwrap_or(0);
        if !(-1..i64::from(u32::MAX)).contains(&value) {
            problems.error(fields.line(), format!("`{key}` is no user or group number"));
        }
        value
    };
    let (owner, group) = (id("owner"), id("group"));
    let permissions = permissions.map(|bits| {
        u32::try_from(bits).unwrap_or_else(|_| {
            problems.error(fields.line(), "`permissions` are no permission bits");
            0
        })
    });
    Access {
        permissions,
        owner,
        group,
        owner_string: Text::default(),
    }
}

/// The key upstream reads is `ownerstring`, the one it documents `owner_string`: both are taken.
fn owner_string(fields: &mut Fields<'_>, problems: &mut Problems) -> Text {
    let documented = fields.text("owner_string", problems);
    let read = fields.text("ownerstring", problems);
    if !documented.is_empty() {
        problems.warning(
            documented.line,
            "`owner_string` is understood here; other yip programs read `ownerstring` only",
        );
    }
    if read.is_empty() { documented } else { read }
}

fn file(node: &Node, problems: &mut Problems) -> Option<File> {
    let mut fields = Fields::open(node, "a file", problems)?;
    let f = &mut fields;
    let mut file = File {
        line: f.line(),
        path: f.path("path", problems),
        access: access(f, problems),
        content: f.text("content", problems),
        encoding: f.text("encoding", problems),
    };
    file.access.owner_string = owner_string(f, problems);
    fields.finish(problems);
    Some(file)
}

fn directory(node: &Node, problems: &mut Problems) -> Option<Directory> {
    let mut fields = Fields::open(node, "a directory", problems)?;
    let f = &mut fields;
    let directory = Directory {
        line: f.line(),
        path: f.path("path", problems),
        access: access(f, problems),
    };
    fields.finish(problems);
    Some(directory)
}

fn download(node: &Node, problems: &mut Problems) -> Option<Download> {
    let mut fields = Fields::open(node, "a download", problems)?;
    let f = &mut fields;
    let timeout = f.integer("timeout", problems).unwrap_or(0);
    let mut download = Download {
        line: f.line(),
        path: f.path("path", problems),
        url: f.text("url", problems),
        access: access(f, problems),
        timeout_secs: u64::try_from(timeout).unwrap_or_else(|_| {
            problems.error(f.line(), "`timeout` is a number of seconds");
            0
        }),
    };
    download.access.owner_string = owner_string(f, problems);
    fields.finish(problems);
    Some(download)
}

fn git(node: &Node, problems: &mut Problems) -> Option<Git> {
    let mut fields = Fields::open(node, "`git`", problems)?;
    let f = &mut fields;
    let mut git = Git {
        line: f.line(),
        url: f.text("url", problems),
        path: f.path("path", problems),
        branch: f.text("branch", problems),
        branch_only: f.boolean("branch_only", problems),
        ..Git::default()
    };
    if let Some(node) = f.node("auth")
        && let Some(mut auth) = Fields::open(node, "`auth`", problems)
    {
        git.username = auth.text("username", problems);
        git.password = auth.text("password", problems);
        git.private_key = auth.text("private_key", problems);
        git.public_key = auth.text("public_key", problems);
        git.insecure = auth.boolean("insecure", problems);
        auth.finish(problems);
    }
    fields.finish(problems);
    Some(git)
}

fn entity(node: &Node, problems: &mut Problems) -> Option<Entity> {
    let mut fields = Fields::open(node, "an entity", problems)?;
    let f = &mut fields;
    let entity = Entity {
        line: f.line(),
        path: f.path("path", problems),
        entity: f.text("entity", problems),
    };
    fields.finish(problems);
    Some(entity)
}

fn dns(node: &Node, problems: &mut Problems) -> Option<Dns> {
    let mut fields = Fields::open(node, "`dns`", problems)?;
    let f = &mut fields;
    let dns = Dns {
        line: f.line(),
        nameservers: f.texts("nameservers", problems),
        search: f.texts("search", problems),
        options: f.texts("options", problems),
        path: f.path("path", problems),
    };
    fields.finish(problems);
    Some(dns)
}

/// Reads an account; the form is the same in both dialects.
pub(super) fn user(node: &Node, problems: &mut Problems) -> Option<User> {
    let mut fields = Fields::open(node, "a user", problems)?;
    let f = &mut fields;
    let user = User {
        line: f.line(),
        name: f.string("name", problems),
        passwd: f.text("passwd", problems),
        ssh_authorized_keys: f.texts("ssh_authorized_keys", problems),
        gecos: f.string("gecos", problems),
        homedir: f.path("homedir", problems),
        no_create_home: f.boolean("no_create_home", problems),
        primary_group: f.text("primary_group", problems),
        groups: f.texts("groups", problems),
        no_user_group: f.boolean("no_user_group", problems),
        system: f.boolean("system", problems),
        no_log_init: f.boolean("no_log_init", problems),
        shell: f.path("shell", problems),
        lock_passwd: f.boolean("lock_passwd", problems),
        uid: f.text("uid", problems),
    };
    fields.finish(problems);
    Some(user)
}

fn systemctl(node: &Node, problems: &mut Problems) -> Option<Systemctl> {
    let mut fields = Fields::open(node, "`systemctl`", problems)?;
    let f = &mut fields;
    let systemctl = Systemctl {
        enable: f.texts("enable", problems),
        disable: f.texts("disable", problems),
        start: f.texts("start", problems),
        mask: f.texts("mask", problems),
        overrides: f.list("overrides", problems, override_),
    };
    fields.finish(problems);
    Some(systemctl)
}

fn override_(node: &Node, problems: &mut Problems) -> Option<Override> {
    let mut fields = Fields::open(node, "an override", problems)?;
    let f = &mut fields;
    let found = Override {
        line: f.line(),
        service: f.path("service", problems),
        content: f.text("content", problems),
        name: f.path("name", problems),
    };
    fields.finish(problems);
    Some(found)
}

fn packages(node: &Node, problems: &mut Problems) -> Option<Packages> {
    let mut fields = Fields::open(node, "`packages`", problems)?;
    let f = &mut fields;
    let packages = Packages {
        install: f.texts("install", problems),
        remove: f.texts("remove", problems),
        refresh: f.boolean("refresh", problems),
        upgrade: f.boolean("upgrade", problems),
    };
    fields.finish(problems);
    Some(packages)
}

fn unpack_image(node: &Node, problems: &mut Problems) -> Option<UnpackImage> {
    let mut fields = Fields::open(node, "an image to unpack", problems)?;
    let f = &mut fields;
    let image = UnpackImage {
        line: f.line(),
        source: f.text("source", problems),
        target: f.path("target", problems),
        platform: f.text("platform", problems),
    };
    fields.finish(problems);
    Some(image)
}
