//! SHA-512 password hashes, as crypt(3) makes them.
//!
//! Spec: "Unix crypt using SHA-256 and SHA-512", Ulrich Drepper; the default of 5000 rounds.

use sha2::{Digest as _, Sha512};

use crate::error::{Error, Result};

const ROUNDS: usize = 5000;
const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// A longer password is an attack on the time of the build: the work grows with its square.
const MAX_PASSWORD_BYTES: usize = 4096;

/// Hashes `password` with `salt`, of which at most 16 characters count.
pub(super) fn sha512(password: &str, salt: &str) -> Result<String> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(Error::user(format!(
            "a password has more than {MAX_PASSWORD_BYTES} bytes"
        )));
    }
    let salt = &salt[..salt.len().min(16)];
    let digest = rounds(password.as_bytes(), salt.as_bytes());
    Ok(format!("$6${salt}${}", encoded(&digest)))
}

fn rounds(password: &[u8], salt: &[u8]) -> [u8; 64] {
    let first = start(password, salt);
    let p = repeated(
        &Sha512::digest(password.repeat(password.len())),
        password.len(),
    );
    let s = repeated(
        &Sha512::digest(salt.repeat(16 + usize::from(first[0]))),
        salt.len(),
    );
    let mut digest = first;
    for round in 0..ROUNDS {
        let mut hasher = Sha512::new();
        let is_odd = round % 2 == 1;
        hasher.update(if is_odd { &p[..] } else { &digest[..] });
        if round % 3 != 0 {
            hasher.update(&s);
        }
        if round % 7 != 0 {
            hasher.update(&p);
        }
        hasher.update(if is_odd { &digest[..] } else { &p[..] });
        digest = hasher.finalize().into();
    }
    digest
}

/// Steps 1 to 12 of the specification.
fn start(password: &[u8], salt: &[u8]) -> [u8; 64] {
    let other = Sha512::digest([password, salt, password].concat());
    let mut hasher = Sha512::new();
    hasher.update(password);
    hasher.update(salt);
    hasher.update(repeated(&other, password.len()));
    let mut length = password.len();
    while length > 0 {
        hasher.update(if length & 1 == 1 {
            &other[..]
        } else {
            password
        });
        length >>= 1;
    }
    hasher.finalize().into()
}

fn repeated(digest: &[u8], length: usize) -> Vec<u8> {
    digest.iter().copied().cycle().take(length).collect()
}

/// Writes the digest in the order and the letters of crypt(3).
fn encoded(digest: &[u8; 64]) -> String {
    let mut out = String::with_capacity(86);
    let mut put = |bytes: [u8; 3], letters: usize| {
        let mut bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        for _ in 0..letters {
            out.push(char::from(LETTERS[(bits & 63) as usize]));
            bits >>= 6;
        }
    };
    let (mut a, mut b, mut c) = (0, 21, 42);
    for _ in 0..21 {
        put([digest[a], digest[b], digest[c]], 4);
        (a, b, c) = (b + 1, c + 1, a + 1);
    }
    put([0, 0, digest[63]], 2);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_specification() {
        // The first is a vector of the specification, the others were made by `openssl passwd -6`.
        for (password, hash) in [
            (
                "Hello world!",
                "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
            ),
            (
                "x",
                "$6$abcdefghijklmnop$4MjOne1jVRKP4IuHRPFedC4vlQHNjvcBfQJVlfB8ciQ5YUzW2g81Pyw4sptw4femJ071/eApI0WDsBAOOCmTl0",
            ),
            (
                "a much longer password that has more bytes than one block of the hash function would take in one go, to be sure",
                "$6$abcdefghijklmnop$DrAp3LHNMj/I5ekMWcfRgGwY7hP8lEubLEmjv76IFRqQQvEjS4up1K4KJ5w0q6g0RPjs1OOh5WMt.bO4qXp2O.",
            ),
        ] {
            let salt = hash.split('$').nth(2).unwrap();
            assert_eq!(sha512(password, salt).unwrap(), hash);
        }
        assert!(sha512(&"x".repeat(5000), "salt").is_err());
    }
}
