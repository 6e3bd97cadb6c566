//! Releases of Debian and Ubuntu with their real packages, besides the one that all judges look at.
//!
//! Debian 13 and Ubuntu 24.04 are converted in every run of the tests. The other releases take a quarter of an hour: with
//! `KFACTORY_FAMILIES=all`, as `just test-families` does it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::boot::boots;
use crate::support::framework::{framework, stand_ins};
use crate::support::layer::image_differences;
use crate::support::program::Ran;
use crate::support::releases::Releases;
use crate::support::small::k3s_program;
use crate::support::systems::system_tar;
use crate::support::tree::Tree;
use crate::support::world::Scratch;
use crate::support::{Kfactory, need, run, skipped, wants_all, world};

const K3S: &str = "v1.33.4+k3s1";
/// What a standard image needs besides the programs of every image.
const STANDARD: &[&str] = &[
    "usr/bin/kairos-agent",
    "usr/bin/immucore",
    "usr/bin/edgevpn",
    "system/providers/agent-provider-kairos",
];

/// A release, what an image says it is made from, and a store for its conversions that goes with this value.
struct Release {
    tar: std::path::PathBuf,
    flavor: [&'static str; 2],
    store: Scratch,
    /// Where its image goes: not in the store, which it may outlive.
    layout: std::path::PathBuf,
}

impl Release {
    /// Prepares a base; `None` where there is none. `test` names who does it.
    fn new(test: &str, suite: &'static str, flavor: [&'static str; 2]) -> Option<Self> {
        if !need(&["bwrap", "newuidmap"]) {
            return None;
        }
        Some(Self {
            tar: system_tar(suite)?,
            flavor,
            store: Scratch::of_user(&format!("{suite}-{test}-store")),
            layout: world().dir.join(format!("home/{suite}-{test}-layout")),
        })
    }

    fn prepare(&self, dest: &str, framework: &str, options: &[&str]) -> Kfactory {
        let base = format!("tar:{}", self.tar.display());
        let arguments = ["convert", &base, dest, "--framework", framework];
        Kfactory::new(arguments)
            .args(["--progress", "plain"])
            .args(options)
            .store(&self.store.0)
            .dated()
    }

    /// Converts it and unpacks what comes out; rules of `validate` of severity error would fail it. Prints a row of the table.
    fn convert(&self, options: &[&str]) -> Image {
        self.convert_with(&framework().spec, options, |convert| convert)
    }

    fn convert_with(
        &self,
        framework: &str,
        options: &[&str],
        more: impl FnOnce(Kfactory) -> Kfactory,
    ) -> Image {
        let layout = Scratch(self.layout.clone());
        let dest = reference(&layout);
        let ran = more(self.prepare(&dest, framework, options)).succeed();
        let place = Scratch(self.store.0.join("tree"));
        let store = self.store.0.file_name().unwrap_or_default();
        let unpacking = Scratch::of_caller(&format!("unpacking-{}", store.display()));
        Kfactory::as_caller(["unpack", &dest, &place.0.display().to_string()])
            .store(&unpacking.0)
            .succeed();
        let mut findings = ran
            .lines
            .iter()
            .filter_map(|(_, line)| line.strip_prefix("validated: "));
        eprintln!(
            "family: {:<22} {:<8} {:<42} converted in {:>3.0} s, {}",
            format!("{}-{}", self.flavor[0], self.flavor[1]),
            "apt",
            if options.is_empty() {
                "-".to_owned()
            } else {
                options.join(" ")
            },
            ran.took.as_secs_f64(),
            findings.next_back().unwrap_or("not validated"),
        );
        Image {
            tree: Tree::new(place.0.clone()),
            ran,
            layout,
            _place: place,
        }
    }

    /// Returns the files below `etc/apt` of the base that name its sources, with their content.
    fn sources(&self) -> BTreeMap<String, String> {
        let tar = |option: &str, path: &str| {
            run(Command::new("tar").arg(option).arg(&self.tar).args([path]))
        };
        let names = run(Command::new("tar").arg("-tf").arg(&self.tar));
        let is_source = |name: &&str| {
            name.ends_with("etc/apt/sources.list")
                || name.starts_with("./etc/apt/sources.list.d/") && !name.ends_with('/')
        };
        let names = names.lines().filter(is_source);
        names
            .map(|name| (name.trim_start_matches("./").to_owned(), tar("-xOf", name)))
            .collect()
    }
}

