//! Stepped canaries: what an operator plans, what proxies measured, and the judgement.
//!
//! The judgement is a pure function of whole numbers, made once by the leader that
//! proposes a step and again by every member that applies it: so no step is taken
//! against its plan, and a replay shows why each one was.

use std::fmt;
use std::sync::Arc;

use crate::codec::{Canonical, InvalidBytes, Reader};
use crate::entry::LogIndex;
use crate::latency::{BUCKETS, Latencies, bucket_of};
use crate::snapshot::WEIGHT_SUM;

/// Steps of one plan.
pub const STEPS_MAX: usize = 100;
/// The shortest interval between two steps, in milliseconds: proxies report every second.
pub const INTERVAL_MS_MIN: u64 = 1_000;
/// The longest one: seven days.
pub const INTERVAL_MS_MAX: u64 = 7 * 24 * 3_600 * 1_000;
/// Requests to the target without which a step is not judged, when the plan names no number.
pub const MIN_REQUESTS: u64 = 100;
/// Proxies whose figures one entry holds.
pub const EVIDENCE_PROXIES_MAX: usize = 1_000;

/// How the share of a canary's target grows, and what must not happen meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The target's shares in basis points, rising. The first one is in force at once.
    pub steps: Vec<u16>,
    /// How long each step is measured at least, in milliseconds of leader time.
    pub interval_ms: u64,
    /// The greatest part of the target's requests that may fail, in basis points.
    pub max_error_rate: Option<u16>,
    /// The time in milliseconds within which 99 % of the target's answers must come. It
    /// counts as kept up to the bound of its bucket, an eighth above it.
    pub max_p99_ms: Option<u64>,
    /// Requests to the target without which nothing is judged; `None` is [`MIN_REQUESTS`].
    pub min_requests: Option<u64>,
}

/// What the proxies measured of a canary's target on its route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The entry that started the run, so that a later run is not judged by it.
    pub run: LogIndex,
    /// The step that was in force, counted from 1.
    pub step: u32,
    /// How long it was measured, in milliseconds.
    pub window_ms: u64,
    /// By proxy, at most [`EVIDENCE_PROXIES_MAX`].
    pub proxies: Vec<ProxyFigures>,
}

/// What one proxy measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyFigures {
    pub proxy: Arc<str>,
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    pub latencies: Latencies,
    /// It is connected, and did not report over the whole time.
    pub missing: bool,
}

/// The figures of all proxies together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub requests: u64,
    pub errors: u64,
    /// The bound of the bucket that holds it, in microseconds.
    pub p99_micros: Option<u64>,
    pub proxies: u32,
}

/// What is to become of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet, and why.
    Hold(String),
    /// The next step, once the interval is over.
    Advance,
    /// Back to the weights before the start, and why.
    Abort(String),
}

/// Judges a step by its evidence.
///
/// Too few requests, or a proxy that did not report, hold a step; they never excuse
/// what the others measured.
pub fn judge(plan: &Plan, evidence: &Evidence) -> Verdict {
    let sum = evidence.sum();
    let least = plan.min_requests();
    if sum.requests >= least {
        if let Some(most) = plan.max_error_rate
            && u128::from(sum.errors) * u128::from(WEIGHT_SUM)
                > u128::from(most) * u128::from(sum.requests)
        {
            return Verdict::Abort(format!("{sum}: more than {} may fail", Percent(most.into())));
        }
        if let Some(most) = plan.max_p99_ms
            && let Some(p99) = sum.p99_micros
            && bucket_of(p99) > bucket_of(most.saturating_mul(1_000))
        {
            return Verdict::Abort(format!("{sum}: 99 % must be answered within {most} ms"));
        }
    }
    if let Some(missing) = evidence.proxies.iter().find(|one| one.missing) {
        return Verdict::Hold(format!("proxy {:?} did not report", missing.proxy));
    }
    if sum.requests < least {
        return Verdict::Hold(format!("{} requests of at least {least}", sum.requests));
    }
    Verdict::Advance
}

impl Plan {
    /// Requests without which nothing is judged, at least 1.
    pub fn min_requests(&self) -> u64 {
        self.min_requests.unwrap_or(MIN_REQUESTS).max(1)
    }

    /// How many steps it has.
    pub fn len(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }

