//! kfactory.

pub mod kairos;
pub mod distro;
pub mod framework;
pub mod registry;
