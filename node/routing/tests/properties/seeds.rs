//! Runs a law over many cases from one seed, which a failure prints.

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

pub(crate) const CASES: u32 = 384;
/// The same on every machine; `SEED=n` tries another.
const SEED: u64 = 20_261_123;

#[expect(clippy::disallowed_methods, reason = "a test may be asked to replay a seed")]
fn seed() -> u64 {
    let given = std::env::var("SEED").ok();
    given.map_or(SEED, |given| given.parse().expect("SEED is a number"))
}

/// Checks that `law` holds for every case that `strategy` makes.
pub(crate) fn holds<S: Strategy>(
    name: &str,
    strategy: S,
    law: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let seed = seed();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    if let Err(failure) = TestRunner::new_with_rng(config, rng).run(&strategy, law) {
        panic!("{name}, SEED={seed}: {failure}");
    }
}