/// An unpacked image, and what was said when it was made.
struct Image {
    tree: Tree,
    ran: Ran,
    layout: Scratch,
    _place: Scratch,
}

/// An image in its layout alone: trees and stores are large.
struct Packed {
    digest: String,
    layout: Scratch,
}

/// Names the image in a layout.
fn reference(layout: &Scratch) -> String {
    format!("oci:{}:v1.0.0", layout.0.display())
}

impl Image {
    /// Removes the tree.
    fn without_tree(self) -> Packed {
        Packed {
            digest: self.ran.digest(),
            layout: self.layout,
        }
    }

    #[track_caller]
    fn says(&self, line: &str) {
        let release = self.tree.read("etc/kairos-release");
        assert!(
            release.lines().any(|found| found == line),
            "no {line} in\n{release}"
        );
    }

    #[track_caller]
    fn enables(&self, names: &[&str]) {
        let links = self.tree.walk_links("etc/systemd/system");
        for name in names {
            let end = format!(".wants/{name}.service");
            assert!(
                links.iter().any(|(path, _)| path.ends_with(&end)),
                "{name} is not enabled"
            );
        }
    }

    /// Asserts what every image of the family has in common, but an initrd.
    #[track_caller]
    fn is_one_of(&self, release: &Release) {
        let [flavor, number] = release.flavor;
        self.says(&format!("KAIROS_FLAVOR=\"{flavor}\""));
        let quote = if number.parse::<u32>().is_ok() {
            ""
        } else {
            "\""
        };
        self.says(&format!("KAIROS_FLAVOR_RELEASE={quote}{number}{quote}"));
        self.enables(&["fail2ban", "ssh", "systemd-networkd", "systemd-timesyncd"]);
        let kernels = self.tree.names("lib/modules");
        assert_eq!(kernels.len(), 1, "{kernels:?}");
        let link = std::fs::read_link(self.tree.dir.join("boot/vmlinuz")).expect("a link");
        assert_eq!(
            link,
            Path::new("/boot").join(format!("vmlinuz-{}", kernels[0]))
        );
        for (path, content) in release.sources() {
            assert_eq!(self.tree.read(&path), content, "{path}");
        }
        for path in [
            "var/lib/apt/lists",
            "var/cache/apt",
            "run/kfactory",
            "tmp",
            "var/tmp",
        ] {
            let found = self.tree.names(path);
            assert!(
                found.iter().all(|name| name == "archives"),
                "{path}: {found:?}"
            );
        }
        for path in [
            "snap",
            "oem",
            "system/oem",
            "usr/bin/grub2-editenv",
            "etc/ssh/sshd_config",
        ] {
            let wanted = path != "usr/bin/grub2-editenv" || self.tree.has("usr/bin/grub-editenv");
            assert!(self.tree.has(path) || !wanted, "no {path}");
        }
    }
}

#[test]
fn debian_13_becomes_a_core_image_that_boots_and_a_standard_one_with_k3s() {
    let Some(release) = Release::new("core", "trixie", ["debian", "13"]) else {
        return;
    };
    let core = release.convert(&[]);
    core.is_one_of(&release);
    core.says("KAIROS_VARIANT=\"core\"");
    boots(&core.tree);
    drop(core);

    let releases = Releases::start();
    releases.put_k3s(K3S, &k3s_program(K3S));
    let framework = format!("dir:{}", stand_ins(STANDARD).display());
    let options = ["-p", "k3s", "--provider-k3s-version", K3S];
    let standard = release.convert_with(&framework, &options, |convert| {
        convert.env("KFACTORY_PROVIDER_MIRROR", &releases.base)
    });
    for layer in ["packages", "kernel"] {
        assert!(
            standard.ran.says(&format!("layer {layer}: cached")),
            "{layer}"
        );
    }
    standard.is_one_of(&release);
    for line in [
        "KAIROS_VARIANT=\"standard\"",
        "KAIROS_SOFTWARE_VERSION=\"v1.33.4+k3s1\"",
        "KAIROS_SOFTWARE_VERSION_PREFIX=\"k3s\"",
    ] {
        standard.says(line);
    }
    for path in [
        "usr/bin/k3s",
        "usr/bin/kairos",
        "etc/systemd/system/k3s.service",
        "boot/initrd",
    ] {
        assert!(standard.tree.has(path), "no {path}");
    }
}

