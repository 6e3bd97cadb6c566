//! The disk of the converted image, taken apart by other programs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Disk, disk};
use crate::support::tree::{Listing, Tree, content_of, differences};
use crate::support::user::is_root;
use crate::support::world::Scratch;
use crate::support::{need, run, skipped, world};

/// A partition, as `sfdisk` finds it.
struct Part {
    name: String,
    kind: String,
    /// In bytes.
    start: u64,
    size: u64,
}

fn parts(disk: &Path) -> Vec<Part> {
    let text = run(Command::new("sfdisk").arg("--json").arg(disk));
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let table = &value["partitiontable"];
    assert_eq!(table["label"], "gpt");
    let parts = table["partitions"].as_array().expect("partitions");
    let text =
        |part: &serde_json::Value, key: &str| part[key].as_str().unwrap_or_default().to_owned();
    let bytes = |part: &serde_json::Value, key: &str| part[key].as_u64().expect("a number") * 512;
    let part = |part: &serde_json::Value| Part {
        name: text(part, "name"),
        kind: text(part, "type"),
        start: bytes(part, "start"),
        size: bytes(part, "size"),
    };
    parts.iter().map(part).collect()
}

const EFI: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
const BIOS: &str = "21686148-6449-6E6F-744E-656564454649";
const LINUX: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";

#[test]
fn a_disk_of_the_converted_image_is_sound_in_all_its_parts_and_holds_the_images_files() {
    if !need(&[
        "sgdisk", "sfdisk", "fsck.fat", "mdir", "e2fsck", "debugfs", "e2label", "dd",
    ]) {
        return;
    }
    let Some(disk) = disk() else { return };
    let scratch = world().own_dir("raw-parts");
    let scratch = Scratch(scratch);
    let file = disk.file();
    let verified = run(Command::new("sgdisk").arg("-v").arg(&file));
    assert!(verified.contains("No problems found"), "{verified}");
    let verified = run(Command::new("sfdisk").arg("--verify").arg(&file));
    assert!(verified.contains("No errors detected"), "{verified}");
    run(Command::new("sha256sum")
        .args(["-c", "os.raw.sha256"])
        .current_dir(&disk.dir.0));

    let found = parts(&file);
    let kinds: Vec<(&str, &str)> = found
        .iter()
        .map(|part| (part.name.as_str(), part.kind.as_str()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("efi", EFI),
            ("bios", BIOS),
            ("oem", LINUX),
            ("recovery", LINUX)
        ]
    );
    let cut = |name: &str| {
        let part = found
            .iter()
            .find(|part| part.name == name)
            .expect("found above");
        let place = scratch.0.join(name);
        run(Command::new("dd")
            .arg(format!("if={}", file.display()))
            .arg(format!("of={}", place.display()))
            .args([
                "bs=1M",
                "conv=sparse",
                "status=none",
                "iflag=skip_bytes,count_bytes",
            ])
            .arg(format!("skip={}", part.start))
            .arg(format!("count={}", part.size)));
        place
    };
    boot_partition(&cut("efi"));
    configurations(&cut("oem"));
    let recovery = cut("recovery");
    is_sound(&recovery, "COS_RECOVERY");
    let menu = debugfs(&recovery, "cat /etc/cos/grub.cfg");
    assert_eq!(
        menu.trim(),
        disk.made.tree().read("/etc/cos/grub.cfg").trim()
    );
    let system = scratch.0.join("system");
    debugfs(
        &recovery,
        &format!("dump -p /cOS/recovery.img {}", system.display()),
    );
    fs::remove_file(recovery).expect("ours");
    is_sound(&system, "COS_SYSTEM");
    holds(&system, &disk, &scratch.0);
}

/// Has the FAT checked, which must have what UEFI starts by itself.
fn boot_partition(file: &Path) {
    run(Command::new("fsck.fat").arg("-n").arg(file));
    let listed = run(Command::new("mdir").args(["-/b", "-i"]).arg(file)).to_lowercase();
    for path in [
        "/efi/boot/bootx64.efi",
        "/efi/boot/grubx64.efi",
        "/efi/boot/grub.cfg",
    ] {
        assert!(listed.contains(path), "no {path} in {listed}");
    }
}

fn configurations(file: &Path) {
    is_sound(file, "COS_OEM");
    assert_eq!(
        debugfs(file, "cat /90_custom.yaml").trim(),
        super::USER.trim()
    );
    let stat = debugfs(file, "stat /90_custom.yaml");
    assert!(
        stat.contains("Mode:  0600"),
        "it may hold passwords: {stat}"
    );
    let block = debugfs(file, "cat /grubenv");
    assert!(
        block.starts_with("# GRUB Environment Block\nnext_entry=recovery\n#"),
        "{block}"
    );
    assert!(
        debugfs(file, "cat /01_reset.yaml").contains("kairos-agent"),
        "no first boot"
    );
}

/// Has `e2fsck` find nothing to say about a file system, which must have this label.
fn is_sound(file: &Path, label: &str) {
    run(Command::new("e2fsck").arg("-fn").arg(file));
    assert_eq!(run(Command::new("e2label").arg(file)).trim(), label);
}

fn debugfs(file: &Path, request: &str) -> String {
    run(Command::new("debugfs").args(["-R", request]).arg(file))
}

