//! openraft's values survive their bytes, and other bytes are refused without a panic.

mod store_support;

use bytes::Bytes;
use dovetail_proto::v1::LedgerRow;
use dovetail_raft_store::codec::{self, InstallHeader};
use dovetail_raft_store::ledger::row_hash;
use dovetail_raft_store::{
    Entry, EntryBytes, EntryPayload, MemberNode, RaftSnapshotMeta, StoredMembership, TypeConfig,
    Vote,
};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    TransferLeaderError, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use store_support::{entry, log_id, membership, vote};

fn members() -> dovetail_raft_store::Membership {
    let node = |slot| MemberNode {
        slot,
        incarnation: format!("{slot:032x}"),
        address: format!("core-{slot}:8080"),
    };
    membership(&[(1, node(1)), (2, node(2)), (1_007, node(3))])
}

fn meta() -> RaftSnapshotMeta {
    RaftSnapshotMeta {
        last_log_id: Some(log_id(4, 90)),
        last_membership: StoredMembership::new(Some(log_id(3, 8)), members()),
    }
}

#[test]
fn log_values_survive_their_bytes() {
    let all = [
        Entry { log_id: log_id(1, 0), payload: EntryPayload::Membership(members()) },
        Entry { log_id: log_id(0, 0), payload: EntryPayload::Blank },
        entry(u64::MAX, u64::MAX),
    ];
    for entry in all {
        assert_eq!(codec::decode_entry(codec::encode_entry(&entry)).unwrap(), entry);
    }
    for vote in [vote(0), vote(9), Vote::new_committed(u64::MAX, 3)] {
        assert_eq!(codec::decode_vote(codec::encode_vote(&vote)).unwrap(), vote);
    }
    let id = log_id(7, 8);
    assert_eq!(codec::decode_log_id(codec::encode_log_id(&id)).unwrap(), id);
    assert_eq!(codec::decode_membership(codec::encode_membership(&members())).unwrap(), members());
    for meta in [meta(), RaftSnapshotMeta::default()] {
        assert_eq!(codec::decode_meta(codec::encode_meta(&meta)).unwrap(), meta);
    }
}

