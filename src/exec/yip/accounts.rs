//! The account databases of the image: passwd, shadow, group, gshadow, line by line.
//!
//! Lines that are not touched stay byte for byte as they are.

use std::collections::BTreeSet;

use kfactory_layers::root::Root;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::yip::Entity;

/// The numbers that people's accounts get.
///
/// Spec: yip, "ensure_entities".
const HUMAN_IDS: std::ops::RangeInclusive<u32> = 1000..=60_000;
const DEFAULT_INFO: &str = "Created by entities";
const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

/// A database.
#[derive(Debug)]
pub(super) struct Table {
    path: String,
    lines: Vec<String>,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Table {
    /// Reads the database at `path`.
    ///
    /// # Errors
    ///
    /// It is not there, or no text.
    pub(super) fn open(root: &Root, path: &str) -> Result<Self> {
        let missing = || Error::user(format!("the image has no {path}"));
        let metadata = root.metadata_opt(path)?.ok_or_else(missing)?;
        let text = root.read_to_string_opt(path)?.ok_or_else(missing)?;
        Ok(Self {
            path: path.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            mode: metadata.mode & 0o7777,
            uid: metadata.uid,
            gid: metadata.gid,
        })
    }

    /// Writes the database back, with the mode and owner it had.
    pub(super) fn save(&self, root: &Root) -> Result<()> {
        let mut text = self.lines.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        let path = super::tree::real_path(root, &self.path)?;
        root.write(path, text, self.mode, self.uid, self.gid)?;
        Ok(())
    }

    /// Returns the fields of the line whose first field is `name`.
    pub(super) fn fields(&self, name: &str) -> Option<Vec<String>> {
        self.lines
            .iter()
            .map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>())
            .find(|fields| fields[0] == name)
    }

    /// Replaces the line with the same first field, or adds one.
    pub(super) fn set(&mut self, fields: &[String]) {
        let line = fields.join(":");
        let name = format!("{}:", fields[0]);
        match self.lines.iter_mut().find(|known| known.starts_with(&name)) {
            Some(known) => *known = line,
            None => self.lines.push(line),
        }
    }

    /// Removes lines for which `is_it` holds; returns whether there were any.
    fn remove(&mut self, is_it: impl Fn(&str) -> bool) -> bool {
        let before = self.lines.len();
        self.lines.retain(|line| !is_it(line));
        before != self.lines.len()
    }

    /// Returns whether a line has this number in its third field.
    pub(super) fn has_id(&self, id: u32) -> bool {
        let id = id.to_string();
        self.lines
            .iter()
            .any(|line| line.split(':').nth(2) == Some(id.as_str()))
    }

    /// Returns the lowest number in the third field that is free for people.
    pub(super) fn free_id(&self) -> Result<u32> {
        let taken: BTreeSet<u32> = self
            .lines
            .iter()
            .filter_map(|line| line.split(':').nth(2)?.parse().ok())
            .collect();
        HUMAN_IDS
            .clone()
            .find(|id| !taken.contains(id))
            .ok_or_else(|| {
                Error::user(format!(
                    "no number from {} to {} is free in {}",
                    HUMAN_IDS.start(),
                    HUMAN_IDS.end(),
                    self.path
                ))
            })
    }
}

/// A line of passwd, as far as owners of files need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
}

/// Looks a user up.
pub(super) fn user(root: &Root, name: &str) -> Result<Option<Account>> {
    if !root.exists("/etc/passwd")? {
        return Ok(None);
    }
    let Some(fields) = Table::open(root, "/etc/passwd")?.fields(name) else {
        return Ok(None);
    };
    let number = |index: usize| {
        fields
            .get(index)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Error::user(format!("the line of {name} in /etc/passwd is damaged")))
    };
    Ok(Some(Account {
        uid: number(2)?,
        gid: number(3)?,
        home: fields.get(5).cloned().unwrap_or_default(),
    }))
}

/// Looks a group's number up.
pub(super) fn group_id(root: &Root, name: &str) -> Result<Option<u32>> {
    if !root.exists("/etc/group")? {
        return Ok(None);
    }
    let fields = Table::open(root, "/etc/group")?.fields(name);
    Ok(fields.and_then(|fields| fields.get(2)?.parse().ok()))
}

/// Adds `member` to the member list of a group's fields.
pub(super) fn add_member(fields: &mut Vec<String>, member: &str) {
    fields.resize(4.max(fields.len()), String::new());
    fields[3] = merged(&fields[3], member);
}

