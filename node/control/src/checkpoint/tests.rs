//! Checkpoints over three members in memory.

use std::sync::atomic::Ordering;

use dovetail_process::drain::Drain;
use dovetail_process::ready::Readiness;
use dovetail_routing::Entry;
use tokio::time::sleep;

use super::*;
use crate::fakes::{FakeDocker, FakePeers, FakeQuorum, eventually};
use crate::fleet::Fleet;
use crate::ports::Marks;

struct Stage {
    quorum: Arc<FakeQuorum>,
    peers: Arc<FakePeers>,
    soft: SoftProblems,
    readiness: Readiness,
    drain: Drain,
}

/// Member 1 of three, which leads.
fn stage() -> Stage {
    let (quorum, drain, readiness) = (FakeQuorum::leader(), Drain::new(), Readiness::new());
    let core = Core {
        quorum: Arc::clone(&quorum),
        peers: Arc::new(FakePeers::default()),
        docker: FakeDocker::new(),
        fleet: Fleet::new(),
        soft: SoftProblems::new(),
        drain: drain.watch(),
    };
    let check = readiness.register("agreement");
    let job = Checkpointer::new(&core, check, Config::default());
    drain.watch().spawn(job.run(drain.watch()));
    let Core { peers, soft, .. } = core;
    Stage { quorum, peers, soft, readiness, drain }
}

fn held(state: u8) -> pb::HeldResponse {
    pb::HeldResponse { state: vec![state; 32], ledger: vec![9; 32] }
}

impl Stage {
    /// What the members hold, by slot; `None` of one that does not answer.
    fn hold(&self, states: [Option<u8>; 3]) {
        let [own, second, third] = states.map(|state| state.map(held));
        *self.quorum.held.lock().expect("not poisoned") = own;
        let others = [(2, second), (3, third)];
        let others = others.into_iter().filter_map(|(slot, held)| Some((slot, held?)));
        *self.peers.held.lock().expect("not poisoned") = others.collect();
    }

    fn mark(&self, newest: u64, newest_mark: Option<u64>) {
        let marks = Marks { newest, newest_mark, ..Marks::default() };
        *self.quorum.marks.lock().expect("not poisoned") = marks;
    }

    fn written(&self) -> Vec<(u64, u8)> {
        let checkpoint = |entry: Entry| match entry.payload {
            Payload::Checkpoint { index, state, .. } => Some((index.0, state.0[0])),
            _ => None,
        };
        self.quorum.log().into_iter().filter_map(checkpoint).collect()
    }

    fn problems(&self) -> Vec<String> {
        self.soft.list().into_iter().map(|problem| problem.reason).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_majority_holds_is_written_once_and_who_differs_is_named() {
    let stage = stage();
    stage.hold([Some(1), Some(1), Some(2)]);
    stage.mark(2_040, Some(2_000));
    eventually("a checkpoint", || !stage.written().is_empty()).await;
    sleep(EVERY * 10).await;
    assert_eq!(stage.written(), [(2_000, 1)]);
    let problems = stage.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("member 3 holds another state at index 2000"), "{problems:?}");
    assert!(stage.readiness.is_ready());
    stage.drain.watch();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_alone_with_its_state_writes_what_the_others_hold() {
    let stage = stage();
    stage.hold([Some(5), Some(1), Some(1)]);
    stage.mark(1_000, Some(1_000));
    eventually("a checkpoint", || !stage.written().is_empty()).await;
    assert_eq!(stage.written(), [(1_000, 1)]);
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_there_is_an_alarm_and_nothing_is_written() {
    let stage = stage();
    stage.hold([Some(1), Some(2), Some(3)]);
    stage.mark(1_000, Some(1_000));
    eventually("an alarm", || !stage.problems().is_empty()).await;
    assert!(stage.problems()[0].contains("members hold 3 different states"));
    assert_eq!(stage.written(), []);
    assert!(stage.readiness.is_ready(), "all serve on");
    stage.hold([Some(1), Some(1), Some(3)]);
    eventually("a checkpoint", || !stage.written().is_empty()).await;
    assert!(!stage.problems().iter().any(|problem| problem.contains("different states")));
}

#[tokio::test(start_paused = true)]
async fn members_that_are_behind_or_away_are_waited_for() {
    let stage = stage();
    stage.hold([Some(1), None, None]);
    stage.mark(1_000, Some(1_000));
    sleep(EVERY * 10).await;
    assert_eq!((stage.written(), stage.problems()), (vec![], vec![]));
    stage.hold([Some(1), None, Some(1)]);
    eventually("a checkpoint", || !stage.written().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_entry_is_compared_after_a_quiet_minute() {
    let stage = stage();
    stage.hold([Some(1), Some(1), Some(1)]);
    stage.mark(41, None);
    sleep(Duration::from_secs(58)).await;
    assert_eq!(stage.written(), []);
    eventually("a checkpoint", || !stage.written().is_empty()).await;
    assert_eq!(stage.written(), [(41, 1)]);
    // The checkpoint itself is the newest entry now, and no reason for another.
    let marks = Marks { newest: 42, newest_mark: None, compared: 41, checkpoint: 42 };
    *stage.quorum.marks.lock().expect("not poisoned") = marks;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(stage.written().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_diverged_is_not_ready_and_does_not_lead() {
    let stage = stage();
    *stage.quorum.diverged.lock().expect("not poisoned") = Some("it differs".to_owned());
    eventually("it steps down", || stage.quorum.stepped_down.load(Ordering::Relaxed)).await;
    assert!(!stage.readiness.is_ready());
    assert_eq!(stage.problems(), ["it differs"]);
    assert_eq!(stage.written(), []);
}

#[tokio::test(start_paused = true)]
async fn a_follower_asks_nobody() {
    let stage = stage();
    stage.quorum.lead(None);
    stage.hold([Some(1), Some(1), Some(1)]);
    stage.mark(1_000, Some(1_000));
    sleep(EVERY * 10).await;
    assert_eq!(stage.written(), []);
}
