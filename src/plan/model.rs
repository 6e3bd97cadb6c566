//! What a board takes beside its packages: where they come from, and what has to be set right after they are installed.
//!
//! Fix-ups stand behind the installation of the packages they fix, in the same step.

use super::step_mut;
use crate::distro::packages::{self, Chosen, Selection};
use crate::distro::{DistroId, Facts, Model, kinds};
use crate::error::{Error, Result};
use crate::kairos::dracut::units_without_iscsi;
use crate::kairos::files;
use crate::request::Request;
use crate::step::{Action, Step, StepName};

const KEYRINGS: &str = "/usr/share/keyrings";
const SOURCES: &str = "/etc/apt/sources.list.d";
const NVIDIA: &str = "https://repo.download.nvidia.com";
/// The signing key of NVIDIA's CUDA repositories.
const CUDA_FINGERPRINT: &str = "EB693B3035CD5710E231E123A4B469963BF863CC";
/// What NVIDIA calls the chip of the Orins.
const ORIN_CHIP: &str = "t234";
/// The release of the archives that an Orin NX gets; those of another release do not fit its loader.
const ORIN_NX_ARCHIVES: (&str, &str) = ("35", "3.1");

/// Refuses a board on a system that nobody builds its packages for.
///
/// # Errors
///
/// A usage error that names the board, what it is on, and where it goes.
pub(super) fn check(facts: &Facts, request: &Request) -> Result<()> {
    check_trusted(facts.model, facts.trusted)?;
    check_arch(facts.model, facts.arch.as_str())?;
    check_l4t(facts.model, request.l4t.as_deref())?;
    if let Some(release) = ubuntu_release(facts.model)
        && (facts.distro != DistroId::Ubuntu || facts.version.as_deref() != Some(release))
    {
        return Err(Error::usage(format!(
            "model `{}` cannot be made of {} {}: NVIDIA builds its packages for Ubuntu {release} only",
            facts.model,
            facts.distro,
            facts.version.as_deref().unwrap_or_default(),
        ))
        .hint(format!("take `ubuntu:{release}` as the base")));
    }
    let selection = packages::select(facts);
    if facts.model == Model::Generic || facts.distro == DistroId::Hadron || has_kernel(&selection) {
        return Ok(());
    }
    let known: Vec<&str> = packages::distros_of(facts.model)
        .into_iter()
        .map(DistroId::as_str)
        .collect();
    Err(Error::usage(format!(
        "model `{}` cannot be made of {}: no kernel package for the board is known there",
        facts.model, facts.distro
    ))
    .hint(format!("distributions with one: {}", known.join(", "))))
}

