//! Rollbacks and intents as a script writes and shows them.

use std::fmt::Write;

use dovetail_routing::intent::{RouteIntent, Scope};
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::{RouteHost, Tls};
use dovetail_routing::state::State;
use dovetail_routing::{Command, LogIndex};

type Words = [(String, Option<String>)];

fn value<'a>(words: &'a Words, key: &str) -> Option<&'a str> {
    words.iter().find(|(name, _)| name == key).and_then(|(_, value)| value.as_deref())
}

fn scope(words: &Words) -> Scope {
    let host = value(words, "host").map(|host| match host {
        "*" => RouteHost::Default,
        name => name.parse().expect("a host"),
    });
    Scope { host, service: value(words, "service").map(Into::into) }
}

/// `INDEX [host=HOST] [service=NAME] [for=SECONDS]`.
pub(crate) fn rollback(index: &str, words: &Words) -> Command {
    Command::RollbackRoutes {
        service_cluster: ServiceCluster::default(),
        to: LogIndex(index.parse().expect("an index")),
        scope: scope(words),
        for_ms: value(words, "for").map(|it| it.parse::<u64>().expect("seconds") * 1_000),
    }
}

/// `[host=HOST] [service=NAME]`.
pub(crate) fn release(words: &Words) -> Command {
    Command::ReleaseRollback { service_cluster: ServiceCluster::default(), scope: scope(words) }
}

pub(crate) fn rollbacks(state: &State) -> String {
    let mut out = String::new();
    for (route, held) in state.rollbacks() {
        let order = &held.order;
        let _ = write!(
            out,
            "{route} to {} by {} at {}, {}, {} changes not in force",
            order.to, order.actor, order.index, order.scope, held.changes
        );
        if let Some(until) = order.until_ms {
            let _ = write!(out, ", until {until} ms");
        }
        let swarm = held.swarm.as_deref().map_or("nothing".to_owned(), shown);
        let _ = writeln!(out, "\n  Swarm says: {swarm}");
    }
    if out.is_empty() { "no rollback\n".into() } else { out }
}

/// The intents in force, or those after an entry.
pub(crate) fn intents(state: &State, index: &str) -> String {
    let service_cluster = ServiceCluster::default();
    let intents = match index.parse() {
        Ok(index) => state.intent_at(&service_cluster, LogIndex(index)),
        Err(_) => Ok(state.intents(&service_cluster)),
    };
    let intents = match intents {
        Ok(intents) => intents,
        Err(error) => return format!("{error}\n"),
    };
    let digest: String = intents.digest().to_string().chars().take(8).collect();
    let mut out = format!("intents {digest}\n");
    for (route, intent) in intents.iter() {
        let _ = writeln!(out, "{route} {}", shown(intent));
    }
    out
}

fn shown(intent: &RouteIntent) -> String {
    let mut out = intent.services.join(" ");
    for share in &intent.shares {
        let _ = write!(out, " {}={}", share.service, share.weight);
    }
    match &intent.tls {
        Tls::None => {}
        Tls::Terminate(certificate) => {
            let _ = write!(out, " cert={}", certificate.cert);
        }
        Tls::Passthrough => out.push_str(" passthrough"),
    }
    if intent.options.rewrite {
        out.push_str(" rewrite");
    }
    if intent.options.ssl_only {
        out.push_str(" ssl_only");
    }
    out
}
