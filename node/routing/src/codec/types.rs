//! The canonical form of facts, names, commands and answers.

use super::{Canonical, InvalidBytes, Reader, read_text, shared};
use crate::entry::{
    Applied, ClusterConfig, LogIndex, MergeHosts, ProxyOptions, Rejection, SslProtocols, SslVerify,
    Subnet,
};
use crate::fact::{
    DesiredState, EndpointMode, HostPort, LabelValue, Network, Scale, Service, SwarmNode,
    SwarmVersion, Task, TaskState,
};
use crate::names::{
    ContextRoot, CookieName, Host, NetworkId, ObjectId, Port, SecretName, ServiceCluster,
    ServiceId, SwarmId, SwarmNodeId, TaskId,
};
use crate::problem::Problem;
use crate::snapshot::{Digest, Revision};

/// A struct is its fields in the order given here, which is for ever.
macro_rules! fields {
    ($($name:ident { $($field:ident)* })*) => {$(
        impl $crate::codec::Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                $($crate::codec::Canonical::write(&self.$field, out);)*
            }

            fn read(
                from: &mut $crate::codec::Reader<'_>,
            ) -> Result<Self, $crate::codec::InvalidBytes> {
                Ok(Self { $($field: from.read()?),* })
            }
        }
    )*};
}
pub(crate) use fields;

/// A struct of one unnamed field has that field's form.
macro_rules! newtypes {
    ($($name:ident)*) => {$(
        impl Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                self.0.write(out);
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
                from.read().map(Self)
            }
        }
    )*};
}

/// An enum without data is one byte, which never changes its meaning.
macro_rules! tags {
    ($($name:ident { $($variant:ident = $tag:literal)* })*) => {$(
        impl $crate::codec::Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                out.push(match self { $(Self::$variant => $tag),* });
            }

            fn read(
                from: &mut $crate::codec::Reader<'_>,
            ) -> Result<Self, $crate::codec::InvalidBytes> {
                match from.tag(stringify!($name))? {
                    $($tag => Ok(Self::$variant),)*
                    other => Err(from.invalid(stringify!($name), format!("has no variant {other}"))),
                }
            }
        }
    )*};
}
pub(crate) use tags;

/// A parsed name is its text, and only the text that it would print is taken.
macro_rules! parsed {
    ($($name:ident)*) => {$(
        impl Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                super::write_text(self.as_str(), out);
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
                let text = read_text(from)?;
                let name: Self = text
                    .parse()
                    .map_err(|error: crate::names::InvalidName| {
                        from.invalid(stringify!($name), error.to_string())
                    })?;
                if name.as_str() != text {
                    return Err(from.invalid(stringify!($name), format!("{text:?} is {name}")));
                }
                Ok(name)
            }
        }
    )*};
}

newtypes! {
    LogIndex Revision Digest SwarmVersion
    ServiceId TaskId NetworkId SwarmNodeId SwarmId ObjectId
}

parsed! { Host ContextRoot ServiceCluster SecretName CookieName }

tags! {
    EndpointMode { Vip = 0 Dnsrr = 1 }
    DesiredState { Ready = 0 Running = 1 Shutdown = 2 Remove = 3 Other = 4 }
    TaskState { Starting = 0 Running = 1 Ended = 2 }
    SslProtocols { Both = 0 Tls12 = 1 Tls13 = 2 }
    SslVerify { Required = 0 Optional = 1 None = 2 }
    MergeHosts { All = 0 Stack = 1 None = 2 }
}

fields! {
    HostPort { target published }
    Network { id name ingress }
    SwarmNode { id version hostname down availability address labels }
    Service {
        id version name created_at labels networks vips endpoint_mode host_ports scale
        update_state
    }
    Task { id version service slot node desired state addresses host_ports }
    ProxyOptions {
        hide_info_headers connect_timeout read_timeout send_timeout keepalive_timeout
        client_max_body_size client_body_timeout client_header_bytes_max
        drop_underscored_headers max_connections http_version ip_hash published_port
        published_ssl_port ssl_protocols ssl_ciphers ssl_verify access_log_path
        access_log_format trusted_proxies proxy_protocol merge_hosts
    }
    ClusterConfig { source poll_interval proxies }
    Problem { service label value reason since_index }
}