/// Refuses a board on an architecture that it does not exist with.
///
/// # Errors
///
/// A usage error that names both architectures.
pub(crate) fn check_arch(model: Model, arch: &str) -> Result<()> {
    match model.required_arch() {
        Some(required) if required.as_str() != arch => Err(Error::usage(format!(
            "model `{model}` exists with {required} only, and this is an image for {arch}"
        ))
        .hint(format!(
            "`--platform linux/{required}`, with a base that is made for it"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a release of the Jetsons' repositories for a board that takes nothing from them.
///
/// # Errors
///
/// A usage error that names the board.
pub(crate) fn check_l4t(model: Model, release: Option<&str>) -> Result<()> {
    match release {
        Some(_) if !is_jetson(model) => Err(Error::usage(format!(
            "`--l4t` is for Jetson boards, and model `{model}` is none"
        ))),
        _ => Ok(()),
    }
}

/// Refuses Trusted Boot on a board that cannot be started that way.
///
/// # Errors
///
/// A usage error that names the board and what it has not.
pub(crate) fn check_trusted(model: Model, trusted: bool) -> Result<()> {
    let why = match model {
        Model::Generic | Model::NvidiaDgxSpark => return Ok(()),
        Model::Rpi3 | Model::Rpi4 => {
            "Trusted Boot takes UEFI with Secure Boot and a TPM 2.0, and the board has neither"
        }
        Model::NvidiaJetsonAgxOrin | Model::NvidiaJetsonOrinNx | Model::NvidiaJetsonThor => {
            "Kairos starts the board through GRUB and an initrd that leaves drivers out, and Trusted Boot has neither"
        }
    };
    if !trusted {
        return Ok(());
    }
    Err(Error::usage(format!(
        "model `{model}` cannot be made with `--trusted`: {why}"
    ))
    .hint("leave `--trusted` out: the image boots through GRUB, without Secure Boot's proof"))
}

/// What GRUB adds to the kernel's command line on a DGX Spark.
const SPARK_ARGUMENTS: &str = "console=ttyS0,921600 initcall_blacklist=tegra234_cbb_init pci=pcie_bus_safe iommu.passthrough=0";

fn has_kernel(selection: &Selection) -> bool {
    let board = |name: &str| kinds::is_kernel(name) || name == "nvidia-l4t-kernel";
    let mut all = selection.base.iter().chain(&selection.kernel);
    all.any(|chosen| board(&chosen.name))
}

fn is_jetson(model: Model) -> bool {
    is_orin(model) || model == Model::NvidiaJetsonThor
}

fn is_orin(model: Model) -> bool {
    matches!(
        model,
        Model::NvidiaJetsonAgxOrin | Model::NvidiaJetsonOrinNx
    )
}

/// Returns the Ubuntu release that NVIDIA builds the board's packages for.
fn ubuntu_release(model: Model) -> Option<&'static str> {
    match model {
        Model::NvidiaJetsonAgxOrin | Model::NvidiaJetsonOrinNx => Some("22.04"),
        Model::NvidiaJetsonThor | Model::NvidiaDgxSpark => Some("24.04"),
        Model::Generic | Model::Rpi3 | Model::Rpi4 => None,
    }
}

/// Packages of NVIDIA's own repositories for the DGX Spark, which only they need.
const SPARK: &[&str] = &[
    "nvidia-mlnx-tools",
    "nvidia-spark-fstab-config",
    "nvidia-spark-grub-pci",
    "nvidia-spark-initcall-bl",
    "nvidia-spark-mlnx-firmware-manager",
];

/// Adds to `selection` the packages that can be had only from repositories that [`apply`] adds.
pub(super) fn select(selection: &mut Selection, facts: &Facts) {
    if facts.model == Model::NvidiaDgxSpark {
        selection.kernel.extend(SPARK.iter().map(|name| Chosen {
            name: (*name).to_owned(),
            rule: "nvidia-dgx-spark: platform packages of the board",
        }));
    }
}

/// Adds to `steps` what the board takes.
pub(super) fn apply(steps: &mut [Step], facts: &Facts, request: &Request, notes: &mut Vec<String>) {
    if facts.model == Model::NvidiaJetsonOrinNx {
        notes.push(
            "two archives of NVIDIA go into the image without a check of their content: NVIDIA publishes no checksum of them"
                .into(),
        );
    }
    if facts.model == Model::NvidiaDgxSpark && facts.trusted {
        notes.push(format!(
            "the board's kernel arguments are GRUB's, which Trusted Boot has not: the UKI has to carry them, \
             `--extend-cmdline \"{SPARK_ARGUMENTS}\"` when it is built"
        ));
    }
    match facts.model {
        Model::Generic => {}
        Model::Rpi3 | Model::Rpi4 => raspberry_pi(steps, facts),
        Model::NvidiaDgxSpark => around_kernel(steps, spark(), Vec::new()),
        Model::NvidiaJetsonAgxOrin | Model::NvidiaJetsonOrinNx => {
            around_kernel(steps, orin(facts.model, request), orin_fixes());
            if let Some(step) = step_mut(steps, StepName::INITRAMFS_CONFIGS) {
                step.actions.push(Action::Services {
                    unmask: Vec::new(),
                    enable: Vec::new(),
                    optional: Vec::new(),
                    disable: words(units_without_iscsi(facts.model.as_str())),
                    mask: Vec::new(),
                });
            }
        }
        Model::NvidiaJetsonThor => {
            around_kernel(
                steps,
                thor(request),
                vec![files::jetson_qspi_update().into()],
            );
            if let Some(step) = step_mut(steps, StepName::INITRD) {
                step.actions.splice(0..0, thor_display());
            }
        }
    }
}

/// Puts `before` in front of the kernel's packages and `after` behind them.
fn around_kernel(steps: &mut [Step], before: Vec<Action>, after: Vec<Action>) {
    if let Some(step) = step_mut(steps, StepName::INSTALL_KERNEL) {
        step.actions.splice(0..0, before);
        step.actions.extend(after);
    }
}

/// The Pi's firmware is not free; Ubuntu and the others have it in what is enabled anyway.
fn raspberry_pi(steps: &mut [Step], facts: &Facts) {
    if facts.distro == DistroId::Debian {
        super::enable_component(steps, "non-free-firmware");
    }
}

fn spark() -> Vec<Action> {
    let keyring = |name: &str| {
        Action::Require {
        path: format!("{KEYRINGS}/{name}.gpg"),
        remedy: "NVIDIA publishes this keyring nowhere but on the machine itself: copy it from a DGX Spark into the base".into(),
    }
    };
    let dgx = format!("{NVIDIA}/baseos/ubuntu/noble/arm64/");
    vec![
        keyring("nvidia-dgx"),
        keyring("nvidia-spark"),
        source(
            "nvidia-dgx.list",
            &[
                deb("nvidia-dgx", &dgx, "noble common dgx"),
                deb("nvidia-dgx", &dgx, "noble-updates common dgx"),
            ],
        ),
        source(
            "nvidia-spark.list",
            &[deb(
                "nvidia-spark",
                &format!("{NVIDIA}/spark/ubuntu/arm64/"),
                "noble-updates common",
            )],
        ),
        Action::ListsChanged,
    ]
}

/// What every Jetson takes: its repository, and package scripts that flash nothing.
fn jetson(lines: &[String]) -> Vec<Action> {
    vec![
        // Brought by a package of the repository itself, with a chip's name that has yet to be filled in.
        Action::Remove {
            paths: words(&["/etc/apt/sources.list.d/nvidia-l4t-apt-source.list"]),
        },
        Action::File {
            path: "/opt/nvidia/l4t-packages/.nv-l4t-disable-boot-fw-update-in-preinstall".into(),
            mode: 0o644,
            content: String::new(),
        },
        Action::RepositoryKey {
            url: format!("{NVIDIA}/jetson/jetson-ota-public.asc"),
            path: format!("{KEYRINGS}/jetson-ota.gpg"),
        },
        source("nvidia-drivers.list", lines),
        Action::ListsChanged,
    ]
}

fn orin(model: Model, request: &Request) -> Vec<Action> {
    let l4t = request.l4t.as_deref().unwrap_or("36.4");
    // NVIDIA's name for the Jetsons' own builds; `sbsa` is for servers, `x86_64` for neither.
    let cuda = "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/aarch64/";
    let suite = format!("r{l4t} main");
    let mut actions = Vec::new();
    if model == Model::NvidiaJetsonOrinNx {
        actions.extend(orin_nx_archives());
    }
    actions.push(Action::RepositoryKey {
        url: format!("{cuda}3bf863cc.pub"),
        path: format!("{KEYRINGS}/nvidia-drivers-2204.gpg"),
    });
    actions.extend(jetson(&[
        deb("jetson-ota", &format!("{NVIDIA}/jetson/common"), &suite),
        deb(
            "jetson-ota",
            &format!("{NVIDIA}/jetson/{ORIN_CHIP}"),
            &suite,
        ),
        format!("deb [signed-by={KEYRINGS}/nvidia-drivers-2204.gpg,{CUDA_FINGERPRINT}] {cuda} /"),
    ]));
    actions
}

/// The archives that a cloud-config completes on the board itself.
fn orin_nx_archives() -> Vec<Action> {
    let (release, version) = ORIN_NX_ARCHIVES;
    let base = format!(
        "https://developer.nvidia.com/downloads/embedded/l4t/r{release}_release_v{version}/release"
    );
    let unpack = |name: &str, dir: &str| {
        let file = format!("{name}_r{release}.{version}_aarch64.tbz2");
        let local = format!("/var/tmp/{file}");
        let run = |argv: &[&str], network| Action::Run {
            argv: words(argv),
            network,
            secrets: Vec::new(),
            if_exists: None,
            may_fail: false,
        };
        [
            run(
                &["wget", "-nv", "-O", &local, &format!("{base}/{file}")],
                true,
            ),
            run(&["mkdir", "-p", dir], false),
            run(&["tar", "-xpjf", &local, "-C", dir], false),
            run(&["rm", &local], false),
        ]
    };
    let mut actions = Vec::new();
    actions.extend(unpack("jetson_linux", "/"));
    actions.extend(unpack(
        "tegra_linux_sample-root-filesystem",
        "/Linux_for_Tegra/rootfs",
    ));
    actions
}

fn orin_fixes() -> Vec<Action> {
    let tolerated = |argv: &[&str], if_exists: &str| Action::Run {
        argv: words(argv),
        network: false,
        secrets: Vec::new(),
        if_exists: Some(if_exists.into()),
        may_fail: true,
    };
    // The persistent partition hides /usr/local.
    let (from, to) = ("/usr/local/cuda-12.6", "/opt/cuda-12.6");
    let usb = "/opt/nvidia/l4t-usb-device-mode/nv-l4t-usb-device-mode-start.sh";
    vec![
        Action::Link {
            path: "/usr/include/opencv2".into(),
            target: "/usr/include/opencv4/opencv2".into(),
            if_exists: Some("/usr/include/opencv4/opencv2".into()),
            unless_exists: Some("/usr/include/opencv2".into()),
        },
        tolerated(&["update-alternatives", "--remove-all", "cuda"], from),
        tolerated(&["update-alternatives", "--remove-all", "cuda-12"], from),
        tolerated(&["mv", from, to], from),
        tolerated(
            &[
                "update-alternatives",
                "--install",
                "/opt/cuda",
                "cuda",
                to,
                "126",
            ],
            to,
        ),
        tolerated(
            &[
                "update-alternatives",
                "--install",
                "/opt/cuda-12",
                "cuda-12",
                to,
                "126",
            ],
            to,
        ),
        // /mnt is read-only.
        tolerated(
            &["sed", "-i", r#"s|mntpoint="/mnt|mntpoint="/srv/data|"#, usb],
            usb,
        ),
    ]
}

fn thor(request: &Request) -> Vec<Action> {
    let suite = format!("r{} main", request.l4t.as_deref().unwrap_or("39.2.1"));
    jetson(&[
        deb("jetson-ota", &format!("{NVIDIA}/jetson/common"), &suite),
        deb("jetson-ota", &format!("{NVIDIA}/jetson/som"), &suite),
    ])
}

/// Switches the display driver on, which NVIDIA leaves to a service at first boot. depmod must see it.
fn thor_display() -> Vec<Action> {
    let copy = |name: &str, to: &str| {
        let from = format!("/opt/nvidia/nv-disp-module-configs/{name}");
        Action::Run {
            argv: words(&["install", "-D", "-m", "0644", &from, to]),
            network: false,
            secrets: Vec::new(),
            if_exists: Some(from),
            may_fail: false,
        }
    };
    vec![
        copy(
            "nv-depmod-openrm-l4t-display.conf",
            "/etc/depmod.d/nvidia-display.conf",
        ),
        copy(
            "nv-modprobe-openrm-l4t-display.conf",
            "/etc/modprobe.d/nvidia-display.conf",
        ),
        Action::File {
            path: "/etc/modules-load.d/nvidia-display.conf".into(),
            mode: 0o644,
            content: "nvidia_drm\n".into(),
        },
    ]
}

fn deb(keyring: &str, url: &str, rest: &str) -> String {
    format!("deb [signed-by={KEYRINGS}/{keyring}.gpg] {url} {rest}")
}

fn source(name: &str, lines: &[String]) -> Action {
    Action::File {
        path: format!("{SOURCES}/{name}"),
        mode: 0o644,
        content: lines.join("\n") + "\n",
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}
