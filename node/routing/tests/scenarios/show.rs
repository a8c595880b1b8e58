//! A snapshot as a story prints it: what is not the default, and nothing else.

use std::fmt::{Display, Write};

use dovetail_routing::entry::MergeHosts;
use dovetail_routing::snapshot::{
    Dial, Route, RouteOptions, Snapshot, Sticky, Tls, UpstreamProtocol, UpstreamState, UpstreamTls,
};

/// Of longer lists the first and the last are printed.
const SHOWN_MAX: usize = 20;

pub(crate) fn routes(snapshot: &Snapshot) -> String {
    let mut out = format!("r{}", snapshot.revision);
    if snapshot.options.hide_info_headers {
        out.push_str(" hide_info_headers");
    }
    if let Some(timeout) = snapshot.options.connect_timeout {
        let _ = write!(out, " connect_timeout={timeout:?}");
    }
    match snapshot.options.merge_hosts {
        MergeHosts::All => {}
        MergeHosts::Stack => out.push_str(" merge_hosts=stack"),
        MergeHosts::None => out.push_str(" merge_hosts=none"),
    }
    if snapshot.routes.is_empty() {
        out.push_str(" no route");
    }
    out.push('\n');
    for (position, route) in snapshot.routes.iter().enumerate() {
        if snapshot.routes.len() > SHOWN_MAX && position == 1 {
            let _ = writeln!(out, "… {} more …", snapshot.routes.len() - 2);
        }
        if snapshot.routes.len() > SHOWN_MAX && (1..snapshot.routes.len() - 1).contains(&position) {
            continue;
        }
        show(route, &mut out);
    }
    out
}

fn show(route: &Route, out: &mut String) {
    let _ = write!(out, "{}{}", route.host, route.path);
    match &route.tls {
        Tls::None => {}
        Tls::Passthrough => out.push_str(" passthrough"),
        Tls::Terminate(one) => {
            let _ = write!(out, " cert={}", one.cert);
            given(out, "key", one.key.as_ref());
            given(out, "client_ca", one.client_ca.as_ref());
        }
    }
    options(&route.options, out);
    out.push('\n');
    for service in &route.services {
        let _ = write!(out, "  {} {}", service.name, service.weight);
        for upstream in &service.upstreams {
            let draining = match upstream.state {
                UpstreamState::Active => "",
                UpstreamState::Draining => "!",
            };
            let _ = write!(out, " {}{draining}", upstream.address);
        }
        dial(&service.dial, out);
        out.push('\n');
    }
}

fn given(out: &mut String, key: &str, value: Option<&impl Display>) {
    if let Some(value) = value {
        let _ = write!(out, " {key}={value}");
    }
}

fn options(options: &RouteOptions, out: &mut String) {
    if options.rewrite {
        out.push_str(" rewrite");
    }
    given(out, "redirect", options.redirect.as_ref());
    if options.ssl_only {
        out.push_str(" ssl_only");
    }
    match &options.sticky {
        Sticky::None => {}
        Sticky::Cookie(name) => given(out, "cookie", Some(name)),
        Sticky::ClientIp => out.push_str(" ip_hash"),
    }
}

fn dial(dial: &Dial, out: &mut String) {
    match &dial.tls {
        UpstreamTls::None => {}
        UpstreamTls::Verified { name, ca } => {
            given(out, "verified", Some(name));
            given(out, "ca", ca.as_ref());
        }
        UpstreamTls::Unverified { name } => given(out, "unverified", Some(name)),
    }
    match dial.protocol {
        UpstreamProtocol::Auto => {}
        UpstreamProtocol::Http1 => out.push_str(" http1"),
        UpstreamProtocol::Http2 => out.push_str(" h2c"),
    }
    if dial.max_fails != Dial::default().max_fails {
        given(out, "max_fails", Some(&dial.max_fails));
    }
    if dial.fail_timeout != Dial::default().fail_timeout {
        let _ = write!(out, " fail_timeout={:?}", dial.fail_timeout);
    }
    if dial.fail_on_5xx {
        out.push_str(" fail_on_5xx");
    }
}
