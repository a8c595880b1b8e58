//! What an operator should see: which service, which label, which value, and why.

use std::sync::Arc;

use crate::entry::LogIndex;

/// Problems shown of one service; the rest is counted in the last one.
pub const PROBLEMS_PER_SERVICE_MAX: usize = 32;
/// Problems shown in all; the rest is counted in the last one.
pub const PROBLEMS_MAX: usize = 10_000;
/// Bytes of a label's value that a problem shows.
pub const PROBLEM_VALUE_BYTES_MAX: usize = 256;
/// Bytes of a reason, which may quote a value.
const REASON_BYTES_MAX: usize = 1_024;

/// Something wrong that did not take down a good route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The service's name; empty when it is about no service.
    pub service: Arc<str>,
    /// The label; empty when it is about no label.
    pub label: Arc<str>,
    /// The label's value, shortened to 256 bytes.
    pub value: Arc<str>,
    pub reason: Arc<str>,
    /// The index of the entry with which it began.
    pub since_index: LogIndex,
}

/// A problem before it is known whose and since when it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    label: Arc<str>,
    value: Arc<str>,
    reason: Arc<str>,
}

impl Trouble {
    pub(crate) fn new(label: &str, value: &str, reason: impl Into<String>) -> Self {
        Self {
            label: shortened(label, PROBLEM_VALUE_BYTES_MAX).into(),
            value: shortened(value, PROBLEM_VALUE_BYTES_MAX).into(),
            reason: shortened(&reason.into(), REASON_BYTES_MAX).into(),
        }
    }

    fn is(&self, problem: &Problem) -> bool {
        self.label == problem.label && self.value == problem.value && self.reason == problem.reason
    }
}

/// At most `bytes_max` bytes of `text`, cut between characters.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The problems of one service that have one source, which replaces them together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    problems: Vec<Problem>,
    /// Further ones, counted only.
    dropped: u64,
}

impl Kept {
    /// Replaces the problems; those that were there already keep their age.
    pub(crate) fn replace(&mut self, service: &Arc<str>, since: LogIndex, troubles: Vec<Trouble>) {
        let old = std::mem::take(self);
        for trouble in troubles {
            if self.problems.iter().any(|problem| trouble.is(problem)) {
                continue;
            }
            if self.problems.len() == PROBLEMS_PER_SERVICE_MAX {
                self.dropped += 1;
                continue;
            }
            let since_index = old
                .problems
                .iter()
                .find(|problem| trouble.is(problem))
                .map_or(since, |problem| problem.since_index);
            let Trouble { label, value, reason } = trouble;
            let service = Arc::clone(service);
            self.problems.push(Problem { service, label, value, reason, since_index });
        }
    }

    fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }
}

/// The problems of one service, by source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceProblems {
    pub(crate) labels: Kept,
    pub(crate) claims: Kept,
    pub(crate) upstreams: Kept,
}

impl ServiceProblems {
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.claims.is_empty() && self.upstreams.is_empty()
    }

    /// At most [`PROBLEMS_PER_SERVICE_MAX`], appended to `all`.
    pub(crate) fn show(&self, all: &mut Vec<Problem>) {
        let parts = [&self.labels, &self.claims, &self.upstreams];
        let dropped: u64 = parts.iter().map(|part| part.dropped).sum();
        let mut shown: Vec<_> = parts.iter().flat_map(|part| part.problems.iter()).collect();
        shown.sort();
        if dropped > 0 || shown.len() > PROBLEMS_PER_SERVICE_MAX {
            let rest = shown.split_off(shown.len().min(PROBLEMS_PER_SERVICE_MAX - 1));
            let count = rest.len() as u64 + dropped;
            let summary = rest.first().or(shown.first()).map(|first| Problem {
                service: Arc::clone(&first.service),
                label: "".into(),
                value: "".into(),
                reason: format!("{count} more problems of this service are not shown").into(),
                since_index: first.since_index,
            });
            all.extend(shown.into_iter().cloned().chain(summary));
        } else {
            all.extend(shown.into_iter().cloned());
        }
    }
}

/// Sorts, and counts what is above [`PROBLEMS_MAX`] in a last problem.
pub(crate) fn limited(mut all: Vec<Problem>) -> Vec<Problem> {
    all.sort();
    if all.len() > PROBLEMS_MAX {
        let rest = all.split_off(PROBLEMS_MAX - 1);
        all.push(Problem {
            service: "".into(),
            label: "".into(),
            value: "".into(),
            reason: format!("{} more problems are not shown", rest.len()).into(),
            since_index: rest.iter().map(|problem| problem.since_index).min().unwrap_or_default(),
        });
    }
    all
}

crate::codec::fields! {
    Kept { problems dropped }
    ServiceProblems { labels claims upstreams }
}

crate::codec::shared! { ServiceProblems }
