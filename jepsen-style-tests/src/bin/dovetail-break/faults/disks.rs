//! Disks that fail: full ones, ones that refuse, ones that keep something else.

use std::time::Duration;

use anyhow::Context as _;
use dovetail_jepsen::history::{Nemesis, Seen};

use super::Field;
use crate::disks::{Disks, flip};

/// How long a member may take to end once its disk refuses what it needs.
const ENDS: Duration = Duration::from_secs(20);
/// How long a member may take to be there again, or to refuse its disk.
const STARTS: Duration = Duration::from_secs(20);

impl Field {
    /// The disks of members, which are there with root.
    pub(super) fn own_disks(&self) -> anyhow::Result<&Disks> {
        self.disks.as_ref().context("members have no disks of their own")
    }

    /// A member whose disk is full may end; it is started again when there is room.
    pub(super) async fn disk_full(
        &mut self,
        victims: &[u8],
        hold: Duration,
    ) -> anyhow::Result<Nemesis> {
        for slot in victims {
            self.own_disks()?.fill(*slot)?;
        }
        tokio::time::sleep(hold).await;
        for slot in victims {
            self.own_disks()?.empty(*slot)?;
            if let Err(ended) = self.cluster.member(*slot) {
                self.world.recorder.note(format!("with a full disk {}", first_line(&ended)));
                self.cluster.start_member(*slot)?;
            }
        }
        Ok(Nemesis::Installed)
    }

    /// A disk refuses writes, syncs or both, until its member has ended, as it must: whether
    /// what it wrote is there nobody can say then. The disk that is sound again has all that
    /// was ever acknowledged, or is refused and replaced.
    pub(super) async fn disk_error(&mut self, victims: &[u8]) -> anyhow::Result<Nemesis> {
        let mut why = "no member is to be had".to_owned();
        for slot in victims.iter().copied() {
            let (writes, syncs) = self
                .random
                .choice([(true, false), (false, true), (true, true)])
                .unwrap_or_default();
            let Some(before) = self.own_disks()?.refuse(slot, writes, syncs) else {
                return Ok(Nemesis::Skipped { why: "there is no /dev/fuse".to_owned() });
            };
            let ended = self.cluster.member_mut(slot)?.end(ENDS).await;
            let refused = self.own_disks()?.refuse(slot, false, false).unwrap_or_default() - before;
            let what = format!("member {slot}, {refused} refused, writes {writes}, syncs {syncs}");
            match ended {
                Some(status) => self.world.recorder.note(format!("{what}: {status}")),
                None if refused == 0 => {
                    why = format!("{what}: it asked for nothing");
                    continue;
                }
                None => {
                    let why = format!("{what}, and it went on for {ENDS:?}");
                    self.world.recorder.seen(&format!("member-{slot}"), Seen::WentOn { why });
                    self.cluster.kill_member(slot);
                }
            }
            self.cluster.start_member(slot)?;
            if self.ends_at_start(slot).await?.is_some() {
                // A half-written record may be refused as well as left out.
                return self.renew(slot).await;
            }
            return Ok(Nemesis::Installed);
        }
        Ok(Nemesis::Indeterminate { why })
    }

    /// One bit of what a follower keeps is another when it is started again. It may refuse its
    /// disk or not notice; in either case it gets an empty one afterwards.
    pub(super) async fn bit_flip(&mut self) -> anyhow::Result<Nemesis> {
        let slot = match self.any_follower().await {
            Ok(slot) => slot,
            Err(why) => return Ok(Nemesis::Indeterminate { why }),
        };
        self.cluster.kill_member(slot);
        let flipped = flip(&self.cluster.member_data_dir(slot), &mut self.random, is_kept)?;
        self.cluster.start_member(slot)?;
        let Some(flipped) = flipped else {
            return Ok(Nemesis::Indeterminate { why: "there was no file to damage".to_owned() });
        };
        let came_to = match self.ends_at_start(slot).await? {
            Some(line) => format!("refused: {line}"),
            None => "not noticed".to_owned(),
        };
        self.world.recorder.note(format!("member {slot}, {flipped}: {came_to}"));
        self.renew(slot).await
    }

    /// Waits until a member that was started is there, or has ended; what it said then.
    async fn ends_at_start(&mut self, slot: u8) -> anyhow::Result<Option<String>> {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < STARTS {
            if let Err(ended) = self.cluster.member(slot) {
                return Ok(Some(last_line(&ended)));
            }
            let there = self.cluster.status_at(slot).await.is_ok_and(|status| {
                status.members.iter().any(|one| one.id == u64::from(slot) && one.reachable)
            });
            if there {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(None)
    }
}

/// What a member has to keep: the log of RocksDB, and the tables that it became.
fn is_kept(name: &str) -> bool {
    name.ends_with(".log") || name.ends_with(".sst")
}

fn first_line(error: &anyhow::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn last_line(error: &anyhow::Error) -> String {
    error.to_string().lines().last().unwrap_or_default().to_owned()
}
