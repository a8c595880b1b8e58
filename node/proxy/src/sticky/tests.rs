//! Figures for stickiness: who moves when tasks come and go, and how even it is.

use super::*;
use crate::balance::Tried;
use crate::table::tests::{entry_of, route};
use dovetail_routing::snapshot::{Dial, Route, UpstreamState};
use http::HeaderValue;
use proptest::prelude::*;

const USERS: u64 = 10_000;

fn users() -> impl Iterator<Item = u64> {
    (0..USERS).map(|user| number(format!("session-{user}").as_bytes()))
}

/// A route of services: their shares, and the names of their tasks.
fn route_of(services: &[(u16, &[u32])]) -> Route {
    let states: Vec<String> = services.iter().map(|(_, tasks)| "a".repeat(tasks.len())).collect();
    let shape: Vec<(u16, &str)> =
        services.iter().zip(&states).map(|((share, _), states)| (*share, &**states)).collect();
    let mut route = route("shop.example", &shape);
    for (service, (_, tasks)) in route.services.iter_mut().zip(services) {
        for (upstream, task) in service.upstreams.iter_mut().zip(*tasks) {
            upstream.task = Some(format!("task-{task}").as_str().into());
        }
    }
    route
}

fn entry(services: &[(u16, &[u32])]) -> RouteEntry {
    entry_of(&route_of(services))
}

/// The task that each user gets.
fn tasks(entry: &RouteEntry) -> Vec<String> {
    users().map(|user| task(entry, user)).collect()
}

fn task(entry: &RouteEntry, user: u64) -> String {
    let position = entry.pick(0, Some(user), &Tried::default(), 1).expect("an upstream");
    entry.candidates[position].upstream.task.as_ref().expect("a task").to_string()
}

fn count(tasks: &[String], of: u32) -> u64 {
    tasks.iter().filter(|task| **task == format!("task-{of}")).count() as u64
}

fn moved(before: &[String], after: &[String]) -> Vec<(String, String)> {
    let pairs = before.iter().cloned().zip(after.iter().cloned());
    pairs.filter(|(before, after)| before != after).collect()
}

#[test]
fn the_numbers_are_the_same_for_ever() {
    // Written down once: a proxy of another release, or on another machine, must agree.
    let entry = entry(&[(5_000, &[1, 2, 3]), (5_000, &[4, 5])]);
    let tasks: Vec<_> = users().take(12).map(|user| task(&entry, user)).collect();
    assert_eq!(tasks.join(" ").replace("task-", ""), "4 5 5 2 5 1 4 4 2 2 4 3");
    // The core says the same of the route.
    let route = &entry.route;
    let kept = users().take(12).map(|user| route.kept(user).expect("one").1.task.clone());
    assert_eq!(kept.map(|task| task.expect("a task").to_string()).collect::<Vec<_>>(), tasks);
}

#[test]
fn users_are_spread_evenly_over_the_tasks() {
    let tasks = tasks(&entry(&[(10_000, &[1, 2, 3, 4, 5])]));
    for task in 1..=5 {
        let users = count(&tasks, task);
        assert!(users.abs_diff(USERS / 5) < 200, "task {task} has {users}");
    }
}

#[test]
fn only_the_users_of_a_gone_task_move() {
    let before = tasks(&entry(&[(10_000, &[1, 2, 3, 4, 5])]));
    let after = tasks(&entry(&[(10_000, &[1, 2, 4, 5])]));
    let moved = moved(&before, &after);
    assert_eq!(moved.len() as u64, count(&before, 3));
    assert!(moved.iter().all(|(from, _)| from == "task-3"));
    // And evenly: nobody gets them all.
    for task in [1, 2, 4, 5] {
        let more = count(&after, task) - count(&before, task);
        assert!(more.abs_diff(USERS / 20) < 120, "task {task} got {more}");
    }
}

#[test]
fn a_new_task_takes_its_part_and_nobody_else_moves() {
    let before = tasks(&entry(&[(10_000, &[1, 2, 3, 4])]));
    let after = tasks(&entry(&[(10_000, &[1, 2, 3, 4, 9])]));
    let moved = moved(&before, &after);
    assert!(moved.iter().all(|(_, to)| to == "task-9"));
    assert!((moved.len() as u64).abs_diff(USERS / 5) < 200, "{} moved", moved.len());
}

#[test]
fn sides_get_users_by_their_shares_and_change_them_only_as_far_as_those_change() {
    let shares = |stable: u16| entry(&[(stable, &[1, 2]), (10_000 - stable, &[3])]);
    let mut before = tasks(&shares(10_000));
    assert_eq!(count(&before, 3), 0, "no share, no users");
    for canary in [1_000, 2_500, 5_000, 9_000] {
        let after = tasks(&shares(10_000 - canary));
        let expected = USERS * u64::from(canary) / 10_000;
        let users = count(&after, 3);
        assert!(users.abs_diff(expected) < 200, "{users} of {expected}");
        // Towards the canary only: whoever saw it once, keeps it.
        assert!(moved(&before, &after).iter().all(|(_, to)| to == "task-3"));
        before = after;
    }
    // Scaling a side with a fixed share moves nobody to the other side.
    let one = tasks(&entry(&[(5_000, &[1, 2]), (5_000, &[3])]));
    let scaled = tasks(&entry(&[(5_000, &[1, 2, 4, 5]), (5_000, &[3])]));
    assert_eq!(count(&one, 3), count(&scaled, 3));
    assert!(moved(&one, &scaled).iter().all(|(from, _)| from != "task-3"));
}

