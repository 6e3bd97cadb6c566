//! `kfactory artifact`: looks at what `kfactory iso` and its like wrote.

use std::path::PathBuf;

use super::{print, show};
use crate::artifact::verify::{self, rules};
use crate::error::Result;
use crate::validate::Severity;
use crate::validate::output::{self, Form};

/// Subcommands of `kfactory artifact`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ArtifactCommand {
    /// Read back a medium, a disk or network boot files, whoever made them, and say whether they boot, as far as their bytes tell
    #[command(after_help = super::examples::ARTIFACT_VERIFY)]
    Verify(VerifyArgs),
}

/// Options of `kfactory artifact verify`.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// An ISO 9660 medium, a disk, or a directory of network boot files; the checksum in FILE.sha256 is checked, too
    ///
    /// Disks are read raw, as qcow2, VMDK (stream-optimised or one file that grows), VHD of a fixed size, disk.raw in a tar.gz (Google
    /// Compute Engine) and compressed with gzip (MAAS). These two are unpacked into a temporary file first (`TMPDIR`), which takes as
    /// much room as the disk has content.
    ///
    /// What is read is what a boot needs: tables, directories, programs of the firmware, menus, kernel and initrd. What other files hold is
    /// not looked into; the checksum tells of that.
    #[arg(required_unless_present = "rules", value_name = "FILE|DIR")]
    path: Option<PathBuf>,
    /// How to print the report
    #[arg(long, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Rules to leave out; comma lists, several times if wanted
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    ignore: Vec<String>,
    /// Let warnings fail too
    #[arg(long)]
    strict: bool,
    /// Print every rule instead of checking anything
    #[arg(long, conflicts_with = "path")]
    rules: bool,
}

/// Looks, and returns 1 when an error was found.
pub(super) fn verify(args: &VerifyArgs) -> Result<i32> {
    let write = |text: &str| match args.output {
        Form::Text => show(text),
        _ => print(text),
    };
    let Some(path) = args.path.as_deref().filter(|_| !args.rules) else {
        write(&output::render_demands(&rules::all(), args.output)?)?;
        return Ok(0);
    };
    rules::check_ids(&args.ignore)?;
    // It leaves nothing behind: a signal may end it anywhere.
    let mut report = verify::verify(path, None)?;
    report.ignore(&args.ignore);
    write(&report.render(path, args.output)?)?;
    let fails = !report.passes() || args.strict && report.count(Severity::Warning) > 0;
    Ok(i32::from(fails))
}
