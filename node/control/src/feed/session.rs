//! What one subscriber is sent, and when; decided without I/O.

use std::time::Duration;

use dovetail_routing::snapshot::{Digest, Revision};
use tokio::time::Instant;

/// Changes within this time after a push merge; the first one after a quiet
/// period is sent at once.
pub const MERGE: Duration = Duration::from_millis(20);
/// The longest wait for an answer to a push. Then the stream ends, and the next
/// hello says what is in force.
pub const ANSWER: Duration = Duration::from_secs(30);

/// A snapshot in the order of all snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) cluster_id: String,
    pub(super) revision: Revision,
    pub(super) digest: Digest,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// Send the snapshot.
    Push(T),
    /// Nothing, until something happens or this moment comes.
    Wait(Option<Instant>),
    /// The subscriber does not answer: end the stream.
    GiveUp(String),
}

/// One subscriber's side of the stream.
#[derive(Debug)]
pub(super) struct Session {
    in_force: Option<Position>,
    /// Pushed, and neither acked nor nacked.
    outstanding: Option<(Position, Instant)>,
    /// Not sent again: the subscriber would refuse it again.
    refused: Option<Position>,
    pushed: Option<Instant>,
}

impl Session {
    /// `in_force` is what the hello says.
    pub(super) fn new(in_force: Option<Position>) -> Self {
        Self { in_force, outstanding: None, refused: None, pushed: None }
    }

    /// Decides about the newest snapshot; `Push` counts as sent.
    ///
    /// It is not asked for while nothing can be sent: to make it is work for each route,
    /// and a large change is many entries.
    pub(super) fn next<T>(
        &mut self,
        newest: impl FnOnce() -> (Position, T),
        now: Instant,
    ) -> Next<T> {
        if let Some((position, at)) = &self.outstanding {
            let end = *at + ANSWER;
            if now < end {
                return Next::Wait(Some(end));
            }
            let seconds = ANSWER.as_secs();
            return Next::GiveUp(format!(
                "no answer to revision {} within {seconds} s",
                position.revision
            ));
        }
        if let Some(pushed) = self.pushed
            && now < pushed + MERGE
        {
            return Next::Wait(Some(pushed + MERGE));
        }
        let (newest, snapshot) = newest();
        if !self.wants(&newest) {
            return Next::Wait(None);
        }
        self.outstanding = Some((newest, now));
        self.pushed = Some(now);
        Next::Push(snapshot)
    }

    fn wants(&self, newest: &Position) -> bool {
        if newest.cluster_id.is_empty() || self.refused.as_ref() == Some(newest) {
            return false;
        }
        match &self.in_force {
            Some(known) if known.cluster_id == newest.cluster_id => {
                // Ahead of this member: it follows a newer one, and never goes back.
                known != newest && known.revision <= newest.revision
            }
            _ => true,
        }
    }

    /// The subscriber says what is in force; returns how long its answer took.
    pub(super) fn acked(
        &mut self,
        revision: Revision,
        digest: Digest,
        now: Instant,
    ) -> Option<Duration> {
        let (position, at) = self.outstanding.take_if(|(p, _)| p.revision == revision)?;
        self.in_force = Some(Position { digest, ..position });
        Some(now.duration_since(at))
    }

    /// The subscriber refused a revision; what was in force stays.
    pub(super) fn nacked(&mut self, revision: Revision) {
        if let Some((position, _)) = self.outstanding.take_if(|(p, _)| p.revision == revision) {
            self.refused = Some(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(revision: u64) -> Position {
        let digest = Digest([u8::try_from(revision).expect("small"); 32]);
        Position { cluster_id: "c1".to_owned(), revision: Revision(revision), digest }
    }

    fn next(session: &mut Session, newest: Position, now: Instant) -> Next<()> {
        session.next(|| (newest, ()), now)
    }

    fn ack(session: &mut Session, revision: u64) -> Option<Duration> {
        let position = at(revision);
        session.acked(position.revision, position.digest, Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn one_push_is_out_and_newer_ones_merge() {
        let mut session = Session::new(None);
        let start = Instant::now();
        assert_eq!(next(&mut session, at(1), start), Next::Push(()));
        assert_eq!(next(&mut session, at(2), start), Next::Wait(Some(start + ANSWER)));
        assert_eq!(next(&mut session, at(3), start), Next::Wait(Some(start + ANSWER)));
        assert!(ack(&mut session, 1).is_some());
        assert_eq!(next(&mut session, at(4), start), Next::Wait(Some(start + MERGE)));
        assert_eq!(next(&mut session, at(5), start + MERGE), Next::Push(()));
    }

    #[tokio::test(start_paused = true)]
    async fn no_snapshot_is_made_while_none_can_be_sent() {
        let mut session = Session::new(None);
        let start = Instant::now();
        let mut made = 0;
        let mut asked = |session: &mut Session, revision, now| {
            let newest = || {
                made += 1;
                (at(revision), ())
            };
            let _ = session.next(newest, now);
            made
        };
        assert_eq!(asked(&mut session, 1, start), 1);
        // A large change is many entries; the subscriber is at work on the first.
        for revision in 2..100 {
            assert_eq!(asked(&mut session, revision, start), 1);
        }
        assert!(ack(&mut session, 1).is_some());
        assert_eq!(asked(&mut session, 100, start), 1);
        assert_eq!(asked(&mut session, 100, start + MERGE), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_change_after_a_quiet_period_goes_out_at_once() {
        let mut session = Session::new(Some(at(1)));
        let start = Instant::now();
        assert_eq!(next(&mut session, at(1), start), Next::Wait(None), "it is in force already");
        assert_eq!(next(&mut session, at(2), start), Next::Push(()));
        assert!(ack(&mut session, 2).is_some());
        let later = start + MERGE * 2;
        assert_eq!(next(&mut session, at(3), later), Next::Push(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_snapshot_is_not_sent_again() {
        let mut session = Session::new(None);
        let later = Instant::now() + MERGE;
        assert_eq!(next(&mut session, at(1), Instant::now()), Next::Push(()));
        session.nacked(Revision(9));
        assert!(
            matches!(next(&mut session, at(1), later), Next::Wait(Some(_))),
            "that was another"
        );
        session.nacked(Revision(1));
        assert_eq!(next(&mut session, at(1), later), Next::Wait(None));
        assert_eq!(next(&mut session, at(2), later), Next::Push(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_ahead_of_this_member_gets_nothing_older() {
        let mut session = Session::new(Some(at(9)));
        assert_eq!(next(&mut session, at(8), Instant::now()), Next::Wait(None));
        let other = Position { digest: Digest([0; 32]), ..at(9) };
        assert_eq!(next(&mut session, other, Instant::now()), Next::Push(()), "it diverged");
        let mut session = Session::new(Some(Position { cluster_id: "c0".to_owned(), ..at(9) }));
        assert_eq!(next(&mut session, at(1), Instant::now()), Next::Push(()), "of another quorum");
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_never_answers_is_given_up() {
        let mut session = Session::new(None);
        let start = Instant::now();
        assert_eq!(next(&mut session, at(1), start), Next::Push(()));
        assert!(matches!(next(&mut session, at(1), start + ANSWER), Next::GiveUp(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_before_there_is_a_cluster_id() {
        let mut session = Session::new(None);
        let nameless = Position { cluster_id: String::new(), ..at(1) };
        assert_eq!(next(&mut session, nameless, Instant::now()), Next::Wait(None));
    }
}
