//! What a connection's stream and those who use it tell each other, and how long each may be silent.

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::early::Relay;
use crate::framing::Violation;
use crate::pace::{BodyRate, Responses, UploadPace};

/// How long a client may be waited for until its body has brought another KiB.
pub const BODY_RATE_WINDOW: Duration = Duration::from_secs(60);
/// After how long a silence a client of HTTP/2 is asked for a sign of life, and how long it
/// then has for one.
const PROBE_AFTER: Duration = Duration::from_secs(20);
const PROBE_PATIENCE: Duration = Duration::from_secs(20);

/// What becomes of a request that asks for an upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Upgrade {
    #[default]
    None,
    /// The response is not known yet: nothing more is read.
    Waiting,
    Accepted,
    Refused,
}

/// What the stream and the connection that owns it tell each other.
#[derive(Debug)]
pub struct Wire {
    /// Interim answers for the client.
    pub early: Relay,
    pub(crate) upgrade: Cell<Upgrade>,
    pub(crate) waker: RefCell<Option<Waker>>,
    pub(crate) violation: Cell<Option<Violation>>,
    pub(crate) head_refused: Cell<bool>,
    pub(crate) in_head: Cell<bool>,
    pub(crate) in_body: Cell<bool>,
    /// When the head that is being read began.
    pub(crate) head_since: Cell<Instant>,
    pub(crate) read_pending_since: Cell<Option<Instant>>,
    pub(crate) write_pending_since: Cell<Option<Instant>>,
    pub(crate) body_rate: Cell<BodyRate>,
    /// For HTTP/2, whose bodies come side by side.
    pub(crate) uploads: Cell<Option<Patience>>,
    pub responses: Responses,
    pub(crate) flooded: Cell<bool>,
    /// For HTTP/2: when the client last said anything, and when it was last asked to.
    pub(crate) heard_at: Cell<Instant>,
    probed_at: Cell<Option<Instant>>,
    /// Requests that are being answered.
    pub(crate) in_flight: Cell<usize>,
    pub(crate) idle_since: Cell<Instant>,
    /// Since when the client is known to have closed its half.
    pub(crate) closed_since: Cell<Option<Instant>>,
}

/// Limits of a client's silence.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the first byte of a head to its end.
    pub head: Duration,
    /// Between two requests, and before the first.
    pub idle: Duration,
    /// Between two reads of a body.
    pub body: Duration,
    /// For each KiB of a body.
    pub body_rate: Duration,
    /// While it takes none of what it is sent.
    pub send: Duration,
    /// For a response, after it closed its half: it may have left.
    pub closed: Duration,
}

/// What a look at the clock says about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing is due before this.
    Until(Instant),
    /// No request is under way, and none came for too long.
    Idle,
    /// Nothing was heard of the client for long: it is to be asked for a sign of life.
    Probe,
    /// The client stopped in the middle of something.
    Stalled(&'static str),
}

