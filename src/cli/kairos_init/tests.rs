//! Spellings of every generation, and the request that each makes.

use super::*;
use crate::error::{Error, Kind};
use crate::request::Request;

fn parse(line: &str) -> Result<(Request, Vec<String>)> {
    // Two apostrophes stand for a value that a wrapper left empty.
    let words = line.split_whitespace().map(|word| word.trim_matches('\''));
    let words = ["/kairos-init"].into_iter().chain(words);
    let words = words.map(OsString::from).collect();
    let words = super::super::providers::rewrite_for(words, &Cli::command())?;
    let cli = Cli::try_parse_from(words).map_err(Error::usage)?;
    let root = tempfile::tempdir().expect("room");
    let (mut request, warnings) = cli.request(root.path())?;
    assert_eq!(request.base, format!("dir:{}", root.path().display()));
    request.base = "dir:/".into();
    Ok((request, warnings))
}

fn wanted(change: impl Fn(&mut Request)) -> Request {
    let mut request = Request {
        version: Some("v1.0.0".into()),
        ..Request::new("dir:/")
    };
    change(&mut request);
    request
}

#[test]
fn the_grammar_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_spelling_makes_the_request_it_means() {
    type Change = fn(&mut Request);
    let same: Change = |_| {};
    let trusted: Change = |request| request.trusted = true;
    let install: Change = |request| request.stage = Stage::Install;
    let skipped: Change = |request| {
        request.skip_steps = vec!["installPackages".into(), "kernel".into()];
    };
    let k3s: Change = |request| request.providers = vec!["k3s".into()];
    let both: Change = |request| request.providers = vec!["k3s".into(), "edge".into()];
    let version: Change = |request| {
        request.providers = vec!["k3s".into()];
        let options = request.provider_options.entry("k3s".into()).or_default();
        options.version = Some("v1.34.3+k3s1".into());
    };
    let board: Change = |request| request.model = "rpi4".into();
    let fips: Change = |request| request.fips = true;
    for (line, change) in [
        ("--version v1.0.0", same),
        ("--version=v1.0.0", same),
        ("-v v1.0.0", same),
        ("-v=v1.0.0", same),
        ("-vv1.0.0", same),
        ("-v v0.0.1 -v v1.0.0", same),
        ("-l debug -s install --version v1.0.0", install),
        ("--level=trace --stage=install --version v1.0.0", install),
        ("-sinstall -vv1.0.0", install),
        ("--version v1.0.0 -t true", trusted),
        ("--version v1.0.0 -t=true", trusted),
        ("--version v1.0.0 -ttrue", trusted),
        ("--version v1.0.0 -t", trusted),
        ("-t --version v1.0.0", trusted),
        ("--trusted --version v1.0.0", trusted),
        ("--trusted-boot --version v1.0.0", trusted),
        ("--trusted-boot=TRUE --version v1.0.0", trusted),
        ("--trusted yes --version v1.0.0", trusted),
        ("-t 1 --version v1.0.0", trusted),
        ("-t false --version v1.0.0", same),
        ("-t '' --version v1.0.0", same),
        ("--trusted=false --version v1.0.0", same),
        ("--skip-step installPackages,kernel -v v1.0.0", skipped),
        ("--skip-steps installPackages,kernel -v v1.0.0", skipped),
        (
            "--skip-steps installPackages --skip-step=kernel -v v1.0.0",
            skipped,
        ),
        ("--skip-step '' -v v1.0.0", same),
        ("-p k3s -v v1.0.0", k3s),
        ("-pk3s -v v1.0.0", k3s),
        ("--provider k3s -v v1.0.0", k3s),
        ("--provider '' -v v1.0.0", same),
        ("--provider k3s,edge -v v1.0.0", both),
        ("-p k3s --provider=edge -v v1.0.0", both),
        ("-k k3s -v v1.0.0", k3s),
        ("--kubernetes-provider=k3s -v v1.0.0", k3s),
        (
            "-p k3s --provider-k3s-version v1.34.3+k3s1 -v v1.0.0",
            version,
        ),
        (
            "--provider-k3s-version=v1.34.3+k3s1 -v v1.0.0 -p=k3s",
            version,
        ),
        ("-k k3s --k8sversion v1.34.3+k3s1 -v v1.0.0", version),
        ("--provider '' --provider--version '' -v v1.0.0", same),
        ("-k '' --k8sversion '' -v v1.0.0", same),
        ("-m rpi4 -v v1.0.0", board),
        ("-m generic -v v1.0.0", same),
        ("--model=rpi4 -v v1.0.0", board),
        ("--fips -v v1.0.0", fips),
        ("--fips=true -v v1.0.0", fips),
        ("--fips=false -v v1.0.0", same),
        ("-x=false -v v1.0.0", same),
    ] {
        let (request, _) = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(request, wanted(change), "{line}");
    }
}

#[test]
fn what_is_wrong_is_named_with_what_is_right() {
    for (line, words) in [
        ("", &["--version v1.0.0"][..]),
        ("-v v1.0.0 -t ture", &["`ture`", "`--trusted`", "`true`"]),
        ("-v v1.0.0 --fips=fasle", &["`fasle`", "`false`"]),
        ("-v v1.0.0 --skip-stpe kernel", &["--skip-step"]),
        ("-v v1.0.0 -s instal", &["install"]),
        ("-v v1.0.0 -l verbose", &["trace"]),
        (
            "-v v1.0.0 --k8sversion v1.34.3+k3s1",
            &["--provider k3s --provider-k3s-version v1.34.3+k3s1"],
        ),
        ("-v v1.0.0 steps", &["steps-info"]),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), Kind::Usage, "{line}");
        let text = error.render_text();
        for word in words {
            assert!(text.contains(word), "{line}: no {word:?} in {text}");
        }
    }
}

#[test]
fn deprecated_words_are_answered_with_the_new_ones() {
    let (_, warnings) = parse("-k k3s -v v1.0.0").expect("understood");
    assert!(
        warnings[0].contains("deprecated") && warnings[0].contains("`--provider k3s`"),
        "{warnings:?}"
    );
    assert_eq!(parse("-p k3s -v v1.0.0").expect("good").1, [""; 0]);
}

#[test]
fn extensions_are_those_of_the_tree_and_their_absence_is_told() {
    let root = tempfile::tempdir().expect("room");
    let cli = Cli::try_parse_from(["kairos-init", "-x", "-v", "v1.0.0"]).expect("good");
    let (request, warnings) = cli.request(root.path()).expect("good");
    assert!(request.stage_extensions.is_empty() && warnings[0].contains("no stage extensions"));
    let dir = root.path().join("etc/kairos-init/stage-extensions");
    std::fs::create_dir_all(&dir).expect("made");
    let (request, warnings) = cli.request(root.path()).expect("good");
    assert_eq!(request.stage_extensions, [dir.display().to_string()]);
    assert!(warnings.is_empty());
}

#[test]
fn the_program_is_known_by_its_last_name_alone() {
    for (program, expected) in [
        ("/kairos-init", true),
        ("kairos-init", true),
        ("kfactory", false),
        ("/kairos-init/kfactory", false),
        ("/kairos-init-old", false),
    ] {
        assert_eq!(is_called(Some(&program.into())), expected, "{program}");
    }
}
