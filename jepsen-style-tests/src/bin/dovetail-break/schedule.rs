//! What happens when: every fault once in an order of the seed's, and again until the time
//! is up.

use std::collections::VecDeque;

use crate::faults::Fault;

/// A sequence without end.
#[derive(Debug)]
pub(crate) struct Schedule {
    faults: Vec<Fault>,
    left: VecDeque<Fault>,
    /// Rounds that are over: in each every fault came once.
    pub(crate) rounds: u32,
}

impl Schedule {
    /// Of these faults; `all` is all that can be had, see [`Fault::every`].
    pub(crate) fn of(asked: &[Fault], members: u8, other_build: bool, root: bool) -> Self {
        let mut faults: Vec<Fault> = asked
            .iter()
            .flat_map(|fault| match fault {
                Fault::All => Fault::every(members, other_build, root),
                fault => vec![*fault],
            })
            .collect();
        faults.sort_unstable();
        faults.dedup();
        Self { faults, left: VecDeque::new(), rounds: 0 }
    }

    pub(crate) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Whether every fault came once.
    pub(crate) fn came_round(&self) -> bool {
        self.rounds > 1 || (self.rounds == 1 && self.left.is_empty())
    }

    pub(crate) fn next(&mut self, random: &mut fastrand::Rng) -> Option<Fault> {
        if self.left.is_empty() {
            self.rounds += 1;
            let mut round = self.faults.clone();
            random.shuffle(&mut round);
            self.left = round.into();
        }
        self.left.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_comes_once_a_round_and_a_seed_is_an_order() {
        let order = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut schedule = Schedule::of(&[Fault::All, Fault::Kill], 3, false, true);
            let round = schedule.faults().len();
            let order: Vec<_> = (0..round).filter_map(|_| schedule.next(&mut random)).collect();
            assert!(schedule.came_round());
            order
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let mut sorted = order(3);
        sorted.sort_unstable();
        assert_eq!(sorted, Fault::every(3, false, true));
        assert!(!sorted.contains(&Fault::Ring), "three members are a ring already");
        assert!(Fault::every(5, false, true).contains(&Fault::Ring));
        assert!(!Fault::every(3, false, false).contains(&Fault::PowerCut), "it needs root");
    }
}
