//! Tests of the release source against a server in this process that can also lie.

use sha2::{Digest as _, Sha256};

use super::super::archive::tests::{gzip, tar_of};
use super::super::cache::hex;
use super::super::stub::{Answer, Answers, Server};
use super::super::{COMPONENTS, FrameworkSpec, Variant, elf, resolve};
use super::*;

fn program(name: &str) -> Vec<u8> {
    let mut bytes = elf::head_for_tests(Arch::Amd64);
    bytes.extend(name.as_bytes());
    bytes
}

fn archive_of(name: &str) -> Vec<u8> {
    gzip(&tar_of(&[
        ("README.md", b"read me"),
        (name, &program(name)),
    ]))
}

fn path_of(component: &Component, file: &str) -> String {
    let version = pins::version(component.name);
    format!(
        "/{}/{}/releases/download/{version}/{file}",
        component.owner, component.name
    )
}

fn archive_path(component: &Component) -> String {
    path_of(
        component,
        &format!(
            "{}-{}-Linux-{}.tar.gz",
            component.name,
            pins::version(component.name),
            component.amd64
        ),
    )
}

fn checksums_path(component: &Component) -> String {
    path_of(
        component,
        &format!(
            "{}-{}-checksums.txt",
            component.name,
            pins::version(component.name)
        ),
    )
}

/// A server with a good release of every component.
fn good_server() -> Server {
    let mut answers = Answers::new();
    for component in COMPONENTS {
        let archive = archive_of(component.name);
        let path = archive_path(component);
        let file = path.rsplit('/').next().expect("a name");
        let sums = format!(
            "{}  other.tar.gz\n{}  {file}\n",
            "0".repeat(64),
            hex(&Sha256::digest(&archive))
        );
        answers.insert(checksums_path(component), vec![Answer::ok(sums)]);
        answers.insert(path, vec![Answer::ok(archive)]);
    }
    Server::start(answers)
}

fn context<'a>(cache: &Path, server: &Server) -> FrameworkContext<'a> {
    FrameworkContext {
        mirror: Some(server.base.clone()),
        ..FrameworkContext::new(Arch::Amd64, cache)
    }
}

fn immucore() -> &'static Component {
    Component::find("immucore").expect("in the table")
}

#[test]
fn a_release_is_verified_against_published_checksums_and_then_comes_from_the_cache() {
    let (cache, server) = (tempfile::tempdir().expect("room"), good_server());
    let mut ctx = context(cache.path(), &server);
    let first = resolve(&FrameworkSpec::default(), &ctx).expect("a good release");
    let targets: Vec<_> = first
        .files
        .iter()
        .map(|f| f.target.to_str().expect("ascii"))
        .collect();
    let expected = [
        "/system/discovery/kcrypt-discovery-challenger",
        "/system/installer/kairos-installer",
        "/usr/bin/immucore",
        "/usr/bin/kairos-agent",
    ];
    assert_eq!(targets, expected);
    for file in &first.files {
        assert_eq!(
            std::fs::read(&file.source).expect("kept"),
            program(&file.component)
        );
        assert_eq!(file.verified, Verified::PublishedChecksums);
        assert_eq!(
            file.version.as_deref(),
            Some(pins::version(&file.component))
        );
        assert_eq!(file.mode, 0o755);
    }
    assert!(first.absent(Variant::Core).is_empty());
    assert_eq!(server.asked().len(), 8);
    ctx.offline = true;
    assert_eq!(
        resolve(&FrameworkSpec::default(), &ctx).expect("cached"),
        first
    );
    assert_eq!(server.asked().len(), 8);
}

#[test]
fn a_standard_image_gets_the_provider_and_the_mesh_too() {
    let (cache, server) = (tempfile::tempdir().expect("room"), good_server());
    let ctx = FrameworkContext {
        variant: Variant::Standard,
        ..context(cache.path(), &server)
    };
    let framework = resolve(&FrameworkSpec::default(), &ctx).expect("a good release");
    assert_eq!(framework.files.len(), 6);
    let edgevpn = server
        .asked()
        .into_iter()
        .find(|path| path.ends_with("-Linux-x86_64.tar.gz"));
    assert!(edgevpn.is_some_and(|path| path.starts_with("/mudler/edgevpn/releases/download/v")));
}

#[test]
fn an_archive_with_the_wrong_checksum_is_refused_and_not_kept() {
    let (cache, server) = (tempfile::tempdir().expect("room"), good_server());
    let forged = gzip(&tar_of(&[("immucore", b"#!/bin/sh\necho owned\n")]));
    server.answer(&archive_path(immucore()), vec![Answer::ok(forged)]);
    let mut ctx = context(cache.path(), &server);
    let error = resolve(&FrameworkSpec::default(), &ctx).expect_err("forged");
    assert!(
        matches!(&error, FrameworkError::Checksum { what, .. } if what.contains("immucore")),
        "{error}"
    );
    ctx.offline = true;
    let error = resolve(
        &"release:kcrypt=none,installer=none".parse().expect("good"),
        &ctx,
    )
    .expect_err("not kept");
    assert!(matches!(error, FrameworkError::Offline { .. }), "{error}");
}

#[test]
fn an_archive_that_the_checksums_do_not_list_is_never_fetched() {
    let (cache, server) = (tempfile::tempdir().expect("room"), good_server());
    server.answer(
        &checksums_path(immucore()),
        vec![Answer::ok("nothing here\n")],
    );
    let error = resolve(&FrameworkSpec::default(), &context(cache.path(), &server))
        .expect_err("not listed");
    assert!(
        matches!(&error, FrameworkError::NotListed { file, .. } if file.starts_with("immucore-v")),
        "{error}"
    );
    assert!(!server.asked().contains(&archive_path(immucore())));
}

