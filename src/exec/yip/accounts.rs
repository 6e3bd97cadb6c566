//! The account databases of the image: passwd, shadow, group, gshadow, line by line.
//!
//! Lines that are not touched stay byte for byte as they are.

use std::collections::BTreeSet;

use kfactory_layers::root::Root;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// The numbers that people's accounts get.
///
/// Spec: yip, "ensure_entities".
const HUMAN_IDS: std::ops::RangeInclusive<u32> = 1000..=60_000;
pub(super) const DEFAULT_INFO: &str = "Created by entities";
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

    /// Returns the database without its lines.
    pub(super) fn emptied(&self) -> Self {
        Self {
            path: self.path.clone(),
            lines: Vec::new(),
            ..*self
        }
    }

    /// Removes lines for which `is_it` holds; returns whether there were any.
    pub(super) fn remove(&mut self, is_it: impl Fn(&str) -> bool) -> bool {
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
pub(super) fn merged(one: &str, other: &str) -> String {
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

/// Returns the comment field of an account that says nothing of itself.
pub(super) fn info(gecos: &str) -> &str {
    if gecos.is_empty() {
        DEFAULT_INFO
    } else {
        gecos
    }
}
