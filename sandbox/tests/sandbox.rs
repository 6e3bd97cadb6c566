//! Real sandboxes on real stages: as whoever runs the tests, and as a plain user where that is root.
#![allow(clippy::print_stderr, reason = "skipped tests say so")]

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

mod support;

use support::{Caller, Probe, callers, eventually, processes_with, skipped};

/// Runs `script` in a sandbox of `caller`.
fn script(caller: &Caller, script: &str) -> support::Report {
    Probe::new(caller).script(script).run()
}

#[test]
fn changes_land_in_the_upper_directory_with_their_owners() {
    for caller in callers() {
        let report = script(
            &caller,
            "mkdir /opt && touch /opt/x && chown 5:6 /opt/x && chmod 4755 /opt/x && useradd -u 1234 -m bob",
        );
        assert_eq!(report.one("exit"), "0", "{report:#?}");
        let changes = report.all("change");
        assert!(changes.contains(&"opt/x 5:6"), "{changes:?}");
        assert!(
            changes
                .iter()
                .any(|change| change.starts_with("home/bob 1234:")),
            "{changes:?}"
        );
        assert!(report.one("mount").contains("volatile"), "{report:#?}");
    }
}

#[test]
fn a_command_that_changes_nothing_leaves_nothing() {
    for caller in callers() {
        let report = Probe::new(&caller)
            .arguments([
                "--without",
                "proc",
                "--without",
                "dev",
                "--without",
                "sys",
                "--without",
                "tmp",
                "--without",
                "run",
            ])
            .arguments([
                "--file",
                "/etc/resolv.conf",
                "nameserver 192.0.2.1",
                "--file",
                "/opt/deep/secret",
                "x",
            ])
            .script("cat /etc/resolv.conf /opt/deep/secret; touch /tmp/x /run/x /dev/shm/x")
            .run();
        assert_eq!(report.one("exit"), "0", "{report:#?}");
        assert_eq!(report.out(), "nameserver 192.0.2.1x");
        let files: Vec<_> = report
            .all("change")
            .into_iter()
            .filter(|change| *change != "etc 0:0")
            .collect();
        assert!(files.is_empty(), "{files:?}");
    }
}

#[test]
fn a_dangling_resolv_conf_link_works_and_stays() {
    for caller in callers() {
        let report = Probe::new(&caller)
            .arguments([
                "--link",
                "etc/resolv.conf",
                "../run/systemd/resolve/stub-resolv.conf",
            ])
            .arguments(["--link", "etc/hosts", "/run/hosts"])
            .arguments([
                "--file",
                "/etc/resolv.conf",
                "nameserver 192.0.2.1",
                "--file",
                "/etc/hosts",
                "\n127.0.0.1 localhost",
            ])
            .script("cat /etc/resolv.conf /etc/hosts")
            .run();
        assert_eq!(report.out(), "nameserver 192.0.2.1\n127.0.0.1 localhost");
        assert_eq!(report.all("change"), [""; 0]);
    }
}

#[test]
fn without_network_there_is_only_the_loopback() {
    let interfaces = |report: &support::Report| -> Vec<String> {
        report
            .all("out")
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, _)| name.trim().to_owned())
            .collect()
    };
    for caller in callers() {
        let report = script(&caller, "cat /proc/net/dev");
        assert_eq!(interfaces(&report), ["lo"]);
        let host = fs::read_to_string("/proc/net/dev")
            .unwrap()
            .matches(':')
            .count();
        let report = Probe::new(&caller)
            .arguments(["--net"])
            .script("cat /proc/net/dev")
            .run();
        assert_eq!(interfaces(&report).len(), host);
    }
}

#[test]
fn input_is_what_was_given_or_nothing() {
    for caller in callers() {
        assert_eq!(script(&caller, "cat; echo end").out(), "end");
        let report = Probe::new(&caller)
            .arguments(["--stdin", "given\n"])
            .script("cat; echo end")
            .run();
        assert_eq!(report.out(), "given\nend");
    }
}

#[test]
fn captured_output_is_kept_byte_for_byte_and_passed_on_to_nobody() {
    for caller in callers() {
        let capture = |limit: &str, words: &str| {
            Probe::new(&caller)
                .arguments(["--capture", limit])
                .script(words)
                .run()
        };
        let report = capture("9", r"printf 'a\r\nb\rc\n'; echo said >&2");
        assert_eq!(report.one("stdout"), r"a\r\nb\rc\n", "{report:#?}");
        assert_eq!(report.all("out"), [""; 0]);
        assert_eq!(report.all("err"), ["said"]);
        assert_eq!(report.one("tail"), "1");
        let report = capture("3", "echo 123; sleep 60");
        assert!(
            report.one("launch").contains("more than 3 bytes"),
            "{report:#?}"
        );
    }
}

