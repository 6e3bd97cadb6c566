//! Accounts: made where they are missing, given another password where they exist.
//!
//! Spec: yip, "users".

use std::collections::BTreeMap;

use kfactory_layers::root::Root;

use super::accounts::{self, Moment, Table};
use super::tree;
use crate::error::{Error, Result};
use crate::kairos::dotenv;
use crate::step::UserAccount;

const HOME_MODE: u32 = 0o755;
const DEFAULT_SHELL: &str = "/bin/sh";
const DEFAULT_HOME: &str = "/home";

/// Makes every account of `users`, those whose number is given before those that get a free one, each by name.
pub(super) fn apply(
    root: &Root,
    users: &BTreeMap<String, UserAccount>,
    moment: Moment,
) -> Result<()> {
    for path in ["/etc/passwd", "/etc/shadow", "/etc/group"] {
        if !root.exists(path)? {
            return Err(Error::user(format!(
                "the image has no {path}, which accounts need"
            )));
        }
    }
    let defaults = Defaults::read(root)?;
    let mut order = Vec::new();
    for (name, account) in users {
        let home = defaults.home_of(name, account);
        let is_free = account.uid.is_none() && !root.exists(&home)?;
        order.push((is_free, name, account));
    }
    order.sort_by_key(|(is_free, name, _)| (*is_free, name.as_str()));
    for (_, name, account) in order {
        one(root, name, account, &defaults, moment)
            .map_err(|error| error.context(format!("cannot make the user `{name}`")))?;
    }
    Ok(())
}

fn one(
    root: &Root,
    name: &str,
    account: &UserAccount,
    defaults: &Defaults,
    moment: Moment,
) -> Result<()> {
    let password = match (&account.password, account.lock_password) {
        (_, true) => "!".to_owned(),
        (Some(password), false) => moment.hashed(name, password.reveal())?,
        (None, false) => String::new(),
    };
    if accounts::user(root, name)?.is_some() {
        return match password.is_empty() {
            true => Ok(()),
            false => set_password(root, name, &password, moment),
        };
    }
    let home = defaults.home_of(name, account);
    let gid = primary_group(root, name, account, &home)?;
    let uid = user_id(root, account, &home)?;
    let shell = if account.shell.is_empty() {
        &defaults.shell
    } else {
        &account.shell
    };
    let mut passwd = Table::open(root, "/etc/passwd")?;
    passwd.set(&[
        name.to_owned(),
        "x".to_owned(),
        uid.to_string(),
        gid.to_string(),
        accounts::info(&account.gecos).to_owned(),
        home.clone(),
        shell.clone(),
    ]);
    passwd.save(root)?;
    set_password(root, name, &password, moment)?;
    if !account.no_home {
        make_home(root, &home, (uid, gid))?;
    }
    let mut groups = Table::open(root, "/etc/group")?;
    for group in &account.groups {
        if let Some(mut fields) = groups.fields(group) {
            accounts::add_member(&mut fields, name);
            groups.set(&fields);
        }
    }
    groups.save(root)
}

/// Makes the home directory, or gives the one that is there to its user; what is in it stays as it is.
fn make_home(root: &Root, home: &str, (uid, gid): (u32, u32)) -> Result<()> {
    if root.exists(home)? {
        root.set_owner(tree::real_path(root, home)?, uid, gid)?;
        return Ok(());
    }
    tree::missing_directories(root, home_parent(home), HOME_MODE, (0, 0))?;
    tree::missing_directories(root, home.as_ref(), HOME_MODE, (uid, gid))
}

fn home_parent(home: &str) -> &std::path::Path {
    std::path::Path::new(home)
        .parent()
        .unwrap_or(std::path::Path::new("/"))
}

/// Writes the password into shadow; what is known of its ageing stays.
fn set_password(root: &Root, name: &str, password: &str, moment: Moment) -> Result<()> {
    let mut shadow = Table::open(root, "/etc/shadow")?;
    let mut fields = shadow.fields(name).unwrap_or_else(|| vec![name.to_owned()]);
    fields.resize(9.max(fields.len()), String::new());
    fields[1] = password.to_owned();
    fields[2] = moment.day();
    shadow.set(&fields);
    shadow.save(root)
}

