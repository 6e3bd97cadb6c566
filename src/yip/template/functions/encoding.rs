//! Encodings and digests of text.

use base64::Engine as _;
use sha2::Digest as _;

use super::super::value::Value;
use super::{Args, Fault, Outcome};

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

pub(super) fn call(name: &str, args: &Args) -> Option<Outcome> {
    let base64 = base64::engine::general_purpose::STANDARD;
    let write = |change: &dyn Fn(&str) -> String| {
        args.exactly(1)?;
        Ok(Value::Text(change(args.text(0)?)))
    };
    let read = |what: &str, bytes: &dyn Fn(&str) -> Option<Vec<u8>>| {
        args.exactly(1)?;
        let text = bytes(args.text(0)?).and_then(|bytes| String::from_utf8(bytes).ok());
        // Elsewhere the words of the error are the result.
        text.map(Value::Text)
            .ok_or_else(|| Fault::Unsupported(format!("it does not hold text in {what}")))
    };
    Some(match name {
        "b64enc" => write(&|text| base64.encode(text)),
        "b64dec" => read("base64", &|text| base64.decode(text).ok()),
        "b32enc" => write(&|text| to_base32(text.as_bytes())),
        "b32dec" => read("base32", &from_base32),
        "sha256sum" => write(&|text| hex(&sha2::Sha256::digest(text))),
        "sha512sum" => write(&|text| hex(&sha2::Sha512::digest(text))),
        "adler32sum" => write(&|text| adler32(text.as_bytes()).to_string()),
        _ => return None,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Spec: RFC 1950, "Adler-32".
fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65521;
    let (low, high) = bytes.iter().fold((1, 0), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % MODULUS;
        (low, (high + low) % MODULUS)
    });
    (high << 16) | low
}

/// Spec: RFC 4648, section 6.
fn to_base32(bytes: &[u8]) -> String {
    let mut out = String::new();
    for group in bytes.chunks(5) {
        let bits = (0..5).fold(0u64, |bits, at| {
            (bits << 8) | u64::from(group.get(at).copied().unwrap_or(0))
        });
        let used = (group.len() * 8).div_ceil(5);
        for at in 0..8 {
            let digit = (bits >> (35 - 5 * at)) & 31;
            out.push(if at < used {
                char::from(BASE32[digit as usize])
            } else {
                '='
            });
        }
    }
    out
}

/// Reads base32 with its padding; line ends count for nothing.
fn from_base32(text: &str) -> Option<Vec<u8>> {
    let text: Vec<u8> = text
        .bytes()
        .filter(|byte| !b"\r\n".contains(byte))
        .collect();
    if !text.len().is_multiple_of(8) {
        return None;
    }
    let mut out = Vec::new();
    let last = text.len() / 8;
    for (group, number) in text.chunks(8).zip(1..) {
        let used = group.iter().position(|byte| *byte == b'=').unwrap_or(8);
        let is_whole = used == 8;
        let is_padded = number == last && matches!(used, 2 | 4 | 5 | 7);
        if !(is_whole || is_padded) || group[used..].iter().any(|byte| *byte != b'=') {
            return None;
        }
        let mut bits = 0u64;
        for at in 0..8 {
            let digit = match group.get(at).filter(|_| at < used) {
                Some(byte) => BASE32.iter().position(|known| known == byte)? as u64,
                None => 0,
            };
            bits = (bits << 5) | digit;
        }
        out.extend(&bits.to_be_bytes()[3..3 + used * 5 / 8]);
    }
    Some(out)
}
