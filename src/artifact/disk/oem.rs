//! The file system with configurations: the user's own, and what turns the disk into an installed system when it boots first.

use super::files::SmallFile;
use super::size::DiskSize;
use crate::artifact::names::{
    ENVIRONMENT, ENVIRONMENT_BYTES, ENVIRONMENT_HEAD, FIRST_BOOT, PERSISTENT_LABEL, RECOVERY_LABEL,
    STATE_LABEL,
};

/// Returns its files. `cloud_config` is the user's; `state` is the size of the partition for the installed systems.
pub(super) fn files(cloud_config: Option<&[u8]>, state: DiskSize) -> Vec<SmallFile> {
    let mut files = vec![
        SmallFile::new(ENVIRONMENT, environment("next_entry=recovery\n")),
        SmallFile::new(FIRST_BOOT, first_boot(state)),
    ];
    files.push(SmallFile {
        // It may hold passwords.
        mode: 0o600,
        ..SmallFile::new("90_custom.yaml", cloud_config.unwrap_or(NO_USERS))
    });
    files
}

/// The configuration of a system that was given none. The agent installs nothing without a user of the group `admin`, unless it is
/// told that there is to be none.
const NO_USERS: &[u8] = b"#cloud-config\ninstall:\n  nousers: true\n";

/// Returns an environment block with these assignments, a line each.
fn environment(assignments: &str) -> Vec<u8> {
    let mut block = format!("{ENVIRONMENT_HEAD}{assignments}").into_bytes();
    block.resize(ENVIRONMENT_BYTES, b'#');
    block
}

/// Returns what the first boot does: it goes to the recovery system, which makes the missing partitions, installs itself and starts
/// the installed system. `/oem/.autoreset.skip` keeps it in the recovery system.
fn first_boot(state: DiskSize) -> String {
    let mib = state.mib();
    format!(
        r#"# Makes an installed system of this disk when it boots first, and removes itself.
name: first-boot
stages:
  rootfs.before:
    - name: Add the partitions of the installed system
      layout:
        device:
          label: {RECOVERY_LABEL}
        add_partitions:
          - fsLabel: {STATE_LABEL}
            pLabel: state
            size: {mib}
            filesystem: ext4
          - fsLabel: {PERSISTENT_LABEL}
            pLabel: persistent
            filesystem: ext4
  network:
    - name: Deploy the installed system
      if: '[ -e /run/cos/recovery_mode ] && [ ! -e /oem/.autoreset.skip ]'
      commands:
        - udevadm trigger && udevadm settle
        - kairos-agent --debug reset --unattended --reboot
  after-reset:
    - name: Leave it at that
      commands:
        - rm -f /oem/{FIRST_BOOT}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::cloud_config;
    use crate::yip::stages_of;

    #[test]
    fn grub_reads_the_environment_block() {
        let block = environment("next_entry=recovery\n");
        assert_eq!(block.len(), 1024);
        assert!(block.starts_with(b"# GRUB Environment Block\nnext_entry=recovery\n##"));
    }

    #[test]
    fn the_first_boot_is_in_the_dialect_and_runs_in_its_stages() {
        let text = first_boot("6000".parse().unwrap());
        let stages = stages_of(&text).unwrap_or_else(|error| panic!("{}", error.render_text()));
        let names: Vec<&str> = stages
            .iter()
            .map(|stage| stage.name.value.as_str())
            .collect();
        assert_eq!(names, ["rootfs.before", "network", "after-reset"]);
        assert!(stages[0].steps[0].layout.is_some());
        assert_eq!(stages[1].steps[0].commands.len(), 2);
    }

    #[test]
    fn a_configuration_is_roots_alone() {
        let size = "1".parse().unwrap();
        let with = files(Some(b"#cloud-config\n"), size);
        let found = with
            .iter()
            .find(|file| file.path == "90_custom.yaml")
            .unwrap();
        assert_eq!(
            (found.mode, found.bytes.as_slice()),
            (0o600, &b"#cloud-config\n"[..])
        );
    }

    #[test]
    fn the_agent_is_told_that_a_system_without_a_configuration_has_no_users() {
        let without = files(None, "1".parse().unwrap());
        let last = without.last().unwrap();
        assert_eq!(last.path, "90_custom.yaml");
        assert!(cloud_config::installs(&last.bytes));
    }
}