/// Makes the user a member of the group that was named, or of one of the same name; returns its number.
fn primary_group(root: &Root, name: &str, account: &UserAccount, home: &str) -> Result<u32> {
    let mut groups = Table::open(root, "/etc/group")?;
    let group = match account.primary_group.as_str() {
        "" => name,
        group => group,
    };
    let mut fields = match groups.fields(group) {
        Some(fields) => fields,
        None if !account.primary_group.is_empty() => {
            return Err(Error::user(format!(
                "the image has no group `{group}` to be its primary one"
            ))
            .hint("make it with `ensure_entities` in an earlier step"));
        }
        None => {
            // A home that is there already keeps its owner.
            let owner = root.metadata_opt(home)?.map(|found| found.gid);
            let gid = match owner {
                Some(gid) if !groups.has_id(gid) => gid,
                _ => groups.free_id()?,
            };
            vec![
                group.to_owned(),
                "x".to_owned(),
                gid.to_string(),
                String::new(),
            ]
        }
    };
    accounts::add_member(&mut fields, name);
    let gid = fields[2]
        .parse()
        .map_err(|_| Error::user(format!("the line of {group} in /etc/group is damaged")))?;
    groups.set(&fields);
    groups.save(root)?;
    Ok(gid)
}

fn user_id(root: &Root, account: &UserAccount, home: &str) -> Result<u32> {
    if let Some(uid) = account.uid {
        return Ok(uid);
    }
    match root.metadata_opt(home)? {
        Some(found) => Ok(found.uid),
        None => Table::open(root, "/etc/passwd")?.free_id(),
    }
}

/// What `/etc/default/useradd` says.
struct Defaults {
    home: String,
    shell: String,
}

impl Defaults {
    fn read(root: &Root) -> Result<Self> {
        let text = root
            .read_to_string_opt("/etc/default/useradd")?
            .unwrap_or_default();
        let values = dotenv::parse(&text).map_err(|error| {
            Error::from_source(&error).context("reading /etc/default/useradd of the image")
        })?;
        let get = |key: &str, default: &str| match values.get(key).map(String::as_str) {
            None | Some("") => default.to_owned(),
            Some(value) => value.to_owned(),
        };
        Ok(Self {
            home: get("HOME", DEFAULT_HOME),
            shell: get("SHELL", DEFAULT_SHELL),
        })
    }