#[test]
fn messages_survive_their_bytes() {
    for request in [
        AppendEntriesRequest::<TypeConfig> {
            vote: Vote::new_committed(3, 2),
            prev_log_id: Some(log_id(2, 9)),
            entries: vec![entry(3, 10), entry(3, 11)],
            leader_commit: Some(log_id(3, 10)),
        },
        AppendEntriesRequest {
            vote: vote(1),
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        },
    ] {
        let read = codec::decode_append(codec::encode_append(&request)).unwrap();
        assert_eq!(format!("{read:?}"), format!("{request:?}"));
        assert_eq!(read.entries, request.entries);
    }
    for response in [
        AppendEntriesResponse::<TypeConfig>::Success,
        AppendEntriesResponse::PartialSuccess(None),
        AppendEntriesResponse::PartialSuccess(Some(log_id(0, 0))),
        AppendEntriesResponse::Conflict,
        AppendEntriesResponse::HigherVote(vote(0)),
    ] {
        let bytes = codec::encode_append_response(&response);
        assert_eq!(codec::decode_append_response(bytes).unwrap(), response);
    }
    for result in [
        Ok(None),
        Ok(Some(log_id(0, 0))),
        Err(StreamAppendError::Conflict(log_id(1, 2))),
        Err(StreamAppendError::HigherVote(Vote::new_committed(8, 1))),
    ] {
        let bytes = codec::encode_stream_append(&result);
        assert_eq!(codec::decode_stream_append(bytes).unwrap(), result);
    }
    let mut request = VoteRequest::<TypeConfig>::new(vote(4), Some(log_id(3, 3)));
    request.leadership_transfer = true;
    assert_eq!(codec::decode_vote_request(codec::encode_vote_request(&request)).unwrap(), request);
    let response = VoteResponse::<TypeConfig>::new(vote(4), None, true);
    assert_eq!(
        codec::decode_vote_response(codec::encode_vote_response(&response)).unwrap(),
        response
    );
    let request = TransferLeaderRequest::<TypeConfig>::new(vote(4), 1_007, Some(log_id(3, 3)));
    assert_eq!(
        codec::decode_transfer_request(codec::encode_transfer_request(&request)).unwrap(),
        request
    );
    for response in [
        Ok(()),
        Err(TransferLeaderError::VoteChanged { expected: vote(1), actual: vote(2) }),
        Err(TransferLeaderError::LogNotFlushed { expected: Some(log_id(1, 1)), actual: None }),
    ] {
        let bytes = codec::encode_transfer_response(&response);
        assert_eq!(codec::decode_transfer_response(bytes).unwrap(), response);
    }
    let header = InstallHeader { vote: vote(2), meta: meta(), bytes: 77 };
    assert_eq!(
        codec::decode_install_header(codec::encode_install_header(&header)).unwrap(),
        header
    );
    let response = SnapshotResponse::<TypeConfig>::new(vote(2));
    assert_eq!(
        codec::decode_snapshot_response(codec::encode_snapshot_response(&response)).unwrap(),
        response
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Logs and ledgers of older builds stay readable, and their hashes stay true.
#[test]
fn bytes_on_the_disk_never_change() {
    let node = MemberNode { slot: 2, incarnation: "ab".to_owned(), address: "a:1".to_owned() };
    let all = [
        (EntryPayload::Blank, "0a070803100118ac021200"),
        (
            EntryPayload::Normal(EntryBytes(Bytes::from_static(b"xyz"))),
            "0a070803100118ac021a0378797a",
        ),
        (
            EntryPayload::Membership(membership(&[(9, node)])),
            "0a070803100118ac0222140a030a0109120d080910021a0261622203613a31",
        ),
    ];
    for (payload, golden) in all {
        let entry = Entry { log_id: log_id(3, 300), payload };
        assert_eq!(hex(&codec::encode_entry(&entry)), golden);
    }
    assert_eq!(hex(&codec::encode_vote(&Vote::new_committed(5, 1))), "080510011801");
    let row = LedgerRow {
        index: 300,
        term: 3,
        entry: Bytes::from_static(b"xyz"),
        kind: 0,
        hash: Vec::new(),
    };
    assert_eq!(
        hex(&row_hash(&[7; 32], "c0ffee", &row)),
        "96a0adafc227b2d09774e40e9a9104bd62e596a30fd253b63823bc8e05c6bb4b"
    );
}

/// Every prefix and every flipped bit of a real message: a value or an error.
#[test]
fn damaged_bytes_never_panic() {
    let request = AppendEntriesRequest::<TypeConfig> {
        vote: vote(3),
        prev_log_id: Some(log_id(2, 9)),
        entries: vec![Entry {
            log_id: log_id(3, 10),
            payload: EntryPayload::Membership(members()),
        }],
        leader_commit: None,
    };
    let bytes = codec::encode_append(&request);
    let decode = |bytes: Bytes| {
        let _ = codec::decode_append(bytes.clone());
        let _ = codec::decode_entry(bytes.clone());
        let _ = codec::decode_append_response(bytes.clone());
        let _ = codec::decode_stream_append(bytes.clone());
        let _ = codec::decode_transfer_response(bytes.clone());
        let _ = codec::decode_install_header(bytes.clone());
        let _ = codec::decode_meta(bytes);
    };
    for length in 0..bytes.len() {
        decode(bytes.slice(..length));
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        decode(flipped.into());
    }
    // A voter without an address is no membership.
    let error = codec::decode_membership(&b"\x0a\x03\x0a\x01\x05"[..]).unwrap_err();
    assert!(error.to_string().contains("membership"), "{error}");
    codec::decode_append(&b""[..]).unwrap_err();
}
