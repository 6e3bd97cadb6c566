//! Files of settings: environment, timesyncd, host name.

use std::collections::BTreeMap;
use std::path::Path;

use kfactory_layers::root::Root;

use super::tree::{self, NewFile, parent_mode};
use crate::error::{Error, Result};
use crate::kairos::dotenv;
use crate::step::Owner;

const ENVIRONMENT_MODE: u32 = 0o644;
/// The owner that a file has already; root's where there is none.
const KEPT: Owner = Owner::Ids {
    uid: None,
    gid: None,
};
/// The mode of other files of settings that are made.
const NEW_MODE: u32 = 0o644;
const TIMESYNCD: &str = "/etc/systemd/timesyncd.conf.d/10-yip.conf";

/// Merges variables into a file of assignments and writes it anew, sorted.
///
/// Spec: yip, "environment".
pub(super) fn environment(
    root: &Root,
    path: &str,
    entries: &BTreeMap<String, String>,
) -> Result<()> {
    let existing = root.read_to_string_opt(path)?.unwrap_or_default();
    let mut values = dotenv::parse(&existing).map_err(|error| {
        Error::from_source(&error).context(format!("reading {path} of the image"))
    })?;
    for (name, value) in entries {
        values.insert(name.clone(), normal_number(value));
    }
    if let Some(parent) = Path::new(path).parent() {
        tree::missing_directories(root, parent, parent_mode(ENVIRONMENT_MODE), (0, 0))?;
    }
    write(
        root,
        path,
        ENVIRONMENT_MODE,
        &KEPT,
        dotenv::render(&values).as_bytes(),
    )
}

/// Numbers are written in their shortest form, as other programs of the dialect do.
fn normal_number(value: &str) -> String {
    match value.parse::<i64>() {
        Ok(number) => number.to_string(),
        Err(_) => value.to_owned(),
    }
}

fn write(root: &Root, path: &str, mode: u32, owner: &Owner, content: &[u8]) -> Result<()> {
    tree::file(
        root,
        &NewFile {
            path,
            mode,
            owner,
            parents: &Owner::ROOT,
        },
        content,
    )
}

/// Writes a file that keeps the mode and the owner it has.
fn rewrite(root: &Root, path: &str, content: &str) -> Result<()> {
    let mode = root
        .metadata_opt(path)?
        .map_or(NEW_MODE, |found| found.mode & 0o777);
    write(root, path, mode, &KEPT, content.as_bytes())
}

/// Sets keys of the section `[Time]`; other lines stay.
pub(super) fn timesyncd(root: &Root, entries: &BTreeMap<String, String>) -> Result<()> {
    if !root.exists("/etc/systemd")? {
        return Err(Error::user(
            "the image has no /etc/systemd, so nothing reads the settings of timesyncd",
        )
        .hint("install systemd-timesyncd in an earlier step"));
    }
    let existing = root.read_to_string_opt(TIMESYNCD)?.unwrap_or_default();
    tree::missing_directories(
        root,
        Path::new("/etc/systemd/timesyncd.conf.d"),
        0o755,
        (0, 0),
    )?;
    rewrite(root, TIMESYNCD, &with_time(&existing, entries))
}

fn with_time(text: &str, entries: &BTreeMap<String, String>) -> String {
    let mut before: Vec<String> = Vec::new();
    let mut section: Vec<String> = Vec::new();
    let mut after: Vec<String> = Vec::new();
    let mut at = 0;
    for line in text.lines() {
        let is_header = line.trim_start().starts_with('[');
        match (at, is_header) {
            (0, true) if line.trim() == "[Time]" => at = 1,
            (1, true) => {
                at = 2;
                after.push(line.to_owned());
            }
            (0, _) => before.push(line.to_owned()),
            (1, _) => section.push(line.to_owned()),
            _ => after.push(line.to_owned()),
        }
    }
    for (key, value) in entries {
        let line = format!("{key} = {value}");
        let known = section.iter_mut().find(|known| {
            known
                .split_once('=')
                .is_some_and(|(name, _)| name.trim() == key)
        });
        match known {
            Some(known) => *known = line,
            None => {
                let end = section
                    .iter()
                    .rposition(|line| !line.trim().is_empty())
                    .map_or(0, |at| at + 1);
                section.insert(end, line);
            }
        }
    }
    before.push("[Time]".to_owned());
    let lines: Vec<String> = before.into_iter().chain(section).chain(after).collect();
    lines.join("\n") + "\n"
}

