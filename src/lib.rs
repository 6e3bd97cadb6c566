//! kfactory.

pub mod distro;