    /// Whether it has no step, which no plan in force is without.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The target's share at a step, counted from 1; past the last one the last one's.
    pub fn share(&self, step: u32) -> u16 {
        let position = usize::try_from(step).unwrap_or(usize::MAX).saturating_sub(1);
        self.steps.get(position).or(self.steps.last()).map_or(0, |share| (*share).min(WEIGHT_SUM))
    }

    /// Why it makes no sense, if so.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { steps, interval_ms, max_error_rate, max_p99_ms, min_requests } = self;
        if steps.is_empty() {
            return Err("the plan has no step: give one share at least, such as 1000".into());
        }
        if steps.len() > STEPS_MAX {
            return Err(format!("{} steps are above the limit of {STEPS_MAX}", steps.len()));
        }
        if let Some(step) = steps.iter().find(|step| !(1..=WEIGHT_SUM).contains(*step)) {
            return Err(format!(
                "step {step} is no share: give basis points from 1 to {WEIGHT_SUM}"
            ));
        }
        if let Some([one, next]) = steps.array_windows().find(|[one, next]| one >= next) {
            return Err(format!(
                "step {next} comes after {one}: the steps must rise, such as 500,2500,10000"
            ));
        }
        if !(INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(interval_ms) {
            return Err(format!(
                "an interval of {interval_ms} ms cannot be measured: give one from 1 s to 7 days"
            ));
        }
        if let Some(rate) = max_error_rate.filter(|rate| *rate > WEIGHT_SUM) {
            return Err(format!(
                "an error rate of {rate} basis points is more than all: give at most {WEIGHT_SUM}"
            ));
        }
        if *max_p99_ms == Some(0) {
            return Err("no request is answered within 0 ms: give a time of at least 1 ms".into());
        }
        if *min_requests == Some(0) {
            return Err("without a request nothing can be judged: give a number from 1 on".into());
        }
        Ok(())
    }
}

impl Evidence {
    /// All proxies together.
    pub fn sum(&self) -> Figures {
        let mut latencies = Latencies::default();
        let mut sum = Figures::default();
        for one in &self.proxies {
            sum.requests = sum.requests.saturating_add(one.requests);
            sum.errors = sum.errors.saturating_add(one.errors);
            sum.proxies = sum.proxies.saturating_add(1);
            latencies.merge(&one.latencies);
        }
        sum.p99_micros = latencies.quantile(990);
        sum
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, errors, p99_micros, proxies } = self;
        let rate = u128::from(*errors) * u128::from(WEIGHT_SUM) / u128::from((*requests).max(1));
        let rate = Percent(u64::try_from(rate).unwrap_or(u64::MAX));
        write!(f, "{errors} of {requests} requests failed ({rate})")?;
        if let Some(p99) = p99_micros {
            write!(f, ", 99 % took up to {}.{} ms", p99 / 1_000, p99 % 1_000 / 100)?;
        }
        match proxies {
            1 => write!(f, " on 1 proxy"),
            many => write!(f, " on {many} proxies"),
        }
    }
}

/// Basis points as a percentage.
struct Percent(u64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole} %"),
            (whole, part) => write!(f, "{whole}.{part:02} %"),
        }
    }
}

impl Canonical for Latencies {
    fn write(&self, out: &mut Vec<u8>) {
        self.counts().collect::<Vec<_>>().write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let counts: Vec<(u16, u64)> = from.read()?;
        let is_sorted = counts.is_sorted_by(|one, next| one.0 < next.0);
        if !is_sorted || counts.iter().any(|(bucket, count)| *bucket >= BUCKETS || *count == 0) {
            return Err(from.invalid("latencies", "do not ascend, or count nothing"));
        }
        Ok(Self::new(counts))
    }
}

