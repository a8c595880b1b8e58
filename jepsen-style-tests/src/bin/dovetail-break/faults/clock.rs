//! Jumps of members' wall clocks.

use std::time::Duration;

use dovetail_jepsen::history::Nemesis;

use super::Field;

/// Members compare their clocks every 5 s, so a jump has to last longer to be told of.
const COMPARED: Duration = Duration::from_secs(6);
/// By how much clocks jump, in milliseconds: what is taken for noise, what certificates
/// forgive, what ends drains, and more than a day.
const JUMPS_MS: [i64; 5] = [900, 40_000, 420_000, 10_800_000, 100_000_000];

impl Field {
    /// Each victim's clock jumps by as much as it likes, jumps again, and is set right.
    pub(super) async fn clock(
        &mut self,
        victims: &[u8],
        hold: Duration,
    ) -> anyhow::Result<Nemesis> {
        let Some(clocks) = &self.clocks else {
            return Ok(Nemesis::Skipped { why: "there is no compiler for the library".to_owned() });
        };
        let mut before = Vec::new();
        for slot in victims {
            before.push((*slot, clocks.told(*slot)?));
        }
        for time in [COMPARED, hold / 2] {
            let mut jumps = Vec::new();
            for slot in victims {
                let by = self.random.choice(JUMPS_MS).unwrap_or_default();
                let by = if self.random.bool() { by } else { -by };
                clocks.jump(*slot, by)?;
                jumps.push(format!("member {slot} by {by} ms"));
            }
            tokio::time::sleep(time).await;
            let problems = self.cluster.problems().await.unwrap_or_default();
            let about = problems.iter().filter(|problem| problem.reason.contains("the clock of"));
            let about: Vec<_> = about.map(|problem| problem.reason.as_str()).collect();
            let jumps = jumps.join(", ");
            self.world.recorder.note(format!("clock: {jumps}; told: {}", about.join("; ")));
        }
        let mut unasked = Vec::new();
        for (slot, before) in before {
            clocks.jump(slot, 0)?;
            if clocks.told(slot)? == before {
                unasked.push(slot);
            }
        }
        Ok(if unasked.is_empty() {
            Nemesis::Installed
        } else {
            Nemesis::Indeterminate { why: format!("members {unasked:?} never asked for the time") }
        })
    }
}
