//! Made-up images that differ in one way each.

use super::*;
use crate::tree::samples::Sample;

/// Two layers: the base, and one of ours.
fn side(name: &str, sample: Sample) -> Side {
    Side {
        name: name.to_owned(),
        tree: sample.tree(),
        steps: vec!["base".into(), "kfactory init".into()],
    }
}

fn sample() -> Sample {
    const STATUS: &[u8] = b"Package: bash\nStatus: install ok installed\nVersion: 5.1\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n";
    Sample::new()
        .file("usr/bin/bash", 0o755, b"bash 5.1")
        .file(
            "etc/kairos-release",
            0o644,
            b"KAIROS_MODEL=\"generic\"\nKAIROS_INIT_VERSION=\"v1\"\n",
        )
        .layer("etc/kairos-release", 1)
        .file("etc/other", 0o644, b"text")
        .layer("etc/other", 1)
        .link(
            "etc/systemd/system/x.wants/ssh.service",
            "/usr/lib/systemd/system/ssh.service",
        )
        .layer("etc/systemd/system/x.wants/ssh.service", 1)
        .file("var/lib/dpkg/status", 0o644, STATUS)
        .file(
            "var/lib/dpkg/info/bash.list",
            0o644,
            b"/.\n/bin\n/bin/bash\n",
        )
}

fn differences(change: impl FnOnce(Sample) -> Sample, upstream: bool) -> Vec<Difference> {
    let (here, there) = (side("a", sample()), side("b", change(sample())));
    compare(&here, &there, upstream).unwrap().differences
}

#[test]
fn an_image_does_not_differ_from_itself() {
    assert_eq!(differences(|s| s, false), []);
    let report = compare(&side("a", sample()), &side("a", sample()), false).unwrap();
    assert_eq!(report.unintended(), 0);
    assert!(
        report
            .to_text(false)
            .ends_with("0 differences: 0 intended, 0 not\n")
    );
}

/// What is changed in the second image, and the one difference that it makes.
#[test]
fn the_notes_of_an_overlay_are_no_difference() {
    let noted = |sample: Sample| {
        sample.edit("etc/other", |node| {
            node.xattrs = Some(Box::new(
                [(b"user.overlay.origin".to_vec(), Vec::new())].into(),
            ));
        })
    };
    assert!(differences(noted, false).is_empty());
}

#[test]
fn each_kind_of_difference_is_found_alone_and_told_with_its_step() {
    type Row = (
        fn(Sample) -> Sample,
        Subject,
        &'static str,
        Change,
        &'static str,
    );
    let rows: [Row; 11] = [
        (
            |s| s.file("etc/other", 0o644, b"tex2").layer("etc/other", 1),
            Subject::File,
            "/etc/other",
            Change::Content,
            "kfactory init",
        ),
        (
            |s| s.edit("etc/other", |node| node.mode = 0o600),
            Subject::File,
            "/etc/other",
            Change::Mode,
            "kfactory init",
        ),
        (
            |s| s.edit("etc/other", |node| node.uid = 5),
            Subject::File,
            "/etc/other",
            Change::Owner,
            "kfactory init",
        ),
        (
            |s| {
                s.edit("etc/other", |node| {
                    node.xattrs = Some(Box::new([(b"user.a".to_vec(), b"1".to_vec())].into()))
                })
            },
            Subject::File,
            "/etc/other",
            Change::Xattrs,
            "kfactory init",
        ),
        (
            |s| s.without("etc/other"),
            Subject::File,
            "/etc/other",
            Change::Added,
            "kfactory init",
        ),
        (
            |s| s.file("opt/new", 0o644, b""),
            Subject::File,
            "/opt",
            Change::Missing,
            "base",
        ),
        (
            |s| s.link("etc/other", "x"),
            Subject::File,
            "/etc/other",
            Change::Kind,
            "kfactory init",
        ),
        (
            |s| s.without("etc/systemd/system/x.wants/ssh.service"),
            Subject::Service,
            "ssh.service",
            Change::Added,
            "kfactory init",
        ),
        (
            |s| s.link("etc/systemd/system/y.service", "/dev/null"),
            Subject::Service,
            "y.service",
            Change::Missing,
            "base",
        ),
        (
            |s| {
                s.file(
                    "etc/kairos-release",
                    0o644,
                    b"KAIROS_MODEL=\"rpi4\"\nKAIROS_INIT_VERSION=\"v1\"\n",
                )
            },
            Subject::Release,
            "KAIROS_MODEL",
            Change::Content,
            "kfactory init",
        ),
        (
            |s| s.edit("", |node| node.mode = 0o700),
            Subject::File,
            "/",
            Change::Mode,
            "base",
        ),
    ];
    for (change, subject, name, kind, step) in rows {
        let found = differences(change, false);
        let told: Vec<_> = found
            .iter()
            .map(|it| (it.subject, it.name.as_str(), it.change, it.step.as_str()))
            .collect();
        assert_eq!(told, [(subject, name, kind, step)], "{found:#?}");
        assert_eq!(found[0].intended, None);
    }
}

