//! Entities: lines of passwd, shadow, group and gshadow, written as YAML.
//!
//! Spec: yip, "ensure_entities"; passwd(5), shadow(5), group(5), gshadow(5).

use super::fields::{self, Fields};
use super::problem::Problems;
use super::yaml;

/// An entity, as its YAML says it. What is left out is empty, and then an existing line's field is kept or a default used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entity {
    /// A line of passwd.
    User {
        /// The name.
        name: String,
        /// The password field; `x` as a rule.
        password: String,
        /// The number; below zero: the lowest free one.
        uid: i64,
        /// The group's number; below zero: the lowest free one.
        gid: i64,
        /// A group by name, whose number is used.
        group: String,
        /// The comment.
        info: String,
        /// The home directory.
        home: String,
        /// The shell.
        shell: String,
    },
    /// A line of shadow.
    Shadow {
        /// The name.
        name: String,
        /// The password, plain or hashed.
        password: String,
        /// The fields after it: changed, minimum, maximum, warn, inactive, expire, reserved.
        rest: [String; 7],
    },
    /// A line of group.
    Group {
        /// The name.
        name: String,
        /// The password field.
        password: String,
        /// The number; below zero: the lowest free one; `None`: not given.
        gid: Option<i64>,
        /// Members, separated by commas.
        users: String,
    },
    /// A line of gshadow.
    Gshadow {
        /// The name.
        name: String,
        /// The password field.
        password: String,
        /// Administrators, separated by commas.
        administrators: String,
        /// Members, separated by commas.
        members: String,
    },
}

impl Entity {
    /// Reads an entity's YAML.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut problems = Problems::new("the entity");
        let found = read(text, &mut problems);
        match problems.errors().first() {
            Some(problem) => {
                let hint = problem
                    .hint
                    .as_ref()
                    .map(|hint| format!(" ({hint})"))
                    .unwrap_or_default();
                Err(format!(
                    "the entity, line {}: {}{hint}",
                    problem.line, problem.message
                ))
            }
            None => found.ok_or_else(|| "the entity is empty".to_owned()),
        }
    }

    /// Returns the first field of its line.
    pub fn name(&self) -> &str {
        match self {
            Entity::User { name, .. }
            | Entity::Shadow { name, .. }
            | Entity::Group { name, .. }
            | Entity::Gshadow { name, .. } => name,
        }
    }

    /// Returns the file that such a line stands in.
    pub fn usual_path(&self) -> &'static str {
        match self {
            Entity::User { .. } => "/etc/passwd",
            Entity::Shadow { .. } => "/etc/shadow",
            Entity::Group { .. } => "/etc/group",
            Entity::Gshadow { .. } => "/etc/gshadow",
        }
    }
}

/// Checks an entity whose YAML is not a template; one that is has to wait until it is rendered.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.contains("{{") {
        return Ok(());
    }
    Entity::parse(text).map(drop)
}

fn read(text: &str, problems: &mut Problems) -> Option<Entity> {
    let root = yaml::parse(text, problems)?;
    let mut fields = Fields::open(&root, "an entity", problems)?;
    let kind = fields.string("kind", problems);
    let f = &mut fields;
    let entity = match kind.as_str() {
        "user" => Entity::User {
            name: f.string("username", problems),
            password: f.string("password", problems),
            uid: f.integer("uid", problems).unwrap_or(0),
            gid: f.integer("gid", problems).unwrap_or(0),
            group: f.string("group", problems),
            info: f.string("info", problems),
            home: f.string("homedir", problems),
            shell: f.string("shell", problems),
        },
        "shadow" => Entity::Shadow {
            name: f.string("username", problems),
            password: f.string("password", problems),
            rest: [
                f.string("last_changed", problems),
                f.string("minimum_changed", problems),
                f.string("maximum_changed", problems),
                f.string("warn", problems),
                f.string("inactive", problems),
                f.string("expire", problems),
                f.string("reserved", problems),
            ],
        },
        "group" => Entity::Group {
            name: f.string("group_name", problems),
            password: f.string("password", problems),
            gid: f.integer("gid", problems),
            users: f.string("users", problems),
        },
        "gshadow" => Entity::Gshadow {
            name: f.string("name", problems),
            password: f.string("password", problems),
            administrators: f.string("administrators", problems),
            members: f.string("members", problems),
        },
        "" => {
            problems.error(
                fields.line(),
                "an entity needs a `kind`: user, shadow, group or gshadow",
            );
            return None;
        }
        other => {
            problems.error(
                fields.line(),
                format!(
                    "an entity of unknown kind {other:?}; known are user, shadow, group, gshadow"
                ),
            );
            return None;
        }
    };
    let line = fields.line();
    fields.finish(problems);
    if entity.name().is_empty() {
        problems.error(line, "an entity needs a name");
    }
    for text in entity.texts() {
        if text.contains([':', '\n']) {
            problems.error(
                line,
                "a field of an entity cannot hold a colon or a line break",
            );
        }
    }
    Some(entity)
}

impl Entity {
    fn texts(&self) -> Vec<&str> {
        match self {
            Entity::User {
                name,
                password,
                group,
                info,
                home,
                shell,
                ..
            } => {
                vec![name, password, group, info, home, shell]
            }
            Entity::Shadow {
                name,
                password,
                rest,
            } => {
                let mut texts: Vec<&str> = rest.iter().map(String::as_str).collect();
                texts.extend([name.as_str(), password]);
                texts
            }
            Entity::Group {
                name,
                password,
                users,
                ..
            } => vec![name, password, users],
            Entity::Gshadow {
                name,
                password,
                administrators,
                members,
            } => {
                vec![name, password, administrators, members]
            }
        }
    }
}

/// Reads a number as YAML does, for fields that are numbers in some files and text in others.
pub fn number(text: &str) -> Option<i64> {
    fields::integer(text)
}
