//! The files that go with a Kubernetes distribution: a service for each role, and what belongs to it.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use super::distribution::{Distribution, Role};
use crate::kairos::StaticFile;

/// What starts services in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// systemd.
    Systemd,
    /// OpenRC.
    OpenRc,
}

/// Returns the files of `distribution` in an image whose services `manager` starts. No service is enabled: Kairos starts the one
/// that the machine's configuration asks for.
pub fn files(distribution: &Distribution, manager: Manager) -> Vec<StaticFile> {
    let mut files = Vec::new();
    for role in distribution.roles {
        let service = role.service;
        match manager {
            Manager::Systemd => {
                let path = format!("/etc/systemd/system/{service}.service");
                files.push(filled(path, 0o644, unit(distribution), role));
            }
            Manager::OpenRc => {
                let path = format!("/etc/init.d/{service}");
                files.push(filled(path, 0o755, script(distribution), role));
            }
        }
        if distribution.name == "k3s" {
            files.extend(k3s_files(role, manager));
        }
    }
    if distribution.name == "k3s" {
        files.push(StaticFile::new(
            "/usr/bin/k3s-killall.sh",
            0o755,
            include_str!("files/k3s-killall.sh"),
        ));
    }
    files
}

/// What k3s' own installer leaves beside its services, and what Kairos' provider writes into at boot.
fn k3s_files(role: &Role, manager: Manager) -> Vec<StaticFile> {
    let service = role.service;
    let uninstall = format!("/usr/bin/{service}-uninstall.sh");
    let mut files = vec![filled(
        uninstall,
        0o755,
        include_str!("files/k3s-uninstall.sh"),
        role,
    )];
    match manager {
        Manager::Systemd => {
            let path = format!("/etc/systemd/system/{service}.service.env");
            files.push(filled(path, 0o600, "", role));
        }
        Manager::OpenRc => {
            let path = format!("/etc/rancher/k3s/{service}.env");
            files.push(filled(path, 0o600, "", role));
            let path = format!("/etc/logrotate.d/{service}");
            files.push(filled(
                path,
                0o644,
                include_str!("files/k3s.logrotate"),
                role,
            ));
        }
    }
    files
}

fn unit(distribution: &Distribution) -> &'static str {
    match distribution.name {
        "k3s" => include_str!("files/k3s.service"),
        _ => include_str!("files/k0s.service"),
    }
}

fn script(distribution: &Distribution) -> &'static str {
    match distribution.name {
        "k3s" => include_str!("files/k3s.openrc"),
        _ => include_str!("files/k0s.openrc"),
    }
}

fn filled(path: String, mode: u32, template: &str, role: &Role) -> StaticFile {
    let content = template
        .replace("@service@", role.service)
        .replace("@command@", role.command)
        .replace("@role@", role.name)
        .replace("@type@", role.systemd_type);
    StaticFile {
        path: path.into(),
        mode,
        content: Cow::Owned(content),
    }
}

