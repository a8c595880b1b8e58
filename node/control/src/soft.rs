//! Problems that are this member's own and in no entry: held removals, refused objects.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dovetail_proto::v1 as pb;
use dovetail_routing::LogIndex;

use crate::telemetry;

/// What stands for the service and the label of a problem that has none.
pub(crate) const NONE: &str = "-";
/// Soft problems kept; the next ones are only counted.
const SOFT_MAX: usize = 100;

/// The soft problems of a member. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SoftProblems(Arc<Mutex<BTreeMap<String, Soft>>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Soft {
    value: String,
    reason: String,
    since: LogIndex,
}

impl SoftProblems {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the problem `key`, or tells it anew; `since` is that of the first time.
    pub fn raise(&self, key: &str, value: impl Into<String>, reason: String, since: LogIndex) {
        let mut problems = self.lock();
        let value = value.into();
        let full = problems.len() >= SOFT_MAX;
        match problems.get_mut(key) {
            Some(known) if known.reason == reason && known.value == value => return,
            Some(known) => {
                known.value = value;
                known.reason.clone_from(&reason);
            }
            None if full => return,
            None => {
                let soft = Soft { value, reason: reason.clone(), since };
                problems.insert(key.to_owned(), soft);
            }
        }
        telemetry::soft_problems(problems.len());
        telemetry::problem_raised(key, &reason);
    }

    /// The problem `key` is over, if there was one.
    pub fn clear(&self, key: &str) {
        let mut problems = self.lock();
        if problems.remove(key).is_some() {
            telemetry::soft_problems(problems.len());
            telemetry::problem_cleared(key);
        }
    }

    /// Every problem whose key begins so is over.
    pub fn clear_all(&self, prefix: &str) {
        let mut problems = self.lock();
        let before = problems.len();
        problems.retain(|key, _| !key.starts_with(prefix));
        if problems.len() != before {
            telemetry::soft_problems(problems.len());
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The problems as the admin API shows them.
    pub fn list(&self) -> Vec<pb::Problem> {
        let problem = |soft: &Soft| pb::Problem {
            service: NONE.to_owned(),
            label: NONE.to_owned(),
            value: soft.value.clone(),
            reason: soft.reason.clone(),
            since_index: soft.since.0,
        };
        self.lock().values().map(problem).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Soft>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
