//! kfactory.

pub mod registry;
