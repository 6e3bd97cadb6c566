//! Registries that say no, break their word, or cannot be trusted.

use std::fs;

use super::{EARLY, convert, debian_base, nothing_made, refuse};
use crate::support::registry::{PASSWORD, USER};
use crate::support::{Server, need};

#[test]
fn registries_that_say_no_are_quoted_with_what_was_tried() {
    if !need(&["docker-registry", "skopeo", "bwrap", "newuidmap"]) {
        return;
    }
    let (open, closed) = (Server::open(), Server::with_password());
    open.push(&debian_base().replace("tar:", "tarball:"), "debian:12");
    let out = "oci:out-refused:v1.0.0";
    refuse(
        &open.reference("nothing/here:1"),
        out,
        &["nothing/here:1", "404", "hint: "],
    );
    refuse(
        &open.reference("debian:99"),
        out,
        &[
            "debian:99",
            "404 MANIFEST_UNKNOWN",
            "hint: check the repository and the tag",
        ],
    );
    refuse(
        &closed.reference("debian:12"),
        out,
        &[
            "401 UNAUTHORIZED",
            "hint: `podman login ",
            "hint: credentials: ",
            "auth.json` does not exist",
        ],
    );
    let (_, program) = convert(&closed.reference("debian:12"), out);
    let ran = program
        .args(["--creds", &format!("{USER}:wrong-password")])
        .fail(1);
    ran.tells(&["401", "`--creds` as user \"keeper\""]);
    assert!(!ran.stderr().contains("wrong-password"), "{}", ran.stderr());
    refuse(
        "127.0.0.1:1/debian:12",
        out,
        &["127.0.0.1:1", "Connection refused", "hint: "],
    );
    refuse(
        "nowhere.invalid/debian:12",
        out,
        &["nowhere.invalid", "hint: "],
    );
}

#[test]
fn a_registry_that_forbids_is_quoted_for_the_base_and_for_the_destination() {
    let name = crate::support::registry::forbidding();
    let words = [
        "403 DENIED: requested access is denied",
        "hint: `podman login ",
        "hint: credentials: ",
    ];
    refuse(
        &format!("{name}/secret/base:12"),
        "oci:out-forbidden:v1.0.0",
        &words,
    );
    let ran = refuse(&debian_base(), &format!("{name}/secret/os:v1.0.0"), &words);
    ran.tells(&["cannot push to"]);
}

#[test]
fn a_blob_that_a_registry_damaged_is_refused_and_not_kept() {
    if !need(&["docker-registry", "skopeo", "bwrap", "newuidmap"]) {
        return;
    }
    let server = Server::open();
    server.push(&debian_base().replace("tar:", "tarball:"), "debian:12");
    let damaged = server.damage_layers();
    assert_eq!(damaged.len(), 1, "one layer");
    let (store, program) = convert(&server.reference("debian:12"), "oci:out-damaged:v1.0.0");
    let ran = program.fail(1);
    ran.tells(&["cannot read `127.0.0.1:", &damaged[0], "expected", "found"]);
    assert!(
        !store.join("blobs/sha256").join(&damaged[0]).exists(),
        "the damaged blob was kept"
    );
    nothing_made(&store);
}

#[test]
fn a_certificate_that_nobody_knows_is_refused_with_the_ways_to_trust_it() {
    if !need(&["docker-registry", "openssl", "bwrap", "newuidmap"]) {
        return;
    }
    let server = Server::with_tls();
    let base = server.reference("debian:12");
    refuse(
        &base,
        "oci:out-tls:v1.0.0",
        &[
            "certificate",
            "hint: `--registry-ca FILE`",
            "--tls-verify=false",
        ],
    );
    let (_, program) = convert(&base, "oci:out-tls:v1.0.0");
    program.args(["--tls-verify=false"]).fail(1).tells(&["404"]);
    assert!(server.file("server.pem").is_file());
}

#[test]
fn a_missing_push_right_is_found_before_the_long_work() {
    if !need(&["docker-registry", "skopeo", "bwrap", "newuidmap"]) {
        return;
    }
    let (open, closed) = (Server::open(), Server::with_password());
    open.push(&debian_base().replace("tar:", "tarball:"), "debian:12");
    let read_only = Server::read_only(&open);
    for (dest, words) in [
        (
            closed.reference("me/os:v1.0.0"),
            &["cannot push to", "401", "hint: credentials: "][..],
        ),
        (
            read_only.reference("me/os:v1.0.0"),
            &["cannot push to", "405"][..],
        ),
        (
            "127.0.0.1:1/me/os:v1.0.0".to_owned(),
            &["cannot push to", "Connection refused"][..],
        ),
    ] {
        let (store, program) = convert(&open.reference("debian:12"), &dest);
        let ran = program.fail(1);
        ran.tells(words);
        assert!(
            !ran.says("unpack ") && !ran.says("started"),
            "too late:\n{}",
            ran.stderr()
        );
        let when = ran.when("cannot push to").expect("said");
        assert!(when < EARLY, "found after {when:?}");
        assert_eq!(
            fs::read_dir(store.join("trees"))
                .into_iter()
                .flatten()
                .count(),
            0,
            "the base was unpacked"
        );
        nothing_made(&store);
    }
    let (_, program) = convert(
        &open.reference("debian:99"),
        &closed.reference("me/os:v1.0.0"),
    );
    program
        .args(["--creds", &format!("{USER}:{PASSWORD}")])
        .fail(1)
        .tells(&["404"]);
}
