//! The ledger's rows, told in words.

use std::sync::Arc;

use dovetail_proto::v1 as pb;
use dovetail_routing::LogIndex;
use dovetail_routing::snapshot::Digest;
use futures_util::{Stream, StreamExt, stream};
use pb::change::Change;
use pb::command::Command;
use pb::entry::Payload;
use prost::Message;
use tonic::Status;

use super::words;
use crate::ports::Quorum;

/// Entries when the request names no limit.
const LIMIT: u64 = 100;
/// Entries in one answer.
pub const LIMIT_MAX: u64 = 100_000;
/// Rows that are read at once.
const PAGE: usize = 256;
/// Names in one summary; the rest is counted.
pub(super) const NAMED_MAX: usize = 4;
/// Bytes of a text in a summary.
const TEXT_MAX: usize = 200;

/// The entries that `request` asks for, read page by page.
pub(super) fn entries<Q: Quorum>(
    quorum: Arc<Q>,
    request: pb::LogRequest,
) -> impl Stream<Item = Result<pb::LogEntry, Status>> + Send {
    let limit = if request.limit == 0 { LIMIT } else { request.limit.min(LIMIT_MAX) };
    let pages = stream::unfold((request.from, limit), move |(from, left)| {
        let quorum = Arc::clone(&quorum);
        async move {
            if left == 0 {
                return None;
            }
            let most = usize::try_from(left).unwrap_or(PAGE).min(PAGE);
            match quorum.ledger(LogIndex(from), most).await {
                Ok(mut rows) => {
                    rows.truncate(most);
                    let next = rows.last()?.index.saturating_add(1);
                    let read = u64::try_from(rows.len()).unwrap_or(left);
                    let entries = rows.into_iter().map(|row| Ok(entry_of(row))).collect();
                    Some((entries, (next, left - read)))
                }
                Err(reason) => {
                    let status = Status::internal(format!("read the ledger: {reason}"));
                    Some((vec![Err(status)], (from, 0)))
                }
            }
        }
    });
    pages.flat_map(stream::iter)
}

/// A row with what its entry says.
pub(super) fn entry_of(row: pb::LedgerRow) -> pb::LogEntry {
    let mut shown = pb::LogEntry {
        index: row.index,
        term: row.term,
        hash: hex(&row.hash),
        ..pb::LogEntry::default()
    };
    let (kind, summary) = match row.kind() {
        pb::LedgerRowKind::Blank => ("blank", "a leader began its term".to_owned()),
        pb::LedgerRowKind::Membership => ("membership", "the members changed".to_owned()),
        pb::LedgerRowKind::Entry => match pb::Entry::decode(row.entry) {
            Ok(entry) => {
                shown.leader_time_ms = entry.leader_time_ms;
                shown.actor = entry.actor;
                shown.request_id = entry.request_id;
                shown.cause = entry.cause;
                summary_of(entry.payload)
            }
            Err(error) => ("unreadable", format!("not an entry: {error}")),
        },
    };
    shown.kind = kind.to_owned();
    shown.summary = summary;
    shown
}

/// An entry's kind, and what it says in words.
pub(super) fn summary(entry: &dovetail_routing::Entry) -> (&'static str, String) {
    summary_of(pb::Entry::from(entry.clone()).payload)
}

fn summary_of(payload: Option<Payload>) -> (&'static str, String) {
    match payload {
        Some(Payload::Observed(observed)) => ("observed", observed_in_words(&observed)),
        Some(Payload::Resynced(resynced)) => (
            "resynced",
            format!(
                "compared in full: {} services, {} tasks, {} networks, {} swarm nodes",
                resynced.services, resynced.tasks, resynced.networks, resynced.swarm_nodes
            ),
        ),
        Some(Payload::Command(command)) => ("command", command_in_words(command.command)),
        Some(Payload::Tick(_)) => ("tick", "a deadline passed".to_owned()),
        Some(Payload::Checkpoint(checkpoint)) => {
            ("checkpoint", format!("state {} at {}", hex(&checkpoint.state), checkpoint.index))
        }
        None => ("unreadable", "of a newer build".to_owned()),
    }
}

fn observed_in_words(observed: &pb::Observed) -> String {
    let mut words: Vec<_> = observed.changes.iter().take(NAMED_MAX).map(change_in_words).collect();
    let more = observed.changes.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    let mut summary = words.join(", ");
    if !observed.events.is_empty() {
        let events: Vec<_> = observed.events.iter().take(NAMED_MAX).map(event_in_words).collect();
        summary.push_str(&format!("; after {}", events.join(", ")));
        let more = observed.events.len().saturating_sub(NAMED_MAX);
        if more > 0 {
            summary.push_str(&format!(" and {more} more events"));
        }
    }
    summary
}

fn event_in_words(event: &pb::DockerEvent) -> String {
    format!("{} {} {}", short(&event.kind), short(&event.action), short(&event.object))
}

