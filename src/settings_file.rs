//! Reads a file that a person wrote (a recipe, credentials, certificates) whole; one without end is refused, not waited for.

use std::io::{self, Read as _};
use std::path::Path;

use kfactory_layers::input::open_input_or_device;

/// Far beyond what anybody writes.
const MOST_BYTES: u64 = 16 << 20;

/// Returns the content of the file at `path`, which may be a stream that this process was given.
///
/// # Errors
///
/// The file cannot be read; [`io::ErrorKind::InvalidData`] where it holds more than 16 MiB.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_input_or_device(path)?
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it holds more than 16 MiB, which no such file does",
        ));
    }
    Ok(bytes)
}

/// As [`read`], for text.
///
/// # Errors
///
/// Those of [`read`]; [`io::ErrorKind::InvalidData`] where it is not UTF-8.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_refused() {
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
