//! Histories for tests of checkers, told line by line.

use crate::history::{Answer, Event, History, Op, Seen, What};

/// A history that grows.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) history: History,
    operations: u64,
}

impl Story {
    pub(super) fn line(&mut self, what: What) {
        let at = u64::try_from(self.history.events.len()).unwrap_or(u64::MAX) * 1_000;
        self.history.events.push(Event { at, what });
    }

    pub(super) fn begin(&mut self, op: Op) -> u64 {
        self.operations += 1;
        let id = self.operations;
        self.line(What::Invoke { id, client: "one".into(), request_id: String::new(), op });
        id
    }

    pub(super) fn end(&mut self, id: u64, answer: Answer) {
        self.line(What::Ok { id, answer });
    }

    pub(super) fn did(&mut self, op: Op, answer: Answer) {
        let id = self.begin(op);
        self.end(id, answer);
    }

    pub(super) fn lost(&mut self, op: Op) {
        let id = self.begin(op);
        self.line(What::Unknown { id, why: "no answer".into() });
    }

    pub(super) fn refused(&mut self, op: Op) {
        let id = self.begin(op);
        self.line(What::Fail { id, why: "refused".into() });
    }

    pub(super) fn seen(&mut self, by: &str, what: Seen) {
        self.line(What::Seen { by: by.into(), what });
    }
}