fn change_in_words(change: &pb::Change) -> String {
    match &change.change {
        Some(Change::Network(network)) => format!("network {}", short(&network.name)),
        Some(Change::NetworkGone(id)) => format!("network {} gone", short(id)),
        Some(Change::SwarmNode(node)) => {
            let state = if node.down { "down" } else { "up" };
            format!("swarm node {} {state}, {}", short(&node.hostname), short(&node.availability))
        }
        Some(Change::SwarmNodeGone(id)) => format!("swarm node {} gone", short(id)),
        Some(Change::Service(service)) => format!("service {}", short(&service.name)),
        Some(Change::ServiceGone(id)) => format!("service {} gone", short(id)),
        Some(Change::Task(task)) => {
            let word = |name: &str, prefix: &str| {
                name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
            };
            let wanted = word(task.desired().as_str_name(), "DESIRED_STATE_");
            let state = word(task.state().as_str_name(), "TASK_STATE_");
            format!("task {} is {state}, wanted {wanted}", short(&task.id))
        }
        Some(Change::TaskGone(id)) => format!("task {} gone", short(id)),
        Some(Change::Secret(secret)) => format!("secret {}", short(&secret.name)),
        Some(Change::SecretGone(id)) => format!("secret {} gone", short(id)),
        Some(Change::Config(config)) => format!("config {}", short(&config.name)),
        Some(Change::ConfigGone(id)) => format!("config {} gone", short(id)),
        None => "a change of a newer build".to_owned(),
    }
}

fn command_in_words(command: Option<Command>) -> String {
    match command {
        Some(Command::ApplyConfig(config)) => {
            format!("configuration of {} service clusters", config.proxies.len())
        }
        Some(Command::AcceptSwarm(accept)) => format!("accept swarm {}", short(&accept.swarm)),
        Some(Command::Annotate(annotate)) => format!("remark: {}", short(&annotate.text)),
        Some(Command::SetCanary(canary)) => {
            let instead =
                canary.expected_index.map(|index| format!(", instead of that of {index}"));
            let instead = instead.unwrap_or_default();
            format!("canary on {}: {}{instead}", route(canary.route), shares(&canary.shares))
        }
        Some(Command::StartCanary(start)) => words::started(start),
        Some(Command::PauseCanary(one)) => format!("pause the canary on {}", route(one.route)),
        Some(Command::ResumeCanary(one)) => format!("resume the canary on {}", route(one.route)),
        Some(Command::AdvanceCanary(advance)) => words::advanced(advance),
        Some(Command::PromoteCanary(canary)) => match canary.service.as_str() {
            "" => format!("promote the canary on {}", route(canary.route)),
            service => format!("all of {} to {}", route(canary.route), short(service)),
        },
        Some(Command::AbortCanary(abort)) => words::aborted(abort),
        Some(Command::ClearCanary(canary)) => {
            format!("clear the canary on {}", route(canary.route))
        }
        Some(Command::DrainUpstream(drain)) => words::drained(drain),
        Some(Command::UndrainUpstream(undrain)) => {
            format!("undrain {}", words::target(undrain.target))
        }
        Some(Command::RollbackRoutes(rollback)) => format!(
            "roll {} back to {}",
            scope(&rollback.service_cluster, &rollback.host, &rollback.service),
            rollback.to
        ),
        Some(Command::ReleaseRollback(release)) => format!(
            "release {} from rollbacks",
            scope(&release.service_cluster, &release.host, &release.service)
        ),
        Some(Command::ActivateRules(rules)) => format!("activate rule set {}", rules.rules),
        Some(Command::ChangeMembers(changed)) => members_in_words(&changed),
        None => "a command of a newer build".to_owned(),
    }
}

fn members_in_words(changed: &pb::ChangeMembers) -> String {
    let what = match changed.change() {
        pb::MemberChange::Add => "add as learner",
        pb::MemberChange::Promote => "promote to voter",
        pb::MemberChange::Remove => "remove",
        pb::MemberChange::Replace => "replace the disk of",
        pb::MemberChange::TransferLeader => "transfer leadership to",
        pb::MemberChange::Unspecified => "change",
    };
    let slots: Vec<_> =
        changed.members.iter().take(NAMED_MAX + 1).map(ToString::to_string).collect();
    let at = match changed.address.as_str() {
        "" => String::new(),
        address => format!(" at {}", short(address)),
    };
    format!("{what} member {}{at}", slots.join(", "))
}

/// A route as an operator writes it; the default service cluster goes without saying.
pub(super) fn route(route: Option<pb::RouteRef>) -> String {
    let Some(pb::RouteRef { service_cluster, host, path }) = route else {
        return "no route".to_owned();
    };
    let path = if path.is_empty() { "/" } else { &path };
    match service_cluster.as_str() {
        "" => format!("{}{}", short(&host), short(path)),
        cluster => format!("{}{} of service cluster {}", short(&host), short(path), short(cluster)),
    }
}

