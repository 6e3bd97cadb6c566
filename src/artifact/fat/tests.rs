//! The FAT writer against `fsck.fat` and mtools, and what it refuses.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::artifact::judge::judge;

/// Names of every form, each of which is its own content.
const NAMES: [&str; 14] = [
    "EFI/BOOT/BOOTX64.EFI",
    "EFI/BOOT/grub.cfg",
    "EFI/ubuntu/grub.cfg",
    "startup.nsh",
    "a very long name, with spaces + signs.conf",
    "a very long name, with spaces + signs.text",
    "AVERYL~1.CON",
    "thirteenunits",
    "loader/entries/norole_rd.immucore.debug.conf",
    ".hidden",
    "two.dots.efi",
    "Grüße/日本語.txt",
    "EMPTY",
    "x",
];

struct Made {
    dir: tempfile::TempDir,
    layout: Layout,
}

impl Made {
    fn new(volume: Volume, size: Option<u64>, files: &[(String, Vec<u8>)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut builder = Builder::new(volume);
        builder.dir("/EFI/tools").expect("a directory");
        let ids: Vec<FileId> = files
            .iter()
            .map(|(path, content)| builder.file(path, content.len() as u64).expect("a file"))
            .collect();
        let layout = builder.layout(size).expect("a layout");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.path().join("image"))
            .expect("a file");
        file.set_len(layout.size()).expect("room");
        let region = Region::of_file(Arc::new(file), layout.size());
        // Last first: the order is the caller's.
        for (id, (_, content)) in ids.iter().zip(files).rev() {
            let Extent { start, len } = layout.extent(*id);
            region
                .copy_at(&mut content.as_slice(), start, len)
                .expect("written");
        }
        layout.write(&region).expect("written");
        Self { dir, layout }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).expect("the image")
    }

    /// Reads the files back.
    fn holds(&self, files: &[(String, Vec<u8>)]) {
        let volume = open(&self.path());
        for (path, content) in files {
            assert!(read(&volume, path).as_ref() == Some(content), "{path}");
        }
        let dir = volume.find("efi/TOOLS").expect("readable");
        assert!(dir.is_some_and(|dir| dir.is_dir));
        assert_eq!(read(&volume, "EFI/none"), None);
    }

    /// Has it read back here, fsck.fat find nothing wrong, and mtools read the files back.
    fn is_sound(&self, files: &[(String, Vec<u8>)]) {
        self.holds(files);
        let image = self.path();
        let image = image.to_str().expect("a plain path");
        let Some(said) = judge("fsck.fat", &["-n", image]) else {
            return;
        };
        // Its name, and how much is used: whatever it finds is one line more.
        assert_eq!(said.lines().count(), 2, "{said}");
        let out = self.dir.path().join("out");
        fs::create_dir(&out).expect("a directory");
        let copied = judge(
            "mcopy",
            &["-s", "-Q", "-i", image, "::", out.to_str().expect("plain")],
        );
        if copied.is_none() {
            return;
        }
        for (path, content) in files {
            assert!(fs::read(out.join(path)).expect(path) == *content, "{path}");
        }
        assert!(out.join("EFI/tools").is_dir());
    }
}

fn open(path: &std::path::Path) -> FatVolume {
    let file = File::open(path).expect("there");
    let len = file.metadata().expect("there").len();
    FatVolume::open(Region::of_file(Arc::new(file), len)).expect("a volume")
}

/// Returns the content of a file; none where there is none.
fn read(volume: &FatVolume, path: &str) -> Option<Vec<u8>> {
    let file = volume.find(path).expect("readable")?;
    let content = volume.content(&file, u64::MAX).expect("readable");
    let mut bytes = vec![0; content.len() as usize];
    content.read_exact_at(&mut bytes, 0).expect("readable");
    Some(bytes)
}

#[test]
fn volumes_that_mtools_made_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("plain").to_owned();
    let content: Vec<u8> = (0..90_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    fs::write(path("file"), &content).expect("written");
    // FAT12, FAT16 and FAT32, by their numbers of sectors; the last one asked for.
    for (sectors, more) in [("4096", &[][..]), ("65536", &[]), ("131072", &["-F"])] {
        let image = path(sectors);
        let format = ["-C", "-i", &image, "-v", "COS_GRUB", "-T", sectors];
        if judge("mformat", &[&format[..], more, &["::"]].concat()).is_none() {
            return;
        }
        let long = "a long name in its directory.conf";
        judge("mmd", &["-i", &image, "::sub"]);
        for name in ["::SHORT.TXT".to_owned(), format!("::sub/{long}")] {
            judge("mcopy", &["-i", &image, &path("file"), &name]);
        }
        let volume = open(std::path::Path::new(&image));
        assert_eq!(volume.label(), "COS_GRUB");
        for name in ["short.txt".to_owned(), format!("SUB/{long}")] {
            assert!(
                read(&volume, &name).as_ref() == Some(&content),
                "{name} of {sectors}"
            );
        }
    }
}

