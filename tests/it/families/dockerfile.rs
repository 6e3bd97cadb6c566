//! The program as `kairos-init` in container builds on bases of other families.

use std::fs;
use std::process::Command;

use super::rpms::{self, DNF4, Packager, ZYPPER};
use super::{RPM_TOOLS, can_run};
use crate::support::buildah::Buildah;
use crate::support::framework::programs;
use crate::support::program::EPOCH;
use crate::support::{need, run, skipped, world};

#[test]
fn a_dockerfile_converts_a_base_with_dnf() {
    build("rocky-9", &DNF4, "rocky");
}

#[test]
fn a_dockerfile_converts_a_base_with_zypper() {
    build("opensuse-leap-15.6", &ZYPPER, "opensuse");
}

/// Builds with one `RUN` of the program, with caches mounted as people do, and asks the image what it is.
fn build(name: &'static str, packager: &'static Packager, flavor: &str) {
    if !need(&["buildah"]) || !can_run(RPM_TOOLS) {
        return;
    }
    let Some(family) = rpms::family(name, packager) else {
        return;
    };
    let buildah = Buildah::new(&format!("buildah-{name}"));
    let context = buildah.home.join("context");
    world().user.make_dir(&context);
    run(Command::new("cp")
        .arg(&world().program)
        .arg(context.join("kairos-init")));
    let dockerfile = format!(
        "FROM scratch AS kairos-init\n\
         COPY kairos-init /kairos-init\n\
         FROM {}\n\
         ENV KFACTORY_FRAMEWORK=dir:/framework SOURCE_DATE_EPOCH={EPOCH}\n\
         RUN --mount=type=bind,from=kairos-init,src=/kairos-init,dst=/kairos-init \
         --mount=type=cache,target=/var/cache/kairos-init --mount=type=cache,target=/var/cache/dnf \
         --mount=type=cache,target=/var/cache/zypp /kairos-init --version v1.0.0\n\
         RUN test -s /boot/initrd && test -e /boot/vmlinuz && grep -i 'FLAVOR=.*{flavor}' /etc/kairos-release\n",
        family.location
    );
    fs::write(context.join("Dockerfile"), dockerfile).expect("written");
    let volume = format!("{}:/framework:ro", programs().display());
    let built = buildah.try_run(&[
        "bud",
        "--quiet",
        "--network",
        "host",
        "--security-opt",
        "seccomp=unconfined",
        "--volume",
        &volume,
        "--tag",
        "built",
        &context.display().to_string(),
    ]);
    let said = String::from_utf8_lossy(&built.stderr);
    if said.contains("GLIBC_") {
        return skipped("the program is linked with a newer C library than the base has");
    }
    assert!(built.status.success(), "{said}");
}
