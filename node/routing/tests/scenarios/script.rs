//! The commands of a story.
//!
//! ```text
//! network|node|secret|service|task NAME …    an object as Docker shows it now
//! gone KIND NAME                      an object that Docker shows no longer
//! observe                             the objects since the last one, as one entry
//! resync                              a full listing was compared
//! swarm ID                            of what is observed from here on
//! config CLUSTER [KEY=VALUE …]        ApplyConfig; KEY is a field of ProxyOptions
//! accept-swarm ID | annotate TEXT | unknown NAME | tick [schema=N]
//! rules N                             ActivateRules
//! set-canary HOST/PATH [SERVICE=SHARE …] | clear-canary HOST/PATH | canaries
//! promote-canary HOST/PATH [SERVICE]
//! rollback INDEX [host=HOST] [service=NAME] [for=SECONDS] | release [host=HOST] [service=NAME]
//! rollbacks | intents [INDEX]         what is held; the routes without upstreams
//! start-canary HOST/PATH FROM TO STEP,STEP [interval=SECONDS] [error_rate=N] [p99=MS] [min=N]
//! pause-canary HOST/PATH | resume-canary HOST/PATH | abort-canary HOST/PATH [EVIDENCE …]
//! advance-canary HOST/PATH STEP [EVIDENCE …]    EVIDENCE is [of=INDEX] [step=N]
//!                                     [window=SECONDS] PROXY=REQUESTS:ERRORS:MS PROXY=missing
//! drain IP:PORT|service=NAME|node=NAME [for=SECONDS] [force] | undrain … | drains
//! as REQUEST_ID COMMAND …             the same with a request id
//! again                               the last observation once more
//! routes [CLUSTER] | revision [CLUSTER] | problems | converging NAME | find HOST PATH
//! missing KIND NAME, KIND NAME …      the difference to a listing that lacks these
//! ```

use std::fmt::Write;
use std::time::Duration;

use dovetail_routing::entry::{ClusterConfig, MergeHosts, ProxyOptions};
use dovetail_routing::fact::{Change, Listing, Observed, Resynced};
use dovetail_routing::find::{Found, RouteIndex};
use dovetail_routing::names::{ServiceCluster, SwarmId};
use dovetail_routing::snapshot::Snapshot;
use dovetail_routing::state::State;
use dovetail_routing::{Applied, Command, Digest, Entry, LogIndex, Payload};

use crate::facts::{network, node, rest, service, task, words};
use crate::orders::{canaries, drain, drains, evidence, route, start, target};
use crate::rollbacks::{intents, release, rollback, rollbacks};
use crate::show::routes;

pub(crate) struct Script {
    state: State,
    index: u64,
    version: u64,
    swarm: SwarmId,
    pending: Vec<Change>,
    last: Observed,
    request_id: String,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            state: State::default(),
            index: 0,
            version: 10,
            swarm: "swarm-a".into(),
            pending: Vec::new(),
            last: Observed::default(),
            request_id: String::new(),
        }
    }
}

