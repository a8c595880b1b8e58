//! No remark that was acknowledged is lost, none is there twice, and whoever asks after
//! the acknowledgement sees it: a set, fully checked.
//!
//! | found | means |
//! |---|---|
//! | lost | acknowledged, in the range of a later read, and not there |
//! | stale | acknowledged at an entry before a read began that did not come so far |
//! | twice | in the log at two entries |
//! | moved | acknowledged at one entry, read at another |
//! | never asked for | nobody wrote it, or it was refused |
//! | never read | acknowledged, and no read came so far: not proven, and so no pass |

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use crate::history::{Answer, End, History, Op};

/// A read of the entries after `from`, up to `upto`.
struct Read<'h> {
    from: u64,
    upto: u64,
    begun: usize,
    rows: &'h [(u64, String)],
}

/// Checks all remarks against all reads of them.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::of("set of remarks");
    let operations = history.operations();
    let mut asked_for = BTreeMap::new();
    let mut reads = Vec::new();
    for operation in &operations {
        match (operation.op, operation.end) {
            (Op::Annotate { text }, end) => {
                asked_for.insert(text.as_str(), end);
            }
            (Op::ReadRemarks { from }, End::Ok(_, Answer::Remarks { upto, rows })) => {
                let (from, upto, begun) = (*from, *upto, operation.begun);
                reads.push(Read { from, upto, begun, rows });
            }
            _ => {}
        }
    }
    let mut found: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (index, text) in reads.iter().flat_map(|read| read.rows) {
        found.entry(text).or_default().insert(*index);
    }
    for (text, at) in &found {
        let first = at.first().copied().unwrap_or_default();
        if at.len() > 1 {
            verdict.violated(format!("twice: {text} at {at:?}"));
        }
        match asked_for.get(text) {
            None => verdict.violated(format!("never asked for: {text} at {first}")),
            Some(End::Fail) => verdict.violated(format!("refused, and there: {text} at {first}")),
            Some(End::Ok(_, Answer::Done { index, .. })) if *index != first => verdict
                .violated(format!("moved: {text} was acknowledged at {index}, is at {first}")),
            Some(_) => {}
        }
    }
    let mut unanswered = 0;
    for (text, end) in &asked_for {
        let End::Ok(acknowledged, Answer::Done { index, .. }) = end else {
            unanswered += usize::from(*end == End::Unknown);
            continue;
        };
        verdict.examined += 1;
        let later = reads.iter().filter(|read| read.begun > *acknowledged && read.from < *index);
        for read in later {
            let place = read.begun + 1;
            if read.upto < *index {
                verdict.violated(format!(
                    "stale: {text} was acknowledged at {index}; the read of line {place}, begun \
                     after that, came to {}",
                    read.upto
                ));
            } else if !read.rows.iter().any(|(at, one)| at == index && one == text) {
                verdict.violated(format!(
                    "lost: {text}, acknowledged at {index}, is not in the read of line {place}"
                ));
            }
        }
        if !reads.iter().any(|read| read.from < *index && *index <= read.upto) {
            verdict.violated(format!("never read: {text}, acknowledged at {index}"));
        }
    }
    let there = asked_for
        .iter()
        .filter(|(text, end)| **end == End::Unknown && found.contains_key(*text))
        .count();
    verdict.remarks.push(format!("{unanswered} never answered, of which {there} are there"));
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::story::Story;

    fn annotate(text: &str) -> Op {
        Op::Annotate { text: text.to_owned() }
    }

    fn done(index: u64) -> Answer {
        Answer::Done { index, again: false }
    }

    fn rows(upto: u64, rows: &[(u64, &str)]) -> Answer {
        let rows = rows.iter().map(|(index, text)| (*index, (*text).to_owned())).collect();
        Answer::Remarks { upto, rows }
    }

    const READ: Op = Op::ReadRemarks { from: 0 };

    #[test]
    fn a_whole_set_is_accepted_with_what_was_never_answered() {
        let mut story = Story::default();
        story.did(annotate("a"), done(4));
        story.lost(annotate("b"));
        story.lost(annotate("c"));
        story.refused(annotate("d"));
        story.did(READ, rows(6, &[(4, "a"), (6, "b")]));
        let verdict = check(&story.history);
        assert!(verdict.holds(), "{verdict}");
        assert_eq!(verdict.remarks, ["2 never answered, of which 1 are there"]);
    }

    #[test]
    fn each_way_to_break_a_set_is_refused() {
        for (answer, said) in [
            (rows(9, &[]), "lost: a"),
            (rows(3, &[]), "stale: a"),
            (rows(9, &[(4, "a"), (5, "a")]), "twice: a"),
            (rows(9, &[(5, "a")]), "moved: a was acknowledged at 4, is at 5"),
            (rows(9, &[(4, "a"), (5, "x")]), "never asked for: x"),
            (rows(9, &[(4, "a"), (5, "d")]), "refused, and there: d"),
        ] {
            let mut story = Story::default();
            story.did(annotate("a"), done(4));
            story.refused(annotate("d"));
            story.did(READ, answer);
            let verdict = check(&story.history);
            assert!(verdict.violations[0].starts_with(said), "{said}: {verdict}");
        }
        let mut story = Story::default();
        story.did(annotate("a"), done(4));
        assert!(check(&story.history).to_string().contains("never read: a"));
    }

    #[test]
    fn a_read_that_began_before_the_acknowledgement_may_miss_it() {
        let mut story = Story::default();
        let read = story.begin(READ);
        story.did(annotate("a"), done(4));
        story.end(read, rows(3, &[]));
        story.did(READ, rows(4, &[(4, "a")]));
        let verdict = check(&story.history);
        assert!(verdict.holds(), "{verdict}");
    }
}
