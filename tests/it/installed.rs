//! Package databases as SQLite itself writes them: large rows, many rows, and a write-ahead log that nobody has folded in.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use kfactory::installed::{self, Depth, Installed};
use kfactory::tree;

use crate::support::{need, run, world};

/// Makes a database below `dir` with a script of the SQLite shell that runs in its directory.
fn read_after(dir: &Path, script: &str) -> Installed {
    let place = dir.join("usr/lib/sysimage/rpm");
    std::fs::create_dir_all(&place).expect("a fresh directory");
    // Too long for a command line.
    std::fs::write(dir.join("script"), script).expect("written");
    run(Command::new("sqlite3")
        .arg("rpmdb.sqlite")
        .arg(format!(".read {}", dir.join("script").display()))
        .current_dir(&place));
    let tree = tree::of_dir(dir).expect("a tree");
    installed::read(&tree, Depth::Packages).expect("within reach")
}

/// A statement that adds a package whose header has `padding` bytes after its values.
fn insert(name: &str, padding: usize) -> String {
    let values = format!("{name}\0\u{31}\0\u{31}\0");
    let (version, release) = (name.len() + 1, name.len() + 3);
    let mut header = String::new();
    for number in [3, values.len() + padding] {
        let _ = write!(header, "{number:08x}");
    }
    for (tag, offset) in [(1000, 0), (1001, version), (1002, release)] {
        let _ = write!(header, "{tag:08x}{:08x}{offset:08x}{:08x}", 6, 1);
    }
    for byte in values.bytes() {
        let _ = write!(header, "{byte:02x}");
    }
    header.push_str(&"00".repeat(padding));
    format!("INSERT INTO Packages(blob) VALUES (x'{header}');\n")
}

const TABLE: &str =
    "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);\n";

fn names(found: &Installed) -> Vec<&str> {
    found.packages.iter().map(|it| it.name.as_str()).collect()
}

#[test]
fn rows_of_every_size_and_number_are_read() {
    if !need(&["sqlite3"]) {
        return;
    }
    for page_bytes in [512, 4096, 65536] {
        let sizes = [
            0, 300, 400, 470, 480, 3900, 4000, 4070, 4080, 65_400, 65_520, 200_000,
        ];
        let mut expected: Vec<String> = sizes.iter().map(|size| format!("p{size}")).collect();
        let mut script = format!("PRAGMA page_size={page_bytes};\n{TABLE}BEGIN;\n");
        for size in sizes {
            script += &insert(&format!("p{size}"), size);
        }
        for index in 0..400 {
            script += &insert(&format!("q{index}"), 90);
            expected.push(format!("q{index}"));
        }
        // What was removed leaves free pages behind.
        script += "COMMIT;\nDELETE FROM Packages WHERE hnum % 7 = 1 AND hnum > 12;\n";
        let mut index = 12;
        expected.retain(|name| {
            !name.starts_with('q') || {
                index += 1;
                index % 7 != 1
            }
        });
        expected.sort();
        let dir = world().own_dir(&format!("sqlite/{page_bytes}"));
        let found = read_after(&dir, &script);
        assert_eq!(found.unread, [], "{page_bytes}");
        assert_eq!(names(&found), expected, "{page_bytes}");
    }
}

#[test]
fn damage_is_told_and_never_followed() {
    if !need(&["sqlite3"]) {
        return;
    }
    let dir = world().own_dir("sqlite/damaged");
    let mut script = format!("PRAGMA page_size=512;\n{TABLE}");
    for (index, padding) in [3, 700, 60, 2000].repeat(8).iter().enumerate() {
        script += &insert(&format!("p{index}"), *padding);
    }
    assert_eq!(read_after(&dir, &script).packages.len(), 32);
    let file = dir.join("usr/lib/sysimage/rpm/rpmdb.sqlite");
    let whole = std::fs::read(&file).expect("made");
    let tree = tree::of_dir(&dir).expect("a tree");
    let mut told = 0;
    for step in 0..3000usize {
        // The first pages, where the structure is, and some of the others.
        let at = if step < 1500 { step } else { step * 7919 } % whole.len();
        let mut bytes = whole.clone();
        bytes[at] ^= [0x01, 0x80, 0xff][step % 3];
        std::fs::write(&file, &bytes).expect("ours");
        let found = installed::read(&tree, Depth::Files).expect("within reach");
        told += usize::from(!found.unread.is_empty());
    }
    assert!(told > 100, "{told}");
}

#[test]
fn the_write_ahead_log_counts_up_to_its_last_whole_transaction() {
    if !need(&["sqlite3"]) {
        return;
    }
    let live = world().own_dir("sqlite/live");
    let copy = world().own_dir("sqlite/copy");
    let place = copy.join("usr/lib/sysimage/rpm");
    std::fs::create_dir_all(&place).expect("a fresh directory");
    // Copied while it is open: closing folds the log in.
    let script = format!(
        "PRAGMA journal_mode=WAL;\nPRAGMA wal_autocheckpoint=0;\n{TABLE}{}{}DELETE FROM Packages WHERE hnum=1;\n\
         .shell cp rpmdb.sqlite rpmdb.sqlite-wal {}\n",
        insert("gone", 5000),
        insert("bash", 5000),
        place.display()
    );
    let found = read_after(&live, &script);
    assert_eq!(names(&found), ["bash"]);

    let read = |dir: &Path| {
        let tree = tree::of_dir(dir).expect("a tree");
        installed::read(&tree, Depth::Packages).expect("within reach")
    };
    let log = place.join("rpmdb.sqlite-wal");
    assert!(log.metadata().expect("copied").len() > 0);
    assert_eq!(names(&read(&copy)), ["bash"]);

    // Its last frame, which ends the last transaction, is torn.
    let mut bytes = std::fs::read(&log).expect("copied");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&log, &bytes).expect("ours");
    assert_eq!(names(&read(&copy)), ["bash", "gone"]);
}