/// Joins two lists of members, each name once, in the order they come.
fn merged(one: &str, other: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in one.split(',').chain(other.split(',')).map(str::trim) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(",")
}

/// What passwords and dates are made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// In seconds since 1970.
    pub(super) created: i64,
}

impl Moment {
    /// Returns the day, never 0: that would ask for a new password at the first login.
    pub(super) fn day(self) -> String {
        (self.created / SECONDS_PER_DAY).max(1).to_string()
    }

    /// Returns what stands in shadow for a password: hashes, locks and nothing at all stay as they are.
    ///
    /// The salt is made of the user's name and the moment the build is dated with, so that equal builds are equal.
    pub(super) fn hashed(self, user: &str, password: &str) -> Result<String> {
        if password.is_empty() || password == "*" || password.starts_with(['$', '!']) {
            return Ok(password.to_owned());
        }
        let seed = Sha256::digest(format!("{user}\0{}", self.created));
        const LETTERS: &[u8; 64] =
            b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let salt: String = seed
            .iter()
            .take(16)
            .map(|byte| char::from(LETTERS[usize::from(byte % 64)]))
            .collect();
        super::crypt::sha512(password, &salt)
    }
}

/// Adds or replaces the line of an entity.
pub(super) fn ensure(
    root: &Root,
    path: Option<&str>,
    entity: &Entity,
    moment: Moment,
) -> Result<()> {
    let path = path.unwrap_or(entity.usual_path());
    let mut table = Table::open(root, path)?;
    let fields = match entity {
        Entity::Group {
            name,
            password,
            gid,
            users,
        } => group_line(&table, name, password, *gid, users)?,
        _ => plain_line(root, &table, entity, moment)?,
    };
    table.set(&fields);
    table.save(root)
}

fn group_line(
    table: &Table,
    name: &str,
    password: &str,
    gid: Option<i64>,
    users: &str,
) -> Result<Vec<String>> {
    let known = table.fields(name).unwrap_or_default();
    let field = |index: usize| known.get(index).map_or("", String::as_str);
    let number = match gid {
        Some(gid) if gid < 0 => table.free_id()?.to_string(),
        Some(gid) => gid.to_string(),
        None => field(2).to_owned(),
    };
    let password = if password.is_empty() {
        field(1)
    } else {
        password
    };
    Ok(vec![
        name.to_owned(),
        password.to_owned(),
        number,
        merged(field(3), users),
    ])
}

/// Returns the line that an entity is by itself, with what an existing line has and it leaves out.
fn plain_line(root: &Root, table: &Table, entity: &Entity, moment: Moment) -> Result<Vec<String>> {
    let known = table.fields(entity.name()).unwrap_or_default();
    let kept = |index: usize, text: &str| match text.is_empty() {
        true => known.get(index).cloned().unwrap_or_default(),
        false => text.to_owned(),
    };
    let text = str::to_owned;
    Ok(match entity {
        Entity::User {
            name,
            password,
            uid,
            gid,
            group,
            info,
            home,
            shell,
        } => {
            let uid = if *uid < 0 {
                table.free_id()?.to_string()
            } else {
                uid.to_string()
            };
            let gid = match group.as_str() {
                "" => gid.to_string(),
                group => group_id(root, group)?
                    .ok_or_else(|| Error::user(format!("the image has no group `{group}`")))?
                    .to_string(),
            };
            let info = if info.is_empty() { DEFAULT_INFO } else { info };
            vec![
                text(name),
                text(password),
                uid,
                gid,
                text(info),
                text(home),
                text(shell),
            ]
        }
        Entity::Shadow {
            name,
            password,
            rest,
        } => {
            let mut fields = vec![text(name), moment.hashed(name, password)?];
            for (index, value) in rest.iter().enumerate() {
                let value = if index == 0 && value == "now" {
                    moment.day()
                } else {
                    value.clone()
                };
                fields.push(kept(index + 2, &value));
            }
            fields
        }
        Entity::Group {
            name,
            password,
            gid,
            users,
        } => {
            let gid = gid.map(|gid| gid.to_string()).unwrap_or_default();
            vec![text(name), text(password), gid, text(users)]
        }
        Entity::Gshadow {
            name,
            password,
            administrators,
            members,
        } => {
            vec![
                text(name),
                text(password),
                text(administrators),
                text(members),
            ]
        }
    })
}

