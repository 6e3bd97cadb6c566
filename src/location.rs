//! Where images come from and go to: registry references, layouts, archives, root filesystems.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::bare_path;
use crate::error::{Error, Result};
use crate::given;
use crate::registry::Reference;

/// A place that holds an image, as the user writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `[docker://]registry/repository:tag@digest`, Docker Hub short names included.
    Registry(Reference),
    /// `oci:DIR[:TAG]`: an OCI image layout directory.
    Layout {
        /// The layout's directory.
        dir: PathBuf,
        /// The tag inside its index; `None` means the only image there.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`: an OCI image layout in a tar file.
    OciArchive {
        /// The tar file.
        file: PathBuf,
        /// The tag inside its index; `None` means the only image there.
        tag: Option<String>,
    },
    /// `docker-archive:FILE[:REFERENCE]`: what `docker save` writes.
    DockerArchive {
        /// The tar file.
        file: PathBuf,
        /// The `RepoTags` entry; `None` means the only image there.
        reference: Option<String>,
    },
    /// `dir:ROOTFS`: an unpacked root filesystem; only a source.
    Dir(PathBuf),
    /// `tar:FILE`: a root filesystem in a tar file, compressed or not; only a source.
    Tar(PathBuf),
    /// `store:NAME`: a result that an earlier run left in the store.
    Store(String),
}

impl Location {
    /// Returns whether an image can be written here.
    pub fn is_destination(&self) -> bool {
        !matches!(self, Location::Dir(_) | Location::Tar(_))
    }

    /// Checks that an image can be written here.
    ///
    /// # Errors
    ///
    /// A usage error that names what can take its place.
    pub fn check_destination(&self) -> Result<()> {
        if self.is_destination() {
            return Ok(());
        }
        let error = Error::usage(format!("`{self}` cannot be a destination"));
        Err(match self {
            Location::Tar(file) => error.hint(format!(
                "`oci-archive:{}` writes an image into a file",
                file.display()
            )),
            _ => error.hint("`kfactory unpack IMAGE DIR` makes a directory"),
        }
        .hint("an image goes to a registry, `oci:DIR`, `oci-archive:FILE`, `docker-archive:FILE` or `store:NAME`"))
    }

    /// Checks that there is something to read here, where the place is on this machine.
    ///
    /// # Errors
    ///
    /// The directory or the file is not there, or is the one where the other is meant.
    pub fn check_there(&self) -> Result<()> {
        match self {
            Location::Dir(dir) => given::directory(dir).map_err(|error| match dir.is_file() {
                true => error.hint(format!("`tar:{}` if it is an archive", dir.display())),
                false => error,
            }),
            Location::Tar(file) => given::file(file).map_err(|error| match file.is_dir() {
                true => error.hint(format!(
                    "`dir:{}` if it is a root filesystem",
                    file.display()
                )),
                false => error,
            }),
            Location::Layout { dir, .. } => given::directory(dir),
            Location::OciArchive { file, .. } | Location::DockerArchive { file, .. } => {
                given::file(file)
            }
            Location::Registry(_) | Location::Store(_) => Ok(()),
        }
    }

    /// Returns the archive file, where the place is one.
    pub fn file(&self) -> Option<&std::path::Path> {
        match self {
            Location::OciArchive { file, .. } | Location::DockerArchive { file, .. } => Some(file),
            _ => None,
        }
    }

    /// Returns the file or directory that an image is written to, where it is one.
    pub fn place(&self) -> Option<&std::path::Path> {
        match self {
            Location::Layout { dir, .. } => Some(dir),
            other => other.file(),
        }
    }

    /// Tells whether nothing can be read here because nothing is here; a registry and the store are not asked.
    pub fn is_vacant(&self) -> bool {
        match self {
            Location::Layout { dir, .. } => !dir.join("oci-layout").exists(),
            Location::OciArchive { file, .. } | Location::DockerArchive { file, .. } => {
                !file.exists()
            }
            Location::Dir(path) | Location::Tar(path) => !path.exists(),
            Location::Registry(_) | Location::Store(_) => false,
        }
    }