#[test]
fn a_command_that_takes_too_long_is_ended_with_what_it_started() {
    for caller in callers() {
        let mark = format!("time-limit-{}", std::process::id());
        let start = Instant::now();
        let report = Probe::new(&caller)
            .arguments(["--time-limit-ms", "700"])
            .script(&format!(
                "echo waiting; sh -c 'sleep 60; : {mark}' & sleep 60"
            ))
            .run();
        assert!(start.elapsed() < Duration::from_secs(20));
        assert!(
            report.one("launch").contains("ended after 0.7 seconds"),
            "{report:#?}"
        );
        assert_eq!(report.out(), "waiting");
        assert!(processes_with(&mark).is_empty());
        let report = Probe::new(&caller)
            .arguments(["--time-limit-ms", "60000"])
            .script("true")
            .run();
        assert_eq!(report.one("exit"), "0");
    }
}

#[test]
fn the_environment_is_exactly_the_given_one() {
    for caller in callers() {
        let report = Probe::new(&caller)
            .env("HOST_SECRET", "x")
            .arguments(["--env", "two words"])
            .script("env")
            .run();
        let mut lines = report.all("out");
        lines.sort_unstable();
        assert_eq!(
            lines,
            ["MARK=two words", "PATH=/usr/sbin:/usr/bin", "PWD=/"]
        );
    }
}

#[test]
fn a_failing_command_reports_status_and_last_lines() {
    for caller in callers() {
        let report = script(
            &caller,
            "i=0; while [ $i -lt 40 ]; do echo $i >&2; i=$((i+1)); done; printf unfinished; exit 7",
        );
        assert_eq!(report.one("exit"), "7");
        assert_eq!(report.one("tail"), "30");
        assert_eq!(report.all("err").len(), 40);
        assert_eq!(report.out(), "unfinished");
        assert_eq!(script(&caller, "kill -9 $$").one("signal"), "9");
    }
}

#[test]
fn a_command_that_cannot_be_executed_is_named() {
    for caller in callers() {
        let report = Probe::new(&caller).arguments(["--", "/bin/nothing"]).run();
        assert_eq!(
            report.one("launch"),
            "executing \"/bin/nothing\" in the sandbox: No such file or directory"
        );
        let report = Probe::new(&caller)
            .arguments(["--ro-bind", "/nonexistent", "/mnt", "--", "ls"])
            .run();
        assert!(
            report
                .one("launch")
                .contains("bind mount source \"/nonexistent\""),
            "{report:#?}"
        );
    }
}

#[test]
fn capabilities_are_a_default_containers_and_end_with_root() {
    let effective = |report: &support::Report| {
        let line = report
            .all("out")
            .into_iter()
            .find(|line| line.starts_with("CapEff:"))
            .unwrap_or_default();
        u64::from_str_radix(line.trim_start_matches("CapEff:").trim(), 16).unwrap()
    };
    for caller in callers() {
        // chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, sys_chroot, audit_write, setfcap
        assert_eq!(
            effective(&script(&caller, "cat /proc/self/status")),
            0xa004_05fb
        );
        let report = script(
            &caller,
            "perl -e '$( = $) = \"7 7\"; $< = $> = 7; exec \"cat\", \"/proc/self/status\"'",
        );
        assert_eq!(effective(&report), 0, "{report:#?}");
        assert!(
            report.all("out").contains(&"Uid:\t7\t7\t7\t7"),
            "{report:#?}"
        );
    }
}

/// Prints the result and error number of system calls by their x86_64 numbers.
const SYSCALLS: &str = r#"perl -e '
    sub try { my ($name, $number, @rest) = @_; $! = 0; my $result = syscall($number, @rest); printf "%s %d %d\n", $name, $result, $!+0; }
    try("fsync", 74, 99); try("fdatasync", 75, 99); try("sync", 162); try("syncfs", 306, 99);
    try("msync", 26, 1, 1, 4); try("sync_file_range", 277, 99, 0, 0, 0);
    try("mount", 165, 0, 0, 0, 0, 0); try("unshare", 272, 0x10000000); try("unshare_files", 272, 0x400);
    try("setns", 308, 0, 0); try("init_module", 175, 0, 0, 0); try("keyctl", 250, 0, 0, 0); try("bpf", 321, 0, 0, 0);
    try("perf_event_open", 298, 0, 0, 0, 0, 0); try("io_uring_setup", 425, 1, 0); try("clone3", 435, 0, 0);
    try("clone_user", 56, 0x10000011, 0, 0, 0, 0); try("reboot", 169, 0, 0, 0); try("vsock", 41, 40, 1, 0); try("inet", 41, 2, 1, 0);
