//! `kfactory doctor`: what this machine offers, found by trying it.

use std::path::{Path, PathBuf};

use kfactory_sandbox::doctor::{self, Finding, Level};

use super::{DoctorArgs, print, show};
use crate::artifact::squashfs;
use crate::convert::space::WHOLE_BYTES;
use crate::error::{Context as _, Error, Result};
use crate::progress::bytes_text;
use crate::store::{Store, check_user};

pub(super) fn run(args: &DoctorArgs) -> Result<i32> {
    let findings = findings(&args.store.dir()?)?;
    let failed = findings.iter().any(|finding| finding.level == Level::Fail);
    if args.json {
        print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&findings.iter().map(as_json).collect::<Vec<_>>())?
        ))?;
    } else {
        show(&render(&findings))?;
    }
    Ok(i32::from(failed))
}

/// Tries everything; what had to be made for that is gone when it returns.
fn findings(store: &Path) -> Result<Vec<Finding>> {
    if let Err(error) = check_user(store) {
        // Nothing is to be put there; the rest can be told all the same.
        let elsewhere = tempfile::tempdir().context(|| "making a directory to try in".into())?;
        let mut findings = vec![refused(&error)];
        findings.extend(doctor::probe(elsewhere.path()));
        for finding in &mut findings {
            if finding.id == "conversion" && finding.level == Level::Ok {
                finding.level = Level::Fail;
                finding.what = "conversions cannot run here without a store".to_owned();
                finding.remedy = Some(error.hint_texts().join("\n"));
            }
        }
        return Ok(findings);
    }
    let _made = Made::at(store)?;
    let mut findings = doctor::probe(store);
    findings.push(disk_space(store));
    findings.push(squashfs());
    Ok(findings)
}

/// A store that every command would refuse.
fn refused(error: &Error) -> Finding {
    Finding {
        id: "store",
        level: Level::Fail,
        what: error.to_string(),
        remedy: Some(error.hint_texts().join("\n")),
    }
}

/// Directories that were made to try in, removed again unless somebody has put something there; the deepest is the first.
struct Made(Vec<PathBuf>);

impl Made {
    fn at(dir: &Path) -> Result<Self> {
        let doing = || format!("creating the store in {}", dir.display());
        let whole = std::path::absolute(dir).context(doing)?;
        let missing = whole.ancestors().take_while(|above| !above.exists());
        // Holds them before they are made: some of them may be when another cannot.
        let made = Self(missing.map(Path::to_owned).collect());
        Store::make_dir(dir)?;
        Ok(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for dir in &self.0 {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

fn as_json(finding: &Finding) -> serde_json::Value {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Fail => "fail",
    };
    serde_json::json!({ "id": finding.id, "level": level, "what": finding.what, "remedy": finding.remedy })
}

fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        text.push_str(&format!("{mark}  {}\n", finding.what));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!("      remedy: {remedy}\n"));
        }
    }
    text
}

/// Only media and network boot files have a squashfs: everything else works without.
fn squashfs() -> Finding {
    let (level, what, remedy) = match squashfs::check() {
        Ok(()) => (
            Level::Ok,
            "mksquashfs is there: `kfactory iso` and `netboot` can write root filesystems"
                .to_owned(),
            None,
        ),
        Err(error) => (
            Level::Warn,
            format!("`kfactory iso` and `netboot` cannot write root filesystems: {error}"),
            Some(error.hint_texts().join("\n")),
        ),
    };
    Finding {
        id: "mksquashfs",
        level,
        what,
        remedy,
    }
}

fn disk_space(store: &Path) -> Finding {
    let free =
        rustix::fs::statvfs(store).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    let enough = free >= WHOLE_BYTES;
    Finding {
        id: "disk-space",
        level: if enough { Level::Ok } else { Level::Warn },
        what: format!(
            "{} free in {} (a conversion of Debian 12 takes {} at its peak)",
            bytes_text(free),
            store.display(),
            bytes_text(WHOLE_BYTES)
        ),
        remedy: (!enough).then(|| "`kfactory store gc`, or `--store DIR` on another disk".into()),
    }
}
