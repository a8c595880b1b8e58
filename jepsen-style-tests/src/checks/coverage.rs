//! Every fault that was asked for took effect at least once. A run without it is no pass.

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use crate::history::{History, Nemesis, What};

/// Counts what took effect, and names what did not, with the last reason.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::of("demanded faults took effect");
    let mut demanded = BTreeSet::new();
    let mut installed: BTreeMap<&str, usize> = BTreeMap::new();
    let mut reasons: BTreeMap<&str, &str> = BTreeMap::new();
    for event in &history.events {
        match &event.what {
            What::Demanded { faults } => demanded.extend(faults.iter().map(String::as_str)),
            What::FaultEnded { name, nemesis, .. } => match nemesis {
                Nemesis::Installed => *installed.entry(name).or_default() += 1,
                Nemesis::Skipped { why } | Nemesis::Indeterminate { why } => {
                    reasons.insert(name, why);
                }
            },
            _ => {}
        }
    }
    for fault in demanded {
        verdict.examined += 1;
        if !installed.contains_key(fault) {
            let reason = reasons.get(fault).copied().unwrap_or("it was never tried");
            verdict.violated(format!("{fault} never took effect: {reason}"));
        }
    }
    let counts: Vec<_> =
        installed.iter().map(|(fault, times)| format!("{fault} {times}")).collect();
    verdict.remarks.push(format!("took effect: {}", counts.join(", ")));
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::story::Story;

    fn fault(story: &mut Story, name: &str, nemesis: Nemesis) {
        let (name, on) = (name.to_owned(), "member-1".to_owned());
        story.line(What::FaultEnded { name, on, nemesis });
    }

    #[test]
    fn a_demanded_fault_that_never_took_effect_fails_the_run() {
        let mut story = Story::default();
        story.line(What::Demanded { faults: vec!["kill".into(), "pause".into()] });
        fault(&mut story, "kill", Nemesis::Installed);
        fault(&mut story, "pause", Nemesis::Indeterminate { why: "it still answered".into() });
        let verdict = check(&story.history);
        assert_eq!(verdict.violations, ["pause never took effect: it still answered"]);
        fault(&mut story, "pause", Nemesis::Installed);
        assert!(check(&story.history).holds());
        assert!(!check(&Story::default().history).holds(), "nothing was demanded");
    }
}
