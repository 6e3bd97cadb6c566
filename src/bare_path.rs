//! A path without a scheme where an image is meant: which form of location it is.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use kfactory_layers::archive::{DockerArchive, OciArchive};

use crate::registry::Reference;

/// Endings of what may be an archive; other files are given to other options.
const NO_ARCHIVES: [&str; 2] = [".yaml", ".yml"];
/// Where a tar file says that it is one, and how. Spec: pax(1), "ustar Interchange Format", field `magic`.
const MAGIC: (u64, &[u8]) = (257, b"ustar");
/// Where a disc says that it is one, and how. Spec: ECMA-119, 8.1.2.
const DISC_MAGIC: (u64, &[u8]) = (0x8001, b"CD001");

/// Returns what was probably meant by `text`, as a hint; `None` where no directory and no file has that name.
pub(crate) fn hint(text: &str) -> Option<String> {
    let path = Path::new(text);
    if path.is_dir() {
        let scheme = match path.join("oci-layout").exists() {
            true => "oci",
            false => "dir",
        };
        return Some(format!("did you mean the directory, `{scheme}:{text}`?"));
    }
    if !path.is_file() || NO_ARCHIVES.iter().any(|end| text.ends_with(end)) {
        return None;
    }
    if has(path, DISC_MAGIC) {
        return Some(format!(
            "did you mean the live medium? `kfactory netboot iso:{text}` reads it"
        ));
    }
    Some(match archive_scheme(path) {
        Some(scheme) => format!("did you mean the file, `{scheme}:{text}`?"),
        None => format!(
            "did you mean the file? An archive is `oci-archive:{text}`, `docker-archive:{text}` or `tar:{text}`"
        ),
    })
}

/// As [`hint`], for a reference that was read from a text: a short name, which a path looks like.
pub(crate) fn hint_for(reference: &Reference) -> Option<String> {
    let text = reference.familiar();
    let text = text.strip_suffix(":latest").unwrap_or(&text);
    hint(text)
}

/// Returns the scheme of an archive that need not be decompressed to tell.
fn archive_scheme(path: &Path) -> Option<&'static str> {
    if !has(path, MAGIC) {
        return None;
    }
    Some(if OciArchive::open(path).is_ok() {
        "oci-archive"
    } else if DockerArchive::open(path).is_ok() {
        "docker-archive"
    } else {
        "tar"
    })
}

/// Tells whether the file at `path` has these bytes at this place.
fn has(path: &Path, (offset, magic): (u64, &[u8])) -> bool {
    let mut found = vec![0; magic.len()];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut found, offset));
    read.is_ok() && found == magic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_told_by_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path();
        std::fs::create_dir(top.join("rootfs")).unwrap();
        std::fs::create_dir(top.join("layout")).unwrap();
        std::fs::write(top.join("layout/oci-layout"), "{}").unwrap();
        let mut header = vec![0; 1024];
        header[257..262].copy_from_slice(b"ustar");
        std::fs::write(top.join("base.tar"), header).unwrap();
        std::fs::write(top.join("packed"), [0x1f, 0x8b]).unwrap();
        let mut disc = vec![0; 0x9000];
        disc[0x8001..0x8006].copy_from_slice(b"CD001");
        std::fs::write(top.join("os.iso"), disc).unwrap();
        std::fs::write(top.join("recipe.yaml"), "base: x").unwrap();
        let shown = top.display();
        for (name, expected) in [
            ("rootfs", Some("`dir:")),
            ("layout", Some("`oci:")),
            ("base.tar", Some("`tar:")),
            ("packed", Some("`oci-archive:")),
            ("os.iso", Some("`kfactory netboot iso:")),
            ("recipe.yaml", None),
            ("missing", None),
        ] {
            let said = hint(&format!("{shown}/{name}"));
            match expected {
                Some(scheme) => {
                    let form = format!("{scheme}{shown}/{name}`");
                    assert!(
                        said.as_ref().is_some_and(|it| it.contains(&form)),
                        "{name}: {said:?}"
                    );
                }
                None => assert_eq!(said, None, "{name}"),
            }
        }
    }
}
