//! Options that several subcommands share, and how they become a request.

use std::path::PathBuf;

use super::providers;
use crate::build_args::{BuildArgs, Said};
use crate::error::{Context as _, Error, Kind, Result};
use crate::given;
use crate::location::Location;
use crate::progress::{Mode, Reporter};
use crate::provider::ProviderSource;
use crate::registry::{Credentials, Registry, RegistryOptions, check_registry};
use crate::request::{Layers, Network, Request, Stage};
use crate::store::Store;
use kfactory_layers::input::open_input_or_device;

/// How progress is shown.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ProgressArgs {
    /// How progress is shown on standard error
    #[arg(long, value_enum, default_value_t = Mode::Auto, help_heading = "Output")]
    pub(super) progress: Mode,
}

impl ProgressArgs {
    pub(super) fn reporter(&self) -> Reporter {
        Reporter::new(self.progress)
    }
}

/// Where the store is.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct StoreArgs {
    /// The store's directory [default: `$KFACTORY_STORE`, `$XDG_DATA_HOME/kfactory` or `~/.local/share/kfactory`]
    #[arg(long, value_name = "DIR", help_heading = "Store")]
    pub(super) store: Option<PathBuf>,
}

impl StoreArgs {
    pub(super) fn dir(&self) -> Result<PathBuf> {
        let dir = self.store.clone().map_or_else(Store::default_dir, Ok)?;
        if dir.exists() {
            given::directory(&dir)
                .context(|| format!("cannot use the store in {}", dir.display()))
                .map_err(|error| {
                    error
                        .hint("it is in the way: move it, or name another directory with `--store`")
                })?;
        }
        Ok(dir)
    }
}

/// How images are reached.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ImageArgs {
    /// Transfers at a time, and threads for compression [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Transfer")]
    pub(super) jobs: Option<u16>,
    /// Require HTTPS with a certificate that checks out [default: true; a loopback registry may speak plain HTTP]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Transfer")]
    pub(super) tls_verify: Option<bool>,
    /// A file with credentials, as `podman login` writes it
    #[arg(long, value_name = "FILE", help_heading = "Transfer")]
    pub(super) authfile: Option<PathBuf>,
    /// Credentials for the destination's registry; where nothing is pushed to one, for the source's
    #[arg(long, value_name = "USER:PASSWORD", help_heading = "Transfer")]
    pub(super) creds: Option<String>,
    /// A registry, as `host[:port]`, that may speak plain HTTP or show any certificate; may be given several times
    #[arg(long, value_name = "HOST", help_heading = "Transfer")]
    pub(super) insecure_registry: Vec<String>,
    /// A PEM file with certificate authorities to trust beside the system's; may be given several times
    #[arg(long, value_name = "FILE", help_heading = "Transfer")]
    pub(super) registry_ca: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

impl ImageArgs {
    /// Makes the client; `--creds` go to the registry of the first of `locations` that names one, and to no other.
    pub(super) fn registry(&self, locations: &[&str]) -> Result<Registry> {
        if let Some(file) = &self.authfile {
            // One that was asked for and is not there would otherwise mean no credentials at all.
            let doing = || format!("cannot read the credentials in `{}`", file.display());
            given::file(file).context(doing)?;
            open_input_or_device(file).context(doing)?;
        }
        for file in &self.registry_ca {
            given::file(file)
                .context(|| format!("cannot read the certificates in `{}`", file.display()))?;
        }
        let insecure = self.insecure_registry.iter();
        Registry::new(RegistryOptions {
            tls_verify: self.tls_verify,
            insecure_registries: insecure
                .map(|text| bare_registry(text))
                .collect::<Result<_>>()?,
            authfile: self.authfile.clone(),
            creds: self.credentials(locations)?,
            ca_files: self.registry_ca.clone(),
            ..RegistryOptions::default()
        })
        .map_err(|error| Error::from_source(&error).hints(error.hints()))
    }

