//! Bases: a root of Debian with the package managers of other families, and a layer that makes it one of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use kfactory_layers::digest::Digest;
use serde_json::json;

use crate::support::base::{Bootstrap, os_release_tar};
use crate::support::{run, skipped, world};

/// A release of Debian with package managers of other families.
#[derive(Debug)]
pub(super) struct Root {
    suite: &'static str,
    /// What it is made with.
    options: &'static [&'static str],
    made: OnceLock<Result<(PathBuf, Digest, u64), String>>,
}

/// dnf 4.14, zypper 1.14.59, rpm 4.18: what Enterprise Linux 9 and SUSE 15 have.
pub(super) static OLDER: Root = Root::new(
    "bookworm",
    &[
        "--include=bash,binutils,ca-certificates,cryptsetup,cryptsetup-bin,curl,dmsetup,dnf,dosfstools,dracut,dracut-live,dracut-network,\
     e2fsprogs,gawk,iproute2,iputils-arping,isc-dhcp-client,kmod,less,lvm2,multipath-tools,openssh-server,rpm,rsync,\
     squashfs-tools,sudo,systemd,systemd-resolved,systemd-sysv,systemd-timesyncd,udev,zstd,zypper",
    ],
);

/// dnf 5.4, dnf 4.24, zypper 1.14.101, pacman 7.1, rpm 6: what Fedora, Enterprise Linux 10, SUSE 16 and Arch are moving to.
pub(super) static NEWER: Root = Root::new(
    "sid",
    // Its lists are soon out of date where a mirror stands still.
    &[
        "--aptopt=Acquire::Check-Valid-Until \"false\"",
        "--include=bash,binutils,ca-certificates,cryptsetup,cryptsetup-bin,curl,dhcpcd-base,dmsetup,dnf,dnf5,dosfstools,dracut,dracut-live,\
     dracut-network,e2fsprogs,gawk,iproute2,iputils-arping,kmod,less,lvm2,multipath-tools,openssh-server,\
     pacman-package-manager,rpm,rsync,squashfs-tools,sudo,systemd,systemd-cryptsetup,systemd-resolved,systemd-sysv,systemd-timesyncd,udev,\
     zstd,zypper",
    ],
);

const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The mode that makes a symbolic link of a file; its content is the target.
pub(super) const LINK: u32 = 0o120_777;

/// What an initrd made by dracut must hold.
pub(super) const DRACUT_INITRD: &[&str] = &[
    "usr/bin/immucore",
    "usr/bin/kairos-agent",
    "usr/lib/systemd/system/immucore.service",
];

/// A base of one family, and what its conversion is to bring.
#[derive(Debug)]
pub(super) struct Family {
    /// The name of its os-release among the test data.
    pub(super) name: &'static str,
    /// What its packages are installed with.
    pub(super) manager: &'static str,
    /// The base, as the program takes it.
    pub(super) location: String,
    /// Every package that the plan names.
    pub(super) packages: Vec<String>,
    /// The version of the kernel it is to boot.
    pub(super) kernel: String,
    /// Files that its initrd must hold.
    pub(super) initrd: &'static [&'static str],
    /// What its packages are written down in, where this machine can read it.
    pub(super) database: Option<Database>,
}

