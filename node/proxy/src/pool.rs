//! Idle connections to upstreams, kept by the thread that made them.
//!
//! Last in, first out: the warm ones are used, the tail grows old and goes. Nobody
//! polls an idle connection; whether it still lives is looked at when it is taken,
//! and once a second by [`Pool::sweep`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crate::dial::{Key, UpstreamConn};

/// How long a connection may be idle. Below the keep-alive time-out of common
/// servers, so that it is rarely the upstream that closes first.
pub const IDLE_MAX: Duration = Duration::from_secs(30);
/// Idle connections to one upstream, per thread.
const PER_UPSTREAM_MAX: usize = 128;
/// Idle connections in all, per thread.
const TOTAL_MAX: usize = 4_096;

/// One thread's idle connections.
#[derive(Debug, Default)]
pub struct Pool {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "connections come and go boxed: they are large")]
struct Inner {
    idle: HashMap<Key, Vec<Box<UpstreamConn>>>,
    total: usize,
}

impl Pool {
    /// A connection there that still lives, as far as can be told.
    pub fn take(&self, key: Key, cx: &mut Context<'_>) -> Option<Box<UpstreamConn>> {
        let mut inner = self.inner.borrow_mut();
        let Inner { idle, total } = &mut *inner;
        let stack = idle.get_mut(&key)?;
        while let Some(mut conn) = stack.pop() {
            *total -= 1;
            if conn.is_idle(cx) {
                conn.reused = true;
                return Some(conn);
            }
        }
        None
    }

    /// Takes a connection back, if it can be used again.
    pub fn put(&self, mut conn: Box<UpstreamConn>, cx: &mut Context<'_>) {
        if !conn.is_kept() || !conn.is_idle(cx) {
            return;
        }
        let mut inner = self.inner.borrow_mut();
        if inner.total >= TOTAL_MAX {
            return;
        }
        let stack = inner.idle.entry(conn.key()).or_default();
        if stack.len() >= PER_UPSTREAM_MAX {
            return;
        }
        conn.idle_since = Instant::now();
        stack.push(conn);
        inner.total += 1;
    }

    /// Closes all connections to an upstream that no longer answers.
    pub fn evict(&self, upstream: u64) {
        let mut inner = self.inner.borrow_mut();
        inner.idle.retain(|(of, _), _| *of != upstream);
        inner.total = inner.idle.values().map(Vec::len).sum();
    }

    /// Closes what is old, dead, or leads to an upstream that left the table.
    pub fn sweep(&self, now: Instant) {
        let mut inner = self.inner.borrow_mut();
        let cx = &mut Context::from_waker(Waker::noop());
        inner.idle.retain(|_, stack| {
            stack.retain_mut(|conn| {
                conn.is_kept()
                    && now.saturating_duration_since(conn.idle_since) < IDLE_MAX
                    && conn.is_idle(cx)
            });
            !stack.is_empty()
        });
        inner.total = inner.idle.values().map(Vec::len).sum();
    }

    /// How many connections are idle.
    pub fn len(&self) -> usize {
        self.inner.borrow().total
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