    fn credentials(&self, locations: &[&str]) -> Result<Option<Credentials>> {
        let Some(text) = &self.creds else {
            return Ok(None);
        };
        // The text itself stays out of the message: it may be a password alone.
        let credentials = Credentials::parse(text)
            .ok_or_else(|| Error::usage("`--creds` is not of the form USER:PASSWORD"))?;
        let host = locations.iter().find_map(|text| match text.parse() {
            Ok(Location::Registry(reference)) => Some(reference.registry().to_owned()),
            _ => None,
        });
        Ok(Some(match host {
            Some(host) => credentials.for_registry(host),
            None => credentials,
        }))
    }

    pub(super) fn jobs(&self) -> usize {
        self.jobs.map_or_else(
            || std::thread::available_parallelism().map_or(1, usize::from),
            usize::from,
        )
    }
}

/// Reads `--insecure-registry`: a host with an optional port and nothing else.
fn bare_registry(text: &str) -> Result<String> {
    check_registry(text).map_err(|error| {
        let refused = Error::from_source(&error)
            .context(format!("cannot use `--insecure-registry {text}`"))
            .kind_is(Kind::Usage);
        let host = text.split_once("://").map_or(text, |(_, rest)| rest);
        match check_registry(host.split('/').next().unwrap_or(host)) {
            Ok(host) => refused.hint(format!("`--insecure-registry {host}`")),
            Err(_) => refused.hint("`--insecure-registry registry.example:5000`"),
        }
    })
}

/// Kubernetes providers.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ProviderArgs {
    /// What puts Kubernetes into the image, which makes its variant `standard`: `k3s`, `k0s`, or the name that a provider plugin in the
    /// image answers to; comma lists, several times if wanted
    #[arg(
        short,
        long,
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Providers"
    )]
    pub(super) provider: Vec<String>,
    /// The version of provider NAME, as in `--provider-k3s-version v1.34.3+k3s1` [default: a pinned release of k3s and k0s, which `plan`
    /// shows; the choice of the plugin]
    #[arg(
        long = "provider-NAME-version",
        value_name = "VERSION",
        help_heading = "Providers"
    )]
    pub(super) provider_version: Vec<String>,
    /// A configuration file for provider NAME, as in `--provider-k3s-config FILE`: k3s gets it as /etc/rancher/k3s/config.yaml, k0s as
    /// /etc/k0s/k0s.yaml; a plugin is told where to find it
    #[arg(
        long = "provider-NAME-config",
        value_name = "FILE",
        help_heading = "Providers"
    )]
    pub(super) provider_config: Vec<String>,
    /// Who installs k3s and k0s [default: native]
    #[arg(long, value_enum, help_heading = "Providers")]
    pub(super) provider_source: Option<ProviderSource>,
    /// The most seconds that a provider plugin may take [default: 1800]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Providers")]
    pub(super) provider_timeout: Option<u64>,
}

impl ProviderArgs {
    /// Puts what was given in place of what the recipe says.
    pub(super) fn set(&self, request: &mut Request) -> Result<()> {
        if !self.provider.is_empty() {
            self.provider.clone_into(&mut request.providers);
            // What the recipe says of others goes with them.
            let named = |name: &String| self.provider.iter().any(|it| it.trim() == name);
            request.provider_options.retain(|name, _| named(name));
        }
        let options = &mut request.provider_options;
        providers::merge(options, "version", &self.provider_version, |it| {
            &mut it.version
        })?;
        providers::merge(options, "config", &self.provider_config, |it| {
            &mut it.config
        })?;
        if let Some(source) = self.provider_source {
            request.provider_source = source;
        }
        request.provider_timeout = self.provider_timeout.or(request.provider_timeout);
        Ok(())
    }
}

