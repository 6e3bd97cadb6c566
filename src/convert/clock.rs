//! Time in images: one moment for a whole run, taken from `SOURCE_DATE_EPOCH` when that is set.
//!
//! Spec: reproducible-builds.org, "SOURCE_DATE_EPOCH specification".

use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// The moment a run is dated with.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch: Option<i64>,
    now: i64,
}

impl Clock {
    /// Reads `SOURCE_DATE_EPOCH`, or the clock when it is not set.
    ///
    /// # Errors
    ///
    /// A usage error when the variable is not a whole number of seconds.
    pub fn from_env() -> Result<Self> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs().cast_signed());
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) if !text.is_empty() => {
                Some(text.parse::<u32>().map(i64::from).map_err(|_| {
                    Error::usage(format!(
                        "SOURCE_DATE_EPOCH is `{text}`, which is not a number of seconds since 1970, of which images hold up to {}",
                        u32::MAX
                    ))
                })?)
            }
            _ => None,
        };
        Ok(Self { epoch, now })
    }

    /// Returns the moment written into configs and histories, in seconds since 1970.
    pub fn created(&self) -> i64 {
        self.epoch.unwrap_or(self.now)
    }

    /// Returns the highest modification time that files of new layers may have; `None`: as they come.
    pub fn clamp(&self) -> Option<i64> {
        self.epoch
    }
}
