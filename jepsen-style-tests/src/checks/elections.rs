//! A leadership belongs to one member, and no disk forgets a vote that it gave.
//!
//! In openraft's default mode a leadership is a term and a node, ordered in this order: a
//! term may have two leaders, one after the other, and a leadership has one.

use std::collections::BTreeMap;

use super::Violation;

const LEADERS: &str = "one leader of a leadership";
const VOTES: &str = "no vote is taken back";

/// A term and the node that asks to lead it.
pub type Leadership = (u64, u64);

/// Leaders and votes that were seen.
#[derive(Clone, Debug, Default)]
pub struct Elections {
    led: BTreeMap<Leadership, u64>,
    /// By disk, so that a new one in the same place begins anew.
    votes: BTreeMap<String, Leadership>,
}

impl Elections {
    /// `member` says that it leads.
    pub fn leads(&mut self, member: u64, leadership: Leadership) -> Result<(), Violation> {
        let known = *self.led.entry(leadership).or_insert(member);
        if known == member {
            return Ok(());
        }
        let (term, node) = leadership;
        let what = format!("members {known} and {member} both lead term {term} of node {node}");
        Err(Violation::new(LEADERS, what))
    }

    /// Somebody was told that `disk` voted so.
    pub fn gave(&mut self, disk: &str, vote: Leadership) {
        let known = self.votes.entry(disk.to_owned()).or_insert(vote);
        *known = vote.max(*known);
    }

    /// The newest vote that `disk` holds when its member starts, told to others or not.
    pub fn holds(&self, disk: &str, vote: Leadership) -> Result<(), Violation> {
        match self.votes.get(disk) {
            Some(gave) if *gave > vote => {
                let what = format!("disk {disk} gave the vote {gave:?}, and later holds {vote:?}");
                Err(Violation::new(VOTES, what))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_of_one_leadership_are_caught() {
        let mut elections = Elections::default();
        assert_eq!(elections.leads(1, (4, 1)), Ok(()));
        assert_eq!(elections.leads(2, (4, 2)), Ok(()), "another leadership of the term");
        assert_eq!(elections.leads(1, (4, 1)), Ok(()), "it still leads");
        let found = elections.leads(3, (4, 1)).expect_err("two lead");
        assert_eq!(found.property, LEADERS);
    }

    #[test]
    fn a_forgotten_vote_is_caught() {
        let mut elections = Elections::default();
        elections.gave("a", (3, 2));
        elections.gave("a", (3, 1));
        assert_eq!(elections.holds("b", (1, 1)), Ok(()), "another disk");
        assert_eq!(elections.holds("a", (4, 3)), Ok(()), "newer, and told to nobody");
        assert_eq!(elections.holds("a", (3, 2)), Ok(()), "nobody knew of the newer one");
        assert_eq!(elections.holds("a", (3, 1)).expect_err("older").property, VOTES);
    }
}
