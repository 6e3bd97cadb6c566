//! A registry inside the test that can also lie.
