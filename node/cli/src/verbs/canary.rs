//! `canary`: shares that an operator gives to the services of a route.

use std::process::ExitCode;

use clap::Subcommand;
use dovetail_proto::v1 as pb;

use super::change::{self, ChangeArgs};
use crate::core::Core;
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, Tone, printable, service_cluster, share};

mod runs;

pub(crate) use runs::millis;

const SET: &str = "\
The shares are basis points that sum to 10,000. A service on the route that is not named
gets nothing; each share is divided evenly over the service's upstreams.
With --if-index nothing is changed that somebody else ordered meanwhile: it takes the index
that `dovetail canary show` tells, or 0 for a route without a canary.

Examples:
  dovetail canary set --host shop.example --service shop_v1=9000 --service shop_v2=1000
  dovetail canary set --host shop.example --path /app --service shop_v2=10000 --dry-run
  dovetail -o json canary set --host shop.example --service shop_v1=5000 \\
      --service shop_v2=5000 --request-id deploy-42
  dovetail canary set --host shop.example --service shop_v2=10000 --if-index 1204";

#[derive(Debug, Subcommand)]
pub(crate) enum Canary {
    /// Gives the services of a route fixed shares, until they are cleared
    #[command(after_help = SET)]
    Set {
        #[command(flatten)]
        route: RouteArgs,
        /// A service by name, and its share in basis points
        #[arg(long, value_name = "NAME=SHARE", required = true, value_parser = named_share)]
        service: Vec<(String, u32)>,
        /// Refused unless the canary in force is the order of this entry; 0 is none
        #[arg(long, value_name = "INDEX")]
        if_index: Option<u64>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Returns a route to weights by upstreams
    #[command(after_help = "Example:\n  dovetail canary clear --host shop.example")]
    Clear {
        #[command(flatten)]
        route: RouteArgs,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Moves a route from one service to another, step by step
    #[command(after_help = runs::START)]
    Start(runs::Start),
    /// Keeps the step in force, whatever its figures say
    #[command(after_help = "Example:\n  dovetail canary pause --host shop.example")]
    Pause {
        #[command(flatten)]
        route: RouteArgs,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Measures the step anew, for a whole interval
    #[command(after_help = "Example:\n  dovetail canary resume --host shop.example")]
    Resume {
        #[command(flatten)]
        route: RouteArgs,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Returns to the weights before the start
    #[command(after_help = "Example:\n  dovetail canary abort --host shop.example")]
    Abort {
        #[command(flatten)]
        route: RouteArgs,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Gives one service all of a route, until it is cleared
    #[command(after_help = "Example:\n  \
        dovetail canary promote --host shop.example --service shop_v2")]
    Promote {
        #[command(flatten)]
        route: RouteArgs,
        /// By name; the target of the canary that runs there, unless given
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        service: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// All canaries: what was ordered, by whom, and what is in force
    #[command(after_help = "Examples:\n  dovetail canary list\n  \
        dovetail -o json canary list | jq '.[].host'")]
    List {
        /// Also without a quorum, however old
        #[arg(long)]
        stale: bool,
    },
    /// The canary of one route
    #[command(after_help = "Example:\n  dovetail -o json canary show --host shop.example")]
    Show {
        #[command(flatten)]
        route: RouteArgs,
        /// Also without a quorum, however old
        #[arg(long)]
        stale: bool,
    },
}

/// Which route.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RouteArgs {
    /// A host, a wildcard such as *.shop.example, or * for the default backend
    #[arg(long, value_name = "HOST")]
    host: String,
    /// The context root
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,
    /// Another than the default service cluster
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service_cluster: String,
}

impl From<RouteArgs> for pb::RouteRef {
    fn from(args: RouteArgs) -> Self {
        Self { service_cluster: args.service_cluster, host: args.host, path: args.path }
    }
}

pub(crate) async fn run(core: &Core, out: &Out, verb: Canary) -> Result<ExitCode, Failure> {
    match verb {
        Canary::Set { route, service, if_index, change } => {
            let shares = service.into_iter();
            let shares = shares.map(|(service, weight)| pb::Share { service, weight }).collect();
            let command =
                pb::SetCanary { route: Some(route.into()), shares, expected_index: if_index };
            change::send(core, out, &change, |mut client, request_id, dry_run| {
                let command = Some(command.clone());
                let request = pb::SetCanaryRequest { request_id, dry_run, command };
                async move { client.set_canary(request).await }
            })
            .await
        }
        Canary::Clear { route, change } => {
            let command = pb::ClearCanary { route: Some(route.into()) };
            change::send(core, out, &change, |mut client, request_id, dry_run| {
                let command = Some(command.clone());
                let request = pb::ClearCanaryRequest { request_id, dry_run, command };
                async move { client.clear_canary(request).await }
            })
            .await
        }
        Canary::Promote { route, service, change } => {
            let command = pb::PromoteCanary { route: Some(route.into()), service };
            change::send(core, out, &change, |mut client, request_id, dry_run| {
                let command = Some(command.clone());
                let request = pb::PromoteCanaryRequest { request_id, dry_run, command };
                async move { client.promote_canary(request).await }
            })
            .await
        }
        Canary::Start(start) => runs::start(core, out, start).await,
        Canary::Pause { route, change } => runs::pause(core, out, route, &change).await,
        Canary::Resume { route, change } => runs::resume(core, out, route, &change).await,
        Canary::Abort { route, change } => runs::abort(core, out, route, &change).await,
        Canary::List { stale } => {
            let answer = ask(core, pb::CanariesRequest { stale, route: None }).await?;
            if stale {
                out.age(answer.freshness.as_ref())?;
            }
            if out.is_json() {
                let canaries: Vec<_> =
                    answer.canaries.into_iter().map(json::Canary::from).collect();
                return out.json(&canaries);
            }
            print(out, &answer.canaries)
        }
        Canary::Show { route, stale } => {
            let request = pb::CanariesRequest { stale, route: Some(route.into()) };
            let mut answer = ask(core, request).await?;
            if stale {
                out.age(answer.freshness.as_ref())?;
            }
            match answer.canaries.pop() {
                Some(canary) if out.is_json() => out.json(&json::Canary::from(canary)),
                canary => print(out, canary.as_slice()),
            }
        }
    }
}

async fn ask(core: &Core, request: pb::CanariesRequest) -> Result<pb::CanariesResponse, Failure> {
    core.ask(|mut client| {
        let request = request.clone();
        async move { client.canaries(request).await }
    })
    .await
}

fn print(out: &Out, canaries: &[pb::Canary]) -> Result<ExitCode, Failure> {
    let mut table = out.table(&[
        "SERVICE CLUSTER",
        "HOST",
        "PATH",
        "ORDERED",
        "IN FORCE",
        "RUN",
        "BY",
        "INDEX",
    ]);
    for canary in canaries {
        let route = canary.route.clone().unwrap_or_default();
        let ordered = shares(&canary.shares);
        let in_force = shares(&canary.in_force);
        let (in_force, tone) = match in_force.as_str() {
            "" => ("not published", Tone::Bad),
            _ if holds(canary) => (in_force.as_str(), Tone::Good),
            _ => (in_force.as_str(), Tone::Warn),
        };
        table.add_row([
            out.cell(service_cluster(&route.service_cluster), Tone::Plain),
            out.cell(&route.host, Tone::Plain),
            out.cell(&route.path, Tone::Plain),
            out.cell(ordered, Tone::Plain),
            out.cell(in_force, tone),
            out.cell(runs::in_words(canary), run_tone(canary)),
            out.cell(super::actor(&canary.actor), Tone::Plain),
            out.cell(canary.index.to_string(), Tone::Plain),
        ]);
    }
    out.print(&table, "no canaries")
}

fn run_tone(canary: &pb::Canary) -> Tone {
    match canary.run.as_ref().map(|run| run.state.as_str()) {
        Some("aborted") => Tone::Bad,
        Some("paused") => Tone::Warn,
        _ => Tone::Plain,
    }
}

/// Whether each service gets what was ordered for it.
fn holds(canary: &pb::Canary) -> bool {
    let ordered = |name: &str| canary.shares.iter().find(|share| share.service == name);
    canary
        .in_force
        .iter()
        .all(|share| ordered(&share.service).map_or(0, |ordered| ordered.weight) == share.weight)
}

fn shares(shares: &[pb::Share]) -> String {
    let words: Vec<_> =
        shares.iter().map(|one| format!("{} {}", one.service, share(one.weight))).collect();
    printable(&words.join(", "))
}

/// `NAME=SHARE`. Whether the service is there and the shares sum, the core knows.
fn named_share(given: &str) -> Result<(String, u32), String> {
    let advice = "write it as NAME=SHARE, with the share in basis points, such as shop_v2=1000";
    let (name, share) = given.rsplit_once('=').ok_or(advice)?;
    let share = share.parse().map_err(|_| format!("{share:?} is no share: {advice}"))?;
    if name.is_empty() {
        return Err(format!("the service has no name: {advice}"));
    }
    Ok((name.to_owned(), share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_a_name_and_basis_points() {
        assert_eq!(named_share("shop_v2=1000"), Ok(("shop_v2".to_owned(), 1_000)));
        assert_eq!(named_share("a=b=0"), Ok(("a=b".to_owned(), 0)));
        for bad in ["shop", "shop=", "shop=10%", "shop=-1", "=1000", "shop=99999999999"] {
            let error = named_share(bad).expect_err(bad);
            assert!(error.contains("NAME=SHARE"), "{error}");
        }
    }

    #[test]
    fn what_is_in_force_may_differ_from_what_was_ordered() {
        let share = |service: &str, weight| pb::Share { service: service.to_owned(), weight };
        let mut canary = pb::Canary {
            shares: vec![share("a", 9_000), share("b", 1_000)],
            in_force: vec![share("a", 9_000), share("b", 1_000), share("c", 0)],
            ..pb::Canary::default()
        };
        assert!(holds(&canary));
        canary.in_force = vec![share("a", 10_000), share("b", 0), share("c", 0)];
        assert!(!holds(&canary), "b has no upstream");
    }
}
