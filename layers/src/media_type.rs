//! Media types of the documents and layers we read and write.
//!
//! Spec: image-spec `media-types.md`; the Docker ones: distribution "Image Manifest Version 2, Schema 2".

/// OCI manifest of one platform's image.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI list of manifests by platform.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Uncompressed OCI layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer compressed with gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer compressed with zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker schema 2 manifest of one platform's image.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker list of manifests by platform.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Every manifest and index type we can read, for a registry request's `Accept` header, best first.
pub const ACCEPTED: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

const DOCKER_LAYERS: [(&str, &str); 7] = [
    ("application/vnd.docker.image.rootfs.diff.tar", OCI_LAYER),
    (
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        OCI_LAYER_GZIP,
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        OCI_LAYER_ZSTD,
    ),
    (
        "application/vnd.docker.container.image.rootfs.diff+x-gtar",
        OCI_LAYER,
    ),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    ),
];

/// Returns the OCI name of a layer media type; one without a Docker spelling comes back as it is.
///
/// Only the name changes: the blob, and so its digest, stays the same.
pub fn oci_layer(media_type: &str) -> &str {
    DOCKER_LAYERS
        .iter()
        .find(|(docker, _)| *docker == media_type)
        .map_or(media_type, |(_, oci)| oci)
}

/// Returns whether `media_type` names an image config, in either spelling.
pub fn is_config(media_type: &str) -> bool {
    media_type == OCI_CONFIG || media_type == DOCKER_CONFIG
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_layers_have_oci_names_and_others_keep_theirs() {
        assert_eq!(
            oci_layer("application/vnd.docker.image.rootfs.diff.tar.gzip"),
            OCI_LAYER_GZIP
        );
        assert_eq!(oci_layer(OCI_LAYER_ZSTD), OCI_LAYER_ZSTD);
        assert_eq!(oci_layer("application/x-other"), "application/x-other");
    }
}