#[test]
fn a_draining_task_is_left_at_once_for_the_next_in_order() {
    let mut route = route_of(&[(10_000, &[1, 2, 3])]);
    let before = tasks(&entry_of(&route));
    route.services[0].upstreams[0].state = UpstreamState::Draining;
    let after = tasks(&entry_of(&route));
    assert_eq!(count(&after, 1), 0);
    let gone = tasks(&entry(&[(10_000, &[2, 3])]));
    assert_eq!(after, gone, "as if it were gone");
    assert_ne!(before, after);
    // Without an active one, the draining ones keep their users.
    for upstream in &mut route.services[0].upstreams {
        upstream.state = UpstreamState::Draining;
    }
    assert_eq!(tasks(&entry_of(&route)), before);
}

#[test]
fn a_failing_task_is_left_at_once_and_returned_to() {
    let entry = entry(&[(5_000, &[1, 2]), (5_000, &[3])]);
    let at = |user, now| {
        let position = entry.pick(0, Some(user), &Tried::default(), now).expect("an upstream");
        entry.candidates[position].upstream.task.as_ref().expect("a task").to_string()
    };
    let user = users().find(|user| at(*user, 1) == "task-1").expect("a user");
    let dial = Dial { max_fails: 1, ..Dial::default() };
    entry.candidates[0].upstream.failed(1_000, &dial);
    assert_eq!(at(user, 1_000), "task-2", "the other one of its side");
    entry.candidates[1].upstream.failed(1_000, &dial);
    assert_eq!(at(user, 1_000), "task-3", "the other side");
    entry.candidates[2].upstream.failed(1_000, &dial);
    assert_eq!(at(user, 1_000), "task-1", "all of them fail: as if none did");
    for candidate in &entry.candidates {
        candidate.upstream.succeeded();
    }
    assert_eq!(at(user, 20_000), "task-1");
}

#[test]
fn a_retry_goes_to_the_next_in_order() {
    let whole = entry(&[(10_000, &[1, 2, 3])]);
    let user = users().find(|user| task(&whole, *user) == "task-2").expect("a user");
    let mut tried = Tried::default();
    tried.push(1);
    let second = whole.pick(0, Some(user), &tried, 1).expect("another");
    let without = entry(&[(10_000, &[1, 3])]);
    let expected = task(&without, user);
    assert_eq!(whole.candidates[second].upstream.task.as_ref().expect("a task").as_str(), expected);
}

#[test]
fn a_cookie_is_found_by_its_exact_name() {
    let name: CookieName = "session".parse().expect("a name");
    for (cookies, value) in [
        (&["session=abc"][..], Some("abc")),
        (&["a=1; session=abc; b=2"], Some("abc")),
        (&["a=1;session=a=b;"], Some("a=b")),
        (&["a=1", "session=abc"], Some("abc")),
        (&["session=; session=b"], Some("b")),
        (&["session=a; session=b"], Some("a")),
        (&["session=\"a b\""], Some("\"a b\"")),
        (&["Session=abc"], None),
        (&["xsession=abc"], None),
        (&["session2=abc"], None),
        (&["session"], None),
        (&["session=", ";;", "="], None),
        (&[], None),
    ] {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, HeaderValue::from_static(cookie));
        }
        assert_eq!(cookie(&headers, &name), value.map(str::as_bytes), "{cookies:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the tasks and whoever the user: removing one that the user is not on
    /// changes nothing, and the order of the listing means nothing.
    #[test]
    fn a_user_stays_while_its_task_does(
        names in proptest::collection::btree_set(0_u32..1_000, 2..30),
        user: u64,
        removed: prop::sample::Index,
    ) {
        let mut names: Vec<u32> = names.into_iter().collect();
        let chosen = task(&entry(&[(10_000, &names)]), user);
        names.reverse();
        prop_assert_eq!(&task(&entry(&[(10_000, &names)]), user), &chosen);
        let gone = names.remove(removed.index(names.len()));
        let after = task(&entry(&[(10_000, &names)]), user);
        if chosen == format!("task-{gone}") {
            prop_assert_ne!(after, chosen);
        } else {
            prop_assert_eq!(after, chosen);
        }
    }

    /// Any bytes are a Cookie header, and what is found is a part of it.
    #[test]
    fn no_cookie_header_is_too_strange(
        bytes in proptest::collection::vec(prop_oneof![
            Just(b';'), Just(b'='), Just(b' '), Just(b's'), Just(b'i'), Just(b'd'), 0x20_u8..0x7f
        ], 0..200),
    ) {
        let name: CookieName = "sid".parse().expect("a name");
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_bytes(&bytes).expect("printable"));
        if let Some(value) = cookie(&headers, &name) {
            prop_assert!(!value.is_empty() && !value.contains(&b';'));
            let found = [b"sid=", value].concat();
            prop_assert!(bytes.windows(found.len()).any(|window| window == found));
        } else {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let named = text.split(';').filter_map(|pair| pair.trim().strip_prefix("sid="));
            prop_assert_eq!(named.filter(|value| !value.is_empty()).count(), 0);
        }
    }
}
