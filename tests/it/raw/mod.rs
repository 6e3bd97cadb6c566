//! `kfactory raw`: disks as the programs see them that check disks, and the machines that start from them.

mod board;
mod chain;
mod forms;
mod judges;
mod refused;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::conversion::{Conversion, conversion};
use crate::support::installed_system::USER;
use crate::support::program::Kfactory;
use crate::support::shared::Shared;
use crate::support::world::Scratch;

/// A disk of the converted image.
#[derive(Debug)]
struct Disk {
    made: &'static Conversion,
    dir: Scratch,
    /// What a disk must have when it boots first, in MiB.
    needed_mib: u64,
}

impl Disk {
    /// Makes it as the plain user, who has no loop device and may not mount anything.
    fn make(made: &'static Conversion, name: &str) -> Self {
        let dir = Scratch::of_user(name);
        let config = dir.0.join("user.yaml");
        std::fs::write(&config, USER).expect("a directory of ours");
        let store = Scratch::of_user(&format!("{name}-store"));
        let ran = Kfactory::new(["raw", &made.reference(), "--progress", "json", "-o"])
            .args([&dir.0.join("os.raw")])
            .args([Path::new("--cloud-config"), &config])
            .store(&store.0)
            .dated()
            .succeed();
        eprintln!("a disk after {:.0} s", ran.took.as_secs_f64());
        let told: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let needed = told["first_boot_disk_bytes"].as_u64().expect("a number");
        Self {
            made,
            dir,
            needed_mib: needed.div_ceil(1 << 20),
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.0.join("os.raw")
    }
}

/// The disk that several tests look at.
fn disk() -> Option<Arc<Disk>> {
    static DISK: Shared<Disk> = Shared::new(3);
    let made = conversion();
    DISK.get(|| Some(Disk::make(made?, "raw-disk")))
}

/// Returns what gives a machine the disk in `file`, a qcow2.
fn drive(file: &Path) -> String {
    format!("if=virtio,format=qcow2,file={}", file.display())
}
