//! Conversions with other packages than the rules choose, and for Trusted Boot: real ones, looked at from outside.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::support::conversion::{BASE, conversion, convert};
use crate::support::program::Ran;
use crate::support::tree::Tree;
use crate::support::user::is_root;
use crate::support::{Kfactory, world};

/// An image converted with options, and what was said.
struct Made {
    ran: Ran,
    tree: Tree,
}

/// Converts the base that all tests share, beside the image that all tests look at: its store has the packages.
fn make(name: &str, options: &[&str]) -> Option<Made> {
    let shared = conversion()?;
    let layout = format!(
        "oci:{}:v2.0.0",
        world().user_dir(name).join("layout").display()
    );
    let ran = convert(&shared.server.reference(BASE), &layout, &shared.store)
        .args(options)
        .succeed();
    let dir: PathBuf = world().dir.join(if is_root() {
        name.to_owned()
    } else {
        format!("home/{name}-tree")
    });
    let dir = dir.join("tree");
    Kfactory::as_caller(["unpack", &layout, dir.to_str().expect("UTF-8")])
        .store(&world().dir.join(if is_root() {
            "unpack-store"
        } else {
            "home/store"
        }))
        .succeed();
    Some(Made {
        ran,
        tree: Tree::new(dir),
    })
}

fn trusted() -> Option<&'static Made> {
    static MADE: OnceLock<Option<Made>> = OnceLock::new();
    MADE.get_or_init(|| make("trusted", &["--trusted", "--firmware", "none"]))
        .as_ref()
}

fn trimmed() -> Option<&'static Made> {
    static MADE: OnceLock<Option<Made>> = OnceLock::new();
    let options = [
        "--kernel",
        "none",
        "--firmware",
        "none",
        "--without",
        "fail2ban,neovim",
        "--with",
        "tmux",
    ];
    MADE.get_or_init(|| make("trimmed", &options)).as_ref()
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
    let shared = conversion().expect("there is one");
    let again = convert(
        &shared.server.reference(BASE),
        &format!(
            "oci:{}:v2.0.0",
            world().user_dir("trusted-again").join("layout").display()
        ),
        &shared.store,
    )
    .args(["--trusted", "--firmware", "none"])
    .succeed();
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