impl Script {
    /// Runs one command; what it prints ends with a line break, or is nothing.
    pub(crate) fn run(&mut self, line: &str) -> String {
        let (command, arguments) = line.split_once(' ').unwrap_or((line, ""));
        let all = words(arguments);
        let name = all.first().map_or("", |(name, _)| name.as_str()).to_owned();
        let more = all.get(1..).unwrap_or_default();
        self.version += 1;
        match command {
            "network" => self.pending.push(Change::Network(network(&name, more))),
            "node" => self.pending.push(Change::SwarmNode(node(&name, more, self.version))),
            "secret" => self.pending.push(secret(&name)),
            "service" => self.pending.push(Change::Service(service(&name, more, self.version))),
            "task" => self.pending.push(Change::Task(task(&name, more, self.version))),
            "gone" => self.pending.push(gone(&name, &more[0].0)),
            "swarm" => self.swarm = name.as_str().into(),
            "observe" => {
                let changes = std::mem::take(&mut self.pending);
                self.last = Observed { swarm: self.swarm.clone(), changes, events: Vec::new() };
                return self.apply(Payload::Observed(self.last.clone()));
            }
            "again" => return self.apply(Payload::Observed(self.last.clone())),
            "resync" => {
                let swarm = self.swarm.clone();
                return self.apply(Payload::Resynced(Resynced { swarm, ..Resynced::default() }));
            }
            "as" => {
                self.request_id = name.clone();
                let printed = self.run(arguments.split_once(' ').expect("as ID COMMAND").1);
                self.request_id.clear();
                return printed;
            }
            "config" => return self.command(Command::ApplyConfig(config(&name, more))),
            "accept-swarm" => {
                return self.command(Command::AcceptSwarm { swarm: name.as_str().into() });
            }
            "rules" => {
                let rules = name.parse::<u32>().expect("a number").try_into().expect("known");
                return self.command(Command::ActivateRules { rules });
            }
            "annotate" => return self.command(Command::Annotate { text: rest(arguments) }),
            "set-canary" => {
                let is_expected = |one: &&(String, Option<String>)| one.0 == "if-index";
                let expected = more.iter().find(is_expected).and_then(|one| one.1.as_ref());
                let expected = expected.map(|index| LogIndex(index.parse().expect("an index")));
                let given: Vec<_> = more.iter().filter(|one| !is_expected(one)).cloned().collect();
                let shares = crate::orders::shares(&given);
                return self.command(Command::SetCanary { route: route(&name), shares, expected });
            }
            "clear-canary" => return self.command(Command::ClearCanary { route: route(&name) }),
            "promote-canary" => {
                let service = more.first().map(|(service, _)| service.as_str().into());
                return self.command(Command::PromoteCanary { route: route(&name), service });
            }
            "rollback" => return self.command(rollback(&name, more)),
            "release" => return self.command(release(&all)),
            "rollbacks" => return rollbacks(&self.state),
            "intents" => return intents(&self.state, &name),
            "start-canary" => return self.command(start(route(&name), more)),
            "pause-canary" => return self.command(Command::PauseCanary { route: route(&name) }),
            "resume-canary" => return self.command(Command::ResumeCanary { route: route(&name) }),
            "advance-canary" => {
                let route = route(&name);
                let step = more[0].0.parse().expect("a step");
                let evidence = evidence(&self.state, &route, &more[1..]);
                return self.command(Command::AdvanceCanary { route, step, evidence });
            }
            "abort-canary" => {
                let route = route(&name);
                let evidence = (!more.is_empty()).then(|| evidence(&self.state, &route, more));
                return self.command(Command::AbortCanary { route, evidence });
            }
            "drain" => return self.command(drain(&all)),
            "undrain" => return self.command(Command::UndrainUpstream { target: target(&all) }),
            "drains" => return drains(&self.state),
            "canaries" => return canaries(&self.state),
            "unknown" => return self.command(Command::Unknown { name: name.as_str().into() }),
            "tick" => return self.apply_as(Payload::Tick, schema(&all)),
            "routes" => return routes(&self.snapshot(&name)),
            "revision" => {
                return format!("revision {}\n", self.state.revision(&cluster(&name)));
            }
            "problems" => return self.problems(),
            "converging" => {
                let id = format!("id-{name}").as_str().into();
                return format!("{name} is converging: {}\n", self.state.is_converging(&id));
            }
            "find" => return self.find(&name, &more[0].0),
            "missing" => return self.missing(arguments),
            other => panic!("no command {other:?}"),
        }
        String::new()
    }

    fn snapshot(&self, name: &str) -> std::sync::Arc<Snapshot> {
        let published = self.state.published(&cluster(name));
        let read = Snapshot::decode(&published.canonical).expect("canonical bytes");
        assert_eq!(read, *published.snapshot, "canonical bytes say what the snapshot says");
        published.snapshot.clone()
    }

    fn command(&mut self, command: Command) -> String {
        self.apply(Payload::Command(command))
    }

    fn apply(&mut self, payload: Payload) -> String {
        self.apply_as(payload, 1)
    }

    fn apply_as(&mut self, payload: Payload, schema_version: u32) -> String {
        self.index += 1;
        let entry = Entry {
            schema_version,
            leader_time_ms: self.index * 1_000,
            actor: "dovetail://operator/anna".into(),
            request_id: self.request_id.as_str().into(),
            cause: "a story".into(),
            payload,
        };
        let applied = self.state.apply(LogIndex(self.index), &entry);
        // Every story also shows that a restored state goes on as the old one would.
        self.state = State::decode(&self.state.encode()).expect("what was encoded");
        match applied {
            Applied::Changed(revision) => format!("{}: changed r{revision}\n", self.index),
            Applied::Unchanged => format!("{}: unchanged\n", self.index),
            Applied::Rejected(rejection) => format!("{}: rejected, {rejection}\n", self.index),
        }
    }

