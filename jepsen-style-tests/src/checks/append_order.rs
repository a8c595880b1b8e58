//! A canary's steps are only ever appended: each look at a route's steps begins with all
//! that earlier looks saw, and a run's steps come one after another, none left out and
//! none twice.

use std::collections::BTreeMap;

use super::Verdict;
use crate::history::{Answer, End, History, Op, Step};

/// A look at a route's steps.
struct Look<'h> {
    begun: usize,
    ended: usize,
    rows: &'h [Step],
}

/// Checks every route's looks, in the order of their beginnings.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::of("order of canary steps");
    let mut routes: BTreeMap<&str, Vec<Look<'_>>> = BTreeMap::new();
    for operation in history.operations() {
        if let Op::ReadSteps { route } = operation.op
            && let End::Ok(ended, Answer::Steps { rows }) = operation.end
        {
            let begun = operation.begun;
            routes.entry(route).or_default().push(Look { begun, ended, rows });
        }
    }
    for (route, looks) in routes {
        let longest = looks.iter().max_by_key(|look| look.rows.len());
        let Some(longest) = longest else { continue };
        verdict.examined += longest.rows.len();
        in_sequence(route, longest.rows, &mut verdict);
        // All looks are beginnings of one sequence …
        for look in &looks {
            if !longest.rows.starts_with(look.rows) {
                verdict.violated(format!(
                    "{route}: the look of line {} is not the beginning of that of line {}: {:?}",
                    look.begun + 1,
                    longest.begun + 1,
                    first_difference(look.rows, longest.rows)
                ));
            }
        }
        // … and a look that began when another had ended sees no less.
        let mut by_end: Vec<&Look<'_>> = looks.iter().collect();
        by_end.sort_by_key(|look| look.ended);
        for look in &looks {
            let before = by_end.iter().take_while(|other| other.ended < look.begun);
            let most = before.map(|other| other.rows.len()).max().unwrap_or_default();
            if look.rows.len() < most {
                verdict.violated(format!(
                    "{route}: the look of line {} sees {} steps, an earlier one saw {most}",
                    look.begun + 1,
                    look.rows.len()
                ));
            }
        }
    }
    verdict
}

/// Entries rise, and within a run each step follows on the one before it.
fn in_sequence(route: &str, rows: &[Step], verdict: &mut Verdict) {
    let (mut last, mut run) = (0, None);
    for row in rows {
        if row.index <= last {
            verdict.violated(format!("{route}: entry {} comes after entry {last}", row.index));
        }
        last = row.index;
        let expected = match run {
            Some((of, step)) if of == row.run => step + 1,
            Some((of, _)) if of > row.run => {
                verdict.violated(format!("{route}: run {} goes on after run {of}", row.run));
                row.step
            }
            _ => 1,
        };
        if row.step != expected {
            verdict.violated(format!(
                "{route}: run {} takes step {} at entry {}, not {expected}",
                row.run, row.step, row.index
            ));
        }
        run = Some((row.run, row.step));
    }
}

fn first_difference<'r>(
    one: &'r [Step],
    other: &'r [Step],
) -> (Option<&'r Step>, Option<&'r Step>) {
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    (one.get(same), other.get(same))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::story::Story;

    /// (entry, run, step), and what a look at them finds.
    fn look(story: &mut Story, rows: &[(u64, u64, u32)]) {
        let rows = rows.iter().map(|&(index, run, step)| Step { index, run, step }).collect();
        story.did(Op::ReadSteps { route: "shop.example/".into() }, Answer::Steps { rows });
    }

    fn verdict(looks: &[&[(u64, u64, u32)]]) -> Verdict {
        let mut story = Story::default();
        for rows in looks {
            look(&mut story, rows);
        }
        check(&story.history)
    }

    #[test]
    fn steps_that_are_only_appended_are_accepted() {
        let all = [(5, 5, 1), (8, 5, 2), (11, 5, 3), (20, 20, 1)];
        let verdict = verdict(&[&[], &all[..2], &all[..2], &all]);
        assert!(verdict.holds() && verdict.examined == 4, "{verdict}");
    }

    #[test]
    fn each_way_to_break_the_order_is_refused() {
        type Looks<'l> = &'l [&'l [(u64, u64, u32)]];
        let cases: &[(Looks<'_>, &str)] = &[
            (&[&[(5, 5, 1), (8, 5, 3)]], "takes step 3 at entry 8, not 2"),
            (&[&[(5, 5, 1), (8, 5, 2), (9, 5, 2)]], "takes step 2 at entry 9, not 3"),
            (&[&[(5, 5, 1), (4, 5, 2)]], "entry 4 comes after entry 5"),
            (&[&[(5, 5, 1), (6, 6, 1), (7, 5, 2)]], "run 5 goes on after run 6"),
            (&[&[(5, 5, 1), (8, 5, 2)], &[(5, 5, 1)]], "sees 1 steps, an earlier one saw 2"),
            (&[&[(5, 5, 1)], &[(6, 6, 1), (7, 6, 2)]], "is not the beginning of"),
        ];
        for (looks, said) in cases {
            let verdict = verdict(looks);
            assert!(verdict.to_string().contains(said), "{said}: {verdict}");
        }
    }
}
