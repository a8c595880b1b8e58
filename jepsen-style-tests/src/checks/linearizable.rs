//! Registers are linearizable: each read, write and compare-and-set takes effect at one
//! moment between its beginning and its end.
//!
//! In the manner of Wing and Gong with Lowe's memory of what was tried, one register at a
//! time, since a history is linearizable exactly if each register's part of it is.
//! What was never answered stays open to the end, and need not have happened at all.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use super::Verdict;
use crate::history::{Answer, End, History, Op};

/// Places in the search that are remembered for one register: 100 MB or so.
const REMEMBERED_MAX: usize = 1_000_000;

/// What is done to a register, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// It was answered so.
    Read(Option<u64>),
    Write(u64),
    /// Known to have taken effect.
    Swapped {
        from: u64,
        to: u64,
    },
    /// Known to have found something else than `from`.
    NotSwapped {
        from: u64,
    },
}

/// A call with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed {
    pub call: Call,
    pub begun: usize,
    /// `None` when it was never answered: it may take effect at any time after `begun`.
    pub ended: Option<usize>,
}

/// What the search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Linearizable,
    /// No order explains it: so many calls were explained at best, and then this value
    /// stood against these.
    Not {
        explained: usize,
        value: Option<u64>,
        against: Vec<Timed>,
    },
    /// More places than can be remembered.
    Undecided,
}

impl Call {
    /// The value after it, if it can happen now as it did.
    fn step(self, value: Option<u64>) -> Option<Option<u64>> {
        match self {
            Self::Read(read) => (read == value).then_some(value),
            Self::Write(to) => Some(Some(to)),
            Self::Swapped { from, to } => (value == Some(from)).then_some(Some(to)),
            Self::NotSwapped { from } => (value != Some(from)).then_some(value),
        }
    }
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.call {
            Call::Read(Some(value)) => write!(f, "read {value}"),
            Call::Read(None) => write!(f, "read nothing"),
            Call::Write(value) => write!(f, "write {value}"),
            Call::Swapped { from, to } => write!(f, "swap {from} for {to}"),
            Call::NotSwapped { from } => write!(f, "not swap, it is not {from}"),
        }?;
        let ended = self.ended.map_or_else(|| "never".to_owned(), |ended| ended.to_string());
        write!(f, " (begun at line {}, answered {ended})", self.begun + 1)
    }
}

/// Checks every register of a history.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::of("linearizable registers");
    for (key, calls) in registers(history) {
        verdict.examined += calls.len();
        match search(&calls, REMEMBERED_MAX) {
            Found::Linearizable => {}
            Found::Undecided => verdict.violated(format!(
                "register {key}: undecided, {} calls need more than {REMEMBERED_MAX} places",
                calls.len()
            )),
            Found::Not { explained, value, against } => {
                let against: Vec<_> = against.iter().map(Timed::to_string).collect();
                verdict.violated(format!(
                    "register {key}: of {} calls {explained} can be explained at most; then it is \
                     {value:?}, against {}",
                    calls.len(),
                    against.join("; ")
                ));
            }
        }
    }
    verdict
}

/// The calls of each register.
fn registers(history: &History) -> BTreeMap<&str, Vec<Timed>> {
    let mut registers: BTreeMap<&str, Vec<Timed>> = BTreeMap::new();
    for operation in history.operations() {
        let (key, unanswered) = match operation.op {
            // Without an answer it says nothing, and does nothing.
            Op::Read { key } => (key, None),
            Op::Write { key, value } => (key, Some(Call::Write(*value))),
            Op::Cas { key, from, to } => (key, Some(Call::Swapped { from: *from, to: *to })),
            Op::Annotate { .. } | Op::ReadRemarks { .. } | Op::ReadSteps { .. } => continue,
        };
        let (call, ended) = match (operation.end, operation.op) {
            (End::Fail, _) => continue,
            (End::Unknown, _) => (unanswered, None),
            (End::Ok(at, Answer::Value { value }), _) => (Some(Call::Read(*value)), Some(at)),
            (End::Ok(at, Answer::Mismatch), Op::Cas { from, .. }) => {
                (Some(Call::NotSwapped { from: *from }), Some(at))
            }
            (End::Ok(at, _), _) => (unanswered, Some(at)),
        };
        if let Some(call) = call {
            let timed = Timed { call, begun: operation.begun, ended };
            registers.entry(key).or_default().push(timed);
        }
    }
    registers
}

/// A beginning or an end in the list of what is not yet explained.
#[derive(Clone, Copy, Debug)]
struct Entry {
    call: usize,
    is_end: bool,
    /// Places in the list; 0 is its head.
    previous: usize,
    next: usize,
}

