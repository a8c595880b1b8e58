//! The members' wall clocks compared: one that is wrong stamps what most have.
//!
//! Schedules run by leader time. A leader whose clock is hours ahead would end every drain and
//! hurry every canary, and after the next election time would stand still. So each member asks
//! the others what they have, always, for a new leader has no time to ask: if it is further
//! from the median than 5 s, its entries carry the median, and the problem says so.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dovetail_process::drain::DrainWatch;
use dovetail_proto::v1 as pb;
use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::local::ANSWER;
use crate::ports::{Asked, Peers, Quorum, Slot};
use crate::services::Core;

/// How often the clocks are compared.
pub const EVERY: Duration = Duration::from_secs(5);
/// How far a clock may be from the median, in milliseconds.
pub const APART_MAX_MS: u64 = 5_000;
/// The key of the soft problem.
const PROBLEM: &str = "clock: apart";

/// Milliseconds since 1970 by this machine's clock.
pub fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}

/// Compares this member's clock with the others', as long as it runs.
#[derive(Debug)]
pub struct Clocks<Q, P, D> {
    core: Core<Q, P, D>,
}

impl<Q: Quorum, P: Peers, D: Send + Sync + 'static> Clocks<Q, P, D> {
    /// The job of this member.
    pub fn new(core: Core<Q, P, D>) -> Self {
        Self { core }
    }

    /// Runs until the drain begins.
    pub async fn run(self, drain: DrainWatch) {
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = drain.begun() => return,
                _ = every.tick() => self.compare().await,
            }
        }
    }

    /// Asks the others once.
    async fn compare(&self) {
        let view = self.core.quorum.view().borrow().clone();
        let others = view.members.iter().map(|member| member.slot);
        let others = others.filter(|slot| *slot != view.this);
        let answers = join_all(others.map(|slot| self.ahead(slot))).await;
        let mut ahead: Vec<i64> = answers.into_iter().flatten().collect();
        // This one is by nothing ahead of itself.
        ahead.push(0);
        let median = median(&mut ahead);
        let apart = median.unsigned_abs() > APART_MAX_MS;
        self.core.quorum.correct_clock(if apart { median } else { 0 });
        if !apart {
            self.core.soft.clear(PROBLEM);
            return;
        }
        let state = self.core.quorum.state();
        let since = state.borrow().applied_index();
        let side = if median < 0 { "ahead of" } else { "behind" };
        let seconds = median.unsigned_abs() / 1_000;
        let reason = format!(
            "the clock of member {} is {seconds} s {side} the median of the members: set it right \
             (NTP); what this member orders carries the median meanwhile",
            view.this
        );
        self.core.soft.raise(PROBLEM, view.this.to_string(), reason, since);
    }

    /// By how many milliseconds another member's clock is ahead of this one's.
    async fn ahead(&self, slot: Slot) -> Option<i64> {
        let (asked_at, asked_ms) = (Instant::now(), wall_ms());
        let asked = Asked { clock_only: true, ..Asked::default() };
        let answer = timeout(ANSWER, self.core.peers.local(slot, asked)).await.ok()?.ok()?;
        // It looked at its clock about half way between question and answer.
        let half = u64::try_from((asked_at.elapsed() / 2).as_millis()).unwrap_or(u64::MAX);
        let pb::LocalResponse { clock_ms, .. } = answer;
        // A build that does not tell its time says 0.
        let theirs = i64::try_from(clock_ms).ok().filter(|clock_ms| *clock_ms > 0)?;
        let own = i64::try_from(asked_ms.saturating_add(half)).ok()?;
        Some(theirs.saturating_sub(own))
    }
}

/// The middle one; of two in the middle the one nearer to 0, so that two clocks that differ
/// change nothing: nobody knows which is right.
fn median(ahead: &mut [i64]) -> i64 {
    ahead.sort_unstable();
    let upper = ahead.get(ahead.len() / 2).copied().unwrap_or_default();
    if !ahead.len().is_multiple_of(2) {
        return upper;
    }
    let lower = (ahead.len() / 2).checked_sub(1).and_then(|at| ahead.get(at)).copied();
    lower.filter(|lower| lower.unsigned_abs() < upper.unsigned_abs()).unwrap_or(upper)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use dovetail_process::drain::Drain;

    use super::*;
    use crate::fakes::{FakeDocker, FakePeers, FakeQuorum};
    use crate::fleet::Fleet;
    use crate::soft::SoftProblems;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn the_median_takes_no_side_between_two() {
        for (mut ahead, expected) in [
            (vec![0], 0),
            (vec![0, HOUR_MS], 0),
            (vec![0, -HOUR_MS], 0),
            (vec![0, HOUR_MS, HOUR_MS + 40], HOUR_MS),
            (vec![0, 3, HOUR_MS], 3),
            (vec![0, 2, HOUR_MS, HOUR_MS], 2),
            (vec![0, -5, HOUR_MS, HOUR_MS, HOUR_MS], HOUR_MS),
        ] {
            assert_eq!(median(&mut ahead), expected, "{ahead:?}");
        }
    }

    /// What a member is corrected by when the others' clocks are so far ahead of its own.
    async fn corrected(others: &[(Slot, i64)]) -> (i64, Vec<String>) {
        let quorum = FakeQuorum::leader();
        let peers = FakePeers::default();
        for (slot, ahead) in others {
            let clock_ms = wall_ms().saturating_add_signed(*ahead);
            let answer = pb::LocalResponse { clock_ms, ..pb::LocalResponse::default() };
            peers.locals.lock().expect("not poisoned").insert(*slot, answer);
        }
        let drain = Drain::new();
        let core = Core {
            quorum: Arc::clone(&quorum),
            peers: Arc::new(peers),
            docker: FakeDocker::new(),
            fleet: Fleet::new(),
            soft: SoftProblems::new(),
            drain: drain.watch(),
        };
        let clocks = Clocks::new(core.clone());
        clocks.compare().await;
        let told = core.soft.list().into_iter().map(|problem| problem.reason).collect();
        (quorum.clock_correction_ms.load(Ordering::Relaxed), told)
    }

    #[tokio::test]
    async fn a_member_that_is_alone_with_its_time_takes_the_others() {
        let (correction, told) = corrected(&[(2, -HOUR_MS), (3, -HOUR_MS + 500)]).await;
        assert!((correction + HOUR_MS).abs() < 2_000, "{correction}");
        assert!(told[0].contains("member 1 is 35"), "{told:?}");
        assert!(told[0].contains("ahead of the median"), "{told:?}");
        for others in
            [&[(2, HOUR_MS), (3, 20)][..], &[(2, HOUR_MS)], &[(2, 4_000), (3, 4_500)], &[]]
        {
            assert_eq!(corrected(others).await, (0, Vec::new()), "{others:?}");
        }
    }
}