#[test]
fn debian_13_is_made_ready_for_trusted_boot() {
    let Some(release) = Release::new("trusted", "trixie", ["debian", "13"]) else {
        return;
    };
    is_ready_for_trusted_boot(&release, &["--trusted"]);
}

/// Converts `release` for Trusted Boot and asserts what such an image must and must not have.
fn is_ready_for_trusted_boot(release: &Release, options: &[&str]) -> Image {
    let image = release.convert(options);
    image.is_one_of(release);
    image.says("KAIROS_TRUSTED_BOOT=\"true\"");
    image.ran.tells(&["as a UKI at most"]);
    for path in [
        "boot/initrd",
        "etc/cos",
        "etc/dracut.conf.d",
        "usr/lib/grub/x86_64-efi",
    ] {
        assert!(!image.tree.has(path), "{path}");
    }
    image
}

#[test]
fn ubuntu_24_04_becomes_a_core_image_that_boots() {
    let Some(release) = Release::new("core", "noble", ["ubuntu", "24.04"]) else {
        return;
    };
    // The firmware of every device alone is 600 MB; the full image is one of the many below.
    let image = release.convert(&["--firmware", "none"]);
    image.is_one_of(&release);
    boots(&image.tree);
}

/// Converts a release as a core image, twice, and boots it.
fn core_twice(suite: &'static str, flavor: [&'static str; 2]) {
    if !wants_all("a release that takes a long time") {
        return;
    }
    let Some(release) = Release::new("all", suite, flavor) else {
        return;
    };
    let image = release.convert(&[]);
    image.is_one_of(&release);
    boots(&image.tree);
    drop(release);
    let first = image.without_tree();
    let Some(release) = Release::new("again", suite, flavor) else {
        return skipped("the base is gone");
    };
    same_image(&first, &release.convert(&[]).without_tree());
}

/// Asserts that two conversions gave the same image; where they did not, says what `kfactory parity` finds, and what it does not look
/// at: times, and the order of entries.
#[track_caller]
fn same_image(first: &Packed, second: &Packed) {
    if first.digest == second.digest {
        return;
    }
    let store = Scratch::of_user("parity-of-two-store");
    let (here, there) = (reference(&first.layout), reference(&second.layout));
    let parity = Kfactory::new(["parity", &here, "--against", &there, "--all"])
        .store(&store.0)
        .run();
    let entries = image_differences(
        (&first.digest, &first.layout.0),
        (&second.digest, &second.layout.0),
        40,
    );
    panic!(
        "{} became {}:\n{}{}{entries}",
        first.digest,
        second.digest,
        parity.stdout,
        parity.last_lines(10)
    );
}

#[test]
fn ubuntu_20_04_boots_and_is_the_same_twice() {
    core_twice("focal", ["ubuntu", "20.04"]);
}

#[test]
fn ubuntu_22_04_boots_and_is_the_same_twice() {
    core_twice("jammy", ["ubuntu", "22.04"]);
}

#[test]
fn ubuntu_24_04_boots_and_is_the_same_twice() {
    core_twice("noble", ["ubuntu", "24.04"]);
}

#[test]
fn ubuntu_25_10_boots_and_is_the_same_twice() {
    core_twice("questing", ["ubuntu", "25.10"]);
}

#[test]
fn ubuntu_26_04_boots_and_is_the_same_twice() {
    core_twice("resolute", ["ubuntu", "26.04"]);
}

#[test]
fn debian_13_boots_and_is_the_same_twice() {
    core_twice("trixie", ["debian", "13"]);
}

#[test]
fn ubuntu_24_04_is_made_ready_for_trusted_boot() {
    if !wants_all("a release that takes a long time") {
        return;
    }
    let Some(release) = Release::new("trusted", "noble", ["ubuntu", "24.04"]) else {
        return;
    };
    let image = is_ready_for_trusted_boot(&release, &["--trusted"]);
    assert!(
        image
            .tree
            .has("usr/lib/systemd/boot/efi/systemd-bootx64.efi")
    );
}
