//! Small packages of Debian's form, and repositories of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::run;

/// Builds the package `name` in `dir`, with more `fields` (whole lines) and files (path, content); scripts of it lie in `DEBIAN`.
pub(crate) fn deb(dir: &Path, name: &str, fields: &str, files: &[(String, &str)]) {
    deb_of_version(dir, name, "9:99", fields, files);
}

/// As [`deb`], of another version than the one that is above all others.
pub(crate) fn deb_of_version(
    dir: &Path,
    name: &str,
    version: &str,
    fields: &str,
    files: &[(String, &str)],
) {
    use std::os::unix::fs::PermissionsExt as _;
    // A colon would be written as an escape, and an escape of that in an address.
    let file = format!("{name}_{}", version.replace(':', "-"));
    let build = dir.with_extension("build").join(&file);
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n{fields}Description: stub\n"
    );
    let mut all = vec![("DEBIAN/control".to_owned(), control.as_str())];
    all.extend(files.iter().map(|(path, content)| (path.clone(), *content)));
    for (path, content) in all {
        let path = build.join(path);
        fs::create_dir_all(path.parent().expect("below")).expect("a directory");
        fs::write(&path, content).expect("written");
        let mode = if path.ends_with("postinst") {
            0o755
        } else {
            0o644
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
    }
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Znone", "--build"])
        .arg(&build)
        .arg(dir.join(format!("{file}.deb"))));
}

/// Makes a repository of the packages in `dir`: a source of the form `deb [trusted=yes] ADDRESS ./`.
pub(crate) fn index(dir: &Path) {
    for (kind, name) in [("packages", "Packages"), ("release", "Release")] {
        let text = run(Command::new("apt-ftparchive")
            .args([kind, "."])
            .current_dir(dir));
        fs::write(dir.join(name), text).expect("written");
    }
}
