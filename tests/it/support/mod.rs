//! What the tests share: the place they work in, the program, registries, bases, and the one conversion.

pub(crate) mod base;
pub(crate) mod bootable;
pub(crate) mod buildah;
pub(crate) mod conversion;
pub(crate) mod cpio;
pub(crate) mod debs;
pub(crate) mod extended;
pub(crate) mod framework;
pub(crate) mod gits;
pub(crate) mod installed_system;
pub(crate) mod janitor;
pub(crate) mod layer;
pub(crate) mod machine;
pub(crate) mod program;
pub(crate) mod registry;
pub(crate) mod releases;
pub(crate) mod shared;
pub(crate) mod small;
pub(crate) mod systems;
pub(crate) mod tools;
pub(crate) mod tree;
pub(crate) mod user;
pub(crate) mod web;
pub(crate) mod world;

pub(crate) use program::Kfactory;
pub(crate) use registry::{Server, run};
pub(crate) use tools::{need, skipped, wants_all};
pub(crate) use world::world;
