//! What can go wrong with the framework, and what to do about it.

use std::io;
use std::path::PathBuf;

use super::component::{Arch, COMPONENTS};
use super::{MIRROR_ENV, archive, http};

/// An error of any kind, from a part of the program that this module does not know.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a framework could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameworkError {
    /// The `--framework` value names nothing.
    #[error("`{0}` names no framework")]
    EmptySpec(String),
    /// An item of the version list has no `=`.
    #[error("`{0}` is not of the form NAME=VERSION")]
    NotAPair(String),
    /// No component has this name.
    #[error("no component of the framework is called `{0}`")]
    UnknownComponent(String),
    /// Not a version.
    #[error("`{version}` is not a version of {component}")]
    InvalidVersion {
        /// The component it was given for.
        component: &'static str,
        /// What was given.
        version: String,
    },
    /// A component that every image needs was to be left out.
    #[error("{0} cannot be left out: no image boots without it")]
    Required(&'static str),
    /// There are no FIPS releases for the architecture.
    #[error("upstream makes no FIPS releases for {0}")]
    NoFips(Arch),
    /// The source does not hold a program that every image needs.
    #[error("{origin} does not hold {target}")]
    Missing {
        /// The source.
        origin: String,
        /// The path that is missing.
        target: &'static str,
    },
    /// A program is for another machine.
    #[error("{} is for {found}, but the image is for {expected}", path.display())]
    WrongArch {
        /// The program.
        path: PathBuf,
        /// What it runs on.
        found: String,
        /// What it should run on.
        expected: Arch,
    },
    /// A program has no content, or is no regular file.
    #[error("{} is {what}, not a program", path.display())]
    NotAProgram {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// The manifest of a framework cannot be read, is not of the files beside it, or not for this image.
    #[error("{} does not fit: {reason}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A file is no longer what it was when the framework was resolved.
    #[error("{} changed while it was being used: expected sha256 {expected}, found {found}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its checksum before.
        expected: String,
        /// Its checksum now.
        found: String,
    },
    /// An image source, and nobody to read it.
    #[error("`{reference}` is an image, and images cannot be read here")]
    NoImageReader {
        /// What the user wrote.
        reference: String,
    },
    /// The image source could not be read.
    #[error("unpacking the framework image `{reference}`")]
    Image {
        /// What the user wrote.
        reference: String,
        /// Why not.
        source: BoxError,
    },
    /// A download or build is needed, and the network may not be used.
    #[error(
        "{component} {version} for {arch} is not in the cache, and the network may not be used"
    )]
    Offline {
        /// The component.
        component: &'static str,
        /// Its version.
        version: String,
        /// For which machine.
        arch: Arch,
    },
    /// A download failed.
    #[error(transparent)]
    Http(#[from] http::HttpError),
    /// The content is not what its checksum says.
    #[error("{what} has the wrong checksum: expected {expected} ({origin}), found {found}")]
    Checksum {
        /// URL or module.
        what: String,
        /// The checksum it should have.
        expected: String,
        /// Who says so.
        origin: String,
        /// The checksum it has.
        found: String,
    },
    /// The published checksums do not speak of the file.
    #[error("{url} has no checksum of {file:?}")]
    NotListed {
        /// The checksums file.
        url: String,
        /// The file that it should list.
        file: String,
    },
    /// There is nothing to verify the content with.
    #[error("{component} {version} cannot be verified: {reason}")]
    Unverifiable {
        /// The component.
        component: &'static str,
        /// Its version.
        version: String,
        /// What is missing.
        reason: String,
    },
    /// An archive cannot be read.
    #[error("reading {}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why not.
        source: archive::ArchiveError,
    },
    /// A release archive does not hold the program it is named after.
    #[error("the archive of {component} {version} holds no file called {component}")]
    NotInArchive {
        /// The component.
        component: &'static str,
        /// Its version.
        version: String,
    },
    /// There is no Go tool.
    #[error("there is no Go tool: {tried}")]
    NoGo {
        /// Where it was looked for.
        tried: String,
    },
    /// The Go tool failed.
    #[error("`{command}` {status}: {stderr}")]
    Go {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// The last lines it wrote.
        stderr: String,
    },
    /// The Go tool said something we do not understand.
    #[error("`{command}` answered {answer:?}")]
    GoAnswer {
        /// The command line.
        command: String,
        /// What it wrote.
        answer: String,
    },
    /// A FIPS build has no FIPS module in it.
    #[error("the FIPS build is none: `{command}` does not show `{setting}`")]
    NoFipsModule {
        /// The command that shows how a program was built.
        command: String,
        /// What it should show.
        setting: String,
    },
    /// A file operation failed.
    #[error("{doing} {}", path.display())]
    Io {
        /// A gerund.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FrameworkError {
    /// Returns what the user can try, one command, setting or value per line. Often empty.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::EmptySpec(_) => vec![
                "`release`, `release:immucore=v0.20.4`, `go`, `dir:PATH`, `tar:FILE`, `oci:DIR` or an image reference"
                    .into(),
            ],
            Self::UnknownComponent(_) | Self::NotAPair(_) => {
                let names: Vec<_> = COMPONENTS.iter().map(|c| format!("`{}`", c.name)).collect();
                vec![format!("the components are {}", names.join(", "))]
            }
            Self::InvalidVersion { .. } => vec!["a version looks like `v0.20.4`; moving names are not accepted".into()],
            Self::NoFips(_) => vec!["`--framework go` builds them for every architecture".into()],
            Self::Missing { target, .. } => {
                vec![format!("the directory must be laid out as in the image, with `.{target}` in it")]
            }
            Self::Offline { component, version, .. } => vec![
                "run the same command once with the network".into(),
                format!(
                    "`kfactory framework build -o oci:DIR` makes a framework to carry along, {component} {version} included"
                ),
            ],
            Self::Http(error) => http_hints(error),
            Self::Unverifiable { .. } => {
                vec!["give a version that is pinned, or your own programs with `--framework dir:PATH`".into()]
            }
            Self::NoGo { .. } => vec![
                "install Go from https://go.dev/dl, or a package such as `golang`".into(),
                "`--framework release` needs no Go".into(),
            ],
            Self::NoFipsModule { .. } => vec!["FIPS builds need Go 1.24 or later".into()],
            Self::Go { stderr, .. } => go_hints(stderr),
            Self::Archive { source: archive::ArchiveError::Link(_), .. } => {
                vec!["unpack the archive and give the directory with `--framework dir:PATH`".into()]
            }
            _ => Vec::new(),
        }
    }

    /// Returns a function that makes an I/O error of its cause, for `map_err`.
    pub(crate) fn io(
        doing: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

fn http_hints(error: &http::HttpError) -> Vec<String> {
    match error {
        http::HttpError::Status { status: 404, .. } => vec![
            "is there such a release? `--framework release:NAME=VERSION` chooses another".into(),
            format!("a mirror in `{MIRROR_ENV}` must have the same paths as github.com"),
        ],
        http::HttpError::Network { .. } | http::HttpError::Stalled { .. } => vec![
            format!("`{MIRROR_ENV}=https://mirror.example` takes the releases from a mirror"),
            "`kfactory framework build -o oci:framework` makes them where there is a network; `--framework oci:framework` takes them from there, or from any Kairos image".into(),
        ],
        _ => Vec::new(),
    }
}

fn go_hints(stderr: &str) -> Vec<String> {
    if stderr.contains("GOTOOLCHAIN=local") || stderr.contains("toolchain not available") {
        return vec![
            "`GOTOOLCHAIN=auto` lets Go fetch the version it names; or install that version".into(),
        ];
    }
    let unreachable = [
        "403 Forbidden",
        "404 Not Found",
        "410 Gone",
        "not available",
        "dial tcp",
        "no such host",
    ];
    if unreachable.iter().any(|words| stderr.contains(words)) {
        return vec![
            "`go env GOPROXY` shows where modules come from".into(),
            "an optional component can be left out: `--framework go:NAME=none`".into(),
        ];
    }
    Vec::new()
}
