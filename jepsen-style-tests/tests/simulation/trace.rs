//! What happened in a run, line by line, and a hash over all of it.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

struct Lines {
    kept: Vec<String>,
    hash: blake3::Hasher,
    events: u64,
}

/// The trace of a run.
pub(crate) struct Trace {
    start: Instant,
    lines: Mutex<Lines>,
    /// Print lines as they come, for a run that does not end.
    print: bool,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").finish_non_exhaustive()
    }
}

impl Trace {
    pub(crate) fn new(print: bool) -> Self {
        let lines = Lines { kept: Vec::new(), hash: blake3::Hasher::new(), events: 0 };
        Self { start: Instant::now(), lines: Mutex::new(lines), print }
    }

    fn add(&self, line: String, keep: bool) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.hash.update(line.as_bytes());
        lines.hash.update(b"\n");
        lines.events += 1;
        if keep {
            if self.print {
                super::say(&line);
            }
            lines.kept.push(line);
        }
    }

    /// Something that a reader of a failure wants to see.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        self.add(format!("{:>10.4} {what}", self.start.elapsed().as_secs_f64()), true);
    }

    /// Something that only the hash covers.
    pub(crate) fn hash(&self, what: fmt::Arguments<'_>) {
        self.add(format!("{} {what}", self.start.elapsed().as_nanos()), false);
    }

    /// How many events there were, and the hash of all of them.
    pub(crate) fn end(&self) -> (u64, String) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        (lines.events, lines.hash.finalize().to_hex().to_string())
    }

    pub(crate) fn virtual_time(&self) -> std::time::Duration {
        self.start.elapsed()
    }
}