/// Removes an entity's line: a group by its name, others only where the whole line is the same.
pub(super) fn delete(
    root: &Root,
    path: Option<&str>,
    entity: &Entity,
    moment: Moment,
) -> Result<()> {
    let path = path.unwrap_or(entity.usual_path());
    let mut table = Table::open(root, path)?;
    let removed = match entity {
        Entity::Group { name, .. } => {
            let start = format!("{name}:");
            table.remove(|line| line.starts_with(&start))
        }
        _ => {
            let line = plain_line(
                root,
                &Table {
                    lines: Vec::new(),
                    path: path.to_owned(),
                    ..table
                },
                entity,
                moment,
            )?
            .join(":");
            table = Table::open(root, path)?;
            table.remove(|known| known == line)
        }
    };
    if removed { table.save(root) } else { Ok(()) }
}

/// Returns the comment field of an account that says nothing of itself.
pub(super) fn info(gecos: &str) -> &str {
    if gecos.is_empty() {
        DEFAULT_INFO
    } else {
        gecos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Moment = Moment {
        created: 20_000 * 86_400,
    };

    fn root(path: &str, text: &str) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, text).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn entity(text: &str) -> Entity {
        Entity::parse(text).unwrap()
    }

    fn read(root: &Root, path: &str) -> String {
        root.read_to_string_opt(path).unwrap().unwrap()
    }

    #[test]
    fn row_49_and_50_a_group_is_added_and_taken_away_and_an_absent_one_takes_nothing() {
        let (_dir, root) = root("/etc/group", "nm-openconnect:x:979:\n");
        let group =
            entity("kind: group\ngroup_name: foo\npassword: xx\ngid: 1\nusers: one,two,tree\n");
        ensure(&root, None, &group, MOMENT).unwrap();
        assert_eq!(
            read(&root, "/etc/group"),
            "nm-openconnect:x:979:\nfoo:xx:1:one,two,tree\n"
        );
        for _ in 0..2 {
            delete(&root, None, &group, MOMENT).unwrap();
            assert_eq!(read(&root, "/etc/group"), "nm-openconnect:x:979:\n");
        }
    }

    #[test]
    fn members_are_merged_and_what_is_left_out_stays() {
        let (_dir, root) = root("/etc/group", "wheel:x:10:a,b\n");
        let group = entity("kind: group\ngroup_name: wheel\nusers: b,c\n");
        ensure(&root, None, &group, MOMENT).unwrap();
        assert_eq!(read(&root, "/etc/group"), "wheel:x:10:a,b,c\n");
    }

    #[test]
    fn a_number_below_zero_is_the_lowest_free_one() {
        let (_dir, root) = root(
            "/etc/passwd",
            "a:x:1000:1000::/:/bin/sh\nb:x:1002:1002::/:/bin/sh\n",
        );
        let user = entity(
            "kind: user\nusername: c\npassword: x\nuid: -1\ngid: 5\nhomedir: /c\nshell: /bin/sh\n",
        );
        ensure(&root, None, &user, MOMENT).unwrap();
        assert!(
            read(&root, "/etc/passwd").ends_with("c:x:1001:5:Created by entities:/c:/bin/sh\n")
        );
    }

    #[test]
    fn shadow_lines_keep_what_is_left_out_and_go_only_when_they_are_the_same() {
        let (_dir, root) = root("/etc/shadow", "foo:old:1:2:3:4:::\n");
        let shadow = entity("kind: shadow\nusername: foo\npassword: $new\nlast_changed: now\n");
        ensure(&root, None, &shadow, MOMENT).unwrap();
        assert_eq!(read(&root, "/etc/shadow"), "foo:$new:20000:2:3:4:::\n");
        delete(&root, None, &shadow, MOMENT).unwrap();
        assert_eq!(read(&root, "/etc/shadow"), "foo:$new:20000:2:3:4:::\n");
        let same = entity(
            "kind: shadow\nusername: foo\npassword: $new\nlast_changed: 20000\nminimum_changed: 2\nmaximum_changed: 3\nwarn: 4\n",
        );
        delete(&root, None, &same, MOMENT).unwrap();
        assert_eq!(read(&root, "/etc/shadow"), "");
    }

    #[test]
    fn a_path_of_ones_own_is_used_and_gshadow_is_known() {
        let (_dir, root) = root("/srv/db", "");
        let line =
            entity("kind: gshadow\nname: g\npassword: '!'\nadministrators: a\nmembers: b,c\n");
        ensure(&root, Some("/srv/db"), &line, MOMENT).unwrap();
        assert_eq!(read(&root, "/srv/db"), "g:!:a:b,c\n");
        assert!(
            ensure(&root, None, &line, MOMENT).is_err(),
            "there is no /etc/gshadow"
        );
    }
}
