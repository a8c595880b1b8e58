//! Where a request goes, in steps: from any state, a member's or a replayed one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dovetail_proto::v1 as pb;
use dovetail_routing::LogIndex;
use dovetail_routing::explain::{Explanation, Rule};
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::{Route, Sticky, Tls, UpstreamState};
use dovetail_routing::state::State;
use dovetail_routing::sticky::{self, user_at};

use crate::export::ExportError;
use crate::replay::{RowsOf, entries_at};

/// Bytes of a URL or a header.
const TEXT_BYTES_MAX: usize = 8 * 1_024;
/// Headers of a request.
const HEADERS_MAX: usize = 100;

/// A request as it is asked about.
#[derive(Debug)]
pub struct Asked {
    https: bool,
    host: String,
    path: String,
    headers: Vec<(String, String)>,
    client: Option<IpAddr>,
    service_cluster: ServiceCluster,
}

/// Reads what is to be explained, or says what is wrong with it.
pub fn read(request: &pb::ExplainRequest) -> Result<Asked, String> {
    if request.url.len() > TEXT_BYTES_MAX {
        return Err(format!("url: {} bytes, at most {TEXT_BYTES_MAX}", request.url.len()));
    }
    if request.headers.len() > HEADERS_MAX {
        return Err(format!("{} headers, at most {HEADERS_MAX}", request.headers.len()));
    }
    let url: http::Uri = request
        .url
        .parse()
        .map_err(|error| format!("url {:?}: {error}: write it as http://HOST/PATH", request.url))?;
    let https = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(format!("url {:?}: must begin with http:// or https://", request.url)),
    };
    let mut headers = Vec::new();
    for header in &request.headers {
        let pair = header.split_once(':').filter(|(name, _)| !name.trim().is_empty());
        let (name, value) =
            pair.ok_or_else(|| format!("header {header:?}: write it as NAME: VALUE"))?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    let named = headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.as_str());
    let authority = named.or(url.authority().map(http::uri::Authority::as_str));
    let authority = authority.unwrap_or_default();
    let parsed: http::uri::Authority =
        authority.parse().map_err(|error| format!("host {authority:?}: {error}"))?;
    let client = match request.client.as_str() {
        "" => None,
        client => Some(client.parse().map_err(|_| format!("client {client:?}: is no address"))?),
    };
    let service_cluster =
        request.service_cluster.parse().map_err(|error| format!("service_cluster: {error}"))?;
    Ok(Asked {
        https,
        host: parsed.host().to_ascii_lowercase(),
        path: url.path().to_owned(),
        headers,
        client,
        service_cluster,
    })
}

/// A request explained by a state; `chain` is still empty.
pub fn explain(state: &State, asked: &Asked) -> (pb::ExplainResponse, Explanation) {
    let explanation = state.explain(&asked.service_cluster, &asked.host, &asked.path);
    let route = explanation.route.as_ref();
    let answer = pb::ExplainResponse {
        index: state.applied_index().0,
        leader_time_ms: state.leader_time_ms(),
        revision: explanation.revision.0,
        host: asked.host.clone(),
        path: asked.path.clone(),
        rule: match explanation.rule {
            Rule::Host => "host",
            Rule::Wildcard => "wildcard",
            Rule::Default => "default",
            Rule::UnknownPath => "unknown path",
            Rule::UnknownHost => "unknown host",
        }
        .to_owned(),
        steps: steps(state, asked, &explanation),
        route: route.map(|(key, route)| pb::Route {
            rollback: state.rollback(key).map(Into::into),
            ..route.into()
        }),
        claims: explanation.claims.iter().map(claim).collect(),
        problems: explanation.problems.iter().map(Into::into).collect(),
        chain: Vec::new(),
    };
    (answer, explanation)
}

