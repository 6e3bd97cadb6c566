//! Tests of the download against a release server in this process that can also lie.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::super::DISTRIBUTIONS;
use super::*;
use crate::framework::elf;
use crate::framework::stub::{Answer, Answers, Server};

const K3S: &str = "/k3s-io/k3s/releases/download/v1.34.3%2Bk3s1";
const K0S: &str = "/k0sproject/k0s/releases/download/v1.34.3%2Bk0s.0";

fn program(arch: Arch, name: &str) -> Vec<u8> {
    let mut bytes = elf::head_for_tests(arch);
    bytes.extend(name.as_bytes());
    bytes
}

fn sum(bytes: &[u8]) -> String {
    crate::framework::hex(&Sha256::digest(bytes))
}

/// A server with a good release of each distribution, with checksums in the form of each.
fn good_server() -> Server {
    let (k3s, k0s) = (program(Arch::Amd64, "k3s"), program(Arch::Amd64, "k0s"));
    let k3s_arm = program(Arch::Arm64, "k3s");
    let answers = [
        (format!("{K3S}/k3s"), k3s.clone()),
        (format!("{K3S}/k3s-arm64"), k3s_arm.clone()),
        (
            format!("{K3S}/sha256sum-amd64.txt"),
            format!("{}  k3s-images.txt\n{}  k3s\n", "0".repeat(64), sum(&k3s)).into_bytes(),
        ),
        (
            format!("{K3S}/sha256sum-arm64.txt"),
            format!("{}  k3s-arm64\n", sum(&k3s_arm)).into_bytes(),
        ),
        (format!("{K0S}/k0s-v1.34.3%2Bk0s.0-amd64"), k0s.clone()),
        (
            format!("{K0S}/sha256sums.txt"),
            format!(
                "{} *k0s-v1.34.3+k0s.0-amd64.exe\n{} *k0s-v1.34.3+k0s.0-amd64\n",
                "0".repeat(64),
                sum(&k0s)
            )
            .into_bytes(),
        ),
    ];
    let answers: Answers = answers
        .into_iter()
        .map(|(path, body)| (path, vec![Answer::ok(body)]))
        .collect();
    Server::start(answers)
}

fn context<'a>(cache: &Path, server: &Server) -> Context<'a> {
    Context {
        mirror: Some(format!("{}/", server.base)),
        ..Context::new(Arch::Amd64, cache)
    }
}

fn both() -> Vec<(&'static Distribution, String)> {
    vec![
        (&DISTRIBUTIONS[0], "v1.34.3+k3s1".into()),
        (&DISTRIBUTIONS[1], "v1.34.3+k0s.0".into()),
    ]
}

