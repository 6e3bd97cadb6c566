//! What was composed boots in QEMU, on plain emulation, until its menu is on the serial console.

mod disk;
mod live;
mod machine;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use kfactory_layers::metadata::Timestamp;

use super::Files as _;
use super::efi::{EfiContent, Medium, plan};
use super::sample::Host;
use crate::artifact::fat::{Builder, Volume};
use crate::artifact::judge::skip;
use crate::artifact::region::Region;
use crate::distro::Arch;

/// Makes a FAT in `dir` with this machine's shim and GRUB; `None`, with a line that says so, where there is no GRUB. Returns its
/// file, and its texts by their paths.
fn fat(dir: &Path, medium: Medium, chain: &str) -> Option<(String, Vec<(String, String)>)> {
    let Ok(plan) = plan(Arch::Amd64, medium, &Host, chain) else {
        skip("grub-efi-amd64-bin is not installed");
        return None;
    };
    let mut fat = Builder::new(Volume {
        label: "EFI".to_owned(),
        serial: 1,
        time: Timestamp::EPOCH,
        kind: None,
        hidden_sectors: 0,
    });
    let contents: Vec<_> = plan
        .files
        .iter()
        .map(|file| {
            let bytes = match &file.content {
                EfiContent::Image(path) => Host.read(path).unwrap().unwrap(),
                EfiContent::Text(text) => text.clone().into_bytes(),
            };
            let id = fat.file(&file.path, bytes.len() as u64).unwrap();
            (id, bytes)
        })
        .collect();
    let layout = fat.layout(None).unwrap();
    let path = dir.join("fat");
    let file = File::create(&path).unwrap();
    file.set_len(layout.size()).unwrap();
    let region = Region::of_file(Arc::new(file), layout.size());
    layout.write(&region).unwrap();
    for (id, bytes) in contents {
        let place = region.part(&[layout.extent(id)]).unwrap();
        place.write_all_at(&bytes, 0).unwrap();
    }
    let owned = |(path, text): (&str, &str)| (path.to_owned(), text.to_owned());
    Some((
        path.display().to_string(),
        plan.texts().map(owned).collect(),
    ))
}

fn write(top: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = top.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
