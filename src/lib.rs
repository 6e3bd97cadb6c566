//! kfactory.

pub mod framework;