/// The request, option by option; what is left out comes from the recipe, then from the defaults.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RequestArgs {
    /// The base image: a reference, `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:ROOTFS` or `tar:FILE`. Where a
    /// recipe names it, a single word that can be no base is the destination
    pub(super) base: Option<String>,
    /// Where the result goes, several times if wanted; without one it stays in the store
    pub(super) dest: Vec<String>,
    /// Read the request from a recipe; options of the command line win over it
    ///
    /// A recipe is YAML, as `--print-recipe` writes it. Its keys are `base`, `destinations` and the long names of the options from
    /// `--version` to `--stage-extensions`; those that may be given several times take a list or one value, and are written
    /// `skip-steps`, `providers`, `secrets` in the plural. Instead of `--provider-k3s-version` and `--provider-k3s-config` it has
    /// `provider-options: {k3s: {version: V, config: FILE}}`. The build arguments of `--set` may stand among the keys. How the work is
    /// done (`--no-cache`, `--jobs`, `--creds`, `--store`, `--progress` and the like) is no part of a recipe.
    #[arg(short = 'f', long = "file", value_name = "RECIPE")]
    pub(super) file: Option<PathBuf>,
    /// Print the request as a recipe and stop
    #[arg(long)]
    pub(super) print_recipe: bool,
    /// A build argument of Kairos' own builds: BASE_IMAGE, FAMILY, FLAVOR, FLAVOR_RELEASE, MODEL, VARIANT, BOOTLOADER, TRUSTED_BOOT,
    /// PROVIDER_NAME, PROVIDER_VERSION, KUBERNETES_DISTRO, KUBERNETES_VERSION, VERSION; may be given several times. It wins over a
    /// recipe, and must agree with the options beside it
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// The version of the produced system [default: the destination's tag, where it is `v1`, `v1.2.3` or `1.2.3`]
    #[arg(short = 'v', long, value_name = "VERSION")]
    pub(super) version: Option<String>,
    /// The board: generic, rpi3, rpi4, nvidia-jetson-agx-orin, nvidia-jetson-orin-nx, nvidia-jetson-thor, nvidia-dgx-spark [default: generic]
    #[arg(short, long)]
    pub(super) model: Option<String>,
    /// Which phases run
    #[arg(short, long, value_enum)]
    pub(super) stage: Option<Stage>,
    /// Steps or phases to leave out; comma lists, several times if wanted (`kfactory steps-info` lists them)
    #[arg(long, alias = "skip-steps", value_name = "STEP", value_delimiter = ',')]
    pub(super) skip_step: Vec<String>,
    /// The platform to convert, as `os/architecture[/variant]` [default: this machine's]
    #[arg(long)]
    pub(super) platform: Option<String>,
    /// Where the Kairos binaries come from: `release[:NAME=VERSION,...]`, `go[:NAME=VERSION,...]`, `dir:`, `tar:`, `oci:` or a reference [default: release]
    #[arg(long)]
    pub(super) framework: Option<String>,
    /// How steps are gathered into layers [default: group]
    #[arg(long, value_enum)]
    pub(super) layers: Option<Layers>,
    /// Compression of new layers: `gzip[:LEVEL]`, `zstd[:LEVEL]` or `none` [default: gzip]
    #[arg(long)]
    pub(super) compression: Option<String>,
    /// The network for steps that ask for one [default: host]
    #[arg(long, value_enum)]
    pub(super) network: Option<Network>,
    /// Push without checking the result first, or, with names, without these rules (`kfactory validate --rules` lists them); with either, `--iso` and `--raw` are not read back
    #[arg(long, value_name = "RULE", num_args = 0..=1, require_equals = true, value_delimiter = ',', default_missing_value = "all")]
    pub(super) no_validate: Vec<String>,
    #[command(flatten)]
    pub(super) providers: ProviderArgs,
    /// Make the image for Trusted Boot: one signed EFI image (UKI) is to hold it, so it gets neither boot loader nor initrd
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) trusted: Option<bool>,
    /// Make the image for FIPS mode: FIPS builds of the Kairos binaries, certified modules, and a proof at the end
    #[arg(long)]
    pub(super) fips: bool,
    /// A package to install beside those that the rules choose; may be given several times
    #[arg(
        long,
        value_name = "PACKAGE",
        value_delimiter = ',',
        help_heading = "Packages"
    )]
    pub(super) with: Vec<String>,
    /// A package to leave out of those that the rules choose; its services are left out with it; may be given several times
    #[arg(
        long,
        value_name = "PACKAGE",
        value_delimiter = ',',
        help_heading = "Packages"
    )]
    pub(super) without: Vec<String>,
    /// The kernel: `PACKAGE[=VERSION]`; `none` for an image that boots only with a kernel from outside, in a UKI for example; or a
    /// file, told by a `/` in it: a `.deb` (installed with what it depends on; Debian and Ubuntu), or an image (x86 bzImage, arm64
    /// Image) that becomes /boot/vmlinuz-RELEASE, with the modules from `lib/modules/RELEASE` and `config-RELEASE` beside it. An
    /// arm64 image does not say its release: there it is that of the only modules. Modules that are not there must be in the base
    #[arg(long, value_name = "KERNEL", help_heading = "Packages")]
    pub(super) kernel: Option<String>,
    /// Firmware for devices: `all`, `none`, or that of some vendors (`amd,intel,...`; a wrong one is answered with the known ones)
    #[arg(long, value_name = "FIRMWARE", help_heading = "Packages")]
    pub(super) firmware: Option<String>,
    /// The release of NVIDIA's Jetson repositories [default: 36.4 for Orin, 39.2.1 for Thor]
    #[arg(long, value_name = "RELEASE", help_heading = "Packages")]
    pub(super) l4t: Option<String>,
    /// A value that steps may read and no layer holds: `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`; may be given several times.
    /// Names: `ubuntu-pro-token`; for RHEL the directories `etc-pki-entitlement` and `rhsm`; for SLES `SCCcredentials` and `SUSEConnect`
    #[arg(long, value_name = "SECRET")]
    pub(super) secret: Vec<String>,
    /// A directory of stage extensions: yip files that add steps; several times if wanted, after what the base carries in
    /// /etc/kairos-init/stage-extensions
    #[arg(short = 'x', long, value_name = "DIR")]
    pub(super) stage_extensions: Vec<String>,
}