/// A package database, with its place relative to the root.
#[derive(Debug, Clone, Copy)]
pub(super) enum Database {
    Rpm(&'static str),
    Pacman(&'static str),
}

/// Returns the text of an os-release among the test data.
pub(super) fn os_release(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/os-release")
        .join(name);
    fs::read_to_string(path).expect("a sample")
}

/// Returns a directory that holds nothing but the os-release of `name`.
pub(super) fn os_release_dir(name: &str) -> PathBuf {
    os_release_tar(&format!("family-{name}"), &os_release(name)).with_extension("")
}

/// Returns names in lists of a plan (`packages`, `kernel`, `repository`).
pub(super) fn chosen(plan: &serde_json::Value, lists: &[&str]) -> Vec<String> {
    let lists = lists.iter().filter_map(|list| plan[list].as_array());
    let names = lists
        .flatten()
        .filter_map(|package| package["name"].as_str());
    names.map(str::to_owned).collect()
}

/// Makes a base of `root` and `files` (path, mode, content); returns where it is. `None` where there is no root.
pub(super) fn make(
    root: &'static Root,
    name: &str,
    files: &[(String, u32, String)],
) -> Option<String> {
    let (root, digest, size) = root.tar()?;
    let dir = world().own_dir(&format!("families-bases/{name}"));
    let blobs = world().own_dir(&format!("families-bases/{name}/blobs/sha256"));
    let place = blobs.join(digest.hex());
    if !place.exists() && fs::hard_link(root, &place).is_err() {
        fs::copy(root, &place).expect("room for a copy");
    }
    let layer = layer(name, files);
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).expect("written");
        json!({ "digest": digest.to_string(), "size": bytes.len() })
    };
    let typed = |mut descriptor: serde_json::Value, media_type: &str| {
        descriptor["mediaType"] = json!(format!("application/vnd.oci.image.{media_type}"));
        descriptor
    };
    let own = typed(put(&layer), "layer.v1.tar");
    let config = json!({
        "architecture": if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest.to_string(), own["digest"]] },
    });
    let config = typed(put(config.to_string().as_bytes()), "config.v1+json");
    let shared = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest.to_string(), "size": size,
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [shared, own],
    });
    let manifest = typed(put(manifest.to_string().as_bytes()), "manifest.v1+json");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(dir.join("index.json"), index.to_string()).expect("written");
    Some(format!("oci:{}", dir.display()))
}

/// Returns the changeset with `files`; a name that begins with `.wh.` takes one away, a mode of [`LINK`] makes a link.
fn layer(name: &str, files: &[(String, u32, String)]) -> Vec<u8> {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = world().own_dir(&format!("families-layers/{name}"));
    for (path, mode, content) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("below")).expect("a directory");
        if *mode == LINK {
            std::os::unix::fs::symlink(content, &path).expect("a fresh directory");
            continue;
        }
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).expect("ours");
    }
    let tar = dir.with_extension("tar");
    run(Command::new("tar")
        .args([
            "--numeric-owner",
            "--owner=0",
            "--group=0",
            "--mtime=@0",
            "--sort=name",
            "-C",
        ])
        .arg(&dir)
        .arg("-cf")
        .arg(&tar)
        .arg("."));
    fs::read(tar).expect("made")
}

impl Root {
    const fn new(suite: &'static str, options: &'static [&'static str]) -> Self {
        Self {
            suite,
            options,
            made: OnceLock::new(),
        }
    }

    /// Returns the names of the packages that it is made of.
    pub(super) fn packages(&'static self) -> Option<Vec<String>> {
        let (root, ..) = self.tar()?;
        let status = run(Command::new("tar")
            .arg("-xOf")
            .arg(root)
            .arg("./var/lib/dpkg/status"));
        let names = status
            .lines()
            .filter_map(|line| line.strip_prefix("Package: "));
        Some(names.map(str::to_owned).collect())
    }

    /// Returns its tar file with digest and size; made once a month on a machine.
    fn tar(&'static self) -> Option<(&'static Path, Digest, u64)> {
        match self.made.get_or_init(|| self.bootstrap()) {
            Ok((path, digest, size)) => Some((path, *digest, *size)),
            Err(why) => {
                skipped(why);
                None
            }
        }
    }

    fn bootstrap(&self) -> Result<(PathBuf, Digest, u64), String> {
        // Another list makes another root.
        let list = Digest::of(self.options.concat().as_bytes()).hex();
        let made = Bootstrap {
            name: &format!("families-{}-{}", self.suite, &list[..8]),
            suite: self.suite,
            options: self.options,
            sources: &[],
            max_age: MAX_AGE,
        }
        .tar()?;
        let mut hasher = kfactory_layers::digest::Hasher::new();
        let mut file = File::open(&made).map_err(|error| error.to_string())?;
        let mut buffer = vec![0; 1 << 20];
        let mut size = 0;
        while let Ok(count @ 1..) = std::io::Read::read(&mut file, &mut buffer) {
            hasher.update(&buffer[..count]);
            size += count as u64;
        }
        Ok((made, hasher.finish(), size))
    }
}