'"#;

#[test]
fn syncing_does_nothing_and_dangerous_calls_are_refused() {
    if std::env::consts::ARCH != "x86_64" {
        return skipped("the call numbers are those of x86_64");
    }
    for caller in callers() {
        let report = script(&caller, SYSCALLS);
        let answers: Vec<_> = report.all("out");
        for name in [
            "fsync",
            "fdatasync",
            "sync",
            "syncfs",
            "msync",
            "sync_file_range",
            "unshare_files",
        ] {
            assert!(
                answers.contains(&format!("{name} 0 0").as_str()),
                "{name}: {report:#?}"
            );
        }
        let refused = [
            "mount",
            "unshare",
            "setns",
            "init_module",
            "keyctl",
            "bpf",
            "perf_event_open",
            "io_uring_setup",
            "clone_user",
            "reboot",
            "vsock",
        ];
        for name in refused {
            assert!(
                answers.contains(&format!("{name} -1 1").as_str()),
                "{name}: {report:#?}"
            );
        }
        assert!(answers.contains(&"clone3 -1 38"), "{report:#?}");
        assert!(
            answers
                .iter()
                .any(|answer| answer.starts_with("inet ") && answer.ends_with(" 0")),
            "{report:#?}"
        );
    }
}

#[test]
fn the_host_is_out_of_sight() {
    for caller in callers() {
        let report = script(
            &caller,
            "hostname; ls /proc | head -n 3; ls /sys /tmp; touch /sys/x 2>/dev/null || echo sys is read-only; ls -A /home",
        );
        let lines = report.all("out");
        assert_eq!(lines[0], "localhost");
        assert_eq!(lines[1], "1");
        assert!(lines.contains(&"sys is read-only"), "{lines:?}");
    }
}

#[test]
fn no_foreign_descriptor_is_inherited() {
    for caller in callers() {
        let (home, inner) = Probe::new(&caller)
            .script("ls /proc/self/fd")
            .into_command();
        let mut outer = Command::new("sh");
        outer
            .args(["-c", "exec 9</ \"$@\"", "sh"])
            .arg(inner.get_program())
            .args(inner.get_args());
        let output = outer.output().unwrap();
        // The last is the directory `ls` reads.
        let text = String::from_utf8(output.stdout).unwrap();
        let numbers: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("out: "))
            .collect();
        assert_eq!(numbers, ["0", "1", "2", "3"]);
        drop(home);
    }
}

#[test]
fn bind_mounts_are_writable_or_not_as_asked() {
    for caller in callers() {
        let probe = Probe::new(&caller);
        let outside = probe.home().join("store");
        let outside = outside.to_str().unwrap();
        let report = probe
            .arguments(["--bind", outside, "/cache", "--ro-bind", outside, "/fixed"])
            .script(
                "touch /cache/new && ls /fixed/new; touch /fixed/other 2>/dev/null || echo refused",
            )
            .run();
        assert_eq!(report.out(), "/fixed/new\nrefused", "{report:#?}");
        assert_eq!(report.all("change"), [""; 0]);
    }
}

#[test]
fn a_read_only_root_stays_as_it_is() {
    for caller in callers() {
        let report = Probe::new(&caller)
            .arguments(["--read-only"])
            .script("touch /etc/x 2>/dev/null || echo refused")
            .run();
        assert_eq!(report.out(), "refused", "{report:#?}");
    }
}

#[test]
fn directories_may_have_any_name() {
    for caller in callers() {
        for name in [
            "a:b",
            "a,b",
            "a\\b",
            "a b",
            "line\nfeed",
            "\u{e9}",
            &"long".repeat(60),
        ] {
            let report = Probe::named(&caller, name).script("touch /x").run();
            assert_eq!(report.all("change"), ["x 0:0"], "{name:?}: {report:#?}");
        }
    }
}