    /// Returns a readable name: of a path or a repository the last part, without the ending of an archive; with the tag, if there is one.
    pub fn short_name(&self) -> String {
        let text = match self {
            Location::Dir(path) => file_name(path),
            Location::Tar(path) => without_ending(&file_name(path)).to_owned(),
            Location::OciArchive { file, .. } | Location::DockerArchive { file, .. } => {
                without_ending(&file_name(file)).to_owned()
            }
            Location::Layout { dir, .. } => file_name(dir),
            Location::Registry(reference) => {
                file_name(std::path::Path::new(reference.repository()))
            }
            Location::Store(name) => return file_name(std::path::Path::new(name)),
        };
        match self.tag() {
            Some(tag) => format!("{text}-{tag}"),
            None => text,
        }
    }

    /// Returns the tag that names the result, where the place has one.
    pub fn tag(&self) -> Option<&str> {
        match self {
            Location::Registry(reference) => reference.tag(),
            Location::Layout { tag, .. } | Location::OciArchive { tag, .. } => tag.as_deref(),
            Location::DockerArchive { reference, .. } => reference
                .as_deref()
                .and_then(|r| r.rsplit_once(':'))
                .map(|(_, tag)| tag)
                .filter(|t| !t.contains('/')),
            Location::Store(name) => name.rsplit_once(':').map(|(_, tag)| tag),
            Location::Dir(_) | Location::Tar(_) => None,
        }
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return parse_reference(text);
        };
        if let Some(right) = other_spelling(scheme, rest) {
            return Err(Error::usage(format!("cannot read `{text}` as an image")).hint(right));
        }
        // A tag alone, as of `oci::v1`, names nothing.
        let non_empty = |what: &str| {
            if rest.is_empty() || rest.starts_with(':') {
                Err(Error::usage(format!("`{text}` names no {what}"))
                    .hint(format!("`{scheme}:{}`", what.to_uppercase())))
            } else {
                Ok(())
            }
        };
        match scheme {
            "docker" => parse_reference(rest.strip_prefix("//").unwrap_or(rest)),
            "oci" => {
                non_empty("directory")?;
                let (dir, tag) = split_tag(rest);
                Ok(Location::Layout {
                    dir: dir.into(),
                    tag,
                })
            }
            "oci-archive" => {
                non_empty("file")?;
                let (file, tag) = split_tag(rest);
                Ok(Location::OciArchive {
                    file: file.into(),
                    tag,
                })
            }
            "docker-archive" => {
                non_empty("file")?;
                let (file, reference) = match rest.split_once(':') {
                    Some((file, reference)) if !reference.is_empty() => {
                        (file, Some(reference.to_owned()))
                    }
                    _ => (rest.trim_end_matches(':'), None),
                };
                Ok(Location::DockerArchive {
                    file: file.into(),
                    reference,
                })
            }
            "dir" => non_empty("directory").map(|()| Location::Dir(rest.into())),
            "tar" => non_empty("file").map(|()| Location::Tar(rest.into())),
            "store" => non_empty("name").map(|()| Location::Store(rest.to_owned())),
            _ => parse_reference(text),
        }
    }
}

