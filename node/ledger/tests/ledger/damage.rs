//! Damage and deceit: each is found, and its place is named.

use dovetail_ledger::chain::BEGINNING;
use dovetail_ledger::{Chain, ExportReader, Until, row_hash, verify};
use dovetail_proto::v1 as wire;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::story::{CLUSTER, Story, read};

/// What the chain says to rows that somebody put into a file.
fn verdict(rows: &[wire::LedgerRow]) -> Result<(), (u64, String)> {
    let mut chain = Chain::new(CLUSTER, 0, BEGINNING);
    rows.iter()
        .try_for_each(|row| chain.follow(row))
        .map_err(|broken| (broken.index, broken.reason))
}

#[test]
fn one_byte_of_an_entry_is_found_with_its_index() {
    let story = Story::of(60);
    assert_eq!(verdict(&story.rows), Ok(()));
    for index in [2, 17, 33, 59_usize] {
        let mut rows = story.rows.clone();
        let mut entry = rows[index].entry.to_vec();
        *entry.last_mut().expect("an entry") ^= 1;
        rows[index].entry = entry.into();
        let (found, reason) = verdict(&rows).expect_err("tampered");
        assert_eq!((found, reason.as_str()), (index as u64, "the hash does not fit the row"));
    }
}

#[test]
fn a_dropped_entry_is_found_with_its_index() {
    let mut rows = Story::of(60).rows;
    rows.remove(33);
    let (found, reason) = verdict(&rows).expect_err("dropped");
    assert_eq!(found, 33);
    assert_eq!(reason, "the row is missing: 34 stands in its place");
}

#[test]
fn two_swapped_entries_are_found_with_the_first_index() {
    let mut rows = Story::of(60).rows;
    rows.swap(20, 40);
    assert_eq!(verdict(&rows).expect_err("swapped").0, 20);
    // Also when each was given the other's index.
    let (a, b) = (rows[20].index, rows[40].index);
    (rows[20].index, rows[40].index) = (b, a);
    assert_eq!(verdict(&rows).expect_err("swapped").0, 20);
}

#[test]
fn an_inserted_entry_is_found_with_its_index() {
    let story = Story::of(60);
    // A copy of a row.
    let mut rows = story.rows.clone();
    rows.insert(31, rows[30].clone());
    let (found, reason) = verdict(&rows).expect_err("inserted");
    assert_eq!((found, reason.as_str()), (30, "a row of this index stands where 31 is due"));
    // A row that follows on the one before it, as a forger would make it.
    let mut rows = story.rows.clone();
    let mut forged = rows[30].clone();
    forged.index = 31;
    let before = rows[30].hash.as_slice().try_into().expect("a hash");
    forged.hash = row_hash(&before, CLUSTER, &forged).to_vec();
    rows.insert(31, forged);
    assert_eq!(verdict(&rows).expect_err("inserted").0, 31);
}

#[test]
fn every_changed_byte_of_a_file_is_found() {
    let bytes = Story::of(40).export(20);
    assert!(verify(read(&bytes), Until::End).is_ok());
    for position in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[position] ^= 0x10;
        let verdict = verify(read(&changed), Until::End);
        assert!(verdict.is_err(), "byte {position} of {} was changed", bytes.len());
    }
}

#[test]
fn a_file_that_was_cut_or_extended_is_found() {
    let bytes = Story::of(40).export(0);
    for length in 0..bytes.len() {
        assert!(verify(read(&bytes[..length]), Until::End).is_err(), "cut at {length}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    let error = verify(read(&longer), Until::End).expect_err("extended");
    assert!(error.to_string().contains("follows the closing hash"), "{error}");
}

/// The same inputs in every run.
fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[4; 32]))
}

fn read_whole(bytes: &[u8]) -> u64 {
    let Ok(mut reader) = ExportReader::open(read(bytes)) else { return 0 };
    let _ = reader.base();
    let mut rows = 0;
    while let Ok(Some(_)) = reader.next_row() {
        rows += 1;
    }
    rows
}

#[test]
fn no_bytes_make_the_reader_fall_over() {
    let whole = Story::of(40).export(10);
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let input = (prop::collection::vec(any::<u8>(), 0..200), edits, any::<prop::sample::Index>());
    let ran = runner(20_000).run(&input, |(noise, edits, cut)| {
        // Noise alone, noise behind a good beginning, and a file with a few wrong bytes.
        read_whole(&noise);
        let mut grafted = whole[..cut.index(whole.len())].to_vec();
        grafted.extend(&noise);
        read_whole(&grafted);
        let mut edited = whole.clone();
        for (place, byte) in edits {
            let place = place.index(edited.len());
            edited[place] = byte;
        }
        read_whole(&edited);
        Ok(())
    });
    ran.expect("no input makes it fall over");
}