#[test]
fn usage_counts_the_command_and_its_children() {
    for caller in callers() {
        let report = script(
            &caller,
            "perl -e 'my $x = \"x\" x 50000000; my $end = time + 1; 1 while (times)[0] < 0.2'; true",
        );
        let number = |word| report.one(word).parse::<u64>().unwrap();
        assert!(number("rss") > 40_000_000, "{report:#?}");
        assert!(number("cpu") >= 200, "{report:#?}");
    }
}

#[test]
fn a_process_left_behind_ends_with_the_command() {
    for caller in callers() {
        let started = Instant::now();
        let report = script(&caller, "sleep 7654321.1 >/dev/null 2>&1 & echo started");
        assert_eq!(
            (report.out().as_str(), report.one("exit")),
            ("started", "0")
        );
        assert!(started.elapsed() < Duration::from_secs(60));
        assert!(processes_with("7654321.1").is_empty());
    }
}

#[test]
fn cancelling_ends_every_process_at_any_moment() {
    for caller in callers() {
        for delay in ["0", "2", "4", "8", "300"] {
            let report = Probe::new(&caller)
                .arguments(["--cancel-ms", delay])
                .script("sleep 7654322.1 & sleep 7654322.2")
                .run();
            assert_eq!(report.one("cancelled"), "cancelled");
            assert_eq!(
                processes_with("7654322."),
                [""; 0].map(std::path::PathBuf::from),
                "after {delay} ms"
            );
            assert_eq!(report.all("change"), [""; 0]);
        }
    }
}

/// Waits until no process names `mark` any more.
#[track_caller]
fn assert_all_gone(mark: &str) {
    let gone = eventually(|| processes_with(mark).is_empty());
    assert!(gone, "{:?}", processes_with(mark));
}

#[test]
fn a_killed_program_leaves_no_process() {
    for (number, caller) in callers().into_iter().enumerate() {
        let mark = format!("7654323.{number}");
        let mut running = Probe::new(&caller)
            .arguments(["--", "sleep", &mark])
            .start();
        // The probe, its stage, bubblewrap outside and inside, and the command name it.
        assert!(
            eventually(|| processes_with(&mark).len() >= 5),
            "{:?}",
            processes_with(&mark)
        );
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        assert_all_gone(&mark);
    }
}

#[test]
fn a_program_killed_while_it_starts_leaves_no_process() {
    for (number, caller) in callers().into_iter().enumerate() {
        let mark = format!("7654325.{number}");
        let (home, mut first) = Probe::new(&caller).script("true").into_command();
        assert!(first.output().unwrap().status.success());
        let root = home.path().join("store/lower");
        for delay in 1..40 {
            let mut running = Probe::new(&caller)
                .arguments(["--root", root.to_str().unwrap(), "--", "sleep", &mark])
                .start();
            std::thread::sleep(Duration::from_millis(delay));
            running.child.kill().unwrap();
            running.child.wait().unwrap();
        }
        assert_all_gone(&mark);
    }
}

#[test]
fn a_signal_to_the_program_reaches_the_stage() {
    for (number, caller) in callers().into_iter().enumerate() {
        let mark = format!("7654324.{number}");
        let mut running = Probe::new(&caller)
            .arguments(["--", "sleep", &mark])
            .start();
        assert!(eventually(|| processes_with(&mark).len() >= 5));
        send("-TERM", running.child.id());
        assert_eq!(running.child.wait().unwrap().code(), Some(128 + 15));
        assert_all_gone(&mark);
    }
}

#[test]
fn the_stage_stands_still_while_the_program_is_stopped() {
    for (number, caller) in callers().into_iter().enumerate() {
        let mark = format!("7654326.{number}");
        let mut running = Probe::new(&caller)
            .arguments(["--", "sleep", &mark])
            .start();
        assert!(eventually(|| processes_with(&mark).len() >= 5));
        let program = running.child.id();
        let children = format!("/proc/{program}/task/{program}/children");
        let stage: u32 = fs::read_to_string(children)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let both_stopped = || [program, stage].map(is_stopped);
        send("-TSTP", program);
        assert!(eventually(|| both_stopped() == [true, true]));
        send("-CONT", program);
        assert!(eventually(|| both_stopped() == [false, false]));
        send("-TERM", program);
        assert_eq!(running.child.wait().unwrap().code(), Some(128 + 15));
        assert_all_gone(&mark);
    }
}