/// Looks for an order that explains all answered calls.
pub fn search(calls: &[Timed], remembered_max: usize) -> Found {
    let mut list = List::of(calls);
    let mut open = calls.iter().filter(|call| call.ended.is_some()).count();
    let mut done = vec![0_u64; calls.len().div_ceil(64)];
    let mut tried: HashSet<(Vec<u64>, Option<u64>)> = HashSet::new();
    let mut path: Vec<(usize, Option<u64>)> = Vec::new();
    let mut value = None;
    let mut best: Option<(usize, Option<u64>, Vec<Timed>)> = None;
    let mut at = list.first();
    while open > 0 {
        let entry = list.entry(at);
        let call = calls.get(entry.call).copied();
        if at != 0 && !entry.is_end {
            if let Some(after) = call.and_then(|call| call.call.step(value)) {
                set(&mut done, entry.call, true);
                if tried.insert((done.clone(), after)) {
                    if tried.len() > remembered_max {
                        return Found::Undecided;
                    }
                    path.push((at, value));
                    value = after;
                    open -= usize::from(call.is_some_and(|call| call.ended.is_some()));
                    list.lift(at);
                    at = list.first();
                    continue;
                }
                set(&mut done, entry.call, false);
            }
            at = entry.next;
            continue;
        }
        // An answer that nothing before it explains: some call before must go elsewhere.
        if best.as_ref().is_none_or(|(explained, ..)| path.len() > *explained) {
            best = Some((path.len(), value, list.begun_before_first_end(calls)));
        }
        let Some((last, before)) = path.pop() else {
            let (explained, value, against) = best.unwrap_or_default();
            return Found::Not { explained, value, against };
        };
        list.unlift(last);
        let undone = list.entry(last);
        set(&mut done, undone.call, false);
        open += usize::from(calls.get(undone.call).is_some_and(|call| call.ended.is_some()));
        value = before;
        at = undone.next;
    }
    Found::Linearizable
}

fn set(bits: &mut [u64], position: usize, to: bool) {
    if let Some(word) = bits.get_mut(position / 64) {
        let bit = 1 << (position % 64);
        *word = if to { *word | bit } else { *word & !bit };
    }
}

/// Beginnings and ends by time, out of which calls are lifted and put back.
struct List {
    entries: Vec<Entry>,
    /// By call: the places of its beginning and its end.
    places: Vec<(usize, Option<usize>)>,
}

impl List {
    fn of(calls: &[Timed]) -> Self {
        let mut times: Vec<(usize, bool, usize)> = Vec::new();
        for (number, call) in calls.iter().enumerate() {
            times.push((call.begun, false, number));
            times.extend(call.ended.map(|ended| (ended, true, number)));
        }
        times.sort_unstable();
        let mut entries = vec![Entry { call: usize::MAX, is_end: true, previous: 0, next: 0 }];
        let mut places = vec![(0, None); calls.len()];
        for (_, is_end, call) in times {
            let place = entries.len();
            entries.push(Entry { call, is_end, previous: place - 1, next: 0 });
            if let Some(before) = entries.get_mut(place - 1) {
                before.next = place;
            }
            if let Some(of) = places.get_mut(call) {
                if is_end { of.1 = Some(place) } else { of.0 = place }
            }
        }
        Self { entries, places }
    }

    fn entry(&self, at: usize) -> Entry {
        let end = Entry { call: usize::MAX, is_end: true, previous: 0, next: 0 };
        self.entries.get(at).copied().unwrap_or(end)
    }

    /// The head's successor; 0 when the list is empty.
    fn first(&self) -> usize {
        self.entry(0).next
    }

    fn link(&mut self, before: usize, after: usize) {
        if let Some(entry) = self.entries.get_mut(before) {
            entry.next = after;
        }
        // The head is nobody's successor: 0 stands for the end of the list.
        if after != 0
            && let Some(entry) = self.entries.get_mut(after)
        {
            entry.previous = before;
        }
    }

    fn places_of(&self, at: usize) -> (usize, Option<usize>) {
        self.places.get(self.entry(at).call).copied().unwrap_or((at, None))
    }

    /// Takes a call out, its beginning first.
    fn lift(&mut self, at: usize) {
        let (begun, ended) = self.places_of(at);
        for place in [Some(begun), ended].into_iter().flatten() {
            let entry = self.entry(place);
            self.link(entry.previous, entry.next);
        }
    }

    /// Puts back what was lifted last, its end first.
    fn unlift(&mut self, at: usize) {
        let (begun, ended) = self.places_of(at);
        for place in [ended, Some(begun)].into_iter().flatten() {
            let entry = self.entry(place);
            self.link(entry.previous, place);
            self.link(place, entry.next);
        }
    }

    /// The calls of which one would have to come next.
    fn begun_before_first_end(&self, calls: &[Timed]) -> Vec<Timed> {
        let mut begun = Vec::new();
        let mut at = self.first();
        while at != 0 && !self.entry(at).is_end {
            begun.extend(calls.get(self.entry(at).call));
            at = self.entry(at).next;
        }
        begun
    }
}

#[cfg(test)]
mod tests;
