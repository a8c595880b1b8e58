//! What was applied at an index is the same everywhere and for ever, and nobody goes back.

use std::collections::BTreeMap;

use super::Violation;

const SAME: &str = "one entry at an index";
const FORWARD: &str = "nobody applies backwards";

/// What members applied, by index.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// The hash of the entry with all before it, and who showed it first.
    entries: BTreeMap<u64, ([u8; 32], u64)>,
    applied: BTreeMap<u64, u64>,
}

impl Committed {
    /// `member` holds an entry at `index`; `chain` covers it and all before it.
    pub fn holds(&mut self, member: u64, index: u64, chain: [u8; 32]) -> Result<(), Violation> {
        let (known, first) = *self.entries.entry(index).or_insert((chain, member));
        if known == chain {
            return Ok(());
        }
        let what = format!("members {first} and {member} hold different logs at index {index}");
        Err(Violation::new(SAME, what))
    }

    /// A member's process begins; what it has applied may be older than what it had.
    pub fn started(&mut self, member: u64) {
        self.applied.remove(&member);
    }

    /// The last index that `member` has applied.
    pub fn applied(&mut self, member: u64, index: u64) -> Result<(), Violation> {
        let known = self.applied.insert(member, index).unwrap_or(0);
        if index >= known {
            return Ok(());
        }
        let what = format!("member {member} had applied {known}, and now {index}");
        Err(Violation::new(FORWARD, what))
    }

    /// The highest index that anybody has applied.
    pub fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(index, _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_entries_at_one_index_are_caught() {
        let mut committed = Committed::default();
        assert_eq!(committed.holds(1, 7, [7; 32]), Ok(()));
        assert_eq!(committed.holds(2, 7, [7; 32]), Ok(()));
        assert_eq!(committed.holds(3, 7, [8; 32]).expect_err("another").property, SAME);
        assert_eq!(committed.last(), 7);
    }

    #[test]
    fn who_goes_back_is_caught_unless_it_began_anew() {
        let mut committed = Committed::default();
        assert_eq!(committed.applied(1, 9), Ok(()));
        assert_eq!(committed.applied(2, 3), Ok(()));
        assert_eq!(committed.applied(1, 8).expect_err("back").property, FORWARD);
        committed.started(1);
        assert_eq!(committed.applied(1, 5), Ok(()));
    }
}
