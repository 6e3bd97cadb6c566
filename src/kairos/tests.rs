//! Tests of the tables as a whole; what the cloud-configs do is tested in `tests/kairos_data.rs`.

use super::*;

#[test]
fn cloud_configs_are_listed_in_the_order_in_which_they_are_read() {
    assert!(CLOUD_CONFIGS.is_sorted_by(|a, b| a.0 < b.0));
}

#[test]
fn every_file_has_an_absolute_path_a_mode_and_a_final_newline() {
    let mut files = cloud_config_files();
    files.extend(files::grub_files());
    files.extend(files::branding_files());
    files.extend(files::miscellaneous_files());
    files.extend([files::ssh_hardening(false), files::ssh_hardening(true)]);
    for file in files {
        assert!(
            file.path.starts_with('/') && !file.path.contains("//") && !file.path.contains("/."),
            "{}",
            file.path
        );
        assert!(matches!(file.mode, 0o644 | 0o755), "{}", file.path);
        assert!(
            file.content.ends_with('\n') && !file.content.contains('\r'),
            "{}",
            file.path
        );
    }
}