/// Returns how to write what other programs write as `SCHEME:REST`; `None` for what is no such form.
fn other_spelling(scheme: &str, rest: &str) -> Option<String> {
    let bare = rest.trim_start_matches('/');
    Some(match scheme {
        "https" if rest.starts_with("//") => {
            format!("an image in a registry is written without `https://`: `{bare}`")
        }
        "http" if rest.starts_with("//") => {
            let host = bare.split('/').next().unwrap_or(bare);
            format!("write `{bare}`; `--insecure-registry {host}` allows plain HTTP")
        }
        // Three slashes begin a path.
        "oci" if rest.starts_with("//") && !rest.starts_with("///") => {
            format!("`oci:` is a directory on this machine; an image in a registry is `{bare}`")
        }
        "containers-storage" => {
            // The store's own place may stand before the name.
            let image = rest.rsplit(']').next().unwrap_or(rest);
            format!(
                "`podman save --format oci-archive -o image.tar {image}`, then `oci-archive:image.tar`"
            )
        }
        "docker-daemon" => {
            format!("`docker save -o image.tar {rest}`, then `docker-archive:image.tar`")
        }
        "tarball" => format!("a root filesystem in a tar file is `tar:{rest}`"),
        "file" => {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            format!(
                "an archive is `oci-archive:{path}`, `docker-archive:{path}` or `tar:{path}`, a directory `oci:{path}` or `dir:{path}`"
            )
        }
        _ => return None,
    })
}

/// Splits `PATH[:TAG]`; a colon followed by a slash belongs to the path.
fn split_tag(text: &str) -> (&str, Option<String>) {
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !path.is_empty() && !tag.is_empty() => {
            (path, Some(tag.to_owned()))
        }
        Some((path, "")) => (path, None),
        _ => (text, None),
    }
}

/// Endings that nobody gives a repository, but everybody a file.
const FILE_ENDINGS: &[&str] = &[
    ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".yaml", ".yml",
];

fn without_ending(name: &str) -> &str {
    let endings = FILE_ENDINGS.iter();
    let longest = endings
        .filter(|end| name.ends_with(*end))
        .max_by_key(|end| end.len());
    longest.map_or(name, |end| &name[..name.len() - end.len()])
}

fn file_name(path: &std::path::Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.map_or_else(|| "rootfs".into(), std::borrow::Cow::into_owned)
}