impl RequestArgs {
    /// Returns the request: the recipe, overridden by what the command line says. `usage` is how `kfactory` is told the base.
    ///
    /// # Errors
    ///
    /// An option or a recipe that cannot be read; no base.
    pub(super) fn request(&self, usage: &str) -> Result<Request> {
        self.refuse_empty()?;
        let mut request = match &self.file {
            Some(path) => {
                let name = path.display().to_string();
                let doing = || format!("cannot read recipe `{name}`");
                given::file(path).context(doing)?;
                let bytes = crate::settings_file::read(path).context(doing)?;
                Request::from_recipe(&bytes, &name)?
            }
            None => Request::defaults(),
        };
        let mut args = BuildArgs::default();
        self.set.iter().try_for_each(|pair| args.set(pair))?;
        args.apply(&mut request)?;
        fn set<T: Clone>(slot: &mut T, value: &Option<T>) {
            if let Some(value) = value {
                slot.clone_from(value);
            }
        }
        fn set_list(slot: &mut Vec<String>, values: &[String]) {
            if !values.is_empty() {
                values.clone_into(slot);
            }
        }
        let (base, destinations) = self.places(&request.base)?;
        self.check_agreement(&args, base.as_deref(), &request.providers)?;
        set(&mut request.base, &base);
        set_list(&mut request.destinations, &destinations);
        set_list(&mut request.skip_steps, &self.skip_step);
        set_list(&mut request.no_validate, &self.no_validate);
        self.providers.set(&mut request)?;
        set_list(&mut request.secrets, &self.secret);
        set_list(&mut request.with, &self.with);
        set_list(&mut request.without, &self.without);
        set(&mut request.kernel, &self.kernel);
        set(&mut request.firmware, &self.firmware);
        set_list(&mut request.stage_extensions, &self.stage_extensions);
        set(&mut request.model, &self.model);
        set(&mut request.stage, &self.stage);
        set(&mut request.framework, &self.framework);
        set(&mut request.layers, &self.layers);
        set(&mut request.compression, &self.compression);
        set(&mut request.network, &self.network);
        set(&mut request.trusted, &self.trusted);
        request.fips |= self.fips;
        for (slot, value) in [
            (&mut request.version, &self.version),
            (&mut request.l4t, &self.l4t),
            (&mut request.platform, &self.platform),
        ] {
            if value.is_some() {
                slot.clone_from(value);
            }
        }
        if request.base.is_empty() {
            return Err(Error::usage("no base image given")
                .hint(format!("`kfactory {usage}`, or `base:` in the recipe")));
        }
        Ok(request)
    }