#[test]
fn checksums_from_a_mirror_without_tls_are_not_believed() {
    let cache = tempfile::tempdir().expect("room");
    let mut ctx = FrameworkContext::new(Arch::Amd64, cache.path());
    ctx.mirror = Some("http://mirror.invalid".into());
    let error = resolve(&FrameworkSpec::default(), &ctx).expect_err("no TLS");
    assert!(
        matches!(&error, FrameworkError::Unverifiable { .. }),
        "{error}"
    );
    assert!(!error.hints().is_empty());
}

#[test]
fn a_missing_release_says_what_was_asked_for() {
    let (cache, server) = (tempfile::tempdir().expect("room"), good_server());
    let spec = "release:immucore=v9.9.9".parse().expect("good");
    let error = resolve(&spec, &context(cache.path(), &server)).expect_err("no such release");
    let text = error.to_string();
    assert!(
        text.contains("v9.9.9/immucore-v9.9.9-checksums.txt: status 404"),
        "{text}"
    );
    assert!(
        error
            .hints()
            .iter()
            .any(|hint| hint.contains("release:NAME=VERSION"))
    );
}

#[test]
fn busy_servers_and_broken_connections_are_tried_again() {
    let (cache, server) = (tempfile::tempdir().expect("room"), good_server());
    let archive = archive_of("immucore");
    let broken = Answer {
        sent: 100,
        ..Answer::ok(archive.clone())
    };
    let busy = Answer::status(429, "Retry-After: 0\r\n");
    server.answer(
        &archive_path(immucore()),
        vec![busy, broken, Answer::ok(archive)],
    );
    resolve(&FrameworkSpec::default(), &context(cache.path(), &server)).expect("the third try");
    assert_eq!(
        server
            .asked()
            .iter()
            .filter(|path| **path == archive_path(immucore()))
            .count(),
        3
    );
}

#[test]
fn an_archive_for_another_machine_is_refused_by_its_content() {
    let (cache, server) = (tempfile::tempdir().expect("room"), good_server());
    let archive = gzip(&tar_of(&[("immucore", &elf::head_for_tests(Arch::Arm64))]));
    let name = archive_path(immucore())
        .rsplit('/')
        .next()
        .expect("a name")
        .to_owned();
    let sums = format!(
        "{} *{name}\n",
        hex(&Sha256::digest(&archive)).to_uppercase()
    );
    server.answer(&checksums_path(immucore()), vec![Answer::ok(sums)]);
    server.answer(&archive_path(immucore()), vec![Answer::ok(archive)]);
    let error =
        resolve(&FrameworkSpec::default(), &context(cache.path(), &server)).expect_err("arm64");
    assert!(matches!(error, FrameworkError::WrongArch { .. }), "{error}");
}

#[test]
fn an_archive_without_its_program_is_refused() {
    let (cache, server) = (tempfile::tempdir().expect("room"), good_server());
    let archive = gzip(&tar_of(&[
        ("immucore-docs", b"x"),
        ("immucore/README", b"x"),
    ]));
    let name = archive_path(immucore())
        .rsplit('/')
        .next()
        .expect("a name")
        .to_owned();
    server.answer(
        &checksums_path(immucore()),
        vec![Answer::ok(format!(
            "{}  {name}",
            hex(&Sha256::digest(&archive))
        ))],
    );
    server.answer(&archive_path(immucore()), vec![Answer::ok(archive)]);
    let error =
        resolve(&FrameworkSpec::default(), &context(cache.path(), &server)).expect_err("empty");
    assert!(
        matches!(
            error,
            FrameworkError::NotInArchive {
                component: "immucore",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn offline_names_what_is_missing_and_opens_no_socket() {
    let (cache, server) = (tempfile::tempdir().expect("room"), good_server());
    let ctx = FrameworkContext {
        offline: true,
        ..context(cache.path(), &server)
    };
    let error = resolve(&FrameworkSpec::default(), &ctx).expect_err("nothing cached");
    assert!(
        error
            .to_string()
            .contains("kairos-agent v2.31.4 for amd64 is not in the cache"),
        "{error}"
    );
    assert!(server.asked().is_empty());
}

#[test]
fn fips_builds_have_their_own_archives_where_upstream_makes_them() {
    let cache = tempfile::tempdir().expect("room");
    let mut ctx = FrameworkContext {
        fips: true,
        ..FrameworkContext::new(Arch::Arm64, cache.path())
    };
    let names: Vec<_> = wanted(&Versions::default(), &ctx)
        .expect("arm64 has them")
        .iter()
        .map(Wanted::archive_name)
        .collect();
    assert!(
        names
            .iter()
            .any(|n| n.starts_with("immucore-v") && n.ends_with("-Linux-arm64-fips.tar.gz")),
        "{names:?}"
    );
    assert!(
        names
            .iter()
            .any(|n| n.starts_with("kairos-installer-v") && n.ends_with("-Linux-arm64.tar.gz")),
        "{names:?}"
    );
    ctx.arch = Arch::Riscv64;
    assert!(matches!(
        resolve(&FrameworkSpec::default(), &ctx),
        Err(FrameworkError::NoFips(Arch::Riscv64))
    ));
}

#[test]
fn it_works_inside_an_async_runtime() {
    let (cache, server) = (tempfile::tempdir().expect("room"), good_server());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let framework = runtime
        .block_on(async { resolve(&FrameworkSpec::default(), &context(cache.path(), &server)) });
    assert_eq!(framework.expect("a good release").files.len(), 4);
}
