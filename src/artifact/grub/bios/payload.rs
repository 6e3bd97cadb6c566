//! What a core holds compressed: the kernel, and right behind it what GRUB finds by the magic number `mimg`.
//!
//! ```text
//! kernel
//! module info:  u32 "mimg", u32 offset of the first object (12), u32 bytes from "mimg" to the end
//! objects:      u32 type, u32 bytes with this header, content, zeros up to a multiple of four
//! ```

const MAGIC: u32 = u32::from_le_bytes(*b"mimg");
const INFO_BYTES: u32 = 12;
const OBJECT_BYTES: u32 = 8;

const MODULE: u32 = 0;
const CONFIG: u32 = 2;
const PREFIX: u32 = 3;

/// Puts modules, commands and prefix behind the kernel. An empty `config` is none.
pub(super) fn payload(kernel: Vec<u8>, modules: &[Vec<u8>], config: &str, prefix: &str) -> Vec<u8> {
    let mut objects = Vec::new();
    for module in modules {
        object(MODULE, module, &mut objects);
    }
    if !config.is_empty() {
        object(CONFIG, &terminated(config), &mut objects);
    }
    object(PREFIX, &terminated(prefix), &mut objects);

    let mut payload = kernel;
    let bytes = INFO_BYTES + u32_of(objects.len());
    for field in [MAGIC, INFO_BYTES, bytes] {
        payload.extend(field.to_le_bytes());
    }
    payload.extend(objects);
    payload
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

fn object(kind: u32, content: &[u8], out: &mut Vec<u8>) {
    let bytes = content.len().next_multiple_of(4);
    out.extend(kind.to_le_bytes());
    out.extend((OBJECT_BYTES + u32_of(bytes)).to_le_bytes());
    out.extend(content);
    out.resize(out.len() + bytes - content.len(), 0);
}

/// Sizes of files that were read into memory, 64 MiB at most each and some hundreds of them; a core of more than 384 KiB is
/// refused anyway.
fn u32_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