    /// Refuses an option that says something else than a `--set` beside it. `providers` are those that both may be about.
    fn check_agreement(
        &self,
        args: &BuildArgs,
        base: Option<&str>,
        providers: &[String],
    ) -> Result<()> {
        let option = |word: &'static str| move |text: &str| format!("{word} {text}");
        let names = &self.providers.provider;
        let names = (!names.is_empty()).then(|| names.join(","));
        let said = [
            Said::new("BASE_IMAGE", base, str::to_owned),
            Said::new("MODEL", self.model.as_ref(), option("--model")),
            Said::new("VERSION", self.version.as_ref(), option("--version")),
            Said::new("TRUSTED_BOOT", self.trusted, |text| {
                format!("--trusted={text}")
            }),
            Said::new("PROVIDER_NAME", names, option("--provider")),
        ];
        let versions = self.providers.provider_version.iter().filter_map(|pair| {
            let (name, version) = pair.split_once('=')?;
            let is_meant = providers.iter().any(|provider| provider == name);
            Said::new("PROVIDER_VERSION", is_meant.then_some(version), |text| {
                format!("--provider-{name}-version {text}")
            })
        });
        args.agree(said.into_iter().flatten().chain(versions), |name, value| {
            format!("--set {name}={value}")
        })
    }

    /// Refuses options whose value is empty: a variable that is not set would otherwise mean the default, without a word.
    fn refuse_empty(&self) -> Result<()> {
        let given = [
            ("--kernel", self.kernel.as_slice()),
            ("--firmware", self.firmware.as_slice()),
            ("--provider", &self.providers.provider),
            ("--stage-extensions", &self.stage_extensions),
        ];
        let mut empty = given
            .iter()
            .filter(|(_, values)| values.iter().any(|value| value.trim().is_empty()))
            .map(|(option, _)| (*option).to_owned());
        let of_provider = [
            ("version", &self.providers.provider_version),
            ("config", &self.providers.provider_config),
        ];
        let mut of_provider = of_provider
            .iter()
            .flat_map(|(kind, pairs)| pairs.iter().map(move |pair| (kind, pair)))
            .filter_map(|(kind, pair)| {
                let name = pair.strip_suffix('=')?;
                Some(format!("--provider-{name}-{kind}"))
            });
        match empty.next().or_else(|| of_provider.next()) {
            None => Ok(()),
            Some(option) => Err(Error::usage(format!("`{option}` is given without a value"))
                .hint("leave the option out to get its default")),
        }
    }

