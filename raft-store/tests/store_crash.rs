//! kill -9 at random moments: what was acknowledged is there afterwards.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod store_support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dovetail_raft_store::TypeConfig;
use openraft::storage::{IOFlushed, RaftLogReader as _, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use store_support::{entries, entry, log_id, open, vote};

/// Set for the child only.
const DIR: &str = "DOVETAIL_TEST_CRASH_DIR";
const ROUNDS: u64 = 20;

/// The child: appends, votes and truncates, and says what was acknowledged.
#[tokio::test]
async fn child_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut store = open(Path::new(&dir));
    let mut term = store.log.read_vote().await.unwrap().map_or(0, |vote| vote.leader_id.term);
    let mut next =
        store.log.get_log_state().await.unwrap().last_log_id.map_or(0, |id| id.index + 1);
    for turn in 1_u64.. {
        if turn % 7 == 1 {
            term += 1;
            store.log.save_vote(&vote(term)).await.unwrap();
            println!("\nvoted {term}");
        }
        let mut waiting = Vec::new();
        for batch in 0..turn % 5 + 1 {
            let (done, flushed) = TypeConfig::oneshot();
            let end = next + batch + 1;
            store.log.append(entries(term, next..end), IOFlushed::signal(done)).await.unwrap();
            waiting.push((next, end, flushed));
            next = end;
        }
        for (from, end, flushed) in waiting {
            flushed.await.unwrap().unwrap();
            println!("\nacknowledged {from} {end} {term}");
        }
        if turn % 11 == 0 && next > 10 {
            let kept = next - 4;
            println!("\ntruncating {kept}");
            let read = store.log.try_get_log_entries(kept..=kept).await.unwrap();
            store.log.truncate_after(Some(read[0].log_id)).await.unwrap();
            next = kept + 1;
        }
    }
}

/// What the child was told.
#[derive(Debug, Default)]
struct Acknowledged {
    vote: u64,
    /// The term of each index; `None` where the child died before it said so.
    terms: Vec<Option<u64>>,
}

impl Acknowledged {
    fn read(&mut self, line: &str) {
        let mut words = line.split(' ');
        let kind = words.next();
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        match (kind, numbers.as_slice()) {
            (Some("voted"), [term]) => self.vote = *term,
            (Some("truncating"), [kept]) => {
                self.terms.truncate(usize::try_from(kept + 1).unwrap());
            }
            (Some("acknowledged"), [from, end, term]) => {
                self.terms.resize(usize::try_from(*from).unwrap(), None);
                self.terms.resize(usize::try_from(*end).unwrap(), Some(*term));
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writes_until_it_is_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line)).ok();
        });
        // The first answer shows that it runs; then it dies after 0 to 190 ms.
        let mut heard = 0;
        let mut end = Instant::now() + Duration::from_secs(30);
        while let Ok(line) = receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            acknowledged.read(&line);
            if line.starts_with("acknowledged") {
                heard += 1;
                if heard == 1 {
                    end = Instant::now() + Duration::from_millis(round * 37 % 200);
                }
            }
        }
        assert!(heard > 0, "round {round}: the child never wrote");
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap();
        receiver.try_iter().for_each(|line| acknowledged.read(&line));
        check(dir.path(), &acknowledged, round).await;
    }
    assert!(acknowledged.terms.len() > 100, "too little was written to mean anything");
}

async fn check(dir: &Path, acknowledged: &Acknowledged, round: u64) {
    let mut store = open(dir);
    let held = store.log.read_vote().await.unwrap().map_or(0, |vote| vote.leader_id.term);
    assert!(held >= acknowledged.vote, "round {round}: vote {held}, not {}", acknowledged.vote);
    let read = store.log.try_get_log_entries(..).await.unwrap();
    assert!(read.len() >= acknowledged.terms.len(), "round {round}: {} entries", read.len());
    for (index, found) in (0..).zip(&read) {
        let told = acknowledged.terms.get(usize::try_from(index).unwrap()).copied().flatten();
        let term = told.unwrap_or(found.log_id.leader_id.term);
        assert_eq!(found.log_id, log_id(term, index), "round {round}");
        assert_eq!(*found, entry(term, index), "round {round}");
    }
}
