//! The encodings that a file's content can have.

use std::io::Read as _;

use base64::Engine as _;

/// No file of an extension unpacks to more than this.
const MAX_BYTES: u64 = 256 << 20;

/// Every encoding, as it is written.
pub(super) const ENCODINGS: [&str; 8] = [
    "b64",
    "base64",
    "gz",
    "gzip",
    "gz+base64",
    "gzip+base64",
    "gz+b64",
    "gzip+b64",
];

/// Returns the bytes that `text` stands for.
///
/// # Errors
///
/// Why it does not hold what its encoding promises, or that there is no such encoding.
pub(super) fn decode(encoding: &str, text: &str) -> Result<Vec<u8>, String> {
    match encoding {
        "" => Ok(text.as_bytes().to_vec()),
        "b64" | "base64" => base64(text),
        "gz" | "gzip" => gunzip(text.as_bytes()),
        "gz+base64" | "gzip+base64" | "gz+b64" | "gzip+b64" => gunzip(&base64(text)?),
        other => Err(format!(
            "unknown encoding {other:?}, known are {}",
            ENCODINGS.join(", ")
        )),
    }
}

/// Line breaks are allowed anywhere, as encoders put them in.
fn base64(text: &str) -> Result<Vec<u8>, String> {
    let packed: String = text.chars().filter(|c| *c != '\n' && *c != '\r').collect();
    base64::engine::general_purpose::STANDARD
        .decode(packed)
        .map_err(|error| format!("the content is not base64: {error}"))
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes)
        .take(MAX_BYTES + 1)
        .read_to_end(&mut out)
        .map_err(|error| format!("the content is not gzip: {error}"))?;
    if out.len() as u64 > MAX_BYTES {
        return Err(format!(
            "the content unpacks to more than {MAX_BYTES} bytes"
        ));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_gives_back_what_was_put_in() {
        use std::io::Write as _;
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(b"some\0bytes").unwrap();
        let packed = base64::engine::general_purpose::STANDARD.encode(gz.finish().unwrap());
        assert_eq!(decode("b64", "Cg==").unwrap(), b"\n");
        for encoding in ["gz+base64", "gzip+b64"] {
            assert_eq!(decode(encoding, &packed).unwrap(), b"some\0bytes");
        }
        assert_eq!(decode("", "Cg==").unwrap(), b"Cg==");
        // Several packed one after the other are one content.
        let twice = [1, 2].map(|_| {
            base64::engine::general_purpose::STANDARD
                .decode(&packed)
                .unwrap()
        });
        let twice = base64::engine::general_purpose::STANDARD.encode(twice.concat());
        assert_eq!(decode("gz+b64", &twice).unwrap(), b"some\0bytessome\0bytes");
        for (encoding, text) in [
            ("b64", "!"),
            ("gz", "plain"),
            ("rot13", "x"),
            ("gz+b64", "Cg=="),
        ] {
            assert!(decode(encoding, text).is_err(), "{encoding}");
        }
    }
}
