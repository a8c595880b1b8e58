//! Who the members are changes: one replaced, one added and removed again.

use std::time::{Duration, Instant};

use dovetail_jepsen::history::Nemesis;

use super::Field;

/// How long a change of members may take, with the disk that has to catch up.
const CHANGED: Duration = Duration::from_secs(80);
/// How long all may take to be there before it, and a removed member to end.
const READY: Duration = Duration::from_secs(40);

impl Field {
    /// A follower loses its disk; the new one takes its place.
    pub(super) async fn replace(&mut self) -> anyhow::Result<Nemesis> {
        let slot = match self.any_follower().await {
            Ok(slot) => slot,
            Err(why) => return Ok(Nemesis::Indeterminate { why }),
        };
        self.renew(slot).await
    }

    /// A follower while all others are there: it must not be needed for a quorum.
    pub(super) async fn any_follower(&mut self) -> Result<u8, String> {
        let ready = self.cluster.agreement_of_members(READY).await;
        let leader = ready.map_err(|unmet| unmet.to_string())?;
        let others: Vec<u8> = self.cluster.founders().filter(|slot| *slot != leader).collect();
        self.random.choice(others).ok_or_else(|| "there is one member only".to_owned())
    }

    /// Gives a member an empty disk, and that disk the member's place.
    pub(super) async fn renew(&mut self, slot: u8) -> anyhow::Result<Nemesis> {
        self.cluster.wipe_member(slot)?;
        self.cluster.start_member(slot)?;
        let slot = slot.to_string();
        Ok(match self.ordered(&["member", "replace", &slot]).await {
            Ok(()) => Nemesis::Installed,
            Err(why) => Nemesis::Indeterminate { why },
        })
    }

    /// One member more and then one less; of five, which are the most, the other way round.
    pub(super) async fn membership(&mut self, hold: Duration) -> anyhow::Result<Nemesis> {
        let follower = match self.any_follower().await {
            Ok(slot) => slot,
            Err(why) => return Ok(Nemesis::Indeterminate { why }),
        };
        let done = match self.cluster.slots().find(|slot| self.is_spare(*slot)) {
            Some(spare) => match self.taken_in(spare).await? {
                Ok(()) => {
                    tokio::time::sleep(hold).await;
                    self.taken_out(spare).await?
                }
                // It must not stay half a member.
                Err(why) => self.taken_out(spare).await?.and(Err(why)),
            },
            None => match self.taken_out(follower).await? {
                Ok(()) => {
                    tokio::time::sleep(hold).await;
                    self.taken_in(follower).await?
                }
                Err(why) => Err(why),
            },
        };
        Ok(match done {
            Ok(()) => Nemesis::Installed,
            Err(why) => Nemesis::Indeterminate { why },
        })
    }

    fn is_spare(&self, slot: u8) -> bool {
        self.cluster.founders().all(|founder| founder != slot)
    }

    /// An empty disk becomes a learner, and then a voter.
    async fn taken_in(&mut self, slot: u8) -> anyhow::Result<Result<(), String>> {
        self.cluster.start_member(slot)?;
        let at = format!("{slot}={}", self.cluster.member_addr(slot));
        let slot = slot.to_string();
        for order in [["member", "add", &at], ["member", "promote", &slot]] {
            if let Err(why) = self.ordered(&order).await {
                return Ok(Err(why));
            }
        }
        let voters = self.cluster.founders().count();
        let voters = if self.is_spare(slot.parse()?) { voters + 1 } else { voters };
        let agreed = self.cluster.agreement_of(voters, READY).await;
        Ok(agreed.map(drop).map_err(|unmet| unmet.to_string()))
    }

    /// A member is removed, hears of it, ends, and loses its disk.
    async fn taken_out(&mut self, slot: u8) -> anyhow::Result<Result<(), String>> {
        let removed = self.ordered(&["member", "remove", &slot.to_string()]).await;
        let ended = self.cluster.member_mut(slot)?.end(READY).await;
        self.cluster.wipe_member(slot)?;
        Ok(match (removed, ended) {
            (Err(why), _) => Err(why),
            (Ok(()), None) => Err(format!("member {slot} did not end after it was removed")),
            (Ok(()), Some(status)) => {
                self.world.recorder.note(format!("member {slot}, removed, ended: {status}"));
                Ok(())
            }
        })
    }

    /// Orders the same until it is done; the last refusal when it never is.
    async fn ordered(&self, order: &[&str]) -> Result<(), String> {
        let begun = Instant::now();
        let order_told = order.join(" ");
        let mut last = String::new();
        while begun.elapsed() < CHANGED {
            let refusal = match self.cluster.dovetail(order).await {
                Ok(done) if done.code == Some(0) => return Ok(()),
                Ok(done) => done.stderr.trim().to_owned(),
                Err(error) => format!("{error:#}"),
            };
            if refusal != last {
                self.world.recorder.note(format!("{order_told}: {refusal}"));
                last = refusal;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Err(format!("{order_told}: {last}"))
    }
}
