//! Tests of frameworks in directories and archives.

use std::os::unix::fs::symlink;

use super::super::archive::tests::{gzip, tar_of};
use super::super::{BoxError, FrameworkSpec, UnpackImage, Variant, elf, resolve};
use super::*;

const AGENT: &str = "usr/bin/kairos-agent";
const IMMUCORE: &str = "usr/bin/immucore";

fn put(root: &Path, path: &str, content: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("below the root")).expect("room");
    fs::write(path, content).expect("room");
}

/// A directory with the two programs that every image needs.
fn smallest() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("room");
    put(dir.path(), AGENT, b"#!/bin/sh\n: agent\n");
    put(dir.path(), IMMUCORE, &elf::head_for_tests(Arch::Amd64));
    dir
}

fn context<'a>(cache: &Path) -> FrameworkContext<'a> {
    FrameworkContext::new(Arch::Amd64, cache)
}

fn read(dir: &Path) -> Result<Framework, FrameworkError> {
    from_dir(dir, &context(Path::new("/nonexistent")))
}

#[test]
fn a_directory_gives_its_programs_and_tells_what_is_absent() {
    let dir = smallest();
    put(dir.path(), "etc/passwd", b"not ours");
    put(
        dir.path(),
        "system/installer/installer",
        b"#!/usr/bin/python3\n",
    );
    let framework = read(dir.path()).expect("complete");
    let targets: Vec<_> = framework
        .files
        .iter()
        .map(|f| f.target.to_str().expect("ascii"))
        .collect();
    assert_eq!(
        targets,
        [
            "/system/installer/installer",
            "/usr/bin/immucore",
            "/usr/bin/kairos-agent"
        ]
    );
    let absent: Vec<_> = framework
        .absent(Variant::Core)
        .iter()
        .map(|c| c.name)
        .collect();
    assert_eq!(absent, ["kcrypt-discovery-challenger", "kairos-installer"]);
    assert!(
        framework
            .files
            .iter()
            .all(|f| f.verified == Verified::Given && f.version.is_none() && f.mode == 0o755)
    );
}

#[test]
fn a_missing_program_and_a_missing_directory_are_named() {
    let dir = smallest();
    fs::remove_file(dir.path().join(IMMUCORE)).expect("there");
    let error = read(dir.path()).expect_err("incomplete");
    assert!(
        matches!(
            error,
            FrameworkError::Missing {
                target: "/usr/bin/immucore",
                ..
            }
        ),
        "{error}"
    );
    let error = read(Path::new("/nonexistent/dir")).expect_err("nothing");
    assert_eq!(error.to_string(), "opening /nonexistent/dir");
}

#[test]
fn links_are_followed_inside_the_directory_and_never_out_of_it() {
    let dir = smallest();
    put(dir.path(), "usr/bin/kairos", b"#!/bin/sh\n: all in one\n");
    fs::remove_file(dir.path().join(AGENT)).expect("there");
    symlink("/usr/bin/kairos", dir.path().join(AGENT)).expect("room");
    let framework = read(dir.path()).expect("complete");
    assert!(framework.files[1].source.ends_with("usr/bin/kairos"));
    assert!(
        framework.files[1]
            .source
            .starts_with(dir.path().canonicalize().expect("there"))
    );

    fs::remove_file(dir.path().join(AGENT)).expect("there");
    symlink(
        "../../../../../../../../etc/hostname",
        dir.path().join(AGENT),
    )
    .expect("room");
    assert!(matches!(
        read(dir.path()),
        Err(FrameworkError::Missing { .. })
    ));
}

#[test]
fn what_cannot_run_in_the_image_is_refused() {
    let dir = smallest();
    put(dir.path(), IMMUCORE, &elf::head_for_tests(Arch::Arm64));
    let error = read(dir.path()).expect_err("another machine").to_string();
    assert!(
        error.ends_with("usr/bin/immucore is for arm64, but the image is for amd64"),
        "{error}"
    );
    put(dir.path(), IMMUCORE, b"");
    assert!(matches!(
        read(dir.path()),
        Err(FrameworkError::NotAProgram { what: "empty", .. })
    ));
    fs::remove_file(dir.path().join(IMMUCORE)).expect("there");
    fs::create_dir(dir.path().join(IMMUCORE)).expect("room");
    assert!(matches!(
        read(dir.path()),
        Err(FrameworkError::NotAProgram { .. })
    ));
}

