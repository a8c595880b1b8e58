//! The laws of the cadence, on made-up instants.

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A cadence whose first whole look just succeeded in no time.
fn calm() -> (Cadence, Instant) {
    let now = Instant::now();
    let mut cadence = Cadence::new(WatchConfig::usual(None), now);
    cadence.subscribed(true, now);
    cadence.begin(now);
    cadence.succeeded(Depth::Resync, false, true, now, now);
    (cadence, now)
}

#[test]
fn the_first_look_is_whole_and_at_once() {
    let now = Instant::now();
    let mut cadence = Cadence::new(WatchConfig::usual(None), now);
    assert!(cadence.next() <= now + ms(20));
    assert_eq!(cadence.begin(now + ms(20)), Depth::Resync);
}

#[test]
fn calm_tasks_are_listed_each_second_and_services_every_five() {
    let (mut cadence, now) = calm();
    let mut depths = Vec::new();
    let mut at = now;
    for _ in 0..5 {
        at = cadence.next();
        let depth = cadence.begin(at);
        depths.push(depth);
        cadence.succeeded(depth, false, false, at, at);
    }
    assert_eq!(at, now + ms(5_000));
    assert_eq!(depths[..4], [Depth::Tasks; 4]);
    assert_eq!(depths[4], Depth::Look);
}

#[test]
fn a_hint_is_followed_by_a_look_and_then_by_fast_listing() {
    let (mut cadence, now) = calm();
    let hinted = now + ms(100);
    cadence.hint(Depth::Look, hinted);
    cadence.hint(Depth::Look, hinted + ms(10));
    assert_eq!(cadence.next(), hinted + ms(20));
    assert_eq!(cadence.begin(hinted + ms(20)), Depth::Look);
    let looked = hinted + ms(25);
    cadence.succeeded(Depth::Look, false, true, hinted + ms(20), looked);
    assert_eq!(cadence.next(), looked + ms(250));
    let next = cadence.next();
    assert_eq!(cadence.begin(next), Depth::Tasks);
}

#[test]
fn a_hint_is_not_lost_to_a_round_that_is_due_anyway() {
    let (mut cadence, now) = calm();
    let due = cadence.next();
    assert_eq!(due, now + ms(1_000));
    cadence.hint(Depth::Look, due - ms(1));
    assert_eq!(cadence.begin(due), Depth::Look);
}

#[test]
fn a_converging_service_is_listed_fast_until_it_is_stuck() {
    let (mut cadence, now) = calm();
    cadence.succeeded(Depth::Tasks, true, true, now, now);
    assert_eq!(cadence.next(), now + ms(250));
    let later = now + ms(61_000);
    cadence.succeeded(Depth::Resync, true, false, later, later);
    assert_eq!(cadence.next(), later + ms(1_000));
}

#[test]
fn after_failures_the_pause_grows_and_the_next_look_is_whole() {
    let (mut cadence, now) = calm();
    let mut pauses = Vec::new();
    for _ in 0..7 {
        cadence.begin(now);
        cadence.failed(now);
        pauses.push(cadence.next() - now);
    }
    assert_eq!(pauses[..3], [ms(100), ms(200), ms(400)]);
    assert_eq!(pauses[6], ms(2_000));
    assert_eq!(cadence.begin(now), Depth::Resync);
    // A new subscription shows that the engine is back.
    cadence.subscribed(true, now);
    assert!(cadence.next() <= now + ms(20));
}

#[test]
fn without_an_event_stream_services_are_listed_each_second() {
    let (mut cadence, now) = calm();
    cadence.subscribed(false, now);
    assert_eq!(cadence.begin(now + ms(1_000)), Depth::Look);
}

#[test]
fn an_inactive_watcher_looks_rarely_whatever_the_hints() {
    let (mut cadence, now) = calm();
    cadence.set_active(false, now);
    cadence.hint(Depth::Look, now + ms(10));
    assert_eq!(cadence.next(), now + ms(5_000));
    cadence.set_active(true, now + ms(100));
    let next = cadence.next();
    assert_eq!(cadence.begin(next), Depth::Resync);
}

#[test]
fn a_poll_interval_only_shortens() {
    let long = WatchConfig::usual(Some(Duration::from_secs(60)));
    assert_eq!((long.calm, long.look), (ms(1_000), ms(5_000)));
    let short = WatchConfig::usual(Some(ms(500)));
    assert_eq!((short.calm, short.converging, short.look), (ms(500), ms(250), ms(500)));
    assert_eq!(WatchConfig::usual(Some(Duration::ZERO)).calm, ms(100));
}

#[test]
fn slow_engines_are_not_asked_without_pause() {
    let (mut cadence, now) = calm();
    let end = now + ms(3_000);
    cadence.succeeded(Depth::Look, true, true, now, end);
    cadence.hint(Depth::Look, end);
    assert_eq!(cadence.next(), end + ms(3_000));
}
