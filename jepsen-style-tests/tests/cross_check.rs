//! Our checker of registers beside another's: stateright's, which tries every order of a
//! small history. Both must say the same of each.

use std::collections::BTreeSet;

use dovetail_jepsen::checks::linearizable::{Call, Found, Timed, search};
use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester, SequentialSpec};

const HISTORIES: u64 = 6_000;
const CLIENTS: usize = 4;
/// Beginnings and ends of one history.
const EVENTS_MAX: usize = 20;

/// What stateright is told that a register is.
#[derive(Clone, Debug)]
struct Register(Option<u64>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Read,
    Write(u64),
    Swap { from: u64, to: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    Value(Option<u64>),
    Done,
    Swapped(bool),
}

impl SequentialSpec for Register {
    type Op = Asked;
    type Ret = Answered;

    fn invoke(&mut self, asked: &Asked) -> Answered {
        match *asked {
            Asked::Read => Answered::Value(self.0),
            Asked::Write(value) => {
                self.0 = Some(value);
                Answered::Done
            }
            Asked::Swap { from, to } => {
                let swapped = self.0 == Some(from);
                if swapped {
                    self.0 = Some(to);
                }
                Answered::Swapped(swapped)
            }
        }
    }
}

/// The same call in the words of our checker; `None` of a read without an answer.
fn call(asked: Asked, answered: Option<Answered>) -> Option<Call> {
    match (asked, answered) {
        (Asked::Read, Some(Answered::Value(value))) => Some(Call::Read(value)),
        (Asked::Write(value), _) => Some(Call::Write(value)),
        (Asked::Swap { from, .. }, Some(Answered::Swapped(false))) => {
            Some(Call::NotSwapped { from })
        }
        (Asked::Swap { from, to }, _) => Some(Call::Swapped { from, to }),
        (Asked::Read, _) => None,
    }
}

/// What a client waits for.
#[derive(Clone, Copy, Debug)]
struct Open {
    asked: Asked,
    begun: usize,
    /// What the register said; a client may also wait before that.
    answer: Option<Answered>,
}

fn any_call(random: &mut fastrand::Rng) -> Asked {
    let (one, other) = (random.u64(1..4), random.u64(1..4));
    match random.u8(..5) {
        0 | 1 => Asked::Read,
        2 => Asked::Write(one),
        _ => Asked::Swap { from: one, to: other },
    }
}

/// Another answer than the register's.
fn lie(answer: Answered, random: &mut fastrand::Rng) -> Answered {
    match answer {
        Answered::Value(_) => Answered::Value(Some(random.u64(1..4))),
        Answered::Swapped(swapped) => Answered::Swapped(!swapped),
        Answered::Done => Answered::Done,
    }
}

/// A random history of a register that lies now and then, judged by both.
fn judged(seed: u64) -> (bool, bool, Vec<Timed>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let lies = random.u8(..4);
    let mut register = Register(None);
    let mut other = LinearizabilityTester::new(Register(None));
    let mut clients: [Option<Open>; CLIENTS] = [None; CLIENTS];
    // Whoever never gets an answer asks no more.
    let mut given_up = BTreeSet::new();
    let (mut calls, mut time) = (Vec::new(), 0);
    while time < EVENTS_MAX {
        let client = random.usize(..CLIENTS);
        if given_up.contains(&client) {
            continue;
        }
        match &mut clients[client] {
            waiting @ None => {
                let asked = any_call(&mut random);
                other.on_invoke(client, asked).expect("it waits for nothing");
                *waiting = Some(Open { asked, begun: time, answer: None });
                time += 1;
            }
            Some(Open { asked, answer: answer @ None, .. }) => {
                *answer = Some(register.invoke(asked));
                if random.u8(..12) == 0 {
                    given_up.insert(client);
                }
            }
            waiting @ Some(_) => {
                let Some(Open { asked, begun, answer: Some(answer) }) = waiting.take() else {
                    unreachable!("it has an answer");
                };
                let is_lie = lies > 0 && random.u8(..6) < lies;
                let answer = if is_lie { lie(answer, &mut random) } else { answer };
                other.on_return(client, answer).expect("it waits for this");
                let call = call(asked, Some(answer)).expect("it was answered");
                calls.push(Timed { call, begun, ended: Some(time) });
                time += 1;
            }
        }
        if given_up.len() == CLIENTS {
            break;
        }
    }
    for Open { asked, begun, .. } in clients.into_iter().flatten() {
        // What it would have been told is not known to it.
        calls.extend(call(asked, None).map(|call| Timed { call, begun, ended: None }));
    }
    let ours = match search(&calls, 1_000_000) {
        Found::Linearizable => true,
        Found::Not { .. } => false,
        Found::Undecided => panic!("seed {seed}: undecided"),
    };
    (ours, other.is_consistent(), calls)
}

#[test]
fn both_checkers_say_the_same_of_small_histories() {
    let mut refused = 0;
    for seed in 0..HISTORIES {
        let (ours, theirs, calls) = judged(seed);
        let told: Vec<_> = calls.iter().map(Timed::to_string).collect();
        assert_eq!(ours, theirs, "seed {seed}: {told:#?}");
        refused += u64::from(!ours);
    }
    println!("{refused} of {HISTORIES} histories are not linearizable");
    assert!(refused > HISTORIES / 20 && refused < HISTORIES * 19 / 20, "{refused} were refused");
}
