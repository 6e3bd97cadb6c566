//! Providers: what puts Kubernetes into an image and makes its variant `standard`.
//!
//! A provider is asked for by name. `k3s` and `k0s` are installed from their releases, by this program; any other name is left to
//! the plugins that the image holds, and these two as well where the user wants it so.
//!
//! Reading order: `options` says what a user may ask for and turns it into [`Provider`]s, `distribution` is the table of what we
//! install ourselves, `services` the files that go with it, `release` the download, `bus` the language of the plugins. None of them
//! touches an image: the steps do that.

pub mod bus;
mod distribution;
mod options;
mod release;
mod services;

pub use distribution::{DISTRIBUTIONS, Distribution};
pub use options::{
    Configs, Installer, MAX_CONFIG_BYTES, Provider, ProviderOptions, ProviderSource, read_configs,
    resolve,
};
pub use release::{Context, Event, MIRROR_ENV, Program, ProviderError, fetch, url};
pub use services::{Manager, files, identity};
