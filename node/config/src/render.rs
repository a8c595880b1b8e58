//! A configuration as a file says it: what [`crate::parse`] reads as the same again.

use std::time::Duration;

use dovetail_routing::entry::{ClusterConfig, MergeHosts, ProxyOptions, SslProtocols, SslVerify};
use dovetail_routing::snapshot::UpstreamProtocol;
use toml::{Table, Value};

/// The cluster keys of `config` in TOML, those at their default left out.
///
/// Each service cluster is an extension of its own name, the default one `default`.
pub fn render(config: &ClusterConfig) -> String {
    let mut file = Table::new();
    if let Some(pause) = config.poll_interval {
        file.insert("PollInterval".to_owned(), duration(pause));
    }
    let mut extensions = Table::new();
    for (service_cluster, options) in &config.proxies {
        let mut extension = Table::new();
        let name = service_cluster.as_str();
        if !name.is_empty() {
            extension.insert("ServiceCluster".to_owned(), name.into());
        }
        for (key, port) in [
            ("PublishedPort", options.published_port),
            ("PublishedSSLPort", options.published_ssl_port),
        ] {
            if let Some(port) = port {
                extension.insert(key.to_owned(), i64::from(port).into());
            }
        }
        let config = options_of(options);
        if !config.is_empty() {
            extension.insert("Config".to_owned(), config.into());
        }
        let name = if name.is_empty() { "default" } else { name };
        // A service cluster that is named so, beside the default one.
        let taken = extensions.contains_key(name);
        let name = if taken { format!("{name}-named") } else { name.to_owned() };
        extensions.insert(name, extension.into());
    }
    if !extensions.is_empty() || config.poll_interval.is_none() {
        file.insert("Extensions".to_owned(), extensions.into());
    }
    file.to_string()
}

fn options_of(options: &ProxyOptions) -> Table {
    let whole = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let on = |set: bool| set.then_some(Value::Boolean(true));
    let texts = |words: Vec<String>| {
        (!words.is_empty()).then(|| Value::Array(words.into_iter().map(Value::String).collect()))
    };
    let ciphers = options.ssl_ciphers.join(":");
    let subnets = options.trusted_proxies.iter().map(ToString::to_string).collect();
    let pairs = [
        ("HideInfoHeaders", on(options.hide_info_headers)),
        ("ConnectTimeout", options.connect_timeout.map(duration)),
        ("ReadTimeout", options.read_timeout.map(duration)),
        ("SendTimeout", options.send_timeout.map(duration)),
        ("KeepaliveTimeout", options.keepalive_timeout.map(duration)),
        ("ClientBodyTimeout", options.client_body_timeout.map(duration)),
        ("ClientMaxBodySize", options.client_max_body_size.map(whole)),
        (
            "LargeClientHeaderBuffers",
            options.client_header_bytes_max.map(|bytes| format!("1 {bytes}").into()),
        ),
        ("UnderscoresInHeaders", options.drop_underscored_headers.then_some(Value::Boolean(false))),
        ("MaxConnections", options.max_connections.map(whole)),
        (
            "HTTPVersion",
            match options.http_version {
                UpstreamProtocol::Auto => None,
                UpstreamProtocol::Http1 => Some("1.1".into()),
                UpstreamProtocol::Http2 => Some("2".into()),
            },
        ),
        ("IPHash", on(options.ip_hash)),
        (
            "SSLProtocols",
            match options.ssl_protocols {
                SslProtocols::Both => None,
                SslProtocols::Tls12 => Some("TLSv1.2".into()),
                SslProtocols::Tls13 => Some("TLSv1.3".into()),
            },
        ),
        ("SSLCiphers", (!ciphers.is_empty()).then(|| ciphers.into())),
        (
            "SSLVerify",
            match options.ssl_verify {
                SslVerify::Required => None,
                SslVerify::Optional => Some("optional".into()),
                SslVerify::None => Some("none".into()),
            },
        ),
        ("AccessLogPath", options.access_log_path.as_deref().map(Into::into)),
        ("MainLogFormat", options.access_log_format.as_deref().map(Into::into)),
        ("TrustedProxies", texts(subnets)),
        ("ProxyProtocol", on(options.proxy_protocol)),
        (
            "MergeHosts",
            match options.merge_hosts {
                MergeHosts::All => None,
                MergeHosts::Stack => Some("stack".into()),
                MergeHosts::None => Some("none".into()),
            },
        ),
    ];
    let given = |(key, value): (&str, Option<Value>)| Some((key.to_owned(), value?));
    pairs.into_iter().filter_map(given).collect()
}

fn duration(duration: Duration) -> Value {
    humantime::format_duration(duration).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn read(text: &str) -> ClusterConfig {
        parse(text, &[]).expect("valid").config.expect("cluster keys")
    }

    #[test]
    fn what_is_rendered_is_read_as_the_same() {
        for file in [
            include_str!("../tests/files/every_key.toml"),
            "PollInterval = \"500ms\"",
            "[Extensions]",
            "[Extensions.a.Config]\nHTTPVersion = 2\nSSLProtocols = \"TLSv1.3\"\nIPHash = true",
            "[Extensions.a]\nServiceCluster = \"default\"\n[Extensions.b.Config]\nIPHash = true",
            "[Extensions.a.Config]\nMainLogFormat = \"$remote_addr \\\"$request\\\" 'x' \\\\\"",
        ] {
            let config = read(file);
            let rendered = render(&config);
            assert_eq!(read(&rendered), config, "{rendered}");
            let again = parse(&rendered, &[]).expect("valid").warnings;
            let idle = |one: &&crate::Remark| one.reason.contains("no effect");
            assert_eq!(again.iter().find(idle), None, "{rendered}");
        }
    }

    #[test]
    fn only_what_differs_from_the_default_is_rendered() {
        let config = read("[Extensions.front.Config]\nConnectTimeout = 5\nIPHash = false");
        assert_eq!(
            render(&config),
            "[Extensions.default.Config]\nConnectTimeout = \"5s\"\n",
            "the default is left out"
        );
    }
}