impl Wire {
    /// Of a connection that begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            early: Relay::default(),
            upgrade: Cell::default(),
            waker: RefCell::default(),
            violation: Cell::default(),
            head_refused: Cell::default(),
            in_head: Cell::new(false),
            in_body: Cell::new(false),
            head_since: Cell::new(now),
            read_pending_since: Cell::default(),
            write_pending_since: Cell::default(),
            body_rate: Cell::default(),
            uploads: Cell::default(),
            responses: Responses::default(),
            flooded: Cell::default(),
            heard_at: Cell::new(now),
            probed_at: Cell::default(),
            in_flight: Cell::new(0),
            idle_since: Cell::new(now),
            closed_since: Cell::default(),
        }
    }

    /// The requests of this connection come side by side, each with this patience.
    pub fn pace_uploads(&self, patience: Patience) {
        self.uploads.set(Some(patience));
    }

    /// The pace of the next body, where bodies come side by side.
    pub fn upload_pace(&self) -> Option<UploadPace> {
        self.uploads.get().map(UploadPace::new)
    }

    /// Whether the client sent more frames for nothing than it has a use for.
    pub fn is_flooded(&self) -> bool {
        self.flooded.get()
    }

    /// A request began.
    pub fn begin(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// A request ended, whatever way.
    pub fn end(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        if self.in_flight.get() == 0 {
            self.idle_since.set(Instant::now());
        }
    }

    /// Requests that are being answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Whether the request under way asks for an upgrade, and nothing stands in its way.
    pub fn upgrade_is_asked(&self) -> bool {
        self.upgrade.get() == Upgrade::Waiting
    }

    /// The response to a request that asked for an upgrade is known.
    pub fn decide_upgrade(&self, accepted: bool) {
        if self.upgrade.get() != Upgrade::Waiting {
            return;
        }
        self.upgrade.set(if accepted { Upgrade::Accepted } else { Upgrade::Refused });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What the client did that no request may do.
    pub fn violation(&self) -> Option<Violation> {
        self.violation.get()
    }

    /// Whether it did so in a head, so that no request came of it.
    pub fn head_was_refused(&self) -> bool {
        self.head_refused.get()
    }

    /// Whether the client is still sending a request.
    pub fn is_mid_request(&self) -> bool {
        self.in_head.get() || self.in_body.get() || self.violation.get().is_some()
    }

    /// Notes whether the client closed its half.
    pub fn note_closed(&self, closed: bool) {
        if closed && self.closed_since.get().is_none() {
            self.closed_since.set(Some(Instant::now()));
        }
    }

    /// Looks at the clock. Cheap: done when a timer fires, not per read.
    pub fn expiry(&self, patience: &Patience, now: Instant) -> Expiry {
        let mut next = now + patience.head;
        let mut due = |since: Instant, limit: Duration| {
            next = next.min(since + limit);
            since + limit <= now
        };
        if let Some(since) = self.write_pending_since.get()
            && due(since, patience.send)
        {
            return Expiry::Stalled("send");
        }
        if let Some(since) = self.responses.held_since()
            && due(since, patience.send)
        {
            return Expiry::Stalled("window");
        }
        if self.in_head.get() && due(self.head_since.get(), patience.head) {
            return Expiry::Stalled("head");
        }
        if self.in_body.get()
            && let Some(since) = self.read_pending_since.get()
            && due(since, patience.body)
        {
            return Expiry::Stalled("body");
        }
        if self.in_body.get()
            && let Some(since) = self.read_pending_since.get()
            && due(since, self.body_rate.get().left(patience.body_rate))
        {
            return Expiry::Stalled("slow_body");
        }
        if self.in_flight.get() > 0
            && let Some(since) = self.closed_since.get()
            && due(since, patience.closed)
        {
            return Expiry::Stalled("closed");
        }
        if self.uploads.get().is_some() {
            let heard = self.heard_at.get();
            match self.probed_at.get().filter(|&probed| probed > heard) {
                Some(probed) if due(probed, PROBE_PATIENCE) => return Expiry::Stalled("silent"),
                None if due(heard, PROBE_AFTER) => {
                    self.probed_at.set(Some(now));
                    return Expiry::Probe;
                }
                Some(_) | None => {}
            }
        }
        let idle = self.in_flight.get() == 0 && !self.in_head.get() && !self.in_body.get();
        if idle && due(self.idle_since.get(), patience.idle) {
            return Expiry::Idle;
        }
        // Never busy with itself, however small the limits are.
        Expiry::Until(next.max(now + Duration::from_millis(5)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_client_of_http_2_is_asked_for_a_sign_of_life() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let hour = Duration::from_secs(3_600);
        let patience = Patience {
            head: hour,
            idle: hour,
            body: hour,
            body_rate: hour,
            send: hour,
            closed: hour,
        };
        let wire = Wire::new(start);
        // Over HTTP/1.1 there is no way to ask.
        assert_eq!(wire.expiry(&patience, at(60)), Expiry::Until(at(3_600)));
        wire.pace_uploads(patience);
        assert_eq!(wire.expiry(&patience, at(19)), Expiry::Until(at(20)));
        assert_eq!(wire.expiry(&patience, at(20)), Expiry::Probe);
        assert_eq!(wire.expiry(&patience, at(20)), Expiry::Until(at(40)));
        wire.heard_at.set(at(21));
        assert_eq!(wire.expiry(&patience, at(40)), Expiry::Until(at(41)));
        assert_eq!(wire.expiry(&patience, at(41)), Expiry::Probe);
        assert_eq!(wire.expiry(&patience, at(61)), Expiry::Stalled("silent"));
    }
}
