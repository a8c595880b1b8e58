//! A replay comes to what the members had, or says where it does not.

use dovetail_ledger::chain::BEGINNING;
use dovetail_ledger::{ExportReader, Until, entries_at, verify, what_if};
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::tell::differences;
use dovetail_routing::{Command, Digest, Payload, RuleSet};

use crate::story::{MS_EACH, Story, file, header, read, redirects};

#[test]
fn a_replay_comes_to_the_digests_of_the_members() {
    let story = Story::of(205);
    let replay = verify(read(&story.export(0)), Until::End).expect("verified").replay;
    let state = replay.state().expect("a state");
    assert_eq!(state.digest(), story.state.digest());
    let default = ServiceCluster::default();
    assert_eq!(state.published(&default).digest, story.state.published(&default).digest);
    assert_eq!((replay.index(), replay.checkpoints()), (204, 20));
    assert_eq!((replay.divergence(), replay.unchecked()), (None, 0));
}

#[test]
fn an_export_from_the_middle_goes_on_from_its_base() {
    let story = Story::of(205);
    for first in [1, 9, 10, 100, 204] {
        let replay = verify(read(&story.export(first)), Until::End).expect("verified").replay;
        let state = replay.state().expect("a state");
        assert_eq!(state.digest(), story.state.digest(), "from {first}");
        assert_eq!(replay.divergence(), None, "from {first}");
        // What is about rows before the base cannot be compared, and that is said.
        let said = (first..205).filter(|index| index % 10 == 9).count() as u64;
        assert_eq!(replay.checkpoints() + replay.unchecked(), said, "from {first}");
        assert!(replay.unchecked() <= 1, "from {first}");
    }
}

#[test]
fn without_a_base_the_chain_is_checked_and_nothing_is_replayed() {
    let story = Story::of(60);
    let previous = story.rows[29].hash.as_slice().try_into().expect("a hash");
    let bytes = file(&header(30, previous), None, &story.rows[30..]);
    let replay = verify(read(&bytes), Until::End).expect("verified").replay;
    assert!(replay.state().is_none());
    assert_eq!((replay.checkpoints(), replay.unchecked()), (0, 3));
}

#[test]
fn a_replay_ends_where_it_is_told() {
    let story = Story::of(100);
    let bytes = story.export(0);
    let by_index = verify(read(&bytes), Until::Index(57)).expect("verified").replay;
    assert_eq!(by_index.index(), 57);
    let mut shorter = Story::of(58);
    assert_eq!(by_index.state().expect("a state").digest(), shorter.state.digest());
    let until = Until::Time(57 * MS_EACH + 1);
    let by_time = verify(read(&bytes), until).expect("verified").replay;
    assert_eq!(by_time.state().expect("a state").digest(), shorter.state.digest());
    shorter.remark("one more");
    assert_ne!(by_time.state().expect("a state").digest(), shorter.state.digest());
}

#[test]
fn a_state_that_came_out_differently_is_named_with_its_place() {
    let mut story = Story::of(48);
    story.checkpoint_with(Digest([7; 32]));
    story.remark("and on");
    story.checkpoint();
    let replay = verify(read(&story.export(0)), Until::End).expect("whole").replay;
    let first = replay.divergence().expect("a difference");
    assert_eq!((first.index, first.checkpoint, first.what), (47, 48, "state"));
    assert_eq!(first.expected, Digest([7; 32]).to_string());
    assert_eq!(replay.checkpoints(), 5, "the others agree");
}

#[test]
fn a_base_that_is_not_what_it_says_is_refused() {
    let story = Story::of(40);
    let state = story.state.encode();
    let bytes = file(&header(40, story.head()), Some((&state, Digest([1; 32]))), &[]);
    let mut reader = ExportReader::open(read(&bytes)).expect("opened");
    let error = reader.base().expect_err("refused");
    assert!(error.to_string().contains("does not match its digest"), "{error}");
    // A base made of something else than a state.
    let bytes = file(&header(40, BEGINNING), Some((b"no state", Digest([1; 32]))), &[]);
    let error = verify(read(&bytes), Until::End).expect_err("refused");
    assert!(error.to_string().contains("state"), "{error}");
}

#[test]
fn another_rule_set_shows_what_it_would_have_made_of_the_log() {
    let rules = |number| RuleSet::try_from(number).expect("known");
    let would_be = |story: &Story, first, number| {
        let bytes = story.export(first);
        what_if(read(&bytes), Until::End, rules(number)).expect("read").expect("a state")
    };
    let told = |story: &Story, first, number| {
        let differences = differences(&story.state, &would_be(story, first, number));
        differences.into_iter().map(|(route, words)| (route.to_string(), words)).collect::<Vec<_>>()
    };
    let mut story = Story::of(40);
    assert_eq!(told(&story, 0, 2), [], "nobody redirects");
    story.observe(vec![redirects(1, 2)]);
    let first = story.next();
    story.observe(vec![redirects(2, 1)]);
    let left_out = vec!["redirected no longer".to_owned()];
    // From the beginning, and with the older half in the base.
    for first in [0, first] {
        assert_eq!(told(&story, first, 2), [("s2.example/".to_owned(), left_out.clone())]);
        assert_eq!(told(&story, first, 1), []);
    }

    // What the log itself activates counts for the log, not for the question.
    story.write(Payload::Command(Command::ActivateRules { rules: rules(2) }));
    assert_eq!(told(&story, 0, 2), []);
    assert_eq!(told(&story, 0, 1).len(), 1);
    story.checkpoint();
    let replay = verify(read(&story.export(0)), Until::End).expect("verified").replay;
    assert_eq!((replay.divergence(), replay.checkpoints()), (None, story.checkpoints));
    assert_eq!(replay.state().expect("a state").rules(), rules(2));
}

#[test]
fn entries_are_found_by_their_indexes() {
    let story = Story::of(60);
    let bytes = story.export(20);
    let mut reader = ExportReader::open(read(&bytes)).expect("opened");
    // One before the file, a remark, and one after its end.
    let found = entries_at(&mut reader, &[3, 25, 90].into()).expect("read");
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [25]);
    assert_eq!(found[&25].leader_time_ms, 25 * MS_EACH);
    assert_eq!(&*found[&25].actor, "dovetail://member/1");
}
