//! Reads apt's list of what it would download, so that the files can be fetched and verified without it.

use std::fmt;

/// One file that apt would download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageUri {
    /// Where it is, percent-encoded as apt gave it. The scheme is the repository's: mostly `http` or `https`.
    pub url: String,
    /// The name it must have in [`super::Workspace::archives`].
    pub filename: String,
    /// Its exact size in bytes.
    pub size_bytes: u64,
    /// Its hash, from the signed index.
    pub hash: PackageHash,
}

/// A hash of a package file, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackageHash {
    /// SHA-256, 64 digits.
    Sha256(String),
    /// SHA-512, 128 digits.
    Sha512(String),
}

impl fmt::Display for PackageHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digits) => write!(f, "sha256:{digits}"),
            Self::Sha512(digits) => write!(f, "sha512:{digits}"),
        }
    }
}

/// What [`parse_uris`] could not use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// The line does not have the four parts.
    #[error("apt listed a download this program cannot read: {line:?}")]
    Malformed {
        /// The line.
        line: String,
    },
    /// The name is no plain file name.
    #[error("apt listed a download with an unusable name: {filename:?}")]
    Filename {
        /// The name.
        filename: String,
    },
    /// The repository gives nothing better than MD5 or SHA-1, with which a forged file could not be told.
    #[error("no strong hash for package {filename:?}: {hash:?}")]
    WeakHash {
        /// The file's name.
        filename: String,
        /// What stands in the hash's place.
        hash: String,
    },
}

/// Reads the output of [`super::Workspace::list_downloads`]: one line `'URL' FILENAME SIZE HASH` for each file, other lines ignored.
///
/// # Errors
///
/// [`UriError`] for the first line that starts like a download and is not one that can be verified.
pub fn parse_uris(output: &str) -> Result<Vec<PackageUri>, UriError> {
    output
        .lines()
        .filter(|line| line.starts_with('\''))
        .map(parse_uri)
        .collect()
}

fn parse_uri(line: &str) -> Result<PackageUri, UriError> {
    let malformed = || UriError::Malformed {
        line: line.to_owned(),
    };
    let (url, rest) = line[1..].split_once("' ").ok_or_else(malformed)?;
    let mut words = rest.split_whitespace();
    let (Some(filename), Some(size), hash) =
        (words.next(), words.next(), words.next().unwrap_or_default())
    else {
        return Err(malformed());
    };
    let size_bytes = size.parse().map_err(|_| malformed())?;
    if filename.contains('/')
        || filename.starts_with('.')
        || !filename.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(UriError::Filename {
            filename: filename.to_owned(),
        });
    }
    let hash = strong_hash(hash).ok_or_else(|| UriError::WeakHash {
        filename: filename.to_owned(),
        hash: hash.to_owned(),
    })?;
    Ok(PackageUri {
        url: url.to_owned(),
        filename: filename.to_owned(),
        size_bytes,
        hash,
    })
}

fn strong_hash(text: &str) -> Option<PackageHash> {
    let (kind, digits) = text.split_once(':')?;
    let digits = digits.to_ascii_lowercase();
    digits
        .bytes()
        .all(|b| b.is_ascii_hexdigit())
        .then_some(())?;
    match (kind, digits.len()) {
        ("SHA256", 64) => Some(PackageHash::Sha256(digits)),
        ("SHA512", 128) => Some(PackageHash::Sha512(digits)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_are_read_and_other_lines_passed_over() {
        let digits = "a".repeat(64);
        let output = format!(
            "Reading package lists...\nNEED 1 file\n\
             'http://mirror.example/debian/pool/main/x/x%2b_1%3a2_all.deb' x+_1%3a2_all.deb 8432 SHA256:{digits}\n"
        );
        let expected = PackageUri {
            url: "http://mirror.example/debian/pool/main/x/x%2b_1%3a2_all.deb".to_owned(),
            filename: "x+_1%3a2_all.deb".to_owned(),
            size_bytes: 8432,
            hash: PackageHash::Sha256(digits),
        };
        assert_eq!(parse_uris(&output), Ok(vec![expected]));
        assert_eq!(parse_uris(""), Ok(vec![]));
    }

    #[test]
    fn a_download_that_cannot_be_verified_is_refused() {
        let digits = "0".repeat(64);
        for line in [
            "'http://x",
            "'http://x' name",
            "'http://x' name -5 SHA256:00",
            "'http://x' name many SHA256:00",
        ] {
            assert!(
                matches!(parse_uris(line), Err(UriError::Malformed { .. })),
                "{line}"
            );
        }
        for name in ["../x.deb", "a/b.deb", ".hidden", "x\u{1b}.deb"] {
            let line = format!("'http://x' {name} 5 SHA256:{digits}");
            assert!(
                matches!(parse_uris(&line), Err(UriError::Filename { .. })),
                "{line}"
            );
        }
        for hash in [
            "MD5Sum:b8b61b74a32c3abdb7973f60240b09c0",
            "SHA256:00",
            "",
            "SHA256:zz",
        ] {
            let line = format!("'http://x' x.deb 5 {hash}");
            assert!(
                matches!(parse_uris(&line), Err(UriError::WeakHash { .. })),
                "{line}"
            );
        }
    }
}