/// Compares what `debugfs` tells of every file of the file system in `file` with the converted image.
fn holds(file: &Path, disk: &Disk, scratch: &Path) {
    if !is_root() {
        return skipped("owners of an unpacked image can only be compared by root");
    }
    let expected = disk.made.tree().listing();
    let contents = Tree::new(scratch.join("contents"));
    fs::create_dir(&contents.dir).expect("ours");
    debugfs(file, &format!("rdump / {}", contents.dir.display()));
    let found = inodes(file, expected.keys(), scratch);
    let mut first_names: BTreeMap<&str, &Path> = BTreeMap::new();
    let mut told = Listing::new();
    for (path, inode) in expected.keys().zip(&found) {
        let first = *first_names.entry(inode.number()).or_insert(path);
        told.insert(
            path.clone(),
            inode.line(first, path, &contents.dir.join(path)),
        );
    }
    let different = differences(&expected, &told, 20);
    assert!(different.is_empty(), "{}", different.join("\n"));
    let copied = contents.walk();
    let more = copied
        .iter()
        .filter(|(path, _)| !expected.contains_key(path));
    let more: Vec<&PathBuf> = more.map(|(path, _)| path).collect();
    assert_eq!(
        more,
        [Path::new("lost+found")],
        "it has more than the image"
    );
}

/// Asks `debugfs` for the inodes of `paths`, in their order.
fn inodes<'a>(file: &Path, paths: impl Iterator<Item = &'a PathBuf>, scratch: &Path) -> Vec<Inode> {
    let requests = scratch.join("requests");
    let mut out = std::io::BufWriter::new(File::create(&requests).expect("ours"));
    for path in paths {
        out.write_all(b"stat \"/").expect("written");
        out.write_all(path.as_os_str().as_bytes()).expect("written");
        out.write_all(b"\"\n").expect("written");
    }
    drop(out);
    let told = run(Command::new("debugfs").arg("-f").arg(&requests).arg(file));
    let answers = told.split("debugfs: stat ").skip(1);
    answers.map(|answer| Inode(answer.to_owned())).collect()
}

/// What `debugfs` says of an inode.
struct Inode(String);

impl Inode {
    /// Returns the word behind `key`.
    fn word(&self, key: &str) -> &str {
        let (_, rest) = self
            .0
            .split_once(key)
            .unwrap_or_else(|| panic!("no {key} in {}", self.0));
        rest.split_whitespace().next().expect("a word")
    }

    fn number(&self) -> &str {
        self.word("Inode: ")
    }

    fn mode(&self) -> u32 {
        let kind = match self.word("Type: ") {
            "directory" => 0o04_0000,
            "character" => 0o02_0000,
            "block" => 0o06_0000,
            "regular" => 0o10_0000,
            "symlink" => 0o12_0000,
            "FIFO" => 0o01_0000,
            other => panic!("{other}: {}", self.0),
        };
        kind | u32::from_str_radix(self.word("Mode:  "), 8).expect("octal")
    }

    /// Returns seconds since 1970: 32 bits, and two more in the word beside them.
    fn modified(&self) -> i64 {
        let (low, extra) = self.word("mtime: 0x").split_once(':').expect("two words");
        let number = |text| u32::from_str_radix(text, 16).expect("hexadecimal");
        i64::from(number(low).cast_signed()) + (i64::from(number(extra) & 3) << 32)
    }

    /// Returns extended attributes as [`Tree::listing`] writes them.
    fn attributes(&self) -> String {
        let Some((_, rest)) = self.0.split_once("Extended attributes:\n") else {
            return String::new();
        };
        let lines = rest.lines().take_while(|line| line.starts_with("  "));
        let mut all: Vec<String> = lines.map(attribute).collect();
        all.sort();
        all.concat()
    }

    /// Returns the line of [`Tree::listing`] for `path`, whose content is at `copy`; `first` is the inode's first name.
    fn line(&self, first: &Path, path: &Path, copy: &Path) -> String {
        let mut line = format!(
            "{:o} {}:{} {}",
            self.mode(),
            self.word("User: "),
            self.word("Group: "),
            self.modified()
        );
        if first != path {
            line.push_str(&format!(" = {}", first.display()));
        }
        let kind = self.word("Type: ");
        if matches!(kind, "character" | "block") {
            let (major, minor) = self
                .word("(hex ")
                .trim_end_matches(')')
                .split_once(':')
                .expect("two numbers");
            let number = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
            line.push_str(&format!(" device {:x}", number(major) << 8 | number(minor)));
        } else {
            line.push_str(&content_of(copy, &copy.symlink_metadata().expect("copied")));
        }
        line.push_str(&self.attributes());
        line
    }
}

/// Reads `  name (length) = "text"` or `  name (length) = 01 02 ...`.
fn attribute(line: &str) -> String {
    let (name, value) = line.trim_start().split_once(" = ").expect("a value");
    let name = name.split(' ').next().expect("a name");
    let bytes: Vec<u8> = match value.strip_prefix('"') {
        Some(text) => text.trim_end_matches('"').bytes().collect(),
        None => value
            .split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal"))
            .collect(),
    };
    let bytes = match name.starts_with("system.posix_acl_") {
        true => as_programs_see_it(&bytes),
        false => bytes,
    };
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(" {name}={hex}")
}

/// Returns an access control list as programs see it: on the disk it is of version 1, and only named users and groups have an ID.
fn as_programs_see_it(list: &[u8]) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0];
    let mut rest = &list[4..];
    while let [tag, zero, low, high, more @ ..] = rest {
        out.extend([*tag, *zero, *low, *high]);
        let is_named = matches!(tag, 2 | 8);
        let (id, more) = match is_named {
            true => more.split_at(4),
            false => (&[0xff; 4][..], more),
        };
        out.extend(id);
        rest = more;
    }
    out
}