crate::codec::fields! {
    Plan { steps interval_ms max_error_rate max_p99_ms min_requests }
    Evidence { run step window_ms proxies }
    ProxyFigures { proxy requests errors latencies missing }
    Figures { requests errors p99_micros proxies }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(requests: u64, errors: u64, micros: u64) -> ProxyFigures {
        ProxyFigures {
            proxy: "edge-1".into(),
            requests,
            errors,
            latencies: Latencies::new([(bucket_of(micros), requests)]),
            missing: false,
        }
    }

    fn judged(plan: &Plan, proxies: Vec<ProxyFigures>) -> Verdict {
        judge(plan, &Evidence { proxies, ..Evidence::default() })
    }

    fn plan() -> Plan {
        Plan {
            steps: vec![500, 10_000],
            interval_ms: 1_000,
            max_error_rate: Some(100),
            max_p99_ms: Some(250),
            min_requests: None,
        }
    }

    #[test]
    fn a_step_is_judged_by_all_proxies_together() {
        let (calm, angry) = (measured(900, 0, 3_000), measured(100, 11, 3_000));
        assert_eq!(judged(&plan(), vec![calm.clone()]), Verdict::Advance);
        let ten = ProxyFigures { errors: 10, ..angry.clone() };
        assert_eq!(judged(&plan(), vec![calm.clone(), ten]), Verdict::Advance, "1 % may fail");
        let reason = "11 of 1000 requests failed (1.10 %), 99 % took up to 3.0 ms on 2 proxies: \
                      more than 1 % may fail";
        assert_eq!(judged(&plan(), vec![calm, angry]), Verdict::Abort(reason.into()));
    }

    #[test]
    fn slowness_aborts_from_the_next_bucket_on() {
        assert_eq!(judged(&plan(), vec![measured(100, 0, 250_000)]), Verdict::Advance);
        let Verdict::Abort(reason) = judged(&plan(), vec![measured(100, 0, 290_000)]) else {
            panic!("it is slow");
        };
        assert!(reason.ends_with("99 % must be answered within 250 ms"), "{reason}");
        let unlimited = Plan { max_p99_ms: None, ..plan() };
        assert_eq!(judged(&unlimited, vec![measured(100, 0, 290_000)]), Verdict::Advance);
    }

    #[test]
    fn few_requests_hold_and_silence_holds_but_excuses_nothing() {
        let few = Verdict::Hold("99 requests of at least 100".into());
        assert_eq!(judged(&plan(), vec![measured(99, 99, 3_000)]), few);
        let none = Verdict::Hold("0 requests of at least 100".into());
        assert_eq!(judged(&plan(), Vec::new()), none);
        let silent =
            ProxyFigures { proxy: "edge-2".into(), missing: true, ..ProxyFigures::default() };
        let held = Verdict::Hold("proxy \"edge-2\" did not report".into());
        assert_eq!(judged(&plan(), vec![measured(500, 0, 3_000), silent.clone()]), held);
        let verdict = judged(&plan(), vec![measured(500, 50, 3_000), silent]);
        assert!(matches!(verdict, Verdict::Abort(_)), "{verdict:?}");
    }

    #[test]
    fn no_figure_overflows() {
        let huge = ProxyFigures {
            requests: u64::MAX,
            errors: u64::MAX,
            latencies: Latencies::new([(u16::MAX, u64::MAX)]),
            ..ProxyFigures::default()
        };
        let verdict = judged(&plan(), vec![huge.clone(), huge]);
        assert!(matches!(verdict, Verdict::Abort(_)), "{verdict:?}");
    }

    #[test]
    fn a_plan_that_makes_no_sense_is_named() {
        let given = |steps: &[u16]| Plan { steps: steps.to_vec(), ..plan() };
        for (plan, reason) in [
            (given(&[]), "the plan has no step"),
            (given(&[0]), "step 0 is no share"),
            (given(&[10_001]), "step 10001 is no share"),
            (given(&[500, 500]), "step 500 comes after 500: the steps must rise"),
            (given(&[500, 400, 600]), "step 400 comes after 500: the steps must rise"),
            (given(&(1..=101).collect::<Vec<_>>()), "101 steps are above the limit of 100"),
            (Plan { interval_ms: 999, ..plan() }, "an interval of 999 ms"),
            (Plan { interval_ms: u64::MAX, ..plan() }, "an interval of 18446744073709551615 ms"),
            (Plan { max_error_rate: Some(10_001), ..plan() }, "an error rate of 10001"),
            (Plan { max_p99_ms: Some(0), ..plan() }, "no request is answered within 0 ms"),
            (Plan { min_requests: Some(0), ..plan() }, "without a request nothing"),
        ] {
            let found = plan.check().expect_err(reason);
            assert!(found.starts_with(reason), "{found}");
        }
        assert_eq!(plan().check(), Ok(()));
        assert_eq!([1, 2, 3].map(|step| plan().share(step)), [500, 10_000, 10_000]);
    }
}
