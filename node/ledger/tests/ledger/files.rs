//! A file says what was written, and no more is believed than fits.

use dovetail_ledger::chain::BEGINNING;
use dovetail_ledger::export::BLOCK_BYTES;
use dovetail_ledger::{ExportError, ExportReader, Exporter, Until, verify};
use dovetail_proto::v1 as wire;
use prost::Message as _;

use crate::story::{Story, file, header, read};

#[test]
fn every_row_comes_back_in_order_over_many_blocks() {
    let mut story = Story::of(30);
    let long = "x".repeat(BLOCK_BYTES / 3);
    for number in 0..12 {
        story.remark(&format!("{number} {long}"));
    }
    let bytes = story.export(0);
    let plain: usize = story.rows.iter().map(wire::LedgerRow::encoded_len).sum();
    assert!(bytes.len() < plain / 20, "{} of {plain} bytes: not compressed", bytes.len());
    let mut reader = ExportReader::open(read(&bytes)).expect("opened");
    assert_eq!(reader.header(), &header(0, BEGINNING));
    let mut rows = Vec::new();
    while let Some(row) = reader.next_row().expect("a row") {
        rows.push(row);
    }
    assert_eq!(rows, story.rows);
    let statement = &reader.trailer().expect("the end").statement;
    assert_eq!((statement.first, statement.last), (0, story.next() - 1));
    assert_eq!((statement.rows, statement.head), (42, story.head()));
}

#[test]
fn the_trailer_carries_a_signature_over_its_statement() {
    let story = Story::of(12);
    let mut exporter = Exporter::begin(Vec::new(), &header(0, BEGINNING), None).expect("begun");
    for row in &story.rows {
        exporter.row(row.clone()).expect("the next row");
    }
    let signature = |signed: &[u8]| wire::ExportSignature {
        scheme: 0x0403,
        chain: vec![vec![1, 2, 3]],
        signature: signed.to_vec(),
    };
    let (bytes, head) =
        exporter.finish(7, |statement| Ok(Some(signature(statement)))).expect("finished");
    assert_eq!(head, story.head());
    let trailer = verify(read(&bytes), Until::End).expect("verified").trailer;
    assert_eq!(trailer.statement.signed_at_ms, 7);
    assert_eq!(trailer.signature, Some(signature(&trailer.signed)));
}

#[test]
fn nobody_exports_rows_that_do_not_follow() {
    let story = Story::of(12);
    let mut exporter = Exporter::begin(Vec::new(), &header(0, BEGINNING), None).expect("begun");
    exporter.row(story.rows[0].clone()).expect("the first row");
    let error = exporter.row(story.rows[2].clone()).expect_err("a gap");
    assert_eq!(error.index(), Some(1), "{error}");
}

#[test]
fn an_empty_range_is_a_file_too() {
    let bytes = file(&header(0, BEGINNING), None, &[]);
    let verified = verify(read(&bytes), Until::End).expect("verified");
    assert_eq!(verified.trailer.statement.rows, 0);
    assert_eq!(verified.replay.state().map(|state| state.applied_index().0), Some(0));
}

#[test]
fn another_kind_of_file_and_a_newer_form_are_told_apart() {
    for bytes in [&b""[..], b"PK\x03\x04", &[0; 100]] {
        let error = verify(read(bytes), Until::End).expect_err("refused");
        assert!(matches!(error, ExportError::OtherKind), "{error}");
    }
    let newer = wire::ExportHeader { format: 9, ..wire::ExportHeader::default() }.encode_to_vec();
    let mut bytes = b"DVTLLOG1\x01".to_vec();
    bytes.extend(u32::try_from(newer.len()).expect("short").to_le_bytes());
    bytes.extend(newer);
    let error = verify(read(&bytes), Until::End).expect_err("refused");
    assert!(matches!(error, ExportError::Newer { found: 9 }), "{error}");
}

#[test]
fn a_promised_length_is_checked_before_room_is_made() {
    // A frame of 4 GiB, of which nothing is there.
    for kind in 1..=4_u8 {
        let mut bytes = b"DVTLLOG1".to_vec();
        bytes.push(kind);
        bytes.extend([0xff; 4]);
        let error = verify(read(&bytes), Until::End).expect_err("refused");
        assert!(error.to_string().contains("above the limit"), "{error}");
    }
}
