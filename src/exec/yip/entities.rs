//! Lines that stage extensions want in an account database, or want out of it.
//!
//! Spec: yip, "ensure_entities" and "delete_entities".

use kfactory_layers::root::Root;

use super::accounts::{DEFAULT_INFO, Moment, Table, group_id, merged};
use crate::error::{Error, Result};
use crate::yip::Entity;

const GSHADOW_MODE: u32 = 0o400;

/// A line of one database of the image.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) root: &'a Root,
    /// The database; `None`: the usual one of its kind.
    pub(super) path: Option<&'a str>,
    pub(super) entity: &'a Entity,
    pub(super) moment: Moment,
}

impl Entry<'_> {
    /// Adds it or replaces the one of the same name. Of all databases only gshadow may be missing: not every system has it.
    pub(super) fn ensure(self) -> Result<()> {
        if matches!(self.entity, Entity::Gshadow { .. }) && !self.root.exists(self.place())? {
            self.root.write(self.place(), "", GSHADOW_MODE, 0, 0)?;
        }
        self.change(|table| {
            let fields = match self.entity {
                Entity::Group {
                    name,
                    password,
                    gid,
                    users,
                } => group_line(table, name, password, *gid, users)?,
                _ => plain_line(self.root, table, self.entity, self.moment)?,
            };
            table.set(&fields);
            Ok(true)
        })
    }

    /// Removes it: a group by its name, others only where the whole line is the same.
    pub(super) fn delete(self) -> Result<()> {
        self.change(|table| {
            if let Entity::Group { name, .. } = self.entity {
                let start = format!("{name}:");
                return Ok(table.remove(|line| line.starts_with(&start)));
            }
            // What it leaves out is not filled in from the line that may be there.
            let line = plain_line(self.root, &table.emptied(), self.entity, self.moment)?.join(":");
            Ok(table.remove(|known| known == line))
        })
    }

    fn place(&self) -> &str {
        self.path.unwrap_or(self.entity.usual_path())
    }

    /// Writes its database back if `change` says that there is something to write.
    fn change(self, change: impl FnOnce(&mut Table) -> Result<bool>) -> Result<()> {
        let mut table = Table::open(self.root, self.place())?;
        match change(&mut table)? {
            true => table.save(self.root),
            false => Ok(()),
        }
    }
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

    fn entry<'a>(root: &'a Root, path: Option<&'a str>, entity: &'a Entity) -> Entry<'a> {
        Entry {
            root,
            path,
            entity,
            moment: MOMENT,
        }
    }

    fn read(root: &Root, path: &str) -> String {
        root.read_to_string_opt(path).unwrap().unwrap()
    }

    #[test]
    fn row_49_and_50_a_group_is_added_and_taken_away_and_an_absent_one_takes_nothing() {
        let (_dir, root) = root("/etc/group", "nm-openconnect:x:979:\n");
        let group =
            entity("kind: group\ngroup_name: foo\npassword: xx\ngid: 1\nusers: one,two,tree\n");
        entry(&root, None, &group).ensure().unwrap();
        assert_eq!(
            read(&root, "/etc/group"),
            "nm-openconnect:x:979:\nfoo:xx:1:one,two,tree\n"
        );
        for _ in 0..2 {
            entry(&root, None, &group).delete().unwrap();
            assert_eq!(read(&root, "/etc/group"), "nm-openconnect:x:979:\n");
        }
    }

    #[test]
    fn members_are_merged_and_what_is_left_out_stays() {
        let (_dir, root) = root("/etc/group", "wheel:x:10:a,b\n");
        let group = entity("kind: group\ngroup_name: wheel\nusers: b,c\n");
        entry(&root, None, &group).ensure().unwrap();
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
        entry(&root, None, &user).ensure().unwrap();
        assert!(
            read(&root, "/etc/passwd").ends_with("c:x:1001:5:Created by entities:/c:/bin/sh\n")
        );
    }

    #[test]
    fn shadow_lines_keep_what_is_left_out_and_go_only_when_they_are_the_same() {
        let (_dir, root) = root("/etc/shadow", "foo:old:1:2:3:4:::\n");
        let shadow = entity("kind: shadow\nusername: foo\npassword: $new\nlast_changed: now\n");
        entry(&root, None, &shadow).ensure().unwrap();
        assert_eq!(read(&root, "/etc/shadow"), "foo:$new:20000:2:3:4:::\n");
        entry(&root, None, &shadow).delete().unwrap();
        assert_eq!(read(&root, "/etc/shadow"), "foo:$new:20000:2:3:4:::\n");
        let same = entity(
            "kind: shadow\nusername: foo\npassword: $new\nlast_changed: 20000\nminimum_changed: 2\nmaximum_changed: 3\nwarn: 4\n",
        );
        entry(&root, None, &same).delete().unwrap();
        assert_eq!(read(&root, "/etc/shadow"), "");
    }

    #[test]
    fn a_path_of_ones_own_is_used_and_gshadow_is_known() {
        let (_dir, root) = root("/srv/db", "");
        let line =
            entity("kind: gshadow\nname: g\npassword: '!'\nadministrators: a\nmembers: b,c\n");
        entry(&root, Some("/srv/db"), &line).ensure().unwrap();
        assert_eq!(read(&root, "/srv/db"), "g:!:a:b,c\n");
        root.create_dir_all("/etc", 0o755).unwrap();
        entry(&root, None, &line).ensure().unwrap();
        assert_eq!(read(&root, "/etc/gshadow"), "g:!:a:b,c\n");
        let made = root.metadata_opt("/etc/gshadow").unwrap().unwrap();
        assert_eq!(made.mode & 0o777, 0o400, "not every system has gshadow");
        let group = entity("kind: group\ngroup_name: g\n");
        assert!(entry(&root, Some("/etc/none"), &group).ensure().is_err());
    }
}
