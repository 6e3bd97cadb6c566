//! The program under the name of kairos-init.

use crate::support::base::os_release_tar;
use crate::support::buildah::Buildah;
use crate::support::conversion::{conversion, convert};
use crate::support::framework::framework;
use crate::support::program::{EPOCH, clean_environment};
use crate::support::user::is_root;
use crate::support::world::Scratch;
use crate::support::{Kfactory, need, run, skipped, world};

const DEBIAN: &str =
    "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";

/// Prepares a run of the program, called as a Dockerfile calls it.
fn kairos_init<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Kfactory {
    Kfactory::as_caller(arguments).wrapped_by(&[
        "bash",
        "-c",
        "exec -a /kairos-init \"$@\"",
        "bash",
    ])
}

#[test]
fn its_name_decides_which_command_line_it_understands() {
    let text = kairos_init(["version"]).succeed().stdout;
    for word in ["kairos-init version v", "kairos-agent: v", "immucore: v"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    let text = kairos_init(["steps-info"]).succeed().stdout;
    assert!(text.contains("installPackages"), "{text}");
    kairos_init(["convert", "debian:12"])
        .fail(2)
        .tells(&["unrecognized subcommand"]);
}

/// Makes a tree that says it is Debian.
fn debian_tree(name: &str) -> std::path::PathBuf {
    let tar = os_release_tar(name, DEBIAN);
    let tree = world().own_dir(name);
    run(std::process::Command::new("tar")
        .arg("-C")
        .arg(&tree)
        .arg("-xf")
        .arg(&tar));
    tree
}

#[test]
fn a_tree_that_another_run_is_changing_is_left_alone() {
    if !need(&["tar", "bwrap", "newuidmap"]) {
        return;
    }
    let tree = debian_tree("kairos-init-locked");
    let other = std::fs::File::open(&tree).expect("there");
    other.lock().expect("a lock");
    let root = tree.to_str().expect("UTF-8");
    kairos_init(["--root", root, "--version", "v1.0.0"])
        .fail(1)
        .tells(&["another run is changing", root, "hint: "]);
}

#[test]
fn a_dry_run_prints_the_steps_and_changes_nothing() {
    if !need(&["tar"]) {
        return;
    }
    let tree = debian_tree("kairos-init-dry");
    let names = || std::fs::read_dir(&tree).expect("there").count();
    let before = names();
    let root = tree.to_str().expect("UTF-8");
    let words = ["--dry-run", "--root", root, "-t", "false", "-m", "generic"];
    let ran = kairos_init(words).args(["--version", "v1.0.0"]).succeed();
    assert!(
        ran.stdout.contains("stages:") && ran.stdout.contains("installPackages"),
        "{}",
        ran.stdout
    );
    assert_eq!(names(), before);
    // What a Dockerfile passes on where its build arguments are empty.
    let empty = [
        "--provider",
        "",
        "--provider--version",
        "",
        "--provider--config",
        "",
    ];
    let core = kairos_init(words).args(["--version", "v1.0.0"]).args(empty);
    assert_eq!(core.succeed().stdout, ran.stdout);
}

#[test]
fn root_makes_no_store_in_a_plain_users_directory() {
    if !is_root() || !need(&["tar"]) {
        return skipped("only root can be root");
    }
    let home = world().user_dir("home-of-kairos-init");
    let tar = os_release_tar("kairos-init-home", DEBIAN);
    let tree = world().own_dir("kairos-init-home");
    run(std::process::Command::new("tar")
        .arg("-C")
        .arg(&tree)
        .arg("-xf")
        .arg(&tar));
    let root = tree.to_str().expect("UTF-8");
    kairos_init(["--root", root, "--version", "v1.0.0"])
        .env("HOME", &home)
        .env("XDG_DATA_HOME", "")
        .env("KFACTORY_STORE", "")
        .fail(1)
        .tells(&["error: the store in ", "hint: run the command as user "]);
    assert_eq!(std::fs::read_dir(&home).expect("there").count(), 0);
}

/// The kernel that the Dockerfile chooses between the two phases.
const KERNEL: &str = "linux-image-cloud-amd64";

/// What the build leaves in the image, none of it kairos-init's: buildah's mount points, and what the user's own apt wrote.
const OF_THE_BUILD: &[&str] = &[
    "/etc/console-setup/cached_setup_keyboard.sh",
    "/etc/hostname",
    "/etc/hosts",
    "/framework",
    "/var/log/apt/",
    "/var/log/dpkg.log",
    "/var/log/journal",
];

#[test]
fn a_dockerfile_with_a_package_between_the_two_phases_gives_the_image_that_convert_makes() {
    if !need(&["buildah"]) || cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let Some(shared) = conversion() else { return };
    let buildah = Buildah::new("buildah-kairos-init");
    let Some(built) = build_in_two_phases(&buildah, &shared.reference_of_base()) else {
        return;
    };
    let ours = format!("oci:{}:v1.0.0", buildah.home.join("converted").display());
    convert(&shared.reference_of_base(), &ours, &shared.store)
        .args(["--kernel", KERNEL, "--firmware", "none"])
        .succeed();
    let report = Kfactory::new(["parity", &built, "--against", &ours, "--json"])
        .store(&shared.store)
        .fail(1)
        .stdout;
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let differences = report["differences"].as_array().expect("a list");
    let unexpected: Vec<_> = differences
        .iter()
        .filter(|it| it["intended"].is_null())
        .filter(|it| {
            let name = it["name"].as_str().expect("text");
            !OF_THE_BUILD.iter().any(|known| name.starts_with(known))
        })
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    Kfactory::new(["validate", &built])
        .store(&shared.store)
        .succeed();
}

/// Builds what the documents of kairos-init show, and returns the image; `None` where the program cannot run in the base.
fn build_in_two_phases(buildah: &Buildah, base: &str) -> Option<String> {
    let context = buildah.home.join("context");
    world().user.make_dir(&context);
    run(std::process::Command::new("cp")
        .arg(&world().program)
        .arg(context.join("kairos-init")));
    // `dir:PATH` or `oci:PATH:TAG`, with the path that it has inside.
    let spec = &framework().spec;
    let place = spec.split(':').nth(1).expect("a path");
    let inside = spec.replace(place, "/framework");
    let phase =
        "RUN --mount=type=bind,from=kairos-init,src=/kairos-init,dst=/kairos-init /kairos-init";
    let dockerfile = format!(
        "FROM scratch AS kairos-init\n\
         COPY kairos-init /kairos-init\n\
         FROM {base}\n\
         ENV KFACTORY_FRAMEWORK={inside} SOURCE_DATE_EPOCH={EPOCH}\n\
         {phase} version\n\
         {phase} -s install --version v1.0.0 --skip-steps installKernel\n\
         RUN apt-get install -y --no-install-recommends {KERNEL}\n\
         {phase} -s init --version v1.0.0\n"
    );
    std::fs::write(context.join("Dockerfile"), dockerfile).expect("written");
    let volume = format!("{place}:/framework:ro");
    let context = context.display().to_string();
    // Without a filter: that of the package in Debian 12 refuses a call which Debian's own lvm2 repeats for ever.
    let built = buildah.try_run(&[
        "bud",
        "--quiet",
        "--network",
        "host",
        "--security-opt",
        "seccomp=unconfined",
        "--tls-verify=false",
        "--volume",
        &volume,
        "--tag",
        "built",
        &context,
    ]);
    let said = String::from_utf8_lossy(&built.stderr);
    if said.contains("GLIBC_") {
        skipped("the program is linked with a newer C library than the base has");
        return None;
    }
    assert!(built.status.success(), "{said}");
    let image = format!("oci:{}:v1.0.0", buildah.home.join("built").display());
    buildah.run(&["push", "--quiet", "built", &image]);
    Some(image)
}

#[test]
fn a_plain_users_tree_is_validated_with_the_files_of_all_its_owners() {
    if !need(&["tar", "newuidmap"]) {
        return;
    }
    let place = Scratch::of_user("kairos-init-validate");
    let files = place.0.join("files");
    let closed = files.join("etc/polkit-1/rules.d");
    std::fs::create_dir_all(&closed).expect("made");
    std::fs::write(files.join("etc/os-release"), DEBIAN).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&closed, mode).expect("ours");
    let tar = place.0.join("base.tar");
    run(std::process::Command::new("tar")
        .args(["--owner=100", "--group=100", "-C"])
        .arg(&files)
        .arg("-cf")
        .arg(&tar)
        .arg("."));
    let tree = place.0.join("tree").display().to_string();
    Kfactory::new(["unpack", &format!("tar:{}", tar.display()), &tree])
        .store(&place.0.join("store"))
        .succeed();
    let program = place.0.join("kairos-init");
    std::os::unix::fs::symlink(&world().program, &program).expect("ours");
    let mut command = world().user.command(&program);
    clean_environment(&mut command, &place.0);
    command.args(["--root", &tree, "validate"]);
    let output = command.output().expect("it runs");
    let (told, said) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}");
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("kernel-missing: "), "{told}{said}");
}
