//! Rule sets: what an entry means may change by an entry alone, never by a binary.
//!
//! | set | from it on |
//! |---|---|
//! | 1 | the rules of the first release |
//! | 2 | a redirect that would lead a client back, for ever, is not in force: of those that make up the circle, the youngest |
//!
//! A log begins under set 1. `ActivateRules` switches, forward or back, once every member
//! and every connected subscriber can; whoever replays a log may ask what another set
//! would have made of it.

use std::fmt;

use crate::codec::{Canonical, InvalidBytes, Reader};
use crate::snapshot::SNAPSHOT_FORMAT;

/// A set of rules that this build knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleSet(u32);

/// A rule set that this build does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule set {given} is not known to this build: it knows 1 to {}", RuleSet::NEWEST)]
pub struct UnknownRuleSet {
    pub given: u32,
}

impl RuleSet {
    /// What a log begins with.
    pub const FIRST: Self = Self(1);
    /// The newest that this build knows.
    pub const NEWEST: Self = Self(2);

    /// Its number, from 1 on.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The newest canonical format that snapshots under it are written in.
    pub fn snapshot_format(self) -> u32 {
        SNAPSHOT_FORMAT
    }

    /// Whether redirects that lead back are out of force.
    pub(crate) fn ends_circles(self) -> bool {
        self >= Self(2)
    }
}

impl Default for RuleSet {
    fn default() -> Self {
        Self::FIRST
    }
}

impl TryFrom<u32> for RuleSet {
    type Error = UnknownRuleSet;

    fn try_from(given: u32) -> Result<Self, UnknownRuleSet> {
        let known = Self::FIRST.0..=Self::NEWEST.0;
        if known.contains(&given) { Ok(Self(given)) } else { Err(UnknownRuleSet { given }) }
    }
}

impl fmt::Display for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Canonical for RuleSet {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let given: u32 = from.read()?;
        Self::try_from(given).map_err(|error| from.invalid("rule set", error.to_string()))
    }
}
