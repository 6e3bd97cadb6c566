//! Conversions with other packages than the rules choose, and for Trusted Boot: real ones, looked at from outside.

use std::sync::Arc;

use crate::repeat::FreshStore;
use crate::support::Kfactory;
use crate::support::conversion::{BASE, Conversion, conversion, convert};
use crate::support::program::Ran;
use crate::support::shared::Shared;
use crate::support::tree::Tree;
use crate::support::world::Scratch;

/// An image converted with options, and what was said.
struct Made {
    ran: Ran,
    tree: Tree,
    /// What the tree stands in.
    _place: Scratch,
    /// For running it again; it began with the packages of the conversion that all tests look at.
    store: FreshStore,
    shared: &'static Conversion,
    options: &'static [&'static str],
}

impl Made {
    fn new(name: &str, options: &'static [&'static str]) -> Option<Self> {
        let shared = conversion()?;
        let store = FreshStore::new(&format!("{name}-store"), shared);
        let (ran, layout, _place_of_layout) = run(shared, &store, options);
        let place = Scratch::of_caller(&format!("{name}-tree"));
        let dir = place.0.join("tree");
        let unpacking = Scratch::of_caller(&format!("{name}-unpack-store"));
        Kfactory::as_caller(["unpack", &layout, dir.to_str().expect("UTF-8")])
            .store(&unpacking.0)
            .succeed();
        Some(Self {
            ran,
            tree: Tree::new(dir),
            _place: place,
            store,
            shared,
            options,
        })
    }

    fn again(&self) -> Ran {
        run(self.shared, &self.store, self.options).0
    }
}

/// Converts the base that all tests share into a layout, which goes with the last value.
fn run(shared: &Conversion, store: &FreshStore, options: &[&str]) -> (Ran, String, Scratch) {
    let place = Scratch(store.0.join("layout"));
    let layout = format!("oci:{}:v2.0.0", place.0.display());
    let ran = convert(&shared.server.reference(BASE), &layout, &store.0)
        .args(options)
        .succeed();
    (ran, layout, place)
}

fn trusted() -> Option<Arc<Made>> {
    static MADE: Shared<Made> = Shared::new(2);
    MADE.get(|| Made::new("trusted", &["--trusted", "--firmware", "none"]))
}

fn trimmed() -> Option<Arc<Made>> {
    static MADE: Shared<Made> = Shared::new(2);
    const OPTIONS: &[&str] = &[
        "--kernel",
        "none",
        "--firmware",
        "none",
        "--without",
        "fail2ban,neovim",
        "--with",
        "tmux",
    ];
    MADE.get(|| Made::new("trimmed", OPTIONS))
}

fn installed(tree: &Tree, package: &str) -> bool {
    tree.read("var/lib/dpkg/status")
        .lines()
        .any(|line| line == format!("Package: {package}"))
}

fn wanted_units(tree: &Tree) -> Vec<String> {
    tree.walk_links("etc/systemd/system")
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.contains(".wants/"))
        .collect()
}

#[test]
fn an_image_for_trusted_boot_has_a_kernel_and_neither_boot_loader_nor_initrd() {
    let Some(made) = trusted() else { return };
    let tree = &made.tree;
    let kernel = tree.resolve("/boot/vmlinuz").expect("the kernel");
    let name = kernel
        .file_name()
        .and_then(|name| name.to_str())
        .expect("text");
    let version = name.strip_prefix("vmlinuz-").expect("with its version");
    assert!(tree.has(&format!("usr/lib/modules/{version}/modules.dep")));
    let initrds: Vec<String> = tree
        .names("boot")
        .into_iter()
        .filter(|name| name.starts_with("init"))
        .collect();
    assert!(initrds.is_empty(), "{initrds:?}");
    for path in [
        "etc/cos",
        "etc/dracut.conf.d",
        "usr/lib/dracut",
        "initrd.img",
        "usr/lib/grub/x86_64-efi",
        "usr/lib/grub/i386-pc",
    ] {
        assert!(!tree.has(path), "{path}");
    }
    for package in [
        "dracut",
        "grub2",
        "shim-signed",
        "firmware-linux-free",
        "isc-dhcp-client",
    ] {
        assert!(!installed(tree, package), "{package}");
    }
    let release = tree.read("etc/kairos-release");
    assert!(
        release.contains("KAIROS_TRUSTED_BOOT=\"true\""),
        "{release}"
    );
    assert!(tree.has("usr/bin/immucore") && tree.has("system/oem/00_rootfs.yaml"));
    assert!(
        wanted_units(tree)
            .iter()
            .any(|path| path.ends_with("/systemd-networkd.service"))
    );
}

#[test]
fn the_size_as_a_uki_is_said_beside_its_limits_and_again_from_the_cache() {
    let Some(made) = trusted() else { return };
    let line = |ran: &Ran| {
        let found = ran
            .lines
            .iter()
            .find(|(_, line)| line.contains("as a UKI at most"));
        found
            .unwrap_or_else(|| panic!("not said:\n{}", ran.last_lines(40)))
            .1
            .clone()
    };
    let said = line(&made.ran);
    for words in [
        "kernel",
        "root filesystem",
        "in memory",
        "AuroraBoot",
        "installed machine",
    ] {
        assert!(said.contains(words), "no {words:?} in {said:?}");
    }
    let again = made.again();
    for layer in ["packages", "kernel", "kairos", "init"] {
        assert!(again.says(&format!("layer {layer}: cached")), "{layer}");
    }
    assert_eq!(again.digest(), made.ran.digest());
    assert_eq!(line(&again), said);
}

#[test]
fn packages_that_are_left_out_are_gone_with_their_services_and_the_saving_is_said() {
    let Some(made) = trimmed() else { return };
    let tree = &made.tree;
    assert!(!installed(tree, "fail2ban") && !installed(tree, "neovim") && installed(tree, "tmux"));
    assert!(
        !wanted_units(tree)
            .iter()
            .any(|path| path.contains("fail2ban"))
    );
    assert!(
        !made.ran.says("fail2ban is not installed"),
        "{}",
        made.ran.last_lines(60)
    );
    for option in ["--without saves ", "--kernel saves ", "--firmware saves "] {
        let (_, line) = made
            .ran
            .lines
            .iter()
            .find(|(_, line)| line.starts_with(option))
            .unwrap_or_else(|| panic!("no {option:?}:\n{}", made.ran.last_lines(60)));
        assert!(line.contains("MiB") || line.contains("KiB"), "{line}");
    }
}

#[test]
fn an_image_without_a_kernel_says_what_it_is_good_for() {
    let Some(made) = trimmed() else { return };
    let tree = &made.tree;
    made.ran.tells(&["no kernel is installed", "UKI"]);
    for path in ["boot/vmlinuz", "boot/initrd"] {
        assert!(!tree.has(path), "{path}");
    }
    assert!(!tree.has("usr/lib/modules") || tree.names("usr/lib/modules").is_empty());
    assert!(!installed(tree, "linux-image-amd64"));
    assert!(tree.has("etc/kairos-release") && tree.has("etc/cos/grub.cfg"));
}