fn volume(kind: Option<Kind>) -> Volume {
    Volume {
        label: "EFI_live".to_owned(),
        serial: 0xDEAD_BEEF,
        time: Timestamp::from_secs(1_709_251_199),
        kind,
        hidden_sectors: 0,
    }
}

fn files() -> Vec<(String, Vec<u8>)> {
    let content = |(index, name): (usize, &&str)| match *name {
        "EMPTY" => Vec::new(),
        name => name.repeat(index * index * 50 + 1).into_bytes(),
    };
    NAMES
        .iter()
        .enumerate()
        .map(|pair| (pair.1.to_string(), content(pair)))
        .collect()
}

#[test]
fn every_kind_is_sound_to_fsck_and_gives_its_files_back() {
    for (kind, size, comes_out) in [
        (None, None, Kind::Fat12),
        (None, Some(64 << 20), Kind::Fat16),
        (Some(Kind::Fat32), None, Kind::Fat32),
        (None, Some(600 << 20), Kind::Fat32),
        (None, Some(1474560), Kind::Fat12),
    ] {
        let made = Made::new(volume(kind), size, &files());
        assert_eq!(made.layout.kind(), comes_out, "{size:?}");
        made.is_sound(&files());
    }
}

#[test]
fn directories_of_many_clusters_have_all_their_names() {
    let many: Vec<_> = (0..700)
        .map(|n| {
            (
                format!("dir/{}{n}.some-text", "long name ".repeat(n % 20)),
                vec![7; n],
            )
        })
        .chain((0..600).map(|n| (format!("in the root {n}"), vec![n as u8])))
        .collect();
    for kind in [None, Some(Kind::Fat32)] {
        Made::new(volume(kind), None, &many).is_sound(&many);
    }
}

#[test]
fn label_serial_and_times_are_those_given() {
    let made = Made::new(volume(None), None, &files());
    let image = made.path();
    let Some(said) = judge("mdir", &["-i", image.to_str().expect("plain"), "::"]) else {
        return;
    };
    for text in ["EFI_LIVE", "DEAD-BEEF", "2024-02-29  23:59", "AVERYL~1 CON"] {
        assert!(said.contains(text), "{text}: {said}");
    }
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    let made = || Made::new(volume(None), None, &files()).bytes();
    assert!(made() == made());
}

#[test]
fn the_size_is_the_smallest_step_that_the_files_fit_on() {
    let size_of = |content: u64| {
        let mut builder = Builder::new(volume(None));
        builder.file("x", content).expect("a file");
        builder.layout(None).expect("a layout").size()
    };
    assert_eq!(size_of(0), SIZE_STEP);
    assert_eq!(size_of(3 << 20), SIZE_STEP);
    assert_eq!(size_of(4 << 20), 2 * SIZE_STEP);
    let wide = Builder::new(volume(Some(Kind::Fat32)))
        .layout(None)
        .expect("a layout");
    assert_eq!(
        wide.size(),
        36 << 20,
        "65525 clusters are the fewest that 32 bits may have"
    );
}

#[test]
fn what_fat_cannot_hold_is_refused_by_name() {
    let refused = |act: &dyn Fn(&mut Builder) -> Result<(), FatError>| {
        act(&mut Builder::new(volume(None)))
            .expect_err("refused")
            .to_string()
    };
    for name in ["a:b", "dot.", "space ", "con\u{1}", "what?", ".."] {
        let said = refused(&|builder| builder.file(name, 1).map(drop));
        assert!(said.contains(&format!("{name:?} is not a name")), "{said}");
    }
    let said = refused(&|builder| {
        builder.file("EFI/a", 1)?;
        builder.file("efi/A", 1).map(drop)
    });
    assert!(said.contains("\"efi/A\" is there twice"), "{said}");
    let said = refused(&|builder| builder.file("big", 1 << 32).map(drop));
    assert!(said.contains("\"big\" has 4294967296 bytes"), "{said}");

    let mut full = Builder::new(volume(None));
    full.file("x", 3 << 20).expect("a file");
    let said = full.layout(Some(2 << 20)).expect_err("full").to_string();
    assert!(said.contains("of 2097152 bytes has no room"), "{said}");
    let odd = Builder::new(volume(None)).layout(Some(1000));
    assert!(matches!(odd, Err(FatError::Size(1000))));
    let small = Builder::new(volume(Some(Kind::Fat32))).layout(Some(4 << 20));
    assert!(matches!(small, Err(FatError::Size(_))));
    let label = Volume {
        label: "TWELVE CHARS".to_owned(),
        ..volume(None)
    };
    assert!(matches!(
        Builder::new(label).layout(None),
        Err(FatError::Label(_))
    ));
}

#[test]
fn spellings_of_a_directory_that_differ_in_case_are_one_and_a_file_is_none() {
    let mut builder = Builder::new(volume(None));
    builder.file("efi/boot/a", 1).unwrap();
    builder.file("EFI/Boot/b", 1).unwrap();
    assert!(matches!(
        builder.file("EFI/BOOT/A", 1),
        Err(FatError::Twice(_))
    ));
    let below = builder.file("EFI/BOOT/a/c", 1).unwrap_err();
    assert!(matches!(below, FatError::FileAsDirectory { .. }), "{below}");
}