#[test]
fn a_package_of_another_version_explains_its_files_and_counts_unless_the_day_does() {
    let newer = |s: Sample| {
        s.file(
            "var/lib/dpkg/status",
            0o644,
            b"Package: bash\nStatus: install ok installed\nVersion: 5.2\n",
        )
        .file("usr/bin/bash", 0o755, b"bash 5.2")
    };
    for (upstream, counts) in [(false, true), (true, false)] {
        let found = differences(newer, upstream);
        let open: Vec<&str> = found
            .iter()
            .filter(|it| it.intended.is_none())
            .map(|it| it.name.as_str())
            .collect();
        let expected: &[&str] = if counts { &["bash"] } else { &[] };
        assert_eq!(open, expected, "{found:#?}");
        assert!(
            found
                .iter()
                .any(|it| it.name == "/usr/bin/bash" && it.package.as_deref() == Some("bash"))
        );
    }
}

#[test]
fn what_a_database_has_of_a_package_that_differs_follows_from_it() {
    const INFO: &str = "var/lib/dpkg/info/";
    const VIM: &[u8] = b"Package: bash\nStatus: install ok installed\nVersion: 5.1\n\nPackage: vim.tiny\nStatus: install ok installed\nVersion: 9\n";
    let one_more = |s: Sample| {
        [
            "vim.tiny:amd64.list",
            "vim.tiny:amd64.postinst",
            "vim.tiny.md5sums",
        ]
        .iter()
        .fold(s, |s, file| s.file(&format!("{INFO}{file}"), 0o644, b""))
        .file("var/lib/dpkg/status", 0o644, VIM)
    };
    let pacman = |version: &str| {
        let desc = format!("%NAME%\nbash\n\n%VERSION%\n{version}\n");
        Sample::new()
            .file("var/lib/pacman/local/ALPM_DB_VERSION", 0o644, b"9")
            .file(
                &format!("var/lib/pacman/local/bash-{version}/desc"),
                0o644,
                desc.as_bytes(),
            )
    };
    let others_file = |s: Sample| s.file(&format!("{INFO}bash.prerm"), 0o755, b"");
    for (here, there, open) in [
        (sample(), one_more(sample()), "vim.tiny"),
        (pacman("5.2-1"), pacman("5.3-1"), "bash"),
        (
            sample(),
            others_file(sample()),
            "/var/lib/dpkg/info/bash.prerm",
        ),
    ] {
        let report = compare(&side("a", here), &side("b", there), false).unwrap();
        let all = report.differences.iter();
        let unintended: Vec<&str> = all
            .filter(|it| it.intended.is_none())
            .map(|it| it.name.as_str())
            .collect();
        assert_eq!(unintended, [open], "{:#?}", report.differences);
    }
}

