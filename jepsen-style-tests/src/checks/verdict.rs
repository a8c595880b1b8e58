//! What a checker of a whole history found, and all checkers of a run of real processes.

use std::fmt;

use super::{
    append_order, converged, coverage, endings, linearizable, liveness, requests, set_full, watch,
};
use crate::history::History;

/// How many violations of one property are told in full.
const TOLD_MAX: usize = 10;

/// What a checker found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub property: &'static str,
    /// How many things were looked at: a run that exercised nothing proves nothing.
    pub examined: usize,
    pub violations: Vec<String>,
    /// What is worth knowing beside the verdict.
    pub remarks: Vec<String>,
}

impl Verdict {
    pub fn of(property: &'static str) -> Self {
        Self { property, ..Self::default() }
    }

    /// Nothing was violated, and there was something to violate.
    pub fn holds(&self) -> bool {
        self.violations.is_empty() && self.examined > 0
    }

    pub(super) fn violated(&mut self, violation: impl fmt::Display) {
        self.violations.push(violation.to_string());
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.violations.len(), self.examined) {
            (0, 0) => "NOT EXERCISED".to_owned(),
            (0, _) => "holds".to_owned(),
            (many, _) => format!("VIOLATED {many} times"),
        };
        write!(f, "{}: {word} ({} examined)", self.property, self.examined)?;
        for remark in &self.remarks {
            write!(f, "\n    {remark}")?;
        }
        for violation in self.violations.iter().take(TOLD_MAX) {
            write!(f, "\n  - {violation}")?;
        }
        if self.violations.len() > TOLD_MAX {
            write!(f, "\n  … and {} more", self.violations.len() - TOLD_MAX)?;
        }
        Ok(())
    }
}

/// All properties of a run of real processes.
pub fn all(history: &History) -> Vec<Verdict> {
    vec![
        linearizable::check(history),
        set_full::check(history),
        append_order::check(history),
        watch::check(history),
        requests::check(history),
        converged::check(history),
        endings::check(history),
        liveness::check(history),
        coverage::check(history),
    ]
}
