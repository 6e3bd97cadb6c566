//! `kfactory parity`.

use super::args::{ImageArgs, ProgressArgs};
use super::commands::{Session, fetch};
use super::{print, show};
use crate::convert;
use crate::error::Result;
use crate::inspect;
use crate::location::Location;
use crate::parity::{self, Side};
use crate::tree::{self, Wanted};

/// Options of `kfactory parity`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("other").required(true))]
pub(super) struct ParityArgs {
    /// The image: a reference, `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:ROOTFS`, `tar:FILE`, `store:NAME`
    pub(super) source: String,
    /// The image to compare it with; every difference counts unless it is one of the intended ones
    #[arg(long, value_name = "REF", group = "other")]
    pub(super) against: Option<String>,
    /// As `--against`, for an image that kairos-init made on another day: other versions of packages do not count
    #[arg(long, value_name = "IMAGE", group = "other")]
    pub(super) upstream: Option<String>,
    /// Show every difference, intended ones too, on a line of its own
    #[arg(long)]
    all: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// The platform to take from multi-platform images [default: this machine's]
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    pub(super) image: ImageArgs,
    #[command(flatten)]
    pub(super) progress: ProgressArgs,
}

impl ParityArgs {
    /// Returns the image to compare with.
    fn other(&self) -> &str {
        let given = self.against.as_deref().or(self.upstream.as_deref());
        given.unwrap_or_default()
    }

    /// Returns whether one of the two is a directory, whose files belong to many users.
    pub(super) fn reads_directory(&self) -> bool {
        [self.source.as_str(), self.other()]
            .iter()
            .any(|source| source.starts_with("dir:"))
    }
}

/// Compares two images; returns 1 when they differ in something that is not intended.
pub(super) fn run(args: &ParityArgs) -> Result<i32> {
    let session = Session::new(
        &args.image,
        &args.progress,
        false,
        &[&args.source, args.other()],
    )?;
    let platform = convert::parse_platform(args.platform.as_deref())?;
    let locate = |name: &str| convert::parse_location(name, session.registry());
    let locations = [locate(&args.source)?, locate(args.other())?];
    for location in &locations {
        session.check_apart(location)?;
    }
    let store = session.open_store()?;
    let side = |name: &str, location: &Location| -> Result<Side> {
        let image = fetch(location, &platform, &store, &session)?;
        let wanted = Wanted {
            kept: parity::reads,
            digests: true,
        };
        Ok(Side {
            name: name.to_owned(),
            tree: tree::of_image(&image.image, &store, wanted, None)?,
            steps: inspect::steps(&image.image),
        })
    };
    let (here, there) = (
        side(&args.source, &locations[0])?,
        side(args.other(), &locations[1])?,
    );
    let report = parity::compare(&here, &there, args.upstream.is_some())?;
    match args.json {
        true => print(&report.to_json()?)?,
        false => show(&report.to_text(args.all))?,
    }
    Ok(i32::from(report.unintended() > 0))
}
