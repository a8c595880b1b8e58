//! Histories that must be refused; `tests/cross_check` has another checker judge, too.

use super::*;
use crate::history::{Event, What};

fn timed(call: Call, begun: usize, ended: usize) -> Timed {
    Timed { call, begun, ended: Some(ended) }
}

fn lost(call: Call, begun: usize) -> Timed {
    Timed { call, begun, ended: None }
}

fn is_linearizable(calls: &[Timed]) -> bool {
    match search(calls, REMEMBERED_MAX) {
        Found::Linearizable => true,
        Found::Not { .. } => false,
        Found::Undecided => panic!("undecided: {calls:?}"),
    }
}

#[test]
fn a_stale_read_is_refused() {
    let stale = [
        timed(Call::Write(1), 0, 1),
        timed(Call::Swapped { from: 1, to: 2 }, 2, 3),
        timed(Call::Read(Some(1)), 4, 5),
    ];
    let Found::Not { explained, value, against } = search(&stale, REMEMBERED_MAX) else {
        panic!("accepted");
    };
    assert_eq!((explained, value, against), (2, Some(2), vec![stale[2]]));
    // Had it begun before the swap was answered, it would be fine.
    assert!(is_linearizable(&[stale[0], stale[1], timed(Call::Read(Some(1)), 2, 5)]));
}

#[test]
fn of_two_swaps_of_one_value_one_is_refused() {
    let to = |to| Call::Swapped { from: 1, to };
    let both = [timed(Call::Write(1), 0, 1), timed(to(2), 2, 4), timed(to(3), 3, 5)];
    assert!(!is_linearizable(&both));
    let other = timed(Call::NotSwapped { from: 1 }, 3, 5);
    assert!(is_linearizable(&[both[0], both[1], other]));
    let nobody = [both[0], timed(Call::NotSwapped { from: 1 }, 2, 3)];
    assert!(!is_linearizable(&nobody), "it was 1, and nobody changed it");
}

#[test]
fn what_was_never_answered_may_take_effect_at_any_time_or_never() {
    let unknown = lost(Call::Write(7), 0);
    let read = |value, at| timed(Call::Read(value), at, at + 1);
    assert!(is_linearizable(&[unknown, read(None, 1), read(None, 3)]), "never");
    assert!(is_linearizable(&[unknown, read(None, 1), read(Some(7), 3)]), "late");
    assert!(!is_linearizable(&[unknown, read(Some(7), 1), read(None, 3)]), "and undone");
    assert!(!is_linearizable(&[read(Some(7), 0), lost(Call::Write(7), 2)]), "before it began");
}

#[test]
fn too_many_places_are_undecided_and_never_a_pass() {
    let writes = (0..12).map(|n| timed(Call::Write(n), 0, 100));
    let calls: Vec<_> = writes.chain([timed(Call::Read(Some(99)), 101, 102)]).collect();
    assert_eq!(search(&calls, 1_000), Found::Undecided);
    assert!(matches!(search(&calls, REMEMBERED_MAX), Found::Not { .. }));
}

#[test]
fn registers_are_judged_each_by_itself() {
    let op = |id, key: &str, op: fn(String) -> Op| What::Invoke {
        id,
        client: "one".into(),
        request_id: String::new(),
        op: op(key.into()),
    };
    let write = |key| Op::Write { key, value: 1 };
    let what = vec![
        op(1, "a", write),
        What::Ok { id: 1, answer: Answer::Done { index: 4, again: false } },
        op(2, "b", |key| Op::Read { key }),
        What::Ok { id: 2, answer: Answer::Value { value: None } },
        op(3, "a", |key| Op::Cas { key, from: 5, to: 6 }),
        What::Ok { id: 3, answer: Answer::Mismatch },
        op(4, "a", |key| Op::Cas { key, from: 1, to: 6 }),
        What::Fail { id: 4, why: "refused".into() },
        op(5, "a", |key| Op::Read { key }),
        What::Ok { id: 5, answer: Answer::Value { value: Some(1) } },
    ];
    let events = |what: &[What]| {
        let events = what.iter().cloned().enumerate();
        let events = events.map(|(at, what)| Event { at: at as u64, what }).collect();
        History { events }
    };
    let verdict = check(&events(&what));
    assert!(verdict.holds() && verdict.examined == 4, "{verdict}");
    let mut bad = what;
    bad[9] = What::Ok { id: 5, answer: Answer::Value { value: Some(6) } };
    let verdict = check(&events(&bad));
    assert!(verdict.to_string().contains("register a: of 3 calls 2"), "{verdict}");
}

#[test]
fn a_long_history_is_judged_fast() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut calls = Vec::new();
    let mut value = None;
    for time in (0..4_000).step_by(4) {
        // Each overlaps its neighbours, and one of a hundred is never answered.
        let to = random.u64(1..=50);
        let call = match (random.bool(), value) {
            (true, Some(from)) => Call::Swapped { from, to },
            (false, _) if time % 3 > 0 => Call::Read(value),
            _ => Call::Write(to),
        };
        value = call.step(value).unwrap();
        let ended = (random.u8(..100) > 0).then_some(time + 6);
        calls.push(Timed { call, begun: time, ended });
    }
    let began = std::time::Instant::now();
    assert!(is_linearizable(&calls));
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}
