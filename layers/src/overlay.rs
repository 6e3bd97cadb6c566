//! The names by which layers and overlayfs say that something is gone.

/// How the name of a whiteout begins.
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The name that hides everything that lower layers have in its directory.
pub(crate) const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// Returns whether overlayfs keeps its own notes in an attribute of this name.
///
/// In an image they mean nothing; in a directory that overlayfs is given they can redirect lookups.
pub fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.overlay.")
}
