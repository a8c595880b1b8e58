//! Registers: the share of a route's first service, set and compared-and-set as an operator
//! would who scripts canaries.
//!
//! Each register is a route. No value is written twice to one, so that the index of the
//! order in force, which is what Dovetail compares, stands for the value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dovetail_jepsen::history::{Answer, Op};
use dovetail_proto::v1 as pb;
use tonic::Code;

use crate::clients::{Client, Ordered, World};

/// The services that share every route of a register.
pub(crate) const SERVICES: [&str; 2] = ["blue", "green"];
/// Registers of a run: each has 9,999 values, and is left alone when they are used up.
pub(crate) const REGISTERS: u8 = 8;
/// A share of everything.
const WHOLE: u64 = 10_000;

/// The values that were given out, by register.
pub(crate) type Values = Arc<Vec<AtomicU64>>;

pub(crate) fn values() -> Values {
    Arc::new((0..REGISTERS).map(|_| AtomicU64::new(1)).collect())
}

/// The host of a register.
pub(crate) fn host(register: usize) -> String {
    format!("r{register}.example")
}

/// Reads, swaps and now and then writes, until the run ends.
pub(crate) async fn run(
    world: World,
    name: String,
    seed: u64,
    values: Values,
) -> anyhow::Result<()> {
    let mut client = world.client(&name, seed)?;
    // By register: the value and the index that this client saw last.
    let mut known = vec![None; values.len()];
    while !world.stopped() {
        let register = client.random.usize(..values.len());
        let Some((next, known)) = values.get(register).zip(known.get_mut(register)) else {
            continue;
        };
        let key = host(register);
        let what = client.random.u8(..20);
        match *known {
            Some((from, index)) if what < 11 => {
                let to = next.fetch_add(1, Ordering::Relaxed);
                if to < WHOLE {
                    let op = Op::Cas { key: key.clone(), from, to };
                    *known = match set(&mut client, op, &key, to, Some(index)).await {
                        Ordered::Done { index } => Some((to, index)),
                        _ => None,
                    };
                }
            }
            _ if what == 19 => {
                let value = next.fetch_add(1, Ordering::Relaxed);
                if value < WHOLE {
                    let op = Op::Write { key: key.clone(), value };
                    if let Ordered::Done { index } = set(&mut client, op, &key, value, None).await {
                        *known = Some((value, index));
                    }
                }
            }
            _ => {
                if let Some(read) = read(&mut client, &key).await {
                    *known = read;
                }
            }
        }
        client.rest(20..200).await;
    }
    Ok(())
}

async fn set(
    client: &mut Client,
    op: Op,
    host: &str,
    value: u64,
    expected_index: Option<u64>,
) -> Ordered {
    let request_id = client.request_id();
    let shares = [value, WHOLE - value].into_iter().zip(SERVICES);
    let shares = shares.map(|(share, service)| pb::Share {
        service: service.to_owned(),
        weight: u32::try_from(share).unwrap_or_default(),
    });
    let route = Some(pb::RouteRef { host: host.to_owned(), ..pb::RouteRef::default() });
    let command = pb::SetCanary { route, shares: shares.collect(), expected_index };
    let began = client.world.recorder.invoke(&client.name, &request_id, op);
    client
        .order(began, |mut admin| {
            let request = pb::SetCanaryRequest {
                request_id: request_id.clone(),
                dry_run: false,
                command: Some(command.clone()),
            };
            async move { admin.set_canary(request).await }
        })
        .await
}

/// The value and its index; the outer `None` is no answer.
async fn read(client: &mut Client, key: &str) -> Option<Option<(u64, u64)>> {
    let recorder = client.world.recorder.clone();
    let began = recorder.invoke(&client.name, "", Op::Read { key: key.to_owned() });
    let route = Some(pb::RouteRef { host: key.to_owned(), ..pb::RouteRef::default() });
    let mut admin = client.admin();
    let request = pb::CanariesRequest { stale: false, route };
    match Client::once(admin.canaries(request)).await {
        Ok(answer) => {
            let canary = answer.canaries.first();
            let share = |canary: &pb::Canary| {
                let of = canary.shares.iter().find(|share| share.service == SERVICES[0]);
                of.map(|share| (u64::from(share.weight), canary.index))
            };
            let found = canary.and_then(share);
            recorder.ok(began, Answer::Value { value: found.map(|(value, _)| value) });
            Some(found)
        }
        Err(status) if status.code() == Code::NotFound => {
            recorder.ok(began, Answer::Value { value: None });
            Some(None)
        }
        Err(status) => {
            recorder.unknown(began, format!("{:?}: {}", status.code(), status.message()));
            None
        }
    }
}