    fn problems(&self) -> String {
        let mut out = String::new();
        for problem in self.state.problems() {
            let value = match problem.value.len() {
                0..=80 => format!("{:?}", problem.value),
                bytes => format!("({bytes} bytes) {:?}…", &problem.value[..40]),
            };
            let of = [&*problem.service, &*problem.label].join(" ");
            let _ = writeln!(out, "{of} {value} since {}", problem.since_index);
            let _ = writeln!(out, "  {}", problem.reason);
        }
        if out.is_empty() { "no problem\n".into() } else { out }
    }

    fn find(&self, host: &str, path: &str) -> String {
        let snapshot = self.snapshot("");
        match RouteIndex::new(snapshot.clone()).find(host, path) {
            Found::Route(position) => {
                let route = &snapshot.routes[position];
                format!("{host}{path} -> {}{}\n", route.host, route.path)
            }
            Found::UnknownPath => format!("{host}{path} -> unknown path\n"),
            Found::UnknownHost => format!("{host}{path} -> unknown host\n"),
        }
    }

    /// A listing of all that is recorded, but for some objects.
    fn missing(&self, absent: &str) -> String {
        let state = &self.state;
        let mut listing = Listing { swarm: state.swarm().clone(), ..Listing::default() };
        listing.networks = state.networks().map(|one| (one.id.clone(), one.clone())).collect();
        listing.swarm_nodes =
            state.swarm_nodes().map(|one| (one.id.clone(), one.clone())).collect();
        listing.services = state.services().map(|one| (one.id.clone(), one.clone())).collect();
        listing.tasks = state.tasks().map(|one| (one.id.clone(), one.clone())).collect();
        for pair in absent.split(", ") {
            let (kind, name) = pair.split_once(' ').expect("KIND NAME");
            match gone(kind, name) {
                Change::NetworkGone(id) => drop(listing.networks.remove(&id)),
                Change::SwarmNodeGone(id) => drop(listing.swarm_nodes.remove(&id)),
                Change::ServiceGone(id) => drop(listing.services.remove(&id)),
                Change::TaskGone(id) => drop(listing.tasks.remove(&id)),
                _ => unreachable!("gone makes no other"),
            }
        }
        let difference = state.difference(&listing);
        assert!(difference.upserts.is_empty(), "a listing of what is recorded adds nothing");
        let removals: Vec<_> = difference.removals.iter().map(|one| format!("{one:?}")).collect();
        format!(
            "upstreams lost {} of {}, routes lost {}\n{}\n",
            difference.upstreams_lost,
            difference.upstreams_before,
            difference.routes_lost,
            removals.join("\n")
        )
    }
}

fn gone(kind: &str, name: &str) -> Change {
    match kind {
        "network" => Change::NetworkGone(format!("net-{name}").as_str().into()),
        "node" => Change::SwarmNodeGone(name.into()),
        "service" => Change::ServiceGone(format!("id-{name}").as_str().into()),
        "task" => Change::TaskGone(name.into()),
        "secret" => Change::SecretGone(format!("secret-{name}").as_str().into()),
        other => panic!("no kind {other:?}"),
    }
}

fn secret(name: &str) -> Change {
    Change::Secret { id: format!("secret-{name}").as_str().into(), name: name.into() }
}

fn cluster(name: &str) -> ServiceCluster {
    name.parse().expect("the name of a service cluster")
}

fn schema(words: &[(String, Option<String>)]) -> u32 {
    let given = words.iter().find(|(key, _)| key == "schema").and_then(|(_, value)| value.as_ref());
    given.map_or(1, |given| given.parse().expect("a number"))
}

fn config(name: &str, words: &[(String, Option<String>)]) -> ClusterConfig {
    let name = if name == "default" { "" } else { name };
    let mut options = ProxyOptions::default();
    for (key, value) in words {
        match (key.as_str(), value.as_deref()) {
            ("hide_info_headers", None) => options.hide_info_headers = true,
            ("connect_timeout", Some(seconds)) => {
                let seconds = seconds.parse().expect("a number");
                options.connect_timeout = Some(Duration::from_secs(seconds));
            }
            ("merge_hosts", Some("all")) => options.merge_hosts = MergeHosts::All,
            ("merge_hosts", Some("stack")) => options.merge_hosts = MergeHosts::Stack,
            ("merge_hosts", Some("none")) => options.merge_hosts = MergeHosts::None,
            other => panic!("no option {other:?}"),
        }
    }
    ClusterConfig {
        source: Digest([1; 32]),
        poll_interval: None,
        proxies: vec![(cluster(name), options)],
    }
}