/// Shares in per cent, such as `blue 90%, green 10%`.
fn shares(shares: &[pb::Share]) -> String {
    let mut words: Vec<_> = shares
        .iter()
        .take(NAMED_MAX)
        .map(|share| format!("{} {}%", short(&share.service), percent(share.weight)))
        .collect();
    let more = shares.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

/// Basis points in per cent, without needless zeros.
/// Which routes a rollback or a release is for.
fn scope(service_cluster: &str, host: &str, service: &str) -> String {
    let mut words = match (host, service) {
        ("", "") => "all routes".to_owned(),
        (host, "") => format!("routes of host {}", short(host)),
        ("", service) => format!("routes of service {}", short(service)),
        (host, service) => {
            format!("routes of service {} on host {}", short(service), short(host))
        }
    };
    if !service_cluster.is_empty() {
        words.push_str(&format!(" in service cluster {}", short(service_cluster)));
    }
    words
}

pub(super) fn percent(weight: u32) -> String {
    let text = format!("{}.{:02}", weight / 100, weight % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A text on one line, cut to a length that a line can bear.
pub(super) fn short(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let ellipsis = if end < text.len() { "…" } else { "" };
    let line: String = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line + ellipsis
}

fn hex(bytes: &[u8]) -> String {
    match <[u8; 32]>::try_from(bytes) {
        Ok(bytes) => Digest(bytes).to_string(),
        Err(_) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_told_on_one_line() {
        let task = pb::Task {
            id: "t1".to_owned(),
            desired: pb::DesiredState::Shutdown.into(),
            state: pb::TaskState::Running.into(),
            ..pb::Task::default()
        };
        let service = pb::Service { name: "shop\nweb".to_owned(), ..pb::Service::default() };
        let gone = || Change::TaskGone("t0".to_owned());
        let changes = [Change::Service(service), Change::Task(task), gone(), gone(), gone()];
        let observed = pb::Observed {
            swarm: "s".to_owned(),
            changes: changes.map(|change| pb::Change { change: Some(change) }).to_vec(),
            events: vec![pb::DockerEvent {
                kind: "service".to_owned(),
                action: "update".to_owned(),
                object: "x1".to_owned(),
                time_ns: 0,
            }],
        };
        let entry = pb::Entry {
            actor: "dovetail://member/1".to_owned(),
            payload: Some(Payload::Observed(observed)),
            ..pb::Entry::default()
        };
        let row = pb::LedgerRow {
            index: 7,
            term: 2,
            entry: entry.encode_to_vec().into(),
            kind: pb::LedgerRowKind::Entry.into(),
            hash: vec![0xab; 32],
        };
        let shown = entry_of(row);
        assert_eq!((shown.index, shown.term, shown.kind.as_str()), (7, 2, "observed"));
        assert_eq!(
            shown.summary,
            "service shop web, task t1 is running, wanted shutdown, task t0 gone, task t0 gone, \
             1 more; after service update x1"
        );
        assert_eq!(shown.hash, "ab".repeat(32));
    }

    #[test]
    fn a_row_without_a_readable_entry_is_told_too() {
        let row = |kind: pb::LedgerRowKind, entry: &'static [u8]| pb::LedgerRow {
            kind: kind.into(),
            entry: entry.into(),
            ..pb::LedgerRow::default()
        };
        assert_eq!(entry_of(row(pb::LedgerRowKind::Blank, b"")).kind, "blank");
        assert_eq!(entry_of(row(pb::LedgerRowKind::Membership, b"")).kind, "membership");
        assert_eq!(entry_of(row(pb::LedgerRowKind::Entry, b"\xff\xff")).kind, "unreadable");
        assert_eq!(entry_of(row(pb::LedgerRowKind::Entry, b"")).kind, "unreadable");
    }

    #[test]
    fn a_canary_is_told_with_its_route_and_shares() {
        let place = |service_cluster: &str, path: &str| {
            Some(pb::RouteRef {
                service_cluster: service_cluster.to_owned(),
                host: "shop.example".to_owned(),
                path: path.to_owned(),
            })
        };
        let share = |service: &str, weight| pb::Share { service: service.to_owned(), weight };
        let set = pb::SetCanary {
            route: place("", ""),
            shares: vec![share("blue", 9_950), share("green", 50)],
            expected_index: None,
        };
        let swap = pb::SetCanary { expected_index: Some(7), ..set.clone() };
        for (command, told) in [
            (Command::SetCanary(set), "canary on shop.example/: blue 99.5%, green 0.5%"),
            (
                Command::SetCanary(swap),
                "canary on shop.example/: blue 99.5%, green 0.5%, instead of that of 7",
            ),
            (
                Command::PromoteCanary(pb::PromoteCanary {
                    route: place("red", "/app"),
                    service: "green".to_owned(),
                }),
                "all of shop.example/app of service cluster red to green",
            ),
            (
                Command::ClearCanary(pb::ClearCanary { route: place("", "/app") }),
                "clear the canary on shop.example/app",
            ),
        ] {
            assert_eq!(command_in_words(Some(command)), told);
        }
        assert_eq!([10_000, 100, 1, 0].map(percent), ["100", "1", "0.01", "0"]);
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert!(short(&"ä".repeat(1_000)).ends_with('…'));
        assert_eq!(short("a\r\nb"), "a  b");
    }
}