    /// Returns the base and the destinations of the command line, where `known` is the base that is named elsewhere.
    ///
    /// A single word beside such a base is the destination, where it can be no base, and the base, where it can be no destination.
    fn places(&self, known: &str) -> Result<(Option<String>, Vec<String>)> {
        let as_given = (self.base.clone(), self.dest.clone());
        let Some(word) = self.base.as_ref() else {
            return Ok(as_given);
        };
        if known.is_empty() || !self.dest.is_empty() || word == known {
            return Ok(as_given);
        }
        let place: Location = word.parse()?;
        if !place.is_destination() {
            return Ok(as_given);
        }
        if place.is_vacant() {
            return Ok((None, vec![word.clone()]));
        }
        Err(Error::usage(format!(
            "`{word}` may be meant as the base or as the destination: the base is `{known}` already"
        ))
        .hint(format!("give both to write to it: `{known} {word}`"))
        .hint(format!(
            "`--set BASE_IMAGE={word}` converts it instead of `{known}`"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(options: &[&str]) -> Result<Request> {
        #[derive(Debug, clap::Parser)]
        #[command(disable_version_flag = true)]
        struct Line {
            #[command(flatten)]
            request: RequestArgs,
        }
        let words = ["x"].iter().chain(options);
        let line = <Line as clap::Parser>::try_parse_from(words).expect("the grammar");
        line.request.request("convert BASE")
    }

    #[test]
    fn a_build_argument_and_an_option_that_contradict_each_other_are_refused_with_both() {
        for (set, options, option) in [
            ("MODEL=rpi4", &["x", "--model", "rpi3"][..], "--model rpi3"),
            ("VERSION=v2", &["x", "-v", "v1"], "--version v1"),
            (
                "BASE_IMAGE=debian:12",
                &["ubuntu:24.04", "oci:o"],
                "ubuntu:24.04",
            ),
            (
                "TRUSTED_BOOT=true",
                &["x", "--trusted=false"],
                "--trusted=false",
            ),
            ("BOOTLOADER=grub", &["x", "-t"], "--trusted=true"),
            (
                "KUBERNETES_DISTRO=k0s",
                &["x", "-p", "k3s"],
                "--provider k3s",
            ),
            (
                "PROVIDER_VERSION=v2",
                &[
                    "x",
                    "--set=PROVIDER_NAME=k3s",
                    "--provider-NAME-version=k3s=v1",
                ],
                "--provider-k3s-version v1",
            ),
        ] {
            let error = requested(&[options, &["--set", set]].concat()).expect_err(set);
            assert_eq!(error.kind(), Kind::Usage);
            let said = error.render_text();
            let both = format!("`--set {set}` and `{option}` contradict each other");
            assert!(said.contains(&both), "{said}");
        }
        let same = [
            "debian:12",
            "oci:o",
            "--set=BASE_IMAGE=debian:12",
            "-m",
            "rpi3",
        ];
        let same = [
            &same[..],
            &["--set=MODEL=rpi3", "-t", "--set=TRUSTED_BOOT=1"],
        ]
        .concat();
        assert_eq!(requested(&same).unwrap().model, "rpi3");
    }

    #[test]
    fn the_command_line_wins_over_a_recipe_in_either_words() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = dir.path().join("r.yaml");
        std::fs::write(&recipe, "base: debian:12\nMODEL: rpi3\nversion: v1\n").unwrap();
        let recipe = recipe.to_str().unwrap();
        let request = requested(&["-f", recipe, "--set=VERSION=v2", "--model=rpi4"]).unwrap();
        assert_eq!(
            (request.model.as_str(), request.version.as_deref()),
            ("rpi4", Some("v2"))
        );
    }

    #[test]
    fn an_insecure_registry_is_a_host_and_any_other_form_is_refused_with_the_right_one() {
        assert_eq!(bare_registry("Localhost:5000").unwrap(), "localhost:5000");
        for (text, hint) in [
            (
                "http://127.0.0.1:5000/me",
                "`--insecure-registry 127.0.0.1:5000`",
            ),
            ("r.example/x", "`--insecure-registry r.example`"),
            ("", "registry.example:5000"),
        ] {
            let error = bare_registry(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(
                error.render_text().contains(hint),
                "{}",
                error.render_text()
            );
        }
    }
}
