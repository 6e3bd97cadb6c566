//! `kfactory doctor`: what this machine offers, found by trying it.

use kfactory_sandbox::doctor::{self, Finding, Level};

use super::{DoctorArgs, print, show};
use crate::convert::space::WHOLE_BYTES;
use crate::error::{Context as _, Result};
use crate::progress::bytes_text;

pub(super) fn run(args: &DoctorArgs) -> Result<i32> {
    let store = args.store.dir()?;
    std::fs::create_dir_all(&store)
        .context(|| format!("creating the store in {}", store.display()))?;
    let mut findings = doctor::probe(&store);
    findings.push(disk_space(&store));
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

fn disk_space(store: &std::path::Path) -> Finding {
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