/// Writes the machine's name where it is looked for.
pub(super) fn hostname(root: &Root, name: &str) -> Result<()> {
    let is_name = !name.is_empty()
        && name.len() <= 64
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    if !is_name {
        return Err(Error::user(format!("{name:?} is no host name")));
    }
    rewrite(root, "/etc/hostname", &format!("{name}\n"))?;
    // Bases that were bootstrapped have none; in a container build there always is one.
    let hosts = root.read_to_string_opt("/etc/hosts")?;
    let hosts = hosts.as_deref().unwrap_or("127.0.0.1\n");
    let lines = hosts
        .lines()
        .map(|line| match line.split_whitespace().next() {
            Some("127.0.0.1") => format!("127.0.0.1 localhost {name}\n"),
            _ => format!("{}\n", line.trim()),
        });
    rewrite(root, "/etc/hosts", &lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/systemd")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn entries(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn row_45_46_and_47_variables_are_written_sorted_and_quoted_where_they_must_be() {
        let (dir, root) = root();
        environment(&root, "/etc/environment", &entries(&[("foo", "0")])).unwrap();
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(read("etc/environment"), "foo=0\n");
        environment(&root, "/run/cos/x.env", &entries(&[("foo", "0")])).unwrap();
        assert_eq!(read("run/cos/x.env"), "foo=0\n");
        let mode = std::fs::metadata(dir.path().join("run/cos"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o744);
        environment(&root, "/e", &entries(&[("B", "a b"), ("A", "007")])).unwrap();
        environment(&root, "/e", &entries(&[("C", "$x")])).unwrap();
        assert_eq!(read("e"), "A=7\nB=\"a b\"\nC=\"\\$x\"\n");
    }

    #[test]
    fn row_44_time_settings_are_added_to_their_section() {
        let (dir, root) = root();
        timesyncd(&root, &entries(&[("NTP", "0.pool")])).unwrap();
        timesyncd(
            &root,
            &entries(&[("FallbackNTP", "1.pool"), ("NTP", "2.pool")]),
        )
        .unwrap();
        let text = std::fs::read_to_string(dir.path().join(&TIMESYNCD[1..])).unwrap();
        assert_eq!(text, "[Time]\nNTP = 2.pool\nFallbackNTP = 1.pool\n");
        assert_eq!(
            with_time(
                "# mine\n[Time]\nA = 1\n\n[Other]\nB = 2\n",
                &entries(&[("C", "3")])
            ),
            "# mine\n[Time]\nA = 1\nC = 3\n\n[Other]\nB = 2\n"
        );
    }

    #[test]
    fn files_of_settings_keep_their_mode_and_owner() {
        let (dir, root) = root();
        root.create_dir_all("/etc/systemd/timesyncd.conf.d", 0o755)
            .unwrap();
        let meta = std::os::unix::fs::MetadataExt::uid;
        let mine = meta(&std::fs::metadata(dir.path()).unwrap());
        let owner = if mine == 0 { 7 } else { mine };
        for path in [TIMESYNCD, "/etc/hosts", "/etc/hostname"] {
            root.write(path, "", 0o600, mine, mine).unwrap();
            if mine == 0 {
                root.set_owner(path, owner, owner).unwrap();
            }
        }
        timesyncd(&root, &entries(&[("NTP", "x")])).unwrap();
        hostname(&root, "node").unwrap();
        for path in [TIMESYNCD, "/etc/hosts", "/etc/hostname"] {
            let found = root.metadata_opt(path).unwrap().unwrap();
            assert_eq!((found.mode & 0o777, found.uid), (0o600, owner), "{path}");
        }
    }

    #[test]
    fn the_host_name_gets_into_both_files() {
        let (dir, root) = root();
        hostname(&root, "node").unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("etc/hosts")).unwrap(),
            "127.0.0.1 localhost node\n",
            "a base without the file gets one"
        );
        std::fs::write(
            dir.path().join("etc/hosts"),
            "127.0.0.1\tlocalhost\n  ::1 x\n",
        )
        .unwrap();
        hostname(&root, "node-1").unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("etc/hosts")).unwrap(),
            "127.0.0.1 localhost node-1\n::1 x\n"
        );
        assert!(hostname(&root, "a\nb").is_err());
    }
}