#[test]
fn programs_have_their_published_checksum_and_then_come_from_the_cache() {
    let (cache, server) = (tempfile::tempdir().expect("room"), good_server());
    let mut ctx = context(cache.path(), &server);
    let found = fetch(&both(), &ctx).expect("good releases");
    for (program_found, name) in found.iter().zip(["k3s", "k0s"]) {
        assert_eq!(program_found.distribution.name, name);
        let content = std::fs::read(&program_found.source).expect("kept");
        assert_eq!(content, program(Arch::Amd64, name));
        assert_eq!(program_found.sha256, sum(&content));
    }
    assert_eq!(server.asked().len(), 4);
    ctx.offline = true;
    assert_eq!(fetch(&both(), &ctx).expect("cached"), found);
    let swapped: Vec<_> = both().into_iter().rev().collect();
    let names: Vec<_> = fetch(&swapped, &ctx)
        .expect("cached")
        .iter()
        .map(|it| it.distribution.name)
        .collect();
    assert_eq!(names, ["k0s", "k3s"]);
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn each_architecture_has_its_own_program_and_some_have_none() {
    let (cache, server) = (tempfile::tempdir().expect("room"), good_server());
    let mut ctx = context(cache.path(), &server);
    let k3s = &both()[..1];
    fetch(k3s, &ctx).expect("amd64");
    ctx.arch = Arch::Arm64;
    let found = fetch(k3s, &ctx).expect("arm64");
    assert_eq!(
        std::fs::read(&found[0].source).expect("kept"),
        program(Arch::Arm64, "k3s")
    );
    ctx.arch = Arch::Riscv64;
    let error = fetch(k3s, &ctx).expect_err("there is none");
    assert_eq!(error.to_string(), "k3s has no releases for riscv64");
    assert!(url(&DISTRIBUTIONS[0], "v1.34.3+k3s1", Arch::Riscv64).is_err());
}

#[test]
fn the_plan_names_the_place_at_github() {
    let at = |index: usize| {
        let (distribution, version) = &both()[index];
        url(distribution, version, Arch::Amd64).expect("there are releases")
    };
    assert_eq!(at(0), format!("https://github.com{K3S}/k3s"));
    assert_eq!(
        at(1),
        format!("https://github.com{K0S}/k0s-v1.34.3%2Bk0s.0-amd64")
    );
}

/// Fetches k3s from `server`, which must fail, and returns the error with its hints; asserts that nothing was kept.
#[track_caller]
fn refused(server: &Server) -> (String, String) {
    let cache = tempfile::tempdir().expect("room");
    let mut ctx = context(cache.path(), server);
    let error = fetch(&both()[..1], &ctx).expect_err("refused");
    let hints = error.hints().join("\n");
    ctx.offline = true;
    assert!(fetch(&both()[..1], &ctx).is_err(), "it was kept");
    (text(&error), hints)
}

/// Returns an error with its causes.
fn text(error: &ProviderError) -> String {
    crate::error::Error::from_source(error).to_string()
}

#[test]
fn a_program_with_another_checksum_is_refused() {
    let server = good_server();
    let forged = program(Arch::Amd64, "forged");
    server.answer(&format!("{K3S}/k3s"), vec![Answer::ok(forged.clone())]);
    let (error, hints) = refused(&server);
    for word in [
        "k3s has the wrong checksum",
        &sum(&forged),
        "sha256sum-amd64.txt",
    ] {
        assert!(error.contains(word), "{error}");
    }
    assert!(hints.contains("nothing of it was used"), "{hints}");
}

#[test]
fn a_release_that_is_not_there_is_named_with_the_option_that_chooses_another() {
    let server = Server::start(Answers::new());
    let (error, hints) = refused(&server);
    assert!(
        error.contains("v1.34.3%2Bk3s1/sha256sum-amd64.txt: status 404"),
        "{error}"
    );
    assert!(hints.contains("--provider-k3s-version"), "{hints}");
    assert!(hints.contains(MIRROR_ENV), "{hints}");
}

#[test]
fn a_program_that_the_checksums_do_not_list_is_never_fetched() {
    let server = good_server();
    let sums = format!("{}  k3s-arm64\n", "0".repeat(64));
    server.answer(
        &format!("{K3S}/sha256sum-amd64.txt"),
        vec![Answer::ok(sums)],
    );
    let (error, _) = refused(&server);
    assert!(error.contains("no checksum of \"k3s\""), "{error}");
    assert!(!server.asked().contains(&format!("{K3S}/k3s")));
}

#[test]
fn a_truncated_download_is_tried_again_and_then_refused() {
    let server = good_server();
    let whole = program(Arch::Amd64, "k3s");
    let broken = Answer {
        sent: 10,
        ..Answer::ok(whole.clone())
    };
    let path = format!("{K3S}/k3s");
    server.answer(&path, vec![broken.clone(), Answer::ok(whole.clone())]);
    let cache = tempfile::tempdir().expect("room");
    fetch(&both()[..1], &context(cache.path(), &server)).expect("the second try");
    // Shorter, but whole as far as the protocol can tell.
    server.answer(&path, vec![Answer::ok(&whole[..10])]);
    let (error, _) = refused(&server);
    assert!(error.contains("wrong checksum"), "{error}");
    server.answer(&path, vec![broken]);
    let (error, hints) = refused(&server);
    assert!(error.contains("GET http://127.0.0.1"), "{error}");
    assert!(hints.contains("from a mirror"), "{hints}");
}

#[test]
fn a_program_for_another_machine_is_refused_by_its_content() {
    let server = good_server();
    let foreign = program(Arch::Arm64, "k3s");
    server.answer(
        &format!("{K3S}/sha256sum-amd64.txt"),
        vec![Answer::ok(format!("{}  k3s\n", sum(&foreign)))],
    );
    server.answer(&format!("{K3S}/k3s"), vec![Answer::ok(foreign)]);
    let (error, _) = refused(&server);
    assert!(error.contains("is for arm64"), "{error}");
}

#[test]
fn checksums_from_a_mirror_without_tls_are_not_believed() {
    let cache = tempfile::tempdir().expect("room");
    let ctx = Context {
        mirror: Some("http://mirror.invalid".into()),
        ..Context::new(Arch::Amd64, cache.path())
    };
    let error = fetch(&both(), &ctx).expect_err("no TLS");
    assert!(text(&error).contains("not reached over TLS"), "{error}");
    assert!(!error.hints().is_empty());
}

#[test]
fn offline_names_what_is_missing_and_opens_no_socket() {
    let (cache, server) = (tempfile::tempdir().expect("room"), good_server());
    let ctx = Context {
        offline: true,
        ..context(cache.path(), &server)
    };
    let error = fetch(&both(), &ctx).expect_err("nothing cached");
    assert!(
        text(&error).contains("k3s v1.34.3+k3s1 for amd64 is not in the cache"),
        "{error}"
    );
    assert!(server.asked().is_empty());
}
