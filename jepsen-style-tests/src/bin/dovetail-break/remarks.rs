//! Remarks: written by some, read back in the order of the log by another.

use std::collections::BTreeMap;

use anyhow::Context as _;
use dovetail_jepsen::history::{Answer, Op};
use dovetail_proto::v1 as pb;

use crate::clients::{Client, World};

/// What a remark's summary begins with.
const REMARK: &str = "remark: ";
/// Entries of one read.
const LIMIT: u64 = 100_000;

/// Writes remarks, until the run ends.
pub(crate) async fn write(world: World, name: String, seed: u64) -> anyhow::Result<()> {
    let mut client = world.client(&name, seed)?;
    while !world.stopped() {
        let text = client.request_id();
        let op = Op::Annotate { text: text.clone() };
        let began = world.recorder.invoke(&name, &text, op);
        client
            .order(began, |mut admin| {
                let request_id = text.clone();
                let request =
                    pb::AnnotateRequest { request_id, text: text.clone(), dry_run: false };
                async move { admin.annotate(request).await }
            })
            .await;
        client.rest(50..250).await;
    }
    Ok(())
}

/// Reads what is new every few seconds, until the run ends.
pub(crate) async fn read(world: World, seed: u64) -> anyhow::Result<()> {
    let mut client = world.client("remarks-reader", seed)?;
    let (mut from, mut known) = (0, BTreeMap::new());
    while !world.stopped() {
        client.rest(2_000..4_000).await;
        if let Some(upto) = once(&mut client, from, &mut known).await {
            from = upto;
        }
    }
    Ok(())
}

/// Everything, once more.
pub(crate) async fn read_all(world: &World) -> anyhow::Result<()> {
    let mut client = world.client("remarks-last", 0)?;
    once(&mut client, 0, &mut BTreeMap::new()).await.context("no member gives all remarks")?;
    Ok(())
}

/// By text: the first entry that a reader found it at.
type Known = BTreeMap<String, u64>;

/// One read of what came after `from`; how far it came.
async fn once(client: &mut Client, from: u64, known: &mut Known) -> Option<u64> {
    let recorder = client.world.recorder.clone();
    let began = recorder.invoke(&client.name, "", Op::ReadRemarks { from });
    match after(client, from, known).await {
        Ok((upto, rows)) => {
            recorder.ok(began, Answer::Remarks { upto, rows });
            Some(upto)
        }
        Err(why) => {
            recorder.unknown(began, why);
            None
        }
    }
}

async fn after(
    client: &mut Client,
    from: u64,
    known: &mut Known,
) -> Result<(u64, Vec<(u64, String)>), String> {
    let mut admin = client.admin();
    // The log is told without a quorum, too; what has to be in it, a proven answer says.
    let request = pb::CanariesRequest { stale: false, route: None };
    let proven =
        Client::once(admin.canaries(request)).await.map_err(|status| status.to_string())?;
    let proven = proven.freshness.map_or(0, |freshness| freshness.index);
    let request = pb::LogRequest { from: from + 1, limit: LIMIT };
    let mut entries =
        Client::once(admin.log(request)).await.map_err(|status| status.to_string())?;
    let (mut upto, mut rows, mut fresh) = (from, Vec::new(), Known::new());
    while let Some(entry) = entries.message().await.map_err(|status| status.to_string())? {
        upto = upto.max(entry.index);
        let Some(text) = entry.summary.strip_prefix(REMARK) else { continue };
        // One that was repeated under its request id, which is its text, may be in the log
        // twice: the second entry got the first one's answer.
        let first = *fresh.entry(text.to_owned()).or_insert(entry.index);
        let first = known.get(text).copied().unwrap_or(first);
        if entry.request_id != text || first == entry.index {
            rows.push((entry.index, text.to_owned()));
        }
    }
    if upto < proven {
        return Err(format!("the log came to {upto}, and the answer before it to {proven}"));
    }
    // Only now: of a read that broke nothing was told.
    known.extend(
        fresh.into_iter().filter(|(text, _)| !known.contains_key(text)).collect::<Vec<_>>(),
    );
    Ok((upto, rows))
}