#[test]
fn what_was_written_is_read_back_with_versions_and_its_manifest_as_witness() {
    let (dir, out) = (smallest(), tempfile::tempdir().expect("room"));
    let mut framework = read(dir.path()).expect("complete");
    for file in &mut framework.files {
        file.version = Some("v1.2.3".into());
    }
    // Twice: the second write replaces.
    for _ in 0..2 {
        framework.write_tree(out.path()).expect("room");
    }
    let again = read(out.path()).expect("complete");
    for (file, before) in again.files.iter().zip(&framework.files) {
        assert_eq!(
            (&file.target, &file.sha256, &file.version),
            (&before.target, &before.sha256, &before.version)
        );
        assert_eq!(file.verified, Verified::Manifest);
        assert_eq!(
            fs::metadata(&file.source)
                .expect("there")
                .permissions()
                .mode()
                & 0o7777,
            0o755
        );
    }
    let fips = FrameworkContext {
        fips: true,
        ..context(Path::new("/nonexistent"))
    };
    assert!(matches!(
        from_dir(out.path(), &fips),
        Err(FrameworkError::Manifest { .. })
    ));
    put(out.path(), AGENT, b"#!/bin/sh\n: forged\n");
    let error = read(out.path()).expect_err("forged");
    assert!(
        matches!(&error, FrameworkError::Manifest { reason, .. } if reason.contains("kairos-agent")),
        "{error}"
    );
}

#[test]
fn a_manifest_that_is_no_manifest_or_of_another_machine_is_refused() {
    for text in [
        "",
        "[]",
        r#"{"arch":"arm64","fips":false,"files":[]}"#,
        r#"{"arch":"amd64","fips":false,"files":[]}"#,
    ] {
        let dir = smallest();
        put(dir.path(), MANIFEST, text.as_bytes());
        assert!(
            matches!(read(dir.path()), Err(FrameworkError::Manifest { .. })),
            "{text:?}"
        );
    }
}

#[test]
fn a_source_that_changed_since_is_not_written() {
    let (dir, out) = (smallest(), tempfile::tempdir().expect("room"));
    let framework = read(dir.path()).expect("complete");
    put(dir.path(), AGENT, b"something else");
    assert!(matches!(
        framework.write_tree(out.path()),
        Err(FrameworkError::Changed { .. })
    ));
    assert!(!out.path().join(AGENT).exists());
}

#[test]
fn an_archive_gives_the_same_files_as_the_directory() {
    let (dir, cache) = (smallest(), tempfile::tempdir().expect("room"));
    let (agent, immucore) = (
        fs::read(dir.path().join(AGENT)).expect("there"),
        fs::read(dir.path().join(IMMUCORE)).expect("there"),
    );
    let tar = tar_of(&[
        ("./usr/bin/immucore", &immucore),
        ("../../evil", b"x"),
        (AGENT, &agent),
    ]);
    let file = cache.path().join("framework.tar.gz");
    fs::write(&file, gzip(&tar)).expect("room");
    let spec = FrameworkSpec::Tar(file);
    let sums = |framework: Framework| {
        framework
            .files
            .into_iter()
            .map(|f| (f.target, f.sha256))
            .collect::<Vec<_>>()
    };
    let expected = sums(read(dir.path()).expect("complete"));
    for _ in 0..2 {
        assert_eq!(
            sums(resolve(&spec, &context(cache.path())).expect("complete")),
            expected
        );
    }
    assert!(!cache.path().join("evil").exists());
}

struct Images(PathBuf);

impl UnpackImage for Images {
    fn unpack(&self, reference: &str, arch: Arch) -> Result<PathBuf, BoxError> {
        match (reference, arch) {
            ("oci:good", Arch::Amd64) => Ok(self.0.clone()),
            _ => Err("no such image".into()),
        }
    }
}

#[test]
fn images_are_read_through_the_caller() {
    let dir = smallest();
    let images = Images(dir.path().into());
    let mut ctx = context(Path::new("/nonexistent"));
    let good = FrameworkSpec::Image("oci:good".into());
    assert!(matches!(
        resolve(&good, &ctx),
        Err(FrameworkError::NoImageReader { .. })
    ));
    ctx.images = Some(&images);
    assert_eq!(resolve(&good, &ctx).expect("complete").files.len(), 2);
    let error = resolve(&FrameworkSpec::Image("bad/ref".into()), &ctx).expect_err("no image");
    assert_eq!(error.to_string(), "unpacking the framework image `bad/ref`");
}
