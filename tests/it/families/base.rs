//! Bases: a root of Debian with the package managers of other families, and a layer that makes it one of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use kfactory_layers::digest::Digest;
use serde_json::json;

use crate::support::base::os_release_tar;
use crate::support::world::cache_dir;
use crate::support::{run, skipped, world};

const PACKAGES: &str = "bash,binutils,ca-certificates,cryptsetup,cryptsetup-bin,curl,dmsetup,dnf,dosfstools,dracut,dracut-live,dracut-network,e2fsprogs,gawk,\
    iproute2,iputils-arping,isc-dhcp-client,kmod,less,lvm2,multipath-tools,openssh-server,pacman-package-manager,rpm,rsync,\
    squashfs-tools,sudo,systemd,systemd-resolved,systemd-sysv,systemd-timesyncd,udev,zstd,zypper";
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

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
    /// Where rpm keeps its database, relative to the root.
    pub(super) rpm_database: Option<&'static str>,
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

/// Makes a base of the shared root and `files` (path, mode, content); returns where it is. `None` where there is no root.
pub(super) fn make(name: &str, files: &[(String, u32, String)]) -> Option<String> {
    let (root, digest, size) = shared_root()?;
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

/// Returns the changeset with `files`; a name that begins with `.wh.` takes one away.
fn layer(name: &str, files: &[(String, u32, String)]) -> Vec<u8> {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = world().own_dir(&format!("families-layers/{name}"));
    for (path, mode, content) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("below")).expect("a directory");
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

/// Returns the names of the packages that the shared root is made of.
pub(super) fn root_packages() -> Option<Vec<String>> {
    let (root, ..) = shared_root()?;
    let status = run(Command::new("tar")
        .arg("-xOf")
        .arg(root)
        .arg("./var/lib/dpkg/status"));
    let names = status
        .lines()
        .filter_map(|line| line.strip_prefix("Package: "));
    Some(names.map(str::to_owned).collect())
}

/// Returns the tar file of the shared root with its digest and size; made once a month on a machine.
fn shared_root() -> Option<(&'static Path, Digest, u64)> {
    static ROOT: OnceLock<Result<(PathBuf, Digest, u64), String>> = OnceLock::new();
    match ROOT.get_or_init(bootstrap) {
        Ok((path, digest, size)) => Some((path, *digest, *size)),
        Err(why) => {
            skipped(why);
            None
        }
    }
}

fn bootstrap() -> Result<(PathBuf, Digest, u64), String> {
    let made = cache_dir().join("families.tar");
    let lock =
        File::create(cache_dir().join("families.lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let age = made
        .metadata()
        .and_then(|m| m.modified())
        .ok()
        .and_then(|time| time.elapsed().ok());
    if age.is_none_or(|age| age > MAX_AGE) {
        let part = made.with_extension("part.tar");
        let output = Command::new("mmdebstrap")
            .args(["--quiet", "--format=tar", "--variant=apt"])
            .arg(format!("--include={PACKAGES}"))
            .arg("bookworm")
            .arg(&part)
            .env("SOURCE_DATE_EPOCH", crate::support::program::EPOCH)
            .output()
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text.lines().last().unwrap_or_default();
            return Err(format!("mmdebstrap cannot make a base system: {last}"));
        }
        fs::rename(&part, &made).map_err(|error| error.to_string())?;
    }
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
