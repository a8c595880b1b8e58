//! A file's cluster keys become the cluster's configuration (decision 9).

use std::sync::Arc;
use std::time::Duration;

use dovetail_process::drain::DrainWatch;
use dovetail_routing::Digest;
use dovetail_routing::entry::{Answered, Applied, ClusterConfig, Command, Payload};
use tokio::time::sleep;

use crate::ports::{Fence, Proposal, Quorum, Slot};
use crate::reconcile::{fence_ended, fence_gained};
use crate::soft::SoftProblems;
use crate::telemetry;

/// The soft problem of a configuration that cannot be put in force.
const PROBLEM: &str = "configuration: seed";
/// The soft problem of a member whose file is not the one in force.
const DIFFERS: &str = "configuration: differs";
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Proposes a file's configuration while this member leads: when the log has none from a
/// file, or when the last one from a file came from another.
#[derive(Debug)]
pub struct Seeder<Q> {
    quorum: Arc<Q>,
    config: ClusterConfig,
    actor: Arc<str>,
    soft: SoftProblems,
}

impl<Q: Quorum> Seeder<Q> {
    /// Seeds the `config` that the file of member `slot` holds; its source is filled in.
    pub fn new(quorum: Arc<Q>, config: ClusterConfig, slot: Slot, soft: SoftProblems) -> Self {
        let config = ClusterConfig { source: source_of(&config), ..config };
        Self { quorum, config, actor: format!("dovetail://member/{slot}").into(), soft }
    }

    /// Runs until the drain begins.
    pub async fn run(self, drain: DrainWatch) {
        tokio::select! {
            () = self.lead(&drain) => {}
            () = self.compare() => {}
        }
    }

