//! Members that have applied the same have the same state.

use std::collections::BTreeMap;

use super::Violation;

const EQUAL: &str = "equal logs come to equal states";

/// States' digests that were seen, by applied index.
#[derive(Clone, Debug, Default)]
pub struct Digests(BTreeMap<u64, ([u8; 32], u64)>);

impl Digests {
    /// The state of `member` after `index`.
    pub fn holds(&mut self, member: u64, index: u64, digest: [u8; 32]) -> Result<(), Violation> {
        let (known, first) = *self.0.entry(index).or_insert((digest, member));
        if known == digest {
            return Ok(());
        }
        let what = format!("members {first} and {member} hold different states at {index}");
        Err(Violation::new(EQUAL, what))
    }

    /// All that were seen.
    pub fn seen(&self) -> impl Iterator<Item = (u64, [u8; 32])> {
        self.0.iter().map(|(index, (digest, _))| (*index, *digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_states_at_one_index_are_caught() {
        let mut digests = Digests::default();
        assert_eq!(digests.holds(1, 5, [1; 32]), Ok(()));
        assert_eq!(digests.holds(2, 5, [1; 32]), Ok(()));
        assert_eq!(digests.holds(2, 6, [2; 32]), Ok(()));
        assert_eq!(digests.holds(3, 5, [2; 32]).expect_err("other").property, EQUAL);
        assert_eq!(digests.seen().count(), 2);
    }
}
