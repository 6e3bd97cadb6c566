//! The configuration that goes along with an artifact, for the installation and the system: text for the agent, and not looked into.

use std::io::{self, Read};
use std::path::Path;

use kfactory_layers::input::open_input_or_device;

use crate::error::{Context as _, Error, Result};
use crate::given;

/// The largest one; the agent reads it into memory.
const MAX_BYTES: u64 = 4 << 20;

/// Reads it from `file`; `-` is standard input.
///
/// # Errors
///
/// It cannot be read, or is larger than 4 MiB.
pub fn read(file: &Path) -> Result<Vec<u8>> {
    let doing = || format!("cannot read the configuration `{}`", file.display());
    let bytes = match file.as_os_str() == "-" {
        true => bounded(&mut io::stdin().lock()).context(doing)?,
        false => {
            given::file(file).context(doing)?;
            bounded(&mut open_input_or_device(file).context(doing)?).context(doing)?
        }
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::user(format!("it is larger than {MAX_BYTES} bytes")).context(doing()));
    }
    Ok(bytes)
}

/// Reads at most one byte more than is allowed.
fn bounded(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
