//! What leaving packages out saved, as the package manager itself reckons it: what installing them now would take.
//!
//! That counts what only they depend on, and nothing that is in the image anyway.

use super::packages::{Site, apt::Apt};
use super::{Environment, Target};
use crate::error::{Kind, Result};
use crate::progress::bytes_text;
use crate::step::Saving;

/// Says for each option what it left out and what that saved.
pub(super) fn report(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    savings: &[Saving],
) -> Result<()> {
    let apt = Apt::open(Site { env, target, step })?;
    apt.refresh()?;
    for saving in savings {
        say(env, &apt, saving)?;
    }
    if savings.len() > 1 {
        // More than the sum: what two of them depend on is saved by neither alone.
        let options: Vec<&str> = savings.iter().map(|it| it.option.as_str()).collect();
        let names = savings.iter().flat_map(|it| it.names.iter().cloned());
        let together = Saving {
            option: format!("{} together", options.join(", ")),
            names: names.collect(),
        };
        say(env, &apt, &together)?;
    }
    Ok(())
}

/// Says what leaving out the packages of one option saved.
fn say(env: &Environment<'_>, apt: &Apt<'_>, saving: &Saving) -> Result<()> {
    let mut argv = vec![
        "apt-get".to_owned(),
        apt.config(),
        "--quiet".into(),
        "--option=APT::Get::Assume-Yes=false".into(),
        "--assume-no".into(),
        // Where nothing else would come along apt does not ask: then it downloads, outside the image, and installs nothing.
        "--download-only".into(),
        "install".into(),
    ];
    argv.extend(saving.names.iter().cloned());
    let names = saving.names.join(" ");
    let answer = apt.ask(&argv).map(|printed| saved_bytes(&printed));
    let is_one = !saving.option.contains(", ");
    let saves = if is_one { "saves" } else { "save" };
    env.finding(match answer {
        Ok(Some(bytes)) => format!(
            "{} {saves} {}: {names} and what only {} on",
            saving.option,
            bytes_text(bytes),
            if is_one {
                "that depends"
            } else {
                "they depend"
            }
        ),
        Ok(None) => format!(
            "{} {saves} nothing: {names} is in the image for another reason",
            saving.option
        ),
        // The base's repositories do not have them: there was nothing to leave out.
        Err(error) if error.kind() == Kind::Step => {
            format!(
                "{} left out {names}; what that saves is not known",
                saving.option
            )
        }
        Err(error) => return Err(error),
    });
    Ok(())
}

/// Finds what apt says that the installation would take; `None` when it would install nothing.
fn saved_bytes(printed: &str) -> Option<u64> {
    printed.lines().find_map(|line| {
        let line = line.trim();
        let rest = line
            .strip_prefix("After this operation, ")
            .filter(|rest| rest.contains("will be used"))
            .or_else(|| line.strip_prefix("Space needed: "))?;
        let mut words = rest.split_ascii_whitespace();
        let number: f64 = words.next()?.replace(',', "").parse().ok()?;
        // apt counts in thousands.
        let unit = match words.next()? {
            "B" => 1.0,
            "kB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            _ => return None,
        };
        Some((number * unit).round() as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_answer_is_read_in_both_of_its_forms() {
        let saved = saved_bytes;
        assert_eq!(
            saved("After this operation, 2,129 kB of additional disk space will be used."),
            Some(2_129_000)
        );
        assert_eq!(
            saved("  Space needed: 75.9 MB / 20.1 GB available"),
            Some(75_900_000)
        );
        assert_eq!(
            saved("After this operation, 3 MB disk space will be freed."),
            None
        );
        assert_eq!(
            saved("0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded."),
            None
        );
    }
}