#[test]
fn what_is_meant_is_told_with_its_reason() {
    let change = |s: Sample| {
        s.file(
            "etc/kairos-release",
            0o644,
            b"KAIROS_MODEL=\"generic\"\nKAIROS_INIT_VERSION=\"v2\"\n",
        )
        .file("var/log/dracut.log", 0o644, b"x")
        .file("etc/ssh/ssh_host_rsa_key", 0o600, b"x")
        .file("boot/initrd", 0o600, b"x")
    };
    let base = |s: Sample| {
        s.dir("var/log", 0o755)
            .dir("etc/ssh", 0o755)
            .file("boot/initrd", 0o644, b"y")
    };
    let (here, there) = (side("a", base(sample())), side("b", change(base(sample()))));
    let report = compare(&here, &there, false).unwrap();
    assert_eq!(report.unintended(), 0, "{:#?}", report.differences);
    assert_eq!(report.differences.len(), 5);
    let text = report.to_text(false);
    assert!(
        text.contains("intended  KAIROS_INIT_VERSION: names the tool that made the image\n"),
        "{text}"
    );
    assert!(
        text.ends_with("5 differences: 5 intended, 0 not\n"),
        "{text}"
    );
}

#[test]
fn the_report_groups_by_step_and_is_json_too() {
    let report = compare(
        &side("a", sample()),
        &side(
            "b",
            sample()
                .file("etc/other", 0o644, b"2")
                .file("usr/bin/bash", 0o700, b"bash 5.1"),
        ),
        false,
    )
    .unwrap();
    let text = report.to_text(false);
    let (base, ours) = (
        text.find("\nbase\n").unwrap(),
        text.find("\nkfactory init\n").unwrap(),
    );
    assert!(base < ours, "{text}");
    assert!(
        text.contains("  differs   file /usr/bin/bash: mode 0755, there 0700\n"),
        "{text}"
    );
    let value: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(value["unintended"], 2);
    assert_eq!(value["differences"][1]["step"], "kfactory init");
}

#[test]
fn a_difference_is_one_line_whatever_its_names_hold() {
    let forged = "new\n  differs   file shadow: only there\u{1b}[2K\u{202e}";
    let change = |s: Sample| {
        s.file(forged, 0o644, b"")
            .link("etc/other", "x\ny")
            .layer("etc/other", 1)
    };
    let (here, there) = (side("a", sample()), side("b", change(sample())));
    let text = compare(&here, &there, false).unwrap().to_text(true);
    let told = text.lines().filter(|line| line.starts_with("  differs"));
    assert_eq!(told.count(), 2, "{text}");
    assert!(text.contains(r"/new\n  differs   file shadow"), "{text}");
    assert!(text.contains(r"there\u001b[2K\u202e: only there"), "{text}");
    assert!(text.contains(r"link to x\ny"), "{text}");
}

#[test]
fn apk_packages_are_read_with_their_files() {
    let text = "P:busybox\nV:1.36\nF:bin\nR:busybox\nR:sh\n\nP:musl\nV:1.2\nF:lib\nR:ld.so\n";
    let apk = |text: &str| {
        Sample::new()
            .file("lib/apk/db/installed", 0o644, text.as_bytes())
            .file("bin/sh", 0o755, text.as_bytes())
    };
    let (here, there) = (
        side("a", apk(text)),
        side("b", apk(&text.replace("1.36", "1.37"))),
    );
    let found = compare(&here, &there, true).unwrap().differences;
    let open: Vec<&str> = found
        .iter()
        .filter(|it| it.intended.is_none())
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(open, Vec::<&str>::new(), "{found:#?}");
}

#[test]
fn every_row_of_the_table_has_a_reason_and_patterns_of_its_own() {
    let mut seen = std::collections::BTreeSet::new();
    for row in intended::INTENDED {
        assert!(!row.reason.is_empty() && !row.reason.ends_with('.') && !row.changes.is_empty());
        for pattern in row.patterns {
            assert!(
                seen.insert((row.subject, *pattern, row.changes)),
                "{pattern} is there twice"
            );
            assert_eq!(
                row.subject == Subject::File,
                pattern.starts_with('/'),
                "{pattern}"
            );
        }
    }
}