    fn home_of(&self, name: &str, account: &UserAccount) -> String {
        match account.home.as_str() {
            "" => format!("{}/{name}", self.home),
            home => home.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Secret;

    const MOMENT: Moment = Moment {
        created: 20_000 * 86_400,
    };

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| std::fs::write(dir.path().join(path), text).unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        write(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\nlast:x:999:999::/:/bin/false\n",
        );
        write("etc/shadow", "root:*:19000::::::\n");
        write("etc/group", "root:x:0:\nlast:x:999:\n");
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn make(root: &Root, users: &[(&str, UserAccount)]) {
        let users = users
            .iter()
            .map(|(name, account)| ((*name).to_owned(), account.clone()))
            .collect();
        apply(root, &users, MOMENT).unwrap_or_else(|error| panic!("{}", error.render_text()));
    }

    fn with_password(password: &str) -> UserAccount {
        UserAccount {
            password: Some(Secret::new(password)),
            ..UserAccount::default()
        }
    }

    fn line(root: &Root, path: &str, name: &str) -> String {
        Table::open(root, path)
            .unwrap()
            .fields(name)
            .map(|fields| fields.join(":"))
            .unwrap_or_default()
    }

    #[test]
    fn row_51_a_new_user_gets_the_usual_things() {
        let (dir, root) = root();
        make(&root, &[("foo", with_password("$hash"))]);
        assert_eq!(
            line(&root, "/etc/passwd", "foo"),
            "foo:x:1000:1000:Created by entities:/home/foo:/bin/sh"
        );
        assert_eq!(line(&root, "/etc/group", "foo"), "foo:x:1000:foo");
        assert_eq!(line(&root, "/etc/shadow", "foo"), "foo:$hash:20000::::::");
        assert!(dir.path().join("home/foo").is_dir());
    }

    #[test]
    fn row_52_a_number_is_taken_as_it_is_and_a_lock_as_well() {
        let (dir, root) = root();
        let account = UserAccount {
            uid: Some(5000),
            lock_password: true,
            home: "/srv/foo".into(),
            shell: "/bin/bash".into(),
            ..with_password("ignored")
        };
        make(&root, &[("foo", account)]);
        assert_eq!(
            line(&root, "/etc/passwd", "foo"),
            "foo:x:5000:1000:Created by entities:/srv/foo:/bin/bash"
        );
        assert!(line(&root, "/etc/shadow", "foo").starts_with("foo:!:"));
        assert!(dir.path().join("srv/foo").is_dir());
    }

    #[test]
    fn row_53_and_54_numbers_are_given_by_name_and_stay() {
        let (_dir, root) = root();
        let users: Vec<_> = ["foo", "bar", "x", "a"]
            .map(|name| (name, with_password("$h")))
            .into();
        for _ in 0..5 {
            make(&root, &users);
        }
        for (name, uid) in [("a", 1000), ("bar", 1001), ("foo", 1002), ("x", 1003)] {
            assert!(
                line(&root, "/etc/passwd", name).starts_with(&format!("{name}:x:{uid}:{uid}:")),
                "{name}"
            );
        }
    }

    #[test]
    fn row_55_a_known_user_keeps_its_number() {
        let (_dir, root) = root();
        make(&root, &[("foo", with_password("$h"))]);
        make(
            &root,
            &[
                ("a", with_password("$h")),
                ("b", with_password("$h")),
                ("foo", with_password("$h")),
            ],
        );
        for (name, uid) in [("foo", 1000), ("a", 1001), ("b", 1002)] {
            assert!(
                line(&root, "/etc/passwd", name).starts_with(&format!("{name}:x:{uid}:")),
                "{name}"
            );
        }
    }

    #[test]
    fn row_56_a_groups_members_grow() {
        let (_dir, root) = root();
        let member = |group: &str| UserAccount {
            groups: vec![group.into(), "unknown".into()],
            ..with_password("$h")
        };
        make(&root, &[("admin", with_password("$h"))]);
        make(&root, &[("bar", member("admin"))]);
        make(&root, &[("baz", member("admin"))]);
        assert_eq!(
            line(&root, "/etc/group", "admin"),
            "admin:x:1000:admin,bar,baz"
        );
        assert_eq!(line(&root, "/etc/group", "unknown"), "");
    }

    #[test]
    fn row_57_a_new_password_keeps_the_ageing() {
        let (dir, root) = root();
        std::fs::write(
            dir.path().join("etc/shadow"),
            "last:old:10000:1:365:14:30:20000:\n",
        )
        .unwrap();
        make(&root, &[("last", with_password("$new"))]);
        assert_eq!(
            line(&root, "/etc/shadow", "last"),
            "last:$new:20000:1:365:14:30:20000:"
        );
    }

    #[test]
    fn a_plain_password_is_hashed_the_same_way_in_equal_builds() {
        let (_dir, one) = root();
        let (_other, other) = root();
        make(&one, &[("foo", with_password("kairos"))]);
        make(&other, &[("foo", with_password("kairos"))]);
        let shadow = line(&one, "/etc/shadow", "foo");
        assert!(
            shadow.starts_with("foo:$6$") && !shadow.contains("kairos"),
            "{shadow}"
        );
        assert_eq!(shadow, line(&other, "/etc/shadow", "foo"));
    }

    #[test]
    fn a_home_that_exists_gives_its_owners_number_and_an_unknown_primary_group_is_an_error() {
        let (_dir, root) = root();
        root.create_dir_all("/home/foo", 0o755).unwrap();
        if root.set_owner("/home/foo", 4321, 4322).is_ok() {
            make(&root, &[("foo", with_password("$h"))]);
            assert!(line(&root, "/etc/passwd", "foo").starts_with("foo:x:4321:4322:"));
            // Group 999 is another's already: the home follows the user.
            root.create_dir_all("/home/bar", 0o700).unwrap();
            root.set_owner("/home/bar", 4323, 999).unwrap();
            make(&root, &[("bar", with_password("$h"))]);
            let home = root.metadata_opt("/home/bar").unwrap().unwrap();
            assert_eq!((home.uid, home.gid, home.mode & 0o777), (4323, 1000, 0o700));
        }
        let account = UserAccount {
            primary_group: "nope".into(),
            ..UserAccount::default()
        };
        let users = [("z".to_owned(), account)].into();
        assert!(
            apply(&root, &users, MOMENT)
                .unwrap_err()
                .to_string()
                .contains("nope")
        );
    }
}
