//! Where images come from and go to: registry references, layouts, archives, root filesystems.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};
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

    /// Returns the archive file, where the place is one.
    pub fn file(&self) -> Option<&std::path::Path> {
        match self {
            Location::OciArchive { file, .. } | Location::DockerArchive { file, .. } => Some(file),
            _ => None,
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

fn parse_reference(text: &str) -> Result<Location> {
    if FILE_ENDINGS.iter().any(|ending| text.ends_with(ending)) {
        return Err(
            Error::usage(format!("`{text}` looks like a file, not like an image in a registry")).hint(
                format!("an archive is `oci-archive:{text}`, `docker-archive:{text}` or `tar:{text}`; a recipe is given by `-f`"),
            ),
        );
    }
    match text.parse::<Reference>() {
        Ok(reference) => Ok(Location::Registry(reference)),
        Err(error) => {
            let mut out = Error::from_source(&error)
                .context(format!("cannot read `{text}` as an image"))
                .kind_is(crate::error::Kind::Usage);
            out = if std::path::Path::new(text).is_dir() {
                out.hint(format!(
                    "a root filesystem is `dir:{text}`, an OCI layout is `oci:{text}`"
                ))
            } else if std::path::Path::new(text).is_file() {
                out.hint(format!(
                    "an archive is `oci-archive:{text}`, `docker-archive:{text}` or `tar:{text}`"
                ))
            } else {
                out.hint("known forms: `registry/repository:tag`, `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:ROOTFS`, `tar:FILE`")
            };
            Err(out)
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
