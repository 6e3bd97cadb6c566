//! Answers over HTTP that come too slowly to count as any: an answer may take long, but neither stand still nor trickle.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{RequestBuilder, Response};

/// How long the other side may stay silent.
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// Bytes a second below which an answer counts as silent. Eight downloads at a time leave each that much of the slowest modem.
pub(crate) const LEAST_RATE: u64 = 1024;

/// How long an answer may say nothing, or next to nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience(pub(crate) Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(IDLE)
    }
}

/// How a transfer stands still.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stalled {
    /// Nothing came or went for too long.
    #[error("no progress for {} seconds", after.as_secs())]
    Silent {
        /// How long nothing moved.
        after: Duration,
    },
    /// So little came for so long that it would never end.
    #[error(
        "no progress, {bytes} bytes came in {} seconds; fewer than {LEAST_RATE} a second count as none",
        waited.as_secs()
    )]
    TooSlow {
        /// What came.
        bytes: u64,
        /// In which time.
        waited: Duration,
    },
}

/// Why an answer did not come whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// It stands still.
    #[error(transparent)]
    Stalled(#[from] Stalled),
    /// The connection was refused or broke; without the URL, which may hold a password.
    #[error(transparent)]
    Http(reqwest::Error),
}

impl From<reqwest::Error> for Fault {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

/// An answer whose head has arrived.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Response,
    patience: Patience,
    pace: Pace,
}

/// Sends `request`, which has nothing long to send, and waits for the head of the answer.
pub(crate) async fn send(request: RequestBuilder, patience: Patience) -> Result<Answer, Fault> {
    let head = tokio::time::timeout(patience.0, request.send()).await;
    let head = head.map_err(|_| Stalled::Silent { after: patience.0 })??;
    Ok(Answer::new(head, patience))
}

impl Answer {
    pub(crate) fn new(head: Response, patience: Patience) -> Self {
        Self {
            head,
            patience,
            pace: Pace::default(),
        }
    }

    /// Returns the next piece of the body, `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        let (asked, patience) = (Instant::now(), self.patience);
        let chunk = tokio::time::timeout(patience.0, self.head.chunk()).await;
        let chunk = chunk.map_err(|_| Stalled::Silent { after: patience.0 })??;
        if let Some(chunk) = &chunk {
            self.pace.came(chunk.len(), asked.elapsed(), patience)?;
        }
        Ok(chunk)
    }
}

/// What came of an answer since it was last fast enough.
#[derive(Debug, Default)]
struct Pace {
    bytes: u64,
    /// Waited for the network alone: a slow disk is not the other side's fault.
    waited: Duration,
}

impl Pace {
    /// Notes a piece of `bytes` that was `waited` for.
    fn came(&mut self, bytes: usize, waited: Duration, patience: Patience) -> Result<(), Stalled> {
        self.bytes += bytes as u64;
        self.waited += waited;
        if self.waited < patience.0 {
            return Ok(());
        }
        let Self { bytes, waited } = std::mem::take(self);
        let least = waited.as_secs_f64() * LEAST_RATE as f64;
        if (bytes as f64) < least {
            return Err(Stalled::TooSlow { bytes, waited });
        }
        Ok(())
    }
}

/// A server for tests that answers every request with a body that never ends and comes byte by byte.
#[cfg(test)]
pub(crate) mod trickle {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// Starts it and returns its URL, and how often it has been asked.
    pub(crate) fn server() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || answer(stream));
            }
        });
        (url, asked)
    }

    fn answer(mut stream: TcpStream) {
        let _ = stream.read(&mut [0; 4096]);
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        while sent.is_ok() {
            std::thread::sleep(Duration::from_millis(20));
            sent = stream.write_all(b"x");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_counts_as_silence_and_a_slow_link_does_not() {
        let second = Duration::from_secs(1);
        for (rate, is_too_slow) in [(1, true), (1000, true), (1100, false)] {
            let mut pace = Pace::default();
            let mut come = || pace.came(rate, second, Patience::default());
            let found = (0..300).find_map(|_| come().err());
            let slow = Stalled::TooSlow {
                bytes: rate as u64 * 60,
                waited: 60 * second,
            };
            assert_eq!(found, is_too_slow.then_some(slow), "{rate}");
        }
    }
}
