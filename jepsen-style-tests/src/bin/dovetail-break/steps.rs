//! A canary that goes from one service to the other in steps, over and over; and its steps
//! as the history of the route tells them.

use anyhow::Context as _;
use dovetail_jepsen::history::{Answer, Op, Step};
use dovetail_proto::v1 as pb;
use tonic::Code;

use crate::clients::{Client, World};
use crate::registers::SERVICES;

/// The route.
pub(crate) const HOST: &str = "steps.example";
/// In basis points.
const STEPS: [u32; 6] = [500, 1_000, 2_000, 3_500, 5_000, 8_000];
/// As short as there is.
const INTERVAL_MS: u64 = 1_000;
/// Entries on one page.
const PAGE: u64 = 1_000;

fn route() -> Option<pb::RouteRef> {
    Some(pb::RouteRef { host: HOST.to_owned(), ..pb::RouteRef::default() })
}

/// Starts a canary whenever none is under way, until the run ends.
pub(crate) async fn run(world: World, seed: u64) -> anyhow::Result<()> {
    let mut client = world.client("steps", seed)?;
    while !world.stopped() {
        client.rest(500..1_000).await;
        let mut admin = client.admin();
        let request = pb::CanariesRequest { stale: false, route: route() };
        let state = match Client::once(admin.canaries(request)).await {
            Ok(answer) => {
                let run = answer.canaries.into_iter().next().and_then(|canary| canary.run);
                run.map(|run| run.state)
            }
            Err(status) if status.code() == Code::NotFound => None,
            Err(_) => continue,
        };
        match state.as_deref() {
            Some("running" | "paused") => {}
            _ => start(&mut client).await,
        }
    }
    Ok(())
}

async fn start(client: &mut Client) {
    let request_id = client.request_id();
    let [from, to] = SERVICES.map(str::to_owned);
    let command = pb::StartCanary {
        route: route(),
        from,
        to,
        steps: STEPS.into(),
        interval_ms: INTERVAL_MS,
        max_error_rate: None,
        max_p99_ms: None,
        min_requests: Some(1),
    };
    // What came of it is seen among the steps, so it is no operation of the history.
    for _ in 0..3 {
        let request = pb::StartCanaryRequest {
            request_id: request_id.clone(),
            dry_run: false,
            command: Some(command.clone()),
        };
        let mut admin = client.admin();
        match Client::once(admin.start_canary(request)).await {
            Err(status) if status.code() != Code::FailedPrecondition => continue,
            _ => return,
        }
    }
}

/// Looks now and then at all steps, until the run ends.
pub(crate) async fn read(world: World, seed: u64) -> anyhow::Result<()> {
    let mut client = world.client("steps-reader", seed)?;
    while !world.stopped() {
        client.rest(8_000..16_000).await;
        once(&mut client).await;
    }
    Ok(())
}

/// A last look.
pub(crate) async fn read_all(world: &World) -> anyhow::Result<()> {
    let mut client = world.client("steps-last", 0)?;
    once(&mut client).await.context("no member tells all steps")
}

async fn once(client: &mut Client) -> Option<()> {
    let recorder = client.world.recorder.clone();
    let op = Op::ReadSteps { route: HOST.to_owned() };
    let began = recorder.invoke(&client.name, "", op);
    match steps(client).await {
        Ok(rows) => {
            recorder.ok(began, Answer::Steps { rows });
            Some(())
        }
        Err(why) => {
            recorder.unknown(began, why);
            None
        }
    }
}

async fn steps(client: &mut Client) -> Result<Vec<Step>, String> {
    let mut admin = client.admin();
    let (mut rows, mut run, mut from) = (Vec::new(), 0, 0);
    loop {
        let request =
            pb::HistoryRequest { host: HOST.to_owned(), service: String::new(), from, limit: PAGE };
        let page =
            Client::once(admin.history(request)).await.map_err(|status| status.to_string())?;
        for entry in page.entries.iter().filter(|entry| !entry.summary.contains("; refused: ")) {
            match told(&entry.summary) {
                Some(Told::Started) => {
                    run = entry.index;
                    rows.push(Step { index: entry.index, run, step: 1 });
                }
                Some(Told::Step(step)) => rows.push(Step { index: entry.index, run, step }),
                None => {}
            }
        }
        if page.next == 0 {
            return Ok(rows);
        }
        from = page.next;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Started,
    Step(u32),
}

/// What a summary says of the canary's steps.
fn told(summary: &str) -> Option<Told> {
    let route = format!("canary on {HOST}/");
    if let Some(step) = summary.strip_prefix("step ") {
        let (step, rest) = step.split_once(" of the ")?;
        return rest.starts_with(&route).then(|| step.parse().ok().map(Told::Step))?;
    }
    summary.starts_with(&format!("{route} from ")).then_some(Told::Started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_from_its_summary() {
        for (summary, expected) in [
            ("canary on steps.example/ from blue to green: 5%, 10%", Some(Told::Started)),
            ("step 3 of the canary on steps.example/: 4 requests", Some(Told::Step(3))),
            ("step 3 of the canary on other.example/", None),
            ("canary on steps.example/: blue 50%, green 50%", None),
            ("remark: step 3 of the canary on steps.example/", None),
        ] {
            assert_eq!(told(summary), expected, "{summary}");
        }
    }
}