/// The entries that made a route what it is, by index, as far as the state knows them.
pub fn links(explanation: &Explanation) -> BTreeMap<u64, Vec<String>> {
    let mut links: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    if explanation.route.is_none() {
        return links;
    }
    let mut link = |index: LogIndex, what: String| {
        links.entry(index.0).or_default().push(what);
    };
    link(LogIndex(explanation.revision.0), "the snapshot last changed".to_owned());
    for claim in &explanation.claims {
        link(claim.since, format!("the claim of {} began", claim.name));
    }
    if let Some(index) = explanation.intent_changed_at {
        link(index, "what the route is, but for upstreams, last changed".to_owned());
    }
    if let Some(shares) = &explanation.shares {
        link(shares.index, "its shares were ordered".to_owned());
    }
    for drain in &explanation.drains {
        link(drain.index, format!("{} was drained", drain.target));
    }
    if let Some(held) = &explanation.held {
        let what = format!("it was rolled back to what it was after index {}", held.order.to);
        link(held.order.index, what);
        link(held.order.to, "the rollback gives back what it was after this".to_owned());
    }
    links
}

/// A request explained by a replayed state, with whose entries among `rows` made it so; one
/// that lies before them is named by its index alone.
pub fn explain_by(
    state: &State,
    asked: &Asked,
    rows: &mut impl RowsOf,
) -> Result<pb::ExplainResponse, ExportError> {
    let (answer, explanation) = explain(state, asked);
    let links = links(&explanation);
    let entries = entries_at(rows, &links.keys().copied().collect())?;
    let chain = links.into_iter().rev().map(|(index, what)| {
        let link = pb::ChainLink { index, what: what.join("; "), ..pb::ChainLink::default() };
        let Some(entry) = entries.get(&index) else { return link };
        pb::ChainLink {
            leader_time_ms: entry.leader_time_ms,
            actor: entry.actor.to_string(),
            cause: entry.cause.to_string(),
            ..link
        }
    });
    Ok(pb::ExplainResponse { chain: chain.collect(), ..answer })
}

fn claim(claim: &dovetail_routing::explain::ClaimOf) -> pb::RouteClaim {
    pb::RouteClaim {
        service: claim.name.to_string(),
        since_index: claim.since.0,
        in_force: claim.in_force,
    }
}

/// What becomes of the request, in words.
fn steps(state: &State, asked: &Asked, explanation: &Explanation) -> Vec<String> {
    let host = &asked.host;
    let mut steps = Vec::new();
    let Some((key, route)) = &explanation.route else {
        steps.push(match explanation.rule {
            Rule::UnknownPath => format!(
                "host {host} has {} routes, and none of their context roots covers {}: 404",
                explanation.paths_of_host, asked.path
            ),
            _ => format!("host {host} has no route, and there is no default backend: 503"),
        });
        return steps;
    };
    steps.push(match explanation.rule {
        Rule::Wildcard => format!("host {host} is covered by {}, the longest wildcard", key.host),
        Rule::Default => format!("host {host} has no route: the default backend answers"),
        _ => format!("host {host} is published by this name"),
    });
    steps.push(format!(
        "context root {} covers {}; it is the longest that does, of {} of the host",
        key.path, asked.path, explanation.paths_of_host
    ));
    if let Some(held) = &explanation.held {
        steps.push(format!(
            "differs from Swarm by rollback at index {} (to index {}, by {}); {} changes of \
             Swarm's are not in force",
            held.order.index, held.order.to, held.order.actor, held.changes
        ));
    }
    transport(asked, route, &mut steps);
    if route.options.rewrite {
        steps.push(format!("the context root {} is taken off the path", key.path));
    }
    client(state, asked, route, &mut steps);
    if let Some(shares) = &explanation.shares {
        steps.push(format!("shares were ordered by {} at index {}", shares.actor, shares.index));
    } else {
        steps.push("weights are equal over all upstreams".to_owned());
    }
    for drain in &explanation.drains {
        steps.push(format!(
            "{} was drained by {} at index {}: nobody is sent there",
            drain.target, drain.actor, drain.index
        ));
    }
    let upstreams = || route.services.iter().flat_map(|service| &service.upstreams);
    let active = upstreams().filter(|one| one.state == UpstreamState::Active).count();
    let draining = upstreams().count() - active;
    steps.push(match (active, draining) {
        (0, 0) => "no upstream runs: 503 with Retry-After".to_owned(),
        (0, _) => format!("no upstream is active: one of {draining} draining ones takes it"),
        (1, _) => "one active upstream takes it".to_owned(),
        _ => format!("one of {active} active upstreams takes it, by their services' shares"),
    });
    steps
}

