//! Which upstream of a route takes the next request.
//!
//! Each thread keeps its own rotation with a random start: nothing is shared, and
//! proxies that start together do not all begin with the same upstream. Equal
//! weights make a plain rotation; others a smooth weighted one, as NGINX does it.
//! A request whose user is to stay somewhere takes no turn: see [`crate::sticky`].

use std::sync::{Mutex, PoisonError};

use crate::table::RouteEntry;

/// Upstreams that one request may try.
pub const ATTEMPTS_MAX: usize = 4;

/// The upstreams that a request has tried.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    positions: [u32; ATTEMPTS_MAX],
    count: usize,
}

impl Tried {
    /// Notes an attempt; beyond [`ATTEMPTS_MAX`] nobody asks any more.
    pub fn push(&mut self, position: usize) {
        if let (Some(slot), Ok(position)) =
            (self.positions.get_mut(self.count), u32::try_from(position))
        {
            *slot = position;
            self.count += 1;
        }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    fn contains(&self, position: usize) -> bool {
        self.positions[..self.count].iter().any(|&tried| tried as usize == position)
    }
}

/// One thread's place in the rotation of one route.
#[derive(Debug, Default)]
pub struct Rotation(Mutex<Place>);

#[derive(Debug, Default)]
enum Place {
    #[default]
    Unset,
    Even(usize),
    Weighted(Box<[i64]>),
}

impl RouteEntry {
    /// The position of the upstream that takes the next attempt, on this thread.
    ///
    /// Active upstreams that do not fail come first, then active ones that do, and
    /// only when all of those were tried the draining ones, which still serve what
    /// they have: better a request to a task that Swarm is about to stop than none.
    /// `user` stays on the best of these; without one the rotation decides.
    pub fn pick(
        &self,
        thread: usize,
        user: Option<u64>,
        tried: &Tried,
        now_ms: u64,
    ) -> Option<usize> {
        let active = |position: usize| {
            let candidate = &self.candidates[position];
            !candidate.draining && candidate.weight > 0 && !tried.contains(position)
        };
        let well = |position: usize| {
            let candidate = &self.candidates[position];
            active(position) && !(candidate.is_checked && candidate.upstream.is_out(now_ms))
        };
        let draining =
            |position: usize| self.candidates[position].draining && !tried.contains(position);
        let position = match user {
            Some(user) => self
                .rendezvous(user, well)
                .or_else(|| self.rendezvous(user, active))
                .or_else(|| self.rendezvous(user, draining))?,
            None => self.next(thread, well, active, draining)?,
        };
        let candidate = &self.candidates[position];
        if candidate.is_checked {
            candidate.upstream.picked(now_ms);
        }
        Some(position)
    }

    /// The next one in this thread's rotation.
    fn next(
        &self,
        thread: usize,
        well: impl Fn(usize) -> bool,
        active: impl Fn(usize) -> bool,
        draining: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let rotation = self.rotations.get(thread % self.rotations.len().max(1))?;
        // Each thread has its own: the lock is never waited for.
        let mut place = rotation.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.turn(&mut place, well)
            .or_else(|| self.turn(&mut place, active))
            .or_else(|| self.turn(&mut place, draining))
    }

    fn turn(&self, place: &mut Place, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.candidates.len();
        if count == 0 {
            return None;
        }
        if let Place::Unset = place {
            *place = if self.even {
                Place::Even(fastrand::usize(..count))
            } else {
                let random = |_| fastrand::i64(0..1_000_000);
                Place::Weighted((0..count).map(random).collect())
            };
        }
        match place {
            Place::Unset => None,
            Place::Even(next) => {
                let found = (*next..count).chain(0..*next).find(|&position| eligible(position))?;
                *next = (found + 1) % count;
                Some(found)
            }
            Place::Weighted(credit) => {
                let mut total = 0;
                let mut best: Option<usize> = None;
                for position in (0..count).filter(|&position| eligible(position)) {
                    // A draining upstream may have no weight, and is picked for want of any.
                    let weight = i64::from(self.candidates[position].weight).max(1);
                    credit[position] += weight;
                    total += weight;
                    if best.is_none_or(|best| credit[position] > credit[best]) {
                        best = Some(position);
                    }
                }
                credit[best?] -= total;
                best
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::entry;
    use dovetail_routing::snapshot::Dial;

    fn counts(entry: &RouteEntry, requests: usize) -> Vec<usize> {
        let mut counts = vec![0; entry.candidates.len()];
        for _ in 0..requests {
            counts[entry.pick(0, None, &Tried::default(), 1).expect("an upstream")] += 1;
        }
        counts
    }

    #[test]
    fn equal_upstreams_take_turns() {
        // Two services, three upstreams: a share of a third each, in basis points.
        let entry = entry(&[(6_667, "aa"), (3_333, "a")]);
        assert!(entry.even);
        assert_eq!(counts(&entry, 30), [10, 10, 10]);
        let first = entry.pick(0, None, &Tried::default(), 1).expect("an upstream");
        for turn in 1..7 {
            assert_eq!(entry.pick(0, None, &Tried::default(), 1), Some((first + turn) % 3));
        }
    }

    #[test]
    fn a_share_is_spread_over_the_upstreams_of_its_service() {
        let entry = entry(&[(9_000, "aaa"), (1_000, "a")]);
        assert!(!entry.even);
        let counts = counts(&entry, 1_000);
        for (position, expected) in [(0, 300), (1, 300), (2, 300), (3, 100)] {
            assert!(counts[position].abs_diff(expected) <= 3, "{counts:?}");
        }
    }

    #[test]
    fn a_service_without_a_share_gets_nothing() {
        let entry = entry(&[(10_000, "a"), (0, "aa")]);
        assert_eq!(counts(&entry, 10), [10, 0, 0]);
        let mut tried = Tried::default();
        tried.push(0);
        assert_eq!(entry.pick(0, None, &tried, 1), None);
    }

    #[test]
    fn draining_upstreams_get_no_new_requests_while_another_is_active() {
        let entry = entry(&[(10_000, "ada")]);
        assert_eq!(counts(&entry, 10), [5, 0, 5]);
        let mut tried = Tried::default();
        tried.push(0);
        tried.push(2);
        assert_eq!(entry.pick(0, None, &tried, 1), Some(1), "it is the last resort");
        tried.push(1);
        assert_eq!(entry.pick(0, None, &tried, 1), None);
    }

    #[test]
    fn a_route_without_active_upstreams_uses_draining_ones() {
        let entry = entry(&[(10_000, "dd")]);
        assert_eq!(counts(&entry, 10), [5, 5]);
    }

    #[test]
    fn failing_upstreams_are_skipped_until_all_fail() {
        let entry = entry(&[(10_000, "aaa")]);
        for _ in 0..3 {
            entry.candidates[1].upstream.failed(1, &Dial::default());
        }
        assert_eq!(counts(&entry, 10), [5, 0, 5]);
        for position in [0, 2] {
            for _ in 0..3 {
                entry.candidates[position].upstream.failed(1, &Dial::default());
            }
        }
        assert_eq!(counts(&entry, 9), [3, 3, 3]);
    }

    #[test]
    fn threads_rotate_apart() {
        let entry = entry(&[(10_000, "aa")]);
        let first = entry.pick(0, None, &Tried::default(), 1);
        let _ = entry.pick(1, None, &Tried::default(), 1);
        assert_ne!(entry.pick(0, None, &Tried::default(), 1), first);
    }
}