    /// Raises a problem while another file than this member's was seeded last.
    async fn compare(&self) {
        let mut state = self.quorum.state();
        loop {
            let (index, seeded) = {
                let state = state.borrow_and_update();
                (state.applied_index(), state.seeded())
            };
            match seeded.filter(|source| *source != self.config.source) {
                Some(source) => {
                    let reason = format!(
                        "the cluster keys of this member's --config ({}) are not those that were \
                         seeded last ({source}): give every member the same",
                        self.config.source
                    );
                    self.soft.raise(DIFFERS, "--config", reason, index);
                }
                None => self.soft.clear(DIFFERS),
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    async fn lead(&self, drain: &DrainWatch) {
        let mut view = self.quorum.view();
        while let Some(fence) = fence_gained(&mut view, drain).await {
            tokio::select! {
                biased;
                () = drain.begun() => return,
                () = fence_ended(&mut view, fence) => {}
                () = self.seed(fence) => fence_ended(&mut view, fence).await,
            }
            self.soft.clear(PROBLEM);
        }
    }

    async fn seed(&self, fence: Fence) {
        let mut pause = PAUSE;
        while !self.attempt(fence).await {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Whether there is nothing more to do.
    async fn attempt(&self, fence: Fence) -> bool {
        if self.quorum.read_barrier().await.is_err() {
            return false;
        }
        let state = Arc::clone(&self.quorum.state().borrow());
        // What an operator applied since stays in force: a file counts when it changes.
        if let Some(seeded) = state.seeded() {
            if seeded == self.config.source {
                return true;
            }
            telemetry::configuration_differs(self.config.source, seeded);
        }
        let proposal = Proposal {
            actor: Arc::clone(&self.actor),
            // Unlike that of any earlier attempt: a file may go back to what it was.
            request_id: format!("seed-{}-{}", self.config.source, state.applied_index()).into(),
            cause: "seeded from --config".into(),
            payload: Payload::Command(Command::ApplyConfig(self.config.clone())),
        };
        match self.quorum.propose(fence, proposal).await {
            Ok(Answered { index, applied: Applied::Rejected(rejection), .. }) => {
                telemetry::proposal_rejected(index, &rejection);
                let reason = format!("the configuration of --config was refused: {rejection}");
                self.soft.raise(PROBLEM, "--config", reason, index);
                // The same would be refused again.
                true
            }
            Ok(Answered { index, .. }) => {
                telemetry::configuration_seeded(index);
                true
            }
            Err(error) => {
                telemetry::proposal_failed(&error);
                false
            }
        }
    }
}

/// A hash of the cluster keys alone: files that differ in a member's own keys, in
/// comments or in order seed the same configuration.
pub(crate) fn source_of(config: &ClusterConfig) -> Digest {
    // The form in which the log carries it says everything, and the same thing once.
    let config = ClusterConfig { source: Digest::default(), ..config.clone() };
    Digest(*blake3::hash(&dovetail_proto::convert::encode_config(&config)).as_bytes())
}

#[cfg(test)]
mod tests {
    use dovetail_process::drain::Drain;

    use super::*;
    use crate::fakes::{FENCE, FakeQuorum, Fate, eventually};
    use crate::ports::ProposeError;

    fn seed(quorum: &Arc<FakeQuorum>, drain: &Drain, seconds: u64) -> SoftProblems {
        let soft = SoftProblems::new();
        let poll_interval = Some(Duration::from_secs(seconds));
        let config = ClusterConfig { poll_interval, ..ClusterConfig::default() };
        let seeder = Seeder::new(Arc::clone(quorum), config, 1, soft.clone());
        drain.watch().spawn(seeder.run(drain.watch()));
        soft
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_a_file_says_reaches_the_snapshots() {
        let file = include_str!("../../config/tests/files/every_key.toml");
        let config = dovetail_config::parse(file, &[]).expect("valid").config.expect("some");
        let quorum = FakeQuorum::leader();
        let drain = Drain::new();
        let soft = SoftProblems::new();
        let seeder = Seeder::new(Arc::clone(&quorum), config.clone(), 1, soft);
        drain.watch().spawn(seeder.run(drain.watch()));
        eventually("the file is in force", || quorum.current().config().is_some()).await;
        assert_eq!(config.proxies.len(), 2, "the file has two extensions");
        for (service_cluster, options) in &config.proxies {
            assert_eq!(quorum.current().snapshot(service_cluster).options, *options);
        }
        // As the log of a real member keeps it.
        let entry = quorum.log().remove(0);
        let kept = dovetail_proto::convert::encode_entry(&entry);
        assert_eq!(dovetail_proto::convert::decode_entry(&kept).expect("an entry"), entry);
    }

    /// Which file is in force.
    fn seeded(quorum: &FakeQuorum) -> Option<u64> {
        quorum.current().config()?.poll_interval.map(|pause| pause.as_secs())
    }

    #[test]
    fn the_source_depends_on_the_cluster_keys_alone() {
        let source = |text: &str| {
            let keys = dovetail_config::parse(text, &[]).expect("valid");
            keys.config.as_ref().map(source_of)
        };
        let one = source("PollInterval = \"3s\"\nDockerURL = \"unix:///a\"");
        assert_eq!(one, source("# ours\nDockerURL = \"tcp://b\"\npollinterval = 3"));
        assert_ne!(one, source("PollInterval = \"4s\""));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_seeds_what_differs_and_only_that() {
        let quorum = FakeQuorum::follower();
        let first = Drain::new();
        seed(&quorum, &first, 1);
        sleep(Duration::from_secs(60)).await;
        assert!(quorum.log().is_empty(), "a follower seeds nothing");

        quorum.next(Fate::Fails(ProposeError::Unknown { reason: "lost".to_owned() }));
        quorum.lead(Some(FENCE));
        eventually("the file is in force", || seeded(&quorum) == Some(1)).await;
        quorum.lead(None);
        quorum.lead(Some(Fence { term: 2, ..FENCE }));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(quorum.log().len(), 1, "it is in force already");
        first.finish(Duration::from_secs(1)).await;

        // Another file, and then the first one again.
        for (number, file) in [2, 1].into_iter().enumerate() {
            let drain = Drain::new();
            seed(&quorum, &drain, file);
            eventually("the other file is in force", || seeded(&quorum) == Some(file)).await;
            assert_eq!(quorum.log().len(), number + 2);
            drain.finish(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_operator_applied_stays_until_a_file_changes() {
        let quorum = FakeQuorum::leader();
        let drain = Drain::new();
        let soft = seed(&quorum, &drain, 1);
        eventually("the file is in force", || seeded(&quorum) == Some(1)).await;
        let poll_interval = Some(Duration::from_secs(7));
        let config = ClusterConfig { poll_interval, ..ClusterConfig::default() };
        let config = ClusterConfig { source: source_of(&config), ..config };
        quorum.write(Proposal {
            actor: "dovetail://operator/root".into(),
            request_id: "r1".into(),
            cause: "config apply".into(),
            payload: Payload::Command(Command::ApplyConfig(config)),
        });
        // Another leader, with the same file.
        quorum.lead(None);
        quorum.lead(Some(Fence { term: 2, ..FENCE }));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(seeded(&quorum), Some(7), "the file does not overwrite it");
        assert!(soft.is_empty(), "and that is no problem: {:?}", soft.list());
        drain.finish(Duration::from_secs(1)).await;

        let drain = Drain::new();
        seed(&quorum, &drain, 2);
        eventually("the edited file is in force", || seeded(&quorum) == Some(2)).await;
        let state = quorum.current();
        let actors: Vec<_> = state.configs().map(|(_, one)| one.actor.to_string()).collect();
        let member = "dovetail://member/1";
        assert_eq!(actors, [member, "dovetail://operator/root", member]);
        drain.finish(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_with_another_file_is_a_problem() {
        let quorum = FakeQuorum::leader();
        let drain = Drain::new();
        seed(&quorum, &drain, 1);
        eventually("the first file is in force", || seeded(&quorum) == Some(1)).await;
        quorum.lead(None);
        let soft = seed(&quorum, &drain, 2);
        eventually("it is told", || !soft.is_empty()).await;
        assert!(soft.list()[0].reason.contains("give every member the same"));
        quorum.lead(Some(FENCE));
        eventually("its file is in force", || soft.is_empty()).await;
    }
}