shared! { Network SwarmNode Service Task ClusterConfig }

impl Canonical for Subnet {
    fn write(&self, out: &mut Vec<u8>) {
        self.address.write(out);
        u16::from(self.prefix).write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let (address, prefix): (std::net::IpAddr, u16) = from.read()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        match u8::try_from(prefix) {
            Ok(prefix) if prefix <= most => Ok(Self { address, prefix }),
            _ => Err(from.invalid("subnet", format!("{prefix} bits of at most {most}"))),
        }
    }
}

impl Canonical for Port {
    fn write(&self, out: &mut Vec<u8>) {
        self.get().write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let number: u16 = from.read()?;
        Self::new(number).ok_or_else(|| from.invalid("port", "is 0"))
    }
}

impl Canonical for LabelValue {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => {
                out.push(0);
                text.write(out);
            }
            Self::Oversized { bytes, hash } => {
                out.push(1);
                bytes.write(out);
                hash.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("label value")? {
            0 => Ok(Self::Text(from.read()?)),
            1 => Ok(Self::Oversized { bytes: from.read()?, hash: from.read()? }),
            other => Err(from.invalid("label value", format!("has no variant {other}"))),
        }
    }
}

impl Canonical for Scale {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Replicated(replicas) => {
                out.push(0);
                replicas.write(out);
            }
            Self::Global => out.push(1),
            Self::Job => out.push(2),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("scale")? {
            0 => Ok(Self::Replicated(from.read()?)),
            1 => Ok(Self::Global),
            2 => Ok(Self::Job),
            other => Err(from.invalid("scale", format!("has no variant {other}"))),
        }
    }
}

impl Canonical for Applied {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Changed(revision) => {
                out.push(0);
                revision.write(out);
            }
            Self::Unchanged => out.push(1),
            Self::Rejected(rejection) => {
                out.push(2);
                rejection.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("answer")? {
            0 => Ok(Self::Changed(from.read()?)),
            1 => Ok(Self::Unchanged),
            2 => Ok(Self::Rejected(from.read()?)),
            other => Err(from.invalid("answer", format!("has no variant {other}"))),
        }
    }
}

impl Canonical for Rejection {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::NewerSchema { given } => {
                out.push(0);
                given.write(out);
            }
            Self::OtherSwarm { given, accepted } => {
                out.push(1);
                given.write(out);
                accepted.write(out);
            }
            Self::UnknownCommand { name } => {
                out.push(2);
                name.write(out);
            }
            Self::RequestIdReused { request_id, index } => {
                out.push(3);
                request_id.write(out);
                index.write(out);
            }
            Self::AboveLimit { what, given, limit } => {
                out.push(4);
                super::write_text(what, out);
                given.write(out);
                limit.write(out);
            }
            Self::Refused { reason } => {
                out.push(5);
                reason.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("rejection")? {
            0 => Ok(Self::NewerSchema { given: from.read()? }),
            1 => Ok(Self::OtherSwarm { given: from.read()?, accepted: from.read()? }),
            2 => Ok(Self::UnknownCommand { name: from.read()? }),
            3 => Ok(Self::RequestIdReused { request_id: from.read()?, index: from.read()? }),
            4 => {
                let given = read_text(from)?;
                let Some(what) = LIMITS.into_iter().find(|what| *what == given) else {
                    return Err(from.invalid("limit", format!("{given:?} is not known")));
                };
                Ok(Self::AboveLimit { what, given: from.read()?, limit: from.read()? })
            }
            5 => Ok(Self::Refused { reason: from.read()? }),
            other => Err(from.invalid("rejection", format!("has no variant {other}"))),
        }
    }
}

/// What [`Rejection::AboveLimit`] may speak of.
const LIMITS: [&str; 5] = [
    crate::state::CONFIGURED_CLUSTERS,
    crate::state::CANARIES,
    crate::state::ROUTES,
    crate::state::DRAINS,
    crate::state::EVIDENCE,
];
