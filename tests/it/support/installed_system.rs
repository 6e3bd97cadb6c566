//! An installed system, as the shell at its console shows it.

use std::time::Duration;

use super::conversion::Conversion;
use super::machine::Machine;

const SECOND: Duration = Duration::from_secs(120);

/// Who may log in: a configuration that an installation brings along.
pub(crate) const USER: &str = "#cloud-config
stages:
  initramfs:
    - users:
        kairos:
          passwd: kairos
          groups: [admin]
";

/// Waits for a login, which must be to the active system, made of the converted image; returns what is in `/oem`.
#[track_caller]
pub(crate) fn is_active(machine: &mut Machine, made: &Conversion, limit: Duration) -> String {
    machine.wait_for(&["login:"], limit);
    machine.send("kairos");
    machine.wait_for(&["Password:"], SECOND);
    machine.send("kairos");
    machine.wait_for(&["$ "], SECOND);
    let state = machine.run("kairos-agent state get boot", SECOND);
    assert!(state.contains("active_boot"), "{state}");
    let release = machine.run("cat /etc/kairos-release", SECOND);
    assert_eq!(release, made.tree().read("/etc/kairos-release").trim());
    for (place, label) in [
        ("/", "COS_ACTIVE"),
        ("/oem", "COS_OEM"),
        ("/usr/local", "COS_PERSISTENT"),
    ] {
        let source = format!("$(findmnt -no SOURCE {place} | sed 's/\\[.*//')");
        let found = machine.run(&format!("lsblk -no LABEL {source}"), SECOND);
        assert_eq!(found, label, "{place}");
    }
    eprintln!("active after {:.0} s", machine.uptime().as_secs_f64());
    machine.run("ls /oem", SECOND)
}