/// TLS and redirects.
fn transport(asked: &Asked, route: &Route, steps: &mut Vec<String>) {
    match (&route.tls, asked.https) {
        (Tls::Passthrough, true) => {
            steps.push("its TLS stream is passed through: only the service decrypts".to_owned());
        }
        (Tls::Passthrough, false) => {
            steps.push("the host is passed through; over plain HTTP it is not known".to_owned());
        }
        (Tls::Terminate(certificate), true) => {
            steps.push(format!("TLS ends at the proxy, with certificate {}", certificate.cert));
            if let Some(authority) = &certificate.client_ca {
                steps.push(format!("the client shows a certificate that {authority} signed"));
            }
        }
        (Tls::None | Tls::Terminate(_), _) => {}
    }
    if let Some(redirect) = &route.options.redirect {
        steps.push(format!("it is redirected (302) to {redirect}, unless it came there already"));
    }
    if route.options.ssl_only && !asked.https {
        steps.push("plain HTTP is redirected to HTTPS".to_owned());
    }
}

/// What the client's address and cookies decide.
fn client(state: &State, asked: &Asked, route: &Route, steps: &mut Vec<String>) {
    let header = |name: &str| {
        let mut own = asked.headers.iter().filter(|(other, _)| other == name);
        own.next().map(|(_, value)| value.as_str())
    };
    if let Some(client) = asked.client {
        let options = &state.snapshot(&asked.service_cluster).options;
        let is_trusted = options.trusted_proxies.iter().any(|subnet| subnet.contains(client));
        if is_trusted {
            steps.push(format!("{client} is a trusted proxy: its X-Forwarded-For is believed"));
        } else if header("x-forwarded-for").is_some() {
            steps.push(format!("{client} is no trusted proxy: its X-Forwarded-For is replaced"));
        }
    }
    let by_address = state.snapshot(&asked.service_cluster).options.ip_hash;
    match &route.options.sticky {
        Sticky::None if !by_address => {}
        // Behind a trusted proxy it is the address that this one names.
        Sticky::None | Sticky::ClientIp => steps.push(match asked.client {
            Some(client) if header("x-forwarded-for").is_none() => {
                format!("its address {client} keeps it on {}", place(route, user_at(client)))
            }
            _ => "users are kept on one upstream by their address".to_owned(),
        }),
        Sticky::Cookie(name) => {
            let cookies = asked.headers.iter().filter(|(other, _)| other == "cookie");
            let cookies = cookies.map(|(_, value)| value.as_bytes());
            let user = sticky::cookie(cookies, name).map(sticky::number);
            let name = name.as_str();
            steps.push(match user {
                Some(user) => format!("its cookie {name} keeps it on {}", place(route, user)),
                None => format!("it has no cookie {name}, which would keep it on one upstream"),
            });
        }
    }
}

/// The upstream that every proxy keeps a user on, in words.
fn place(route: &Route, user: u64) -> String {
    let Some((service, upstream)) = route.kept(user) else { return "no upstream".to_owned() };
    let task = upstream.task.as_ref().map(|task| format!(" (task {task})")).unwrap_or_default();
    format!("{}{task} of {}, unless a proxy finds that failing", upstream.address, service.name)
}
