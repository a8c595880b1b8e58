//! The ledger of the fake core: two rows and a checkpoint, in a file that member 1 signs.

use dovetail_ledger::chain::BEGINNING;
use dovetail_ledger::{Exporter, Header, LedgerHash, row_hash};
use dovetail_process::tls::TlsDir;
use dovetail_proto::convert::encode_entry;
use dovetail_proto::v1 as pb;
use dovetail_routing::entry::SCHEMA_VERSION;
use dovetail_routing::state::State;
use dovetail_routing::{Command, Digest, Entry, LogIndex, Payload};

const CLUSTER: &str = "c1";

fn entry(payload: Payload) -> Entry {
    Entry {
        schema_version: SCHEMA_VERSION,
        leader_time_ms: 1_000,
        actor: "dovetail://operator/anna".into(),
        request_id: "".into(),
        cause: "".into(),
        payload,
    }
}

/// The file and its head.
pub(crate) fn file(tls: &TlsDir) -> (Vec<u8>, LedgerHash) {
    let header = Header {
        cluster_id: CLUSTER.to_owned(),
        ancestors: Vec::new(),
        first: 0,
        made_at_ms: 1,
        exporter: tls.identity().to_string(),
        previous: BEGINNING,
    };
    let mut out = Exporter::begin(Vec::new(), &header, None).expect("begun");
    let mut state = State::default();
    for index in 0..3 {
        let payload = match index {
            2 => Payload::Checkpoint {
                index: LogIndex(1),
                state: state.digest(),
                ledger: Digest(out.chain().head()),
            },
            _ => Payload::Command(Command::Annotate { text: format!("remark {index}").into() }),
        };
        let entry = entry(payload);
        state.apply(LogIndex(index), &entry);
        let mut row = pb::LedgerRow {
            index,
            term: 1,
            entry: encode_entry(&entry).into(),
            kind: pb::LedgerRowKind::Entry.into(),
            hash: Vec::new(),
        };
        row.hash = row_hash(&out.chain().head(), CLUSTER, &row).to_vec();
        out.row(row).expect("the next row");
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = u64::try_from(now.expect("after 1970").as_millis()).expect("fits");
    let sign = |statement: &[u8]| {
        let signed = tls.sign(statement)?;
        Ok(Some(pb::ExportSignature {
            scheme: signed.scheme.into(),
            chain: signed.chain,
            signature: signed.signature,
        }))
    };
    out.finish(now_ms, sign).expect("finished")
}

/// Two members, of which one is broken when every hash is recomputed, and a third that is down.
pub(crate) fn compared(request: &pb::VerifyLogRequest, tls: &TlsDir) -> pb::VerifyLogResponse {
    let hash = Digest(file(tls).1).to_string();
    let well = pb::MemberLedger {
        id: 1,
        reachable: true,
        last: 2,
        hash,
        first_time_ms: 1_000,
        fetching: true,
        ..Default::default()
    };
    let mut broken = pb::MemberLedger { id: 2, reachable: true, ..Default::default() };
    let mut members = vec![well];
    if request.recompute {
        broken.broken = "the row is missing".to_owned();
        broken.broken_index = 7;
        let down = pb::MemberLedger { id: 3, ..Default::default() };
        members.extend([broken, down]);
    } else {
        members.push(broken);
    }
    pb::VerifyLogResponse {
        cluster_id: CLUSTER.to_owned(),
        index: request.index.unwrap_or(2),
        members,
    }
}
