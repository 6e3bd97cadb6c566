//! Access lists: ext4 keeps them in a form of its own, other than that in which programs and archives have them.
//!
//! Spec: Linux, `include/uapi/linux/posix_acl_xattr.h` and `fs/ext4/acl.h`.

use std::borrow::Cow;

/// The version of what programs see, and of what is on disk.
const SEEN: u32 = 2;
const ON_DISK: u32 = 1;
/// The kinds of entries that are about one user or group.
const OF_USER: u16 = 0x02;
const OF_GROUP: u16 = 0x08;

/// Returns the value of the attribute `name` as ext4 has it: that of an access list in its form, any other as it is.
///
/// `None` for an access list that cannot be understood.
pub(super) fn on_disk<'a>(name: &str, value: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    if !matches!(name, "system.posix_acl_access" | "system.posix_acl_default") {
        return Some(Cow::Borrowed(value));
    }
    let (version, entries) = value.split_at_checked(4)?;
    if version != SEEN.to_le_bytes() || !entries.len().is_multiple_of(8) {
        return None;
    }
    let mut out = ON_DISK.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(8) {
        let kind = u16::from_le_bytes([entry[0], entry[1]]);
        let about_one = matches!(kind, OF_USER | OF_GROUP);
        out.extend(&entry[..if about_one { 8 } else { 4 }]);
    }
    Some(Cow::Owned(out))
}
