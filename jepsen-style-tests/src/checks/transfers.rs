//! Who is handed the lead asks for it only with all that the leader had.

use std::collections::BTreeMap;

use super::Violation;

const WHOLE: &str = "who is handed the lead has the whole log";

/// The term, its leader and the index of a log's last entry; `None` of an empty log.
pub type Last = Option<(u64, u64, u64)>;

/// Transfers of leadership that were ordered.
#[derive(Clone, Debug, Default)]
pub struct Transfers {
    /// By the member that is to lead and the term that ends: what it has to have at least.
    handed: BTreeMap<(u64, u64), Last>,
}

impl Transfers {
    /// The leader of `term` hands over to `member`, and has entries up to `last`.
    pub fn handed(&mut self, member: u64, term: u64, last: Last) {
        // Of two orders the candidacy may follow on the first.
        let known = self.handed.entry((member, term)).or_insert(last);
        *known = last.min(*known);
    }

    /// `member` asks for votes because the leader of `term` told it to, and has entries up to
    /// `last`.
    pub fn asks(&self, member: u64, term: u64, last: Last) -> Result<(), Violation> {
        match self.handed.get(&(member, term)) {
            Some(whole) if last >= *whole => Ok(()),
            Some(whole) => {
                let what = format!(
                    "member {member} was handed the lead of term {term} with entries up to \
                     {last:?}, not {whole:?}"
                );
                Err(Violation::new(WHOLE, what))
            }
            None => {
                let what = format!("nobody handed the lead of term {term} to member {member}");
                Err(Violation::new(WHOLE, what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_lacks_entries_is_caught() {
        let mut transfers = Transfers::default();
        transfers.handed(2, 5, Some((5, 1, 9)));
        assert_eq!(transfers.asks(2, 5, Some((5, 1, 9))), Ok(()));
        assert_eq!(transfers.asks(2, 5, Some((5, 1, 8))).expect_err("lacks one").property, WHOLE);
        assert_eq!(transfers.asks(2, 5, None).expect_err("has nothing").property, WHOLE);
        assert_eq!(transfers.asks(3, 5, Some((5, 1, 9))).expect_err("not told").property, WHOLE);
    }

    #[test]
    fn the_first_of_two_orders_is_enough() {
        let mut transfers = Transfers::default();
        transfers.handed(2, 5, Some((5, 1, 9)));
        transfers.handed(2, 5, Some((5, 1, 12)));
        assert_eq!(transfers.asks(2, 5, Some((5, 1, 10))), Ok(()));
    }
}