fn parse_reference(text: &str) -> Result<Location> {
    if FILE_ENDINGS.iter().any(|ending| text.ends_with(ending)) {
        let hint = bare_path::hint(text).unwrap_or_else(|| {
            format!("an archive is `oci-archive:{text}`, `docker-archive:{text}` or `tar:{text}`; a recipe is given by `-f`")
        });
        return Err(Error::usage(format!(
            "`{text}` looks like a file, not like an image in a registry"
        ))
        .hint(hint));
    }
    match text.parse::<Reference>() {
        Ok(reference) => Ok(Location::Registry(reference)),
        Err(error) => {
            let hint = bare_path::hint(text).unwrap_or_else(|| {
                "known forms: `registry/repository:tag`, `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:ROOTFS`, `tar:FILE`".to_owned()
            });
            Err(Error::from_source(&error)
                .context(format!("cannot read `{text}` as an image"))
                .kind_is(crate::error::Kind::Usage)
                .hint(hint))
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tagged = |f: &mut fmt::Formatter<'_>,
                      scheme: &str,
                      path: &PathBuf,
                      tag: &Option<String>| match tag {
            Some(tag) => write!(f, "{scheme}:{}:{tag}", path.display()),
            None => write!(f, "{scheme}:{}", path.display()),
        };
        match self {
            Location::Registry(reference) => write!(f, "{reference}"),
            Location::Layout { dir, tag } => tagged(f, "oci", dir, tag),
            Location::OciArchive { file, tag } => tagged(f, "oci-archive", file, tag),
            Location::DockerArchive { file, reference } => {
                tagged(f, "docker-archive", file, reference)
            }
            Location::Dir(path) => write!(f, "dir:{}", path.display()),
            Location::Tar(path) => write!(f, "tar:{}", path.display()),
            Location::Store(name) => write!(f, "store:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_printed_alike() {
        for (text, tag) in [
            ("oci:out", None),
            ("oci:/a/b:v1.0.0", Some("v1.0.0")),
            ("oci-archive:x.tar:v1", Some("v1")),
            ("docker-archive:x.tar:me/os:v1.0.0", Some("v1.0.0")),
            ("dir:/rootfs", None),
            ("tar:rootfs.tar.gz", None),
            ("store:me-os:v1", Some("v1")),
        ] {
            let location: Location = text.parse().unwrap();
            assert_eq!(location.to_string(), text);
            assert_eq!(location.tag(), tag, "{text}");
        }
    }

    #[test]
    fn a_short_name_is_the_last_part_without_the_ending_of_an_archive() {
        for (text, name) in [
            ("debian:12", "debian-12"),
            ("127.0.0.1:5000/me/os", "os-latest"),
            ("tar:/a/rootfs.tar.gz", "rootfs"),
            ("tar:base.tar", "base"),
            ("dir:/a/rootfs", "rootfs"),
            ("dir:.", "rootfs"),
            ("oci:/a/out:v1", "out-v1"),
            ("docker-archive:x.tar:me/os:v1", "x-v1"),
            ("store:me-os:v1", "me-os:v1"),
            ("store:oci:out/x", "x"),
        ] {
            assert_eq!(
                text.parse::<Location>().unwrap().short_name(),
                name,
                "{text}"
            );
        }
    }

    #[test]
    fn a_colon_inside_a_path_is_not_a_tag() {
        let location: Location = "oci:/a:b/c".parse().unwrap();
        assert_eq!(
            location,
            Location::Layout {
                dir: "/a:b/c".into(),
                tag: None
            }
        );
    }

    #[test]
    fn a_registry_with_a_port_is_not_a_scheme() {
        let location: Location = "127.0.0.1:5000/me/os:v1.0.0".parse().unwrap();
        assert_eq!(location.tag(), Some("v1.0.0"));
        assert!(matches!(location, Location::Registry(_)));
    }

    #[test]
    fn the_forms_of_other_programs_are_answered_with_ours() {
        for (text, right) in [
            ("https://ghcr.io/me/os:v1", "`ghcr.io/me/os:v1`"),
            (
                "http://r.example:5000/me/os",
                "write `r.example:5000/me/os`; `--insecure-registry r.example:5000`",
            ),
            ("oci://ghcr.io/me/os:v1", "`ghcr.io/me/os:v1`"),
            (
                "containers-storage:[overlay@/x]localhost/os:v1",
                "-o image.tar localhost/os:v1`",
            ),
            ("docker-daemon:os:v1", "`docker save -o image.tar os:v1`"),
            ("tarball:x.tar", "`tar:x.tar`"),
            ("file:///x.tar", "`oci-archive:/x.tar`"),
        ] {
            let error = text.parse::<Location>().expect_err(text);
            assert_eq!(error.kind(), crate::error::Kind::Usage, "{text}");
            let said = error.render_text();
            assert!(said.contains(right), "{said}");
        }
        let place = |text: &str| text.parse::<Location>().expect(text).to_string();
        assert_eq!(place("docker://ghcr.io/me/os:v1"), "ghcr.io/me/os:v1");
        assert_eq!(place("oci:///tmp/x"), "oci:///tmp/x");
    }

    #[test]
    fn what_cannot_be_a_destination_is_answered_with_what_can() {
        for (text, right) in [
            ("tar:x.tar", "`oci-archive:x.tar`"),
            ("dir:x", "`kfactory unpack"),
        ] {
            let place: Location = text.parse().unwrap();
            let said = place.check_destination().expect_err(text).render_text();
            assert!(said.contains(right), "{said}");
        }
    }

    #[test]
    fn a_scheme_without_a_path_is_refused() {
        for text in [
            "oci:",
            "dir:",
            "tar:",
            "store:",
            "oci::",
            "oci::v1",
            "oci-archive::v1",
            "docker-archive::",
            "store::",
        ] {
            let error = text.parse::<Location>().expect_err(text);
            assert_eq!(error.kind(), crate::error::Kind::Usage, "{text}");
        }
    }
}
