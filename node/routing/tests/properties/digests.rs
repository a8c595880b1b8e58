//! Laws of the state's digest: brought up to date or made anew, it is the same.

use dovetail_routing::LogIndex;
use dovetail_routing::state::{Digester, State};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::logs::{LOG_MAX, log};
use crate::seeds::holds;
use crate::{applied, resumed};

#[test]
fn a_digest_that_follows_the_log_is_the_one_made_anew() {
    let stops = (log(LOG_MAX), vec(any::<bool>(), LOG_MAX));
    holds("digest by changes", stops, |(log, stops)| {
        let (mut state, mut digester) = (State::default(), Digester::default());
        for (entry, stop) in log.iter().zip(stops) {
            let index = LogIndex(state.applied_index().0 + 1);
            state.apply(index, entry);
            if stop {
                prop_assert_eq!(digester.digest(&state), state.digest());
            }
        }
        prop_assert_eq!(digester.digest(&state), state.digest());
        // Back to any other state, as after a raft snapshot.
        prop_assert_eq!(digester.digest(&State::default()), State::default().digest());
        prop_assert_eq!(digester.digest(&state), state.digest());
        Ok(())
    });
}

#[test]
fn states_with_other_bytes_have_other_digests() {
    let two = (log(LOG_MAX), log(LOG_MAX));
    holds("digests tell states apart", two, |(log, other)| {
        let (state, other) = (applied(&log), applied(&other));
        let same_bytes = state.encode() == other.encode();
        prop_assert_eq!(state.digest() == other.digest(), same_bytes);
        Ok(())
    });
}

#[test]
fn a_restored_state_has_the_digest_of_the_one_that_was_kept() {
    let cut_log = log(LOG_MAX).prop_flat_map(|log| (0..=log.len(), Just(log)));
    holds("digest after a restore", cut_log, |(cut, log)| {
        let kept = applied(&log);
        let restored = State::decode(&applied(&log[..cut]).encode())
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut digester = Digester::default();
        digester.digest(&restored);
        prop_assert_eq!(digester.digest(&resumed(restored, &log[cut..])), kept.digest());
        Ok(())
    });
}
