//! OCI data.