/// Returns what names the files of `distribution` by content, for caches.
pub fn identity(distribution: &Distribution) -> String {
    let mut hash = Sha256::new();
    for manager in [Manager::Systemd, Manager::OpenRc] {
        for file in files(distribution, manager) {
            hash.update(format!("{} {:o} {}\n", file.path, file.mode, file.content));
        }
    }
    crate::framework::hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::super::DISTRIBUTIONS;
    use super::*;

    fn paths(index: usize, manager: Manager) -> Vec<(String, u32)> {
        let mut paths: Vec<_> = files(&DISTRIBUTIONS[index], manager)
            .into_iter()
            .map(|file| (file.path.into_owned(), file.mode))
            .collect();
        paths.sort();
        paths
    }

    #[track_caller]
    fn expect(found: Vec<(String, u32)>, expected: &[(&str, u32)]) {
        let found: Vec<_> = found.iter().map(|(p, m)| (p.as_str(), *m)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn k3s_has_the_files_that_its_installer_makes() {
        expect(
            paths(0, Manager::Systemd),
            &[
                ("/etc/systemd/system/k3s-agent.service", 0o644),
                ("/etc/systemd/system/k3s-agent.service.env", 0o600),
                ("/etc/systemd/system/k3s.service", 0o644),
                ("/etc/systemd/system/k3s.service.env", 0o600),
                ("/usr/bin/k3s-agent-uninstall.sh", 0o755),
                ("/usr/bin/k3s-killall.sh", 0o755),
                ("/usr/bin/k3s-uninstall.sh", 0o755),
            ],
        );
        expect(
            paths(0, Manager::OpenRc),
            &[
                ("/etc/init.d/k3s", 0o755),
                ("/etc/init.d/k3s-agent", 0o755),
                ("/etc/logrotate.d/k3s", 0o644),
                ("/etc/logrotate.d/k3s-agent", 0o644),
                ("/etc/rancher/k3s/k3s-agent.env", 0o600),
                ("/etc/rancher/k3s/k3s.env", 0o600),
                ("/usr/bin/k3s-agent-uninstall.sh", 0o755),
                ("/usr/bin/k3s-killall.sh", 0o755),
                ("/usr/bin/k3s-uninstall.sh", 0o755),
            ],
        );
    }

    #[test]
    fn k0s_has_a_service_for_each_role() {
        expect(
            paths(1, Manager::Systemd),
            &[
                ("/etc/systemd/system/k0scontroller.service", 0o644),
                ("/etc/systemd/system/k0sworker.service", 0o644),
            ],
        );
        expect(
            paths(1, Manager::OpenRc),
            &[
                ("/etc/init.d/k0scontroller", 0o755),
                ("/etc/init.d/k0sworker", 0o755),
            ],
        );
    }

    /// The settings of a unit, in order, without its comments and descriptions.
    fn settings(path: &str, index: usize) -> Vec<String> {
        let file = files(&DISTRIBUTIONS[index], Manager::Systemd)
            .into_iter()
            .find(|file| file.path == path)
            .expect("there is such a unit");
        file.content
            .lines()
            .filter(|line| line.contains('=') && !line.starts_with(['#', 'D']))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn units_start_their_role_and_keep_containers_running() {
        for (path, index, start, kind) in [
            ("k3s", 0, "/usr/bin/k3s server", Some("Type=notify")),
            ("k3s-agent", 0, "/usr/bin/k3s agent", Some("Type=exec")),
            ("k0scontroller", 1, "/usr/bin/k0s controller", None),
            ("k0sworker", 1, "/usr/bin/k0s worker", None),
        ] {
            let found = settings(&format!("/etc/systemd/system/{path}.service"), index);
            let has = |setting: &str| found.iter().any(|line| line == setting);
            assert!(has(&format!("ExecStart={start}")), "{found:?}");
            for setting in [
                "After=network-online.target",
                "Wants=network-online.target",
                "KillMode=process",
                "Restart=always",
                "TimeoutStartSec=0",
                "LimitCORE=infinity",
                "TasksMax=infinity",
                "WantedBy=multi-user.target",
            ] {
                assert!(has(setting), "{path}: no {setting} in {found:?}");
            }
            assert!(kind.is_none_or(has), "{path}: {found:?}");
        }
        let k0s = settings("/etc/systemd/system/k0sworker.service", 1);
        for setting in [
            "ConditionFileIsExecutable=/usr/bin/k0s",
            "RestartSec=10",
            "StartLimitBurst=10",
            "LimitNOFILE=999999",
        ] {
            assert!(k0s.iter().any(|line| line == setting), "{setting}");
        }
    }

    #[test]
    fn nothing_is_left_to_fill_in_and_scripts_parse() {
        for distribution in DISTRIBUTIONS {
            for manager in [Manager::Systemd, Manager::OpenRc] {
                for file in files(distribution, manager) {
                    let text = file.content.as_ref();
                    for mark in ["@service@", "@command@", "@role@", "@type@"] {
                        assert!(!text.contains(mark), "{}: {mark}", file.path);
                    }
                    if text.starts_with("#!") {
                        let status = std::process::Command::new("sh")
                            .args(["-n", "-c", text])
                            .status()
                            .expect("there is a shell");
                        assert!(status.success(), "{}", file.path);
                    }
                }
            }
        }
    }

    #[test]
    fn on_openrc_the_arguments_that_kairos_sets_win() {
        let files = files(&DISTRIBUTIONS[0], Manager::OpenRc);
        let script = files
            .iter()
            .find(|file| file.path == "/etc/init.d/k3s-agent")
            .expect("there is one");
        let ours = script.content.find("command_args=").expect("arguments");
        let theirs = script.content.rfind(". /etc/rancher/k3s/k3s-agent.env");
        assert!(theirs.is_some_and(|theirs| theirs > ours));
    }
}
