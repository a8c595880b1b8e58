//! Configuration as the log carries it.

use std::time::Duration;

use dovetail_routing::entry::{ClusterConfig, MergeHosts, ProxyOptions, SslProtocols, SslVerify};
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::UpstreamProtocol;

use super::{InvalidEntry, digest, invalid};
use crate::v1 as pb;

/// An enum of the core and its name on the wire, both ways.
macro_rules! enums {
    ($($name:ident { $($variant:ident = $wire:ident)* })*) => {$(
        impl From<$name> for pb::$name {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$wire),* }
            }
        }

        impl From<pb::$name> for $name {
            fn from(value: pb::$name) -> Self {
                match value { $(pb::$name::$wire => Self::$variant),* }
            }
        }
    )*};
}

enums! {
    UpstreamProtocol { Auto = Auto Http1 = Http1 Http2 = Http2 }
    SslProtocols { Both = Both Tls12 = Tls12 Tls13 = Tls13 }
    SslVerify { Required = Required Optional = Optional None = None }
    MergeHosts { All = All Stack = Stack None = None }
}

/// Reads an enum; a number that this build does not know is refused.
fn known<W: TryFrom<i32>, T: From<W>>(field: &'static str, number: i32) -> Result<T, InvalidEntry> {
    W::try_from(number).map(T::from).map_err(|_| invalid(field, number, "is not known"))
}

/// Whole milliseconds, which is all that the wire carries.
fn milliseconds(duration: Option<Duration>) -> Option<u64> {
    duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn port(field: &'static str, given: Option<u32>) -> Result<Option<u16>, InvalidEntry> {
    let port = |number| u16::try_from(number).map_err(|_| invalid(field, number, "is no port"));
    given.map(port).transpose()
}

impl From<&ClusterConfig> for pb::ApplyConfig {
    fn from(config: &ClusterConfig) -> Self {
        let options = |(service_cluster, options): &(ServiceCluster, ProxyOptions)| {
            let texts = |texts: &[_]| texts.iter().map(ToString::to_string).collect();
            pb::ProxyOptions {
                service_cluster: service_cluster.to_string(),
                hide_info_headers: options.hide_info_headers,
                connect_timeout_ms: milliseconds(options.connect_timeout),
                read_timeout_ms: milliseconds(options.read_timeout),
                send_timeout_ms: milliseconds(options.send_timeout),
                keepalive_timeout_ms: milliseconds(options.keepalive_timeout),
                client_max_body_size: options.client_max_body_size,
                client_body_timeout_ms: milliseconds(options.client_body_timeout),
                client_header_bytes_max: options.client_header_bytes_max,
                drop_underscored_headers: options.drop_underscored_headers,
                max_connections: options.max_connections,
                http_version: pb::UpstreamProtocol::from(options.http_version).into(),
                ip_hash: options.ip_hash,
                published_port: options.published_port.map(u32::from),
                published_ssl_port: options.published_ssl_port.map(u32::from),
                ssl_protocols: pb::SslProtocols::from(options.ssl_protocols).into(),
                ssl_ciphers: options.ssl_ciphers.iter().map(ToString::to_string).collect(),
                ssl_verify: pb::SslVerify::from(options.ssl_verify).into(),
                access_log_path: options.access_log_path.as_deref().map(str::to_owned),
                access_log_format: options.access_log_format.as_deref().map(str::to_owned),
                trusted_proxies: texts(&options.trusted_proxies),
                proxy_protocol: options.proxy_protocol,
                merge_hosts: pb::MergeHosts::from(options.merge_hosts).into(),
            }
        };
        Self {
            source: config.source.0.to_vec(),
            poll_interval_ms: milliseconds(config.poll_interval),
            proxies: config.proxies.iter().map(options).collect(),
        }
    }
}

impl TryFrom<pb::ApplyConfig> for ClusterConfig {
    type Error = InvalidEntry;

    fn try_from(config: pb::ApplyConfig) -> Result<Self, InvalidEntry> {
        Ok(Self {
            source: digest("apply_config.source", &config.source)?,
            poll_interval: config.poll_interval_ms.map(Duration::from_millis),
            proxies: config.proxies.into_iter().map(options).collect::<Result<_, _>>()?,
        })
    }
}

fn options(proxy: pb::ProxyOptions) -> Result<(ServiceCluster, ProxyOptions), InvalidEntry> {
    let service_cluster = proxy
        .service_cluster
        .parse()
        .map_err(|error| invalid("proxies.service_cluster", &proxy.service_cluster, error))?;
    let subnet = |given: &String| {
        given.parse().map_err(|error| invalid("proxies.trusted_proxies", given, error))
    };
    let options = ProxyOptions {
        hide_info_headers: proxy.hide_info_headers,
        connect_timeout: proxy.connect_timeout_ms.map(Duration::from_millis),
        read_timeout: proxy.read_timeout_ms.map(Duration::from_millis),
        send_timeout: proxy.send_timeout_ms.map(Duration::from_millis),
        keepalive_timeout: proxy.keepalive_timeout_ms.map(Duration::from_millis),
        client_max_body_size: proxy.client_max_body_size,
        client_body_timeout: proxy.client_body_timeout_ms.map(Duration::from_millis),
        client_header_bytes_max: proxy.client_header_bytes_max,
        drop_underscored_headers: proxy.drop_underscored_headers,
        max_connections: proxy.max_connections,
        http_version: known::<pb::UpstreamProtocol, _>("proxies.http_version", proxy.http_version)?,
        ip_hash: proxy.ip_hash,
        published_port: port("proxies.published_port", proxy.published_port)?,
        published_ssl_port: port("proxies.published_ssl_port", proxy.published_ssl_port)?,
        ssl_protocols: known::<pb::SslProtocols, _>("proxies.ssl_protocols", proxy.ssl_protocols)?,
        ssl_ciphers: proxy.ssl_ciphers.into_iter().map(Into::into).collect(),
        ssl_verify: known::<pb::SslVerify, _>("proxies.ssl_verify", proxy.ssl_verify)?,
        access_log_path: proxy.access_log_path.map(Into::into),
        access_log_format: proxy.access_log_format.map(Into::into),
        trusted_proxies: proxy.trusted_proxies.iter().map(subnet).collect::<Result<_, _>>()?,
        proxy_protocol: proxy.proxy_protocol,
        merge_hosts: known::<pb::MergeHosts, _>("proxies.merge_hosts", proxy.merge_hosts)?,
    };
    Ok((service_cluster, options))
}
