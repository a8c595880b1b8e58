//! Counted response times, as proxies report them and as a canary's plan judges them.
//!
//! Buckets are the same everywhere and whole numbers only, so that the figures of
//! several proxies add up, and a quantile is the same on every member and in a replay.
//! Eight buckets for each doubling: a bound is at most an eighth above what was measured.

use std::collections::BTreeMap;

/// How many buckets there are; the last one holds all that took longer, from 66 minutes on.
pub const BUCKETS: u16 = 240;
/// Buckets for each doubling, as a power of two.
const SUB_BITS: u32 = 3;
const SUB: u16 = 1 << SUB_BITS;

/// The bucket of a response time in microseconds.
pub fn bucket_of(micros: u64) -> u16 {
    let micros = u32::try_from(micros).unwrap_or(u32::MAX);
    let Some(shift) = micros.checked_ilog2().unwrap_or(0).checked_sub(SUB_BITS) else {
        return u16::try_from(micros).unwrap_or(0);
    };
    let doubling = u16::try_from(shift).unwrap_or(0) * SUB;
    // Between SUB and 2 * SUB, by the construction of the shift.
    doubling + u16::try_from(micros >> shift).unwrap_or(0)
}

/// The longest response time in microseconds that a bucket counts; of an unknown bucket
/// that of the last one.
pub fn upper_micros(bucket: u16) -> u64 {
    let bucket = bucket.min(BUCKETS - 1);
    let Some(above) = bucket.checked_sub(SUB) else { return u64::from(bucket) };
    let shift = above / SUB;
    ((u64::from(SUB + above % SUB) + 1) << shift) - 1
}

/// How many requests took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies(BTreeMap<u16, u64>);

impl Latencies {
    /// Counts that were reported; those of an unknown bucket count as the last one's.
    pub fn new(counts: impl IntoIterator<Item = (u16, u64)>) -> Self {
        let mut all = Self::default();
        counts.into_iter().for_each(|(bucket, count)| all.add(bucket, count));
        all
    }

    fn add(&mut self, bucket: u16, count: u64) {
        if count > 0 {
            let sum = self.0.entry(bucket.min(BUCKETS - 1)).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Counts one response time.
    pub fn record(&mut self, micros: u64) {
        self.add(bucket_of(micros), 1);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        other.counts().for_each(|(bucket, count)| self.add(bucket, count));
    }

    /// What was counted since `earlier`, of counters that never go back.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |bucket| earlier.0.get(&bucket).copied().unwrap_or_default();
        Self::new(
            self.counts().map(|(bucket, count)| (bucket, count.saturating_sub(before(bucket)))),
        )
    }

    /// The buckets that hold something, and how much.
    pub fn counts(&self) -> impl Iterator<Item = (u16, u64)> {
        self.0.iter().map(|(bucket, count)| (*bucket, *count))
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The microseconds within which `per_mille` of the requests were answered, as the
    /// bound of a bucket; `None` when nothing was counted.
    pub fn quantile(&self, per_mille: u16) -> Option<u64> {
        let total = u128::from(self.total());
        let rank = (total * u128::from(per_mille.min(1_000))).div_ceil(1_000).max(1);
        let mut seen = 0;
        let reached = self.0.iter().find(|(_, count)| {
            seen += u128::from(**count);
            seen >= rank
        });
        reached.map(|(bucket, _)| upper_micros(*bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket_and_within_an_eighth_of_its_bound() {
        for exponent in 0..32 {
            for micros in [(1_u64 << exponent) - 1, 1 << exponent, (1 << exponent) * 3 / 2] {
                let bucket = bucket_of(micros);
                let upper = upper_micros(bucket);
                assert!(bucket < BUCKETS && upper >= micros, "{micros}: {bucket}, {upper}");
                assert!(upper - micros <= micros / 8, "{micros}: {upper}");
                assert!(bucket == 0 || upper_micros(bucket - 1) < micros, "{micros}: {bucket}");
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(upper_micros(u16::MAX), u64::from(u32::MAX));
    }

    #[test]
    fn quantiles_add_up_over_proxies() {
        let mut one = Latencies::default();
        (0..99).for_each(|_| one.record(1_000));
        let mut other = Latencies::default();
        other.record(500_000);
        assert_eq!(one.quantile(990), Some(upper_micros(bucket_of(1_000))));
        one.merge(&other);
        assert_eq!(one.total(), 100);
        assert_eq!(one.quantile(990), Some(upper_micros(bucket_of(1_000))));
        assert_eq!(one.quantile(991), Some(upper_micros(bucket_of(500_000))));
        assert_eq!(Latencies::default().quantile(500), None);
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let mut counted = Latencies::default();
        counted.record(7);
        let earlier = counted.clone();
        counted.record(7);
        counted.record(90);
        assert_eq!(counted.since(&earlier), Latencies::new([(7, 1), (bucket_of(90), 1)]));
        assert_eq!(earlier.since(&counted), Latencies::default(), "never below nothing");
    }
}
