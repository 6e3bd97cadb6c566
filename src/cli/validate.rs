//! `kfactory validate`.

use kfactory_layers::platform::Platform;

use super::args::{ImageArgs, ProgressArgs};
use super::commands::{Session, fetch};
use super::{print, show};
use crate::convert;
use crate::distro::Model;
use crate::error::{Context as _, Error, Kind, Result};
use crate::location::Location;
use crate::tree::{self, Tree, Wanted};
use crate::validate::output::{self, Form};
use crate::validate::{self, Scope, Severity};

/// Options of `kfactory validate`.
#[derive(Debug, clap::Args)]
pub(super) struct ValidateArgs {
    /// The image: a reference, `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:ROOTFS`, `tar:FILE`, `store:NAME`
    #[arg(required_unless_present = "rules")]
    pub(super) source: Option<String>,
    /// How to print the report
    #[arg(long, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Whether the image is for Trusted Boot [default: what its /etc/kairos-release says]
    #[arg(short, long, alias = "trusted-boot", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    trusted: Option<bool>,
    /// The board the image is for [default: what its /etc/kairos-release says]
    #[arg(short, long)]
    model: Option<String>,
    /// Rules to leave out; comma lists, several times if wanted
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    ignore: Vec<String>,
    /// Let warnings fail too
    #[arg(long)]
    strict: bool,
    /// Print every rule instead of checking an image
    #[arg(long, conflicts_with = "source")]
    rules: bool,
    /// The platform to take from a multi-platform image [default: this machine's]
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    pub(super) image: ImageArgs,
    #[command(flatten)]
    pub(super) progress: ProgressArgs,
}

/// Checks an image; returns 1 when it does not pass.
pub(super) fn run(args: &ValidateArgs) -> Result<i32> {
    let Some(source) = args.source.as_deref().filter(|_| !args.rules) else {
        write(&output::render_rules(args.output)?, args.output)?;
        return Ok(0);
    };
    let model: Option<Model> = args.model.as_deref().map(str::parse).transpose().map_err(
        |error: crate::distro::UnknownName| Error::from_source(&error).kind_is(Kind::Usage),
    )?;
    let mut scope = Scope {
        model,
        trusted: args.trusted,
        ignored: args.ignore.clone(),
        ..Scope::default()
    };
    scope.check_ignored()?;
    let platform = convert::parse_platform(args.platform.as_deref())?;
    let session = Session::new(&args.image, &args.progress, false, &[source])?;
    let location = convert::parse_location(source, session.registry())?;
    let tree = read(
        &location,
        &platform,
        &session,
        &mut scope,
        args.platform.is_some(),
    )?;
    let report = validate::validate(&tree, &scope, Some(&session.options.stop))
        .map_err(|error| error.context(format!("cannot validate `{source}`")))?;
    write(&output::render(&report, source, args.output)?, args.output)?;
    let fails = !report.passes() || args.strict && report.count(Severity::Warning) > 0;
    Ok(i32::from(fails))
}

/// Writes a report; folded to the terminal's width where people read it.
fn write(text: &str, form: Form) -> Result<()> {
    match form {
        Form::Text => show(text),
        _ => print(text),
    }
}

/// Checks the root filesystem at `dir`, as kairos-init does in a container build; returns 1 when it does not pass.
pub(super) fn root(dir: &std::path::Path, trusted: Option<bool>) -> Result<i32> {
    let scope = Scope {
        trusted,
        ..Scope::default()
    };
    let report = validate::validate(&tree::of_dir(dir)?, &scope, None)?;
    print(&output::render(
        &report,
        &dir.display().to_string(),
        Form::Text,
    )?)?;
    Ok(i32::from(!report.passes()))
}

/// Reads the tree at `location`; a directory in place, everything else from its layers.
fn read(
    location: &Location,
    platform: &Platform,
    session: &Session,
    scope: &mut Scope,
    platform_is_given: bool,
) -> Result<Tree> {
    if let Location::Dir(dir) = location {
        location
            .check_there()
            .context(|| format!("cannot read `{location}`"))?;
        // A directory states no platform of its own.
        scope.arch = platform_is_given
            .then(|| platform.architecture.parse().ok())
            .flatten();
        return tree::of_dir(dir);
    }
    let store = session.open_store()?;
    let image = fetch(location, platform, &store, session)?;
    scope.arch = image.image.architecture().parse().ok();
    tree::of_image(
        &image.image,
        &store,
        Wanted {
            kept: validate::reads,
            digests: false,
        },
        None,
    )
}
