//! When to ask again, and how long to wait before.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::error::RegistryError;
use crate::pace::Patience;

/// How often, and with which pauses, a request is repeated.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryPolicy {
    /// Tries in all, without progress in between.
    pub(super) tries: u32,
    /// The first pause; each further one is twice as long.
    pub(super) base: Duration,
    /// The longest pause of our own choice.
    pub(super) cap: Duration,
    /// The longest pause a registry may ask for; a longer one is reported instead of waited for.
    pub(super) patience: Duration,
    /// How long an answer may say next to nothing.
    pub(super) silence: Patience,
}

/// How often a registry that says nothing at all, or next to nothing, is asked.
const TRIES_IN_SILENCE: u32 = 2;

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            // With these pauses some 15 seconds pass before giving up: a restart of a registry, not an outage.
            tries: 6,
            base: Duration::from_millis(500),
            cap: Duration::from_secs(8),
            // Registries that limit by the hour say so here; nobody wants to watch that.
            patience: Duration::from_secs(60),
            silence: Patience::default(),
        }
    }
}

impl RetryPolicy {
    /// Returns the pause before trying again after `failed` tries, or `None` to give up with `error`.
    pub(super) fn pause(&self, failed: u32, error: &RegistryError) -> Option<Duration> {
        let tries = match error {
            // Each one is a minute in which nobody learns anything.
            RegistryError::Stalled { .. } => self.tries.min(TRIES_IN_SILENCE),
            _ => self.tries,
        };
        if failed >= tries || !error.is_transient() {
            return None;
        }
        match error {
            RegistryError::RateLimited {
                retry_after: Some(wait),
                ..
            } => (*wait <= self.patience).then_some(*wait),
            _ => Some(self.backoff(failed)),
        }
    }

    /// Returns the pause before reading something just written again, or `None` to give up with `error`.
    pub(super) fn pause_for_consistency(
        &self,
        failed: u32,
        error: &RegistryError,
    ) -> Option<Duration> {
        // Half as many tries: registries that lag do so for a second, and a wrong answer should be heard soon.
        let late = matches!(
            error,
            RegistryError::NotFound(_) | RegistryError::ReadBack { .. }
        );
        (late && failed < self.tries / 2).then(|| self.backoff(failed))
    }

    fn backoff(&self, failed: u32) -> Duration {
        let doubled = self
            .base
            .saturating_mul(1 << failed.saturating_sub(1).min(16));
        let pause = doubled.min(self.cap);
        // Up to half of it at random, so that parallel transfers do not come back all at once.
        let draw = RandomState::new().hash_one(failed) % 1000;
        pause / 2 + pause.mul_f64(draw as f64 / 2000.0)
    }
}

/// The tries of one operation.
///
/// A loop around an attempt calls [`failed`](Self::failed) with each error. (A function that takes the attempt as a
/// closure would not do: futures of closures that borrow cannot be proven `Send`.)
pub(super) struct Tries {
    policy: RetryPolicy,
    failed: u32,
}

impl Tries {
    pub(super) fn new(policy: RetryPolicy) -> Self {
        Self { policy, failed: 0 }
    }

    /// Waits until it is time to try again, or gives `error` back where that is no use.
    pub(super) async fn failed(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.failed += 1;
        match self.policy.pause(self.failed, &error) {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            None => Err(error),
        }
    }

    /// Goes on at once although `error` is final in itself, because the next try does without what it is about.
    pub(super) fn lost(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.failed += 1;
        if self.failed < self.policy.tries {
            Ok(())
        } else {
            Err(error)
        }
    }

    /// Forgets earlier failures: something was achieved since.
    pub(super) fn moved_on(&mut self) {
        self.failed = 0;
    }

    /// Returns the failures since the start or since something was achieved.
    pub(super) fn count(&self) -> u32 {
        self.failed
    }
}

/// Reads `Retry-After`: seconds, or a date, which is counted from `now`.
///
/// Spec: RFC 9110, section 10.2.3.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(http_date(value)?);
    Some(at.duration_since(now).unwrap_or_default())
}

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970; the obsolete forms are not read.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, date) = text.split_once(", ")?;
    let [day, month, year, time, "GMT"] = date.split(' ').collect::<Vec<_>>()[..] else {
        return None;
    };
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year) = (day.parse().ok()?, year.parse().ok()?);
    let [hour, minute, second] = time.split(':').collect::<Vec<_>>()[..] else {
        return None;
    };
    let (hour, minute, second): (u64, u64, u64) = (
        hour.parse().ok()?,
        minute.parse().ok()?,
        second.parse().ok()?,
    );
    let in_range = (1..=31).contains(&day)
        && (1970..=9999).contains(&year)
        && hour < 24
        && minute < 60
        && second < 61;
    in_range
        .then(|| days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Counts days in the Gregorian calendar, with March as the year's first month so that leap days come last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<u64> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().expect("header"))]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_700);
        retry_after(&headers, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(77)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Thu, 29 Feb 2024 00:00:00 GMT", Some(925_053_100)),
            ("Sun, 99 Nov 1994 08:49:37 GMT", None),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(read(value), expected, "{value}");
        }
    }

    #[test]
    fn a_registry_that_says_nothing_is_asked_twice() {
        let url = "https://registry.example/v2/".parse().expect("a URL");
        let silence = RegistryError::Stalled {
            request: super::super::error::RequestLine::new(&reqwest::Method::GET, &url),
            how: crate::pace::Stalled::Silent {
                after: Duration::from_secs(60),
            },
        };
        let policy = RetryPolicy::default();
        assert!(policy.pause(1, &silence).is_some());
        assert!(policy.pause(2, &silence).is_none());
    }

    #[test]
    fn pauses_grow_and_end() {
        let policy = RetryPolicy {
            cap: Duration::from_secs(3),
            ..RetryPolicy::default()
        };
        for (failed, least, most) in [
            (1, 250, 500),
            (2, 500, 1000),
            (3, 1000, 2000),
            (4, 1500, 3000),
        ] {
            let pause = policy.backoff(failed).as_millis();
            assert!((least..=most).contains(&pause), "{failed}: {pause}");
        }
    }
}
