//! kfactory.
