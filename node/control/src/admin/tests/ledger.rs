//! Exporting, following and comparing the ledger.

use std::io::Cursor;

use dovetail_ledger::{Until, verify};

use super::*;

const ADA: &str = "dovetail://operator/ada?role=admin";

async fn exported(stage: &Stage, from: u64, to: u64) -> Result<Vec<u8>, Status> {
    let request = pb::ExportLogRequest { from, to };
    let mut pieces = stage.as_(ADA).export_log(request).await?.into_inner();
    let mut file = Vec::new();
    while let Some(piece) = pieces.message().await? {
        file.extend_from_slice(&piece.data);
    }
    Ok(file)
}

fn some_log() -> Stage {
    let stage = stage(FakeQuorum::leader());
    stage.quorum.know(&listing(&[("web", 2)]));
    stage.quorum.know(&listing(&[("web", 4)]));
    for _ in 0..3 {
        let text = "a remark".into();
        let remark = Payload::Command(dovetail_routing::Command::Annotate { text });
        stage.quorum.write(crate::fakes::proposal(remark));
    }
    stage
}

#[tokio::test]
async fn an_export_replays_to_what_the_member_has() {
    let stage = some_log();
    for (from, first) in [(0, 1), (1, 1), (4, 4)] {
        let file = exported(&stage, from, 0).await.expect("exported");
        let verified = verify(Cursor::new(file), Until::End).expect("whole");
        let statement = &verified.trailer.statement;
        assert_eq!((statement.first, statement.last), (first, 5), "from {from}");
        assert_eq!(statement.exporter, "dovetail://member/1");
        let replayed = verified.replay.state().expect("a state").digest();
        assert_eq!(replayed, stage.quorum.current().digest(), "from {from}");
        let signature = verified.trailer.signature.expect("signed");
        assert_eq!(signature.signature, blake3::hash(&verified.trailer.signed).as_bytes());
    }
    let file = exported(&stage, 2, 3).await.expect("exported");
    let statement = verify(Cursor::new(file), Until::End).expect("whole").trailer.statement;
    assert_eq!((statement.first, statement.last, statement.rows), (2, 3, 2));
}

#[tokio::test]
async fn an_export_of_what_is_not_there_is_refused() {
    let stage = some_log();
    let refused = exported(&stage, 9, 0).await.expect_err("refused");
    assert_eq!(refused.code(), Code::OutOfRange);
    assert_eq!(refused.message(), "from: 9 lies behind 5, the last entry to export");
}

#[tokio::test]
async fn only_an_admin_exports_and_follows() {
    let stage = some_log();
    let export = pb::ExportLogRequest::default();
    let refused = stage.as_(ANNA).export_log(export).await.expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = stage.as_(ANNA).follow_log(pb::FollowLogRequest::default()).await;
    assert_eq!(refused.expect_err("refused").code(), Code::PermissionDenied);
    let refused = stage.as_(VIEWER).verify_log(pb::VerifyLogRequest::default()).await;
    assert_eq!(refused.expect_err("refused").code(), Code::PermissionDenied);
}

#[tokio::test]
async fn whoever_follows_gets_old_entries_and_then_the_new_ones() {
    let stage = some_log();
    let request = pb::FollowLogRequest { from: 4 };
    let mut entries = stage.as_(ADA).follow_log(request).await.expect("followed").into_inner();
    for index in [4, 5] {
        assert_eq!(entries.message().await.expect("an entry").expect("no end").index, index);
    }
    stage.quorum.know(&listing(&[("web", 5)]));
    let new = entries.message().await.expect("an entry").expect("no end");
    assert_eq!((new.index, new.kind.as_str()), (6, "observed"));
}

#[tokio::test]
async fn the_ledgers_of_all_members_are_compared_where_all_have_come_to() {
    let stage = some_log();
    let other = pb::MemberLedger { last: 4, hash: "ab".repeat(32), ..Default::default() };
    stage.peers.ledgers.lock().expect("not poisoned").insert(2, other);
    let request = pb::VerifyLogRequest { index: None, recompute: true };
    let answer = stage.as_(ANNA).verify_log(request).await.expect("compared").into_inner();
    assert_eq!((answer.cluster_id.as_str(), answer.index), ("c1", 4));
    let members: Vec<_> =
        answer.members.iter().map(|one| (one.id, one.reachable, one.recomputed)).collect();
    assert_eq!(members, [(1, true, 5), (2, true, 0), (3, false, 0)]);
    let fourth = &stage.quorum.rows()[3];
    let hash = Digest(fourth.hash.as_slice().try_into().expect("a hash"));
    assert_eq!(answer.members[0].hash, hash.to_string());
}
