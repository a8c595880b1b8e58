//! An independent replay of the ledger comes to what members and proxies held.

use std::collections::BTreeMap;

use super::Violation;

const REPLAYED: &str = "a replay of the ledger comes to the same";

/// Compares what was seen at indexes with what a replay comes to there.
pub fn check(
    what: &str,
    seen: impl IntoIterator<Item = (u64, [u8; 32])>,
    replayed: &BTreeMap<u64, [u8; 32]>,
) -> Result<(), Violation> {
    for (index, digest) in seen {
        match replayed.get(&index) {
            Some(found) if *found == digest => {}
            Some(_) => {
                let what = format!("{what} at {index} differs from the replay's");
                return Err(Violation::new(REPLAYED, what));
            }
            None => {
                let what = format!("{what} at {index} is in no replay");
                return Err(Violation::new(REPLAYED, what));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_replay_does_not_come_to_is_caught() {
        let replayed = BTreeMap::from([(1, [1; 32]), (2, [2; 32])]);
        assert_eq!(check("a state", [(2, [2; 32])], &replayed), Ok(()));
        assert!(check("a state", [(2, [1; 32])], &replayed).is_err(), "another state");
        assert!(check("a state", [(3, [2; 32])], &replayed).is_err(), "of no entry");
    }
}