/// Tells whether a process has been stopped by a signal (proc_pid_stat(5)).
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('T')
}

fn send(signal: &str, pid: u32) {
    let status = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn a_command_has_no_terminal_even_where_the_program_has_one() {
    for caller in callers() {
        let probe =
            Probe::new(&caller).script("if true < /dev/tty; then echo one; else echo none; fi");
        let report = probe.on_a_terminal();
        assert_eq!(report.out(), "none", "{report:#?}");
    }
}

#[test]
fn the_stages_exit_code_is_the_programs() {
    for caller in callers() {
        assert_eq!(
            Probe::new(&caller)
                .arguments(["--exit", "42", "--", "x"])
                .run()
                .code,
            Some(42)
        );
    }
}

#[test]
fn a_stage_cannot_be_faked_by_the_environment() {
    for caller in callers() {
        let probe = Probe::new(&caller).env("KFACTORY_STAGE_FROM", "1:2");
        let home = probe.home().to_str().unwrap().to_owned();
        let report = probe.script("touch /x").run();
        // On the host's own mounts it would fail or, as root, leave the mount behind.
        assert_eq!(report.all("change"), ["x 0:0"], "{report:#?}");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&home), "{mounts}");
    }
}

#[test]
fn a_user_without_subordinate_ids_is_told_the_remedy() {
    let Some(Caller::User(_)) = callers().pop() else {
        return skipped("only root can become another user");
    };
    let (home, inner) = Probe::new(&Caller::Me).script("true").into_command();
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--",
        ])
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(70));
    assert!(text.contains("no stage: mapping user and group IDs: \"nobody\" has 0 subordinate uids in /etc/subuid, needs 65536"), "{text}");
    assert!(
        text.contains(
            "hint: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 nobody`"
        ),
        "{text}"
    );
    drop(home);
}

#[test]
fn the_doctor_finds_a_working_host_working() {
    for caller in callers() {
        let report = Probe::new(&caller).arguments(["--doctor"]).run();
        for id in [
            "sub-ids",
            "user-namespaces",
            "overlayfs",
            "bubblewrap",
            "seccomp",
            "conversion",
        ] {
            assert!(report.one(id).starts_with("ok "), "{report:#?}");
        }
    }
}

#[test]
fn a_forbidden_namespace_names_the_setting() {
    for caller in callers() {
        let report = Probe::new(&caller)
            .arguments(["--forbid-nesting", "--", "x"])
            .run();
        assert!(
            report
                .one("no stage")
                .starts_with("creating a user namespace: No space left on device"),
            "{report:#?}"
        );
        assert_eq!(
            report.one("hint"),
            "`sysctl -w user.max_user_namespaces=15000` as root allows it (now 0)"
        );
    }
}

#[test]
fn hundreds_of_layers_make_one_root() {
    for caller in callers() {
        let report = Probe::new(&caller)
            .arguments(["--layers", "300"])
            .script("touch /x")
            .run();
        if report
            .all("error")
            .iter()
            .any(|error| error.contains("more than this kernel takes"))
        {
            return skipped("this kernel has no `lowerdir+`");
        }
        assert_eq!(report.all("change"), ["x 0:0"], "{report:#?}");
    }
}

#[test]
fn a_clone_is_a_copy_where_the_file_system_has_none() {
    for caller in callers() {
        let clone = "cp --reflink=always /bin/sh /copy && cmp /bin/sh /copy";
        let report = Probe::new(&caller)
            .arguments(["--clones"])
            .script(clone)
            .run();
        assert_eq!(report.one("exit"), "0", "{report:#?}");
    }
}

#[test]
fn what_is_no_file_is_not_cloned() {
    for caller in callers() {
        let report = Probe::new(&caller)
            .arguments(["--clones"])
            .script("cp --reflink=always --copy-contents /dev/null /copy")
            .run();
        assert_eq!(report.one("exit"), "1", "{report:#?}");
    }
}

#[test]
fn a_machine_with_few_processes_will_do() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root makes PID namespaces for it");
    }
    let (_home, probe) = Probe::new(&Caller::Me).script("true").into_command();
    // Nobody has the low numbers any more that bubblewrap and its child get in their own namespace.
    let later = "for i in 1 2 3 4 5 6 7 8; do /bin/true; done; exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--"])
        .args(["sh", "-c", later, "sh"])
        .arg(probe.get_program())
        .args(probe.get_args())
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.lines().any(|line| line == "exit: 0"), "{said}");
}
