//! Whether a client's body comes fast enough, and whether it takes its response.
//!
//! A pause has a limit, and so has the time that each KiB may be waited for: or else a
//! byte a minute would hold a connection, and an upstream, for ever. Only time in which
//! the proxy waits for the client counts, never that in which an upstream takes nothing.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body::{Body, Frame, SizeHint};

use crate::dial::LazyTimer;
use crate::stream::Patience;

/// The least that a body must bring before its time is up, in bytes.
const RATE_BYTES: u64 = 1_024;

/// How long a body has been waited for, and what it brought, since it last brought enough.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyRate {
    waited: Duration,
    bytes: u64,
}

impl BodyRate {
    /// Some of the body came, after `pending` of waiting.
    pub fn came(&mut self, bytes: u64, pending: Duration) {
        self.bytes += bytes;
        self.waited += pending;
        if self.bytes >= RATE_BYTES {
            *self = Self::default();
        }
    }

    /// How much longer it may be waited for, of `window` in all.
    pub fn left(&self, window: Duration) -> Duration {
        window.saturating_sub(self.waited)
    }
}

/// The pace of one body, where no other reader of the connection knows it: in HTTP/2.
#[derive(Debug)]
pub struct UploadPace {
    patience: Patience,
    rate: BodyRate,
    since: Option<Instant>,
    timer: LazyTimer,
}

impl UploadPace {
    /// Of a body whose connection has this patience.
    pub fn new(patience: Patience) -> Self {
        Self { patience, rate: BodyRate::default(), since: None, timer: LazyTimer::default() }
    }

    /// The body is waited for. Ready when that has taken too long.
    pub fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let left = self.rate.left(self.patience.body_rate).min(self.patience.body);
        self.timer.poll(cx, since + left)
    }

    /// So much of it came.
    pub fn came(&mut self, bytes: u64) {
        let pending = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.rate.came(bytes, pending);
    }
}

/// Since when a response has been held up by its client; `None` while it is waited for.
#[derive(Debug)]
struct Held(Cell<Option<Instant>>);

/// The responses of one HTTP/2 connection.
///
/// A client that opens no window, or hardly any, keeps a response from being asked for its
/// next piece, while the connection itself looks lively.
#[derive(Debug, Default)]
pub struct Responses(RefCell<Vec<Weak<Held>>>);

impl Responses {
    /// Watches a response on its way.
    pub fn watch<B>(&self, body: B) -> Paced<B> {
        let held = Rc::new(Held(Cell::new(Some(Instant::now()))));
        let mut all = self.0.borrow_mut();
        if all.len() == all.capacity() {
            all.retain(|held| held.strong_count() > 0);
        }
        all.push(Rc::downgrade(&held));
        Paced { body, held }
    }

    /// Since when the one has been held up that was held up first.
    pub fn held_since(&self) -> Option<Instant> {
        let mut all = self.0.borrow_mut();
        all.retain(|held| held.strong_count() > 0);
        all.iter().filter_map(|held| held.upgrade()?.0.get()).min()
    }
}

/// A body whose client's pace is watched.
#[derive(Debug)]
pub struct Paced<B> {
    body: B,
    held: Rc<Held>,
}

impl<B: Body + Unpin> Body for Paced<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        // Asked for, it is waited for; handed out, it is the client's to take.
        this.held.0.set(polled.is_ready().then(Instant::now));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_brings_a_kibibyte_now_and_then_is_fast_enough() {
        let (window, pause) = (Duration::from_secs(60), Duration::from_secs(50));
        let mut rate = BodyRate::default();
        for _ in 0..10 {
            rate.came(1_024, pause);
            assert_eq!(rate.left(window), window);
        }
        rate.came(1_000, pause);
        assert_eq!(rate.left(window), Duration::from_secs(10));
        rate.came(1, Duration::from_secs(9));
        assert_eq!(rate.left(window), Duration::from_secs(1));
        rate.came(23, pause);
        assert_eq!(rate.left(window), window);
    }
}
