//! The canonical form of a snapshot: what the digest covers and the feed carries.

use super::{
    Certificate, Dial, Route, RouteHost, RouteKey, RouteOptions, RouteService, Snapshot, Sticky,
    Tls, Upstream, UpstreamProtocol, UpstreamState, UpstreamTls, WEIGHT_SUM,
};
use crate::codec::{Canonical, InvalidBytes, Reader};
use crate::names::Host;

/// The form of canonical bytes that this build writes, and the newest that it reads.
pub const SNAPSHOT_FORMAT: u32 = 2;

pub(super) fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let mut out = Vec::new();
    SNAPSHOT_FORMAT.write(&mut out);
    snapshot.service_cluster.write(&mut out);
    snapshot.revision.write(&mut out);
    snapshot.options.write(&mut out);
    snapshot.routes.write(&mut out);
    out
}

pub(super) fn decode(canonical: &[u8]) -> Result<Snapshot, InvalidBytes> {
    let mut from = Reader::new(canonical);
    let format: u32 = from.read()?;
    if format != SNAPSHOT_FORMAT {
        let reason = format!("is {format}, this build reads {SNAPSHOT_FORMAT}");
        return Err(from.invalid("snapshot format", reason));
    }
    let snapshot = Snapshot {
        service_cluster: from.read()?,
        revision: from.read()?,
        options: from.read()?,
        routes: from.read()?,
    };
    let ascend = |a: &Route, b: &Route| (&a.host, &a.path) < (&b.host, &b.path);
    if !snapshot.routes.is_sorted_by(ascend) {
        return Err(from.invalid("routes", "do not ascend by host and path"));
    }
    from.end()?;
    Ok(snapshot)
}

crate::codec::tags! {
    UpstreamProtocol { Auto = 0 Http1 = 1 Http2 = 2 }
    UpstreamState { Active = 0 Draining = 1 }
}

impl Canonical for RouteHost {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Named(host) => {
                out.push(0);
                host.write(out);
            }
            Self::Wildcard(below) => {
                out.push(1);
                below.write(out);
            }
            Self::Default => out.push(2),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("route host")? {
            0 => from.read::<Host>().map(Self::Named),
            1 => from.read::<Host>().map(Self::Wildcard),
            2 => Ok(Self::Default),
            other => Err(from.invalid("route host", format!("has no variant {other}"))),
        }
    }
}

crate::codec::fields! {
    RouteKey { service_cluster host path }
    Certificate { cert key client_ca }
    RouteOptions { rewrite redirect ssl_only sticky }
    Dial { tls protocol max_fails fail_timeout fail_on_5xx }
}

impl Canonical for Tls {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => out.push(0),
            Self::Terminate(certificate) => {
                out.push(1);
                certificate.write(out);
            }
            Self::Passthrough => out.push(2),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("TLS mode")? {
            0 => Ok(Self::None),
            1 => from.read().map(Self::Terminate),
            2 => Ok(Self::Passthrough),
            other => Err(from.invalid("TLS mode", format!("has no variant {other}"))),
        }
    }
}

impl Canonical for Sticky {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => out.push(0),
            Self::Cookie(name) => {
                out.push(1);
                name.write(out);
            }
            Self::ClientIp => out.push(2),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("stickiness")? {
            0 => Ok(Self::None),
            1 => from.read().map(Self::Cookie),
            2 => Ok(Self::ClientIp),
            other => Err(from.invalid("stickiness", format!("has no variant {other}"))),
        }
    }
}

impl Canonical for UpstreamTls {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => out.push(0),
            Self::Verified { name, ca } => {
                out.push(1);
                name.write(out);
                ca.write(out);
            }
            Self::Unverified { name } => {
                out.push(2);
                name.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("upstream TLS")? {
            0 => Ok(Self::None),
            1 => Ok(Self::Verified { name: from.read()?, ca: from.read()? }),
            2 => Ok(Self::Unverified { name: from.read()? }),
            other => Err(from.invalid("upstream TLS", format!("has no variant {other}"))),
        }
    }
}

impl Canonical for Route {
    fn write(&self, out: &mut Vec<u8>) {
        self.host.write(out);
        self.path.write(out);
        self.tls.write(out);
        self.options.write(out);
        self.services.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let route = Self {
            host: from.read()?,
            path: from.read()?,
            tls: from.read()?,
            options: from.read()?,
            services: from.read()?,
        };
        let place = || format!("{}{}", route.host, route.path);
        // Of at most u16::MAX each: a sum over any list of them fits.
        let sum: u64 = route.services.iter().map(|service| u64::from(service.weight)).sum();
        if sum != u64::from(WEIGHT_SUM) {
            let reason = format!("weights of {} sum to {sum}, not to {WEIGHT_SUM}", place());
            return Err(from.invalid("route", reason));
        }
        let mut ids: Vec<_> = route.services.iter().map(|service| &service.id).collect();
        ids.sort();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(from.invalid("route", format!("a service is twice on {}", place())));
        }
        Ok(route)
    }
}

impl Canonical for RouteService {
    fn write(&self, out: &mut Vec<u8>) {
        self.id.write(out);
        self.name.write(out);
        self.weight.write(out);
        self.dial.write(out);
        self.upstreams.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let service = Self {
            id: from.read()?,
            name: from.read()?,
            weight: from.read()?,
            dial: from.read()?,
            upstreams: from.read()?,
        };
        let ascend = |a: &Upstream, b: &Upstream| (a.address, &a.task) < (b.address, &b.task);
        if !service.upstreams.is_sorted_by(ascend) {
            let reason = format!("of {} do not ascend by address and task", service.name);
            return Err(from.invalid("upstreams", reason));
        }
        Ok(service)
    }
}

impl Canonical for Upstream {
    fn write(&self, out: &mut Vec<u8>) {
        self.address.write(out);
        self.state.write(out);
        self.task.write(out);
        self.node.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let upstream = Self {
            address: from.read()?,
            state: from.read()?,
            task: from.read()?,
            node: from.read()?,
        };
        if upstream.address.port() == 0 || upstream.address.ip().is_unspecified() {
            let reason = format!("{} cannot be dialled", upstream.address);
            return Err(from.invalid("upstream", reason));
        }
        Ok(upstream)
    }
}
