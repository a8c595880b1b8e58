//! What an HTTP/2 client makes the proxy do for nothing, counted by the headers of its frames.
//!
//! Requests and bytes of bodies are what a connection is for, and have limits of their own.
//! PING, SETTINGS, PRIORITY, resets, empty DATA and frames of unknown types cost a client
//! next to nothing: each takes from a budget that only time fills again. The h2 library bounds
//! what they may hold in memory; here is bounded how many there may be.

use std::time::{Duration, Instant};

/// Bytes of the client connection preface, which stands before the first frame.
const PREFACE_BYTES: u32 = 24;
const HEADER_BYTES: usize = 9;
/// Frames that a connection may send at once. A page with all 128 streams that is left, and
/// loaded again a few times, stays well below.
const BUDGET: u32 = 2_000;
/// Frames for which a second makes up.
const BUDGET_PER_SECOND: u32 = 200;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// DATA: the last of its stream.
const END_STREAM: u8 = 1;

/// More of these than a client has a use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a flood of HTTP/2 control frames")]
pub struct Flood;

/// The reader's place in one connection's stream of frames.
#[derive(Debug)]
pub struct Frames {
    header: [u8; HEADER_BYTES],
    have: usize,
    /// Bytes of a payload, or of the preface, that are still to come.
    skip: u32,
    budget: u32,
    filled: Instant,
}

impl Frames {
    /// Of a connection that begins `now`, with its preface.
    pub fn new(now: Instant) -> Self {
        Self {
            header: [0; HEADER_BYTES],
            have: 0,
            skip: PREFACE_BYTES,
            budget: BUDGET,
            filled: now,
        }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        loop {
            let skipped = bytes.len().min(self.skip as usize);
            bytes = &bytes[skipped..];
            self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
            if bytes.is_empty() {
                return Ok(());
            }
            let taken = bytes.len().min(HEADER_BYTES - self.have);
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < HEADER_BYTES {
                return Ok(());
            }
            self.have = 0;
            let [high, middle, low, kind, flags, ..] = self.header;
            self.skip = u32::from_be_bytes([0, high, middle, low]);
            let useful = match kind {
                DATA => self.skip > 0 || flags & END_STREAM != 0,
                // A window may be opened a little at a time: that is only slow.
                HEADERS | WINDOW_UPDATE | CONTINUATION => true,
                _ => false,
            };
            if !useful {
                self.spend(now)?;
            }
        }
    }

    fn spend(&mut self, now: Instant) -> Result<(), Flood> {
        if self.budget == 0 {
            let elapsed = now.saturating_duration_since(self.filled);
            let made_up = elapsed.as_millis() * u128::from(BUDGET_PER_SECOND) / 1_000;
            self.budget = u32::try_from(made_up).unwrap_or(BUDGET).min(BUDGET);
            if self.budget == 0 {
                return Err(Flood);
            }
            self.filled = now;
        } else if self.budget == BUDGET && now > self.filled + Duration::from_secs(1) {
            // Nothing to make up for: the time before does not count.
            self.filled = now;
        }
        self.budget -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend_from_slice(payload);
        frame
    }

    /// How many of a frame pass at once, whole or a byte at a time.
    fn passing(frame: &[u8], step: usize) -> u32 {
        let now = Instant::now();
        let mut frames = Frames::new(now);
        frames.feed(&[b'P'; PREFACE_BYTES as usize], now).expect("the preface");
        let mut count = 0;
        while count < 3 * BUDGET && frame.chunks(step).all(|piece| frames.feed(piece, now).is_ok())
        {
            count += 1;
        }
        count
    }

    #[test]
    fn frames_for_nothing_have_a_budget_and_requests_have_none() {
        for (bytes, allowed) in [
            (frame(6, 0, &[0; 8]), BUDGET),
            (frame(6, 1, &[0; 8]), BUDGET),
            (frame(4, 0, &[]), BUDGET),
            (frame(3, 0, &[0; 4]), BUDGET),
            (frame(2, 0, &[0; 5]), BUDGET),
            (frame(99, 0, &[0; 300]), BUDGET),
            (frame(0, 0, &[]), BUDGET),
            (frame(0, END_STREAM, &[]), 3 * BUDGET),
            (frame(0, 0, &[1]), 3 * BUDGET),
            (frame(1, 4, &[0; 30]), 3 * BUDGET),
            (frame(8, 0, &[0; 4]), 3 * BUDGET),
            (frame(9, 4, &[0; 30]), 3 * BUDGET),
        ] {
            for step in [1, 7, 1_000] {
                assert_eq!(passing(&bytes, step), allowed, "{bytes:?} by {step}");
            }
        }
    }

    #[test]
    fn time_fills_the_budget_again() {
        let start = Instant::now();
        let mut frames = Frames::new(start);
        frames.feed(&[0; PREFACE_BYTES as usize], start).expect("the preface");
        let ping = frame(6, 0, &[0; 8]);
        // A ping every ten milliseconds is no flood, however long it lasts.
        for tick in 0..10 * BUDGET {
            let now = start + Duration::from_millis(10 * u64::from(tick));
            frames.feed(&ping, now).expect("no flood");
        }
        // A hundred a millisecond are.
        let end = start + Duration::from_secs(3_600);
        let flood = (0..10 * BUDGET).find(|tick| {
            frames.feed(&ping, end + Duration::from_millis(u64::from(tick / 100))).is_err()
        });
        assert!(flood.is_some());
    }
}
