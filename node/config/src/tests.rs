//! What is taken from a file, what is warned of, and what is refused.

use std::time::Duration;

use dovetail_routing::entry::{MergeHosts, SslProtocols, SslVerify};
use dovetail_routing::snapshot::UpstreamProtocol;

use super::*;

/// A file with every key of Interlock's documentation.
const EVERY_KEY: &str = include_str!("../tests/files/every_key.toml");

fn options(line: &str) -> ProxyOptions {
    let text = format!("[Extensions.a.Config]\n{line}\n");
    let keys = parse(&text, &[]).unwrap_or_else(|error| panic!("{line}: {error}"));
    keys.config.expect("cluster keys").proxies.remove(0).1
}

#[test]
fn every_key_of_interlock_is_taken() {
    let keys = parse(EVERY_KEY, &[]).expect("a valid file");
    let config = keys.config.expect("cluster keys");
    assert_eq!(config.poll_interval, Some(Duration::from_secs(3)));
    let front = ProxyOptions {
        hide_info_headers: true,
        connect_timeout: Some(Duration::from_secs(5)),
        read_timeout: Some(Duration::from_secs(90)),
        send_timeout: Some(Duration::from_secs(60)),
        keepalive_timeout: Some(Duration::from_secs(75)),
        client_max_body_size: Some(32 * 1_024 * 1_024),
        client_body_timeout: Some(Duration::from_secs(60)),
        client_header_bytes_max: Some(64 * 1_024),
        drop_underscored_headers: true,
        max_connections: Some(4_096),
        http_version: UpstreamProtocol::Auto,
        ip_hash: true,
        published_port: Some(8_080),
        published_ssl_port: Some(8_443),
        ssl_protocols: SslProtocols::Tls12,
        ssl_ciphers: [
            "TLS_AES_256_GCM_SHA384",
            "TLS_AES_128_GCM_SHA256",
            "TLS_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        ]
        .map(Into::into)
        .to_vec(),
        ssl_verify: SslVerify::Optional,
        access_log_path: Some("/dev/stdout".into()),
        access_log_format: Some("'$remote_addr \"$request\" $status $gzip_ratio';".into()),
        trusted_proxies: ["10.0.0.0/8", "192.0.2.7/32"].map(|s| s.parse().expect("valid")).to_vec(),
        proxy_protocol: true,
        merge_hosts: MergeHosts::Stack,
    };
    let old = ProxyOptions {
        max_connections: Some(1_024),
        connect_timeout: Some(Duration::from_secs(600)),
        client_body_timeout: Some(Duration::from_secs(30)),
        read_timeout: Some(Duration::from_secs(45)),
        ..ProxyOptions::default()
    };
    let cluster = |name: &str| name.parse::<ServiceCluster>().expect("valid");
    assert_eq!(config.proxies, [(cluster("front"), front), (cluster("old"), old)]);
}

/// Each key either means something, or its remark says what to use instead.
#[test]
fn a_key_without_a_meaning_is_named_with_its_place_and_a_hint() {
    let keys = parse(EVERY_KEY, &[]).expect("a valid file");
    let remark = |key: &str| {
        let named = |remark: &&Remark| remark.key.rsplit('.').next() == Some(key);
        keys.warnings.iter().find(named).map(ToString::to_string)
    };
    for (key, said) in [
        ("EndpointOverride", "line 9, column 1: EndpointOverride: is accepted and has no effect"),
        ("Image", "line 13, column 5: Extensions.front.Image: is accepted and has no effect"),
        ("PublishMode", "those of its service (deploy/stack.yml)"),
        ("ProxyReplicas", "say it in deploy/stack.yml"),
        ("HitlessServiceUpdate", "change without a restart"),
        ("WorkerProcesses", "--threads of dovetail-proxy"),
        ("RlimitNoFile", "ulimits of the service"),
        ("AdminPass", "/metrics"),
        ("SSLCiphers", "\"ECDHE-RSA-AES128-SHA\" names no cipher suite"),
        ("SSLProtocols", "TLSv1.1 is not offered"),
        ("MainLogFormat", "$gzip_ratio is always -"),
        ("DefaultOptions", "another proxy's language"),
    ] {
        let remark = remark(key).unwrap_or_else(|| panic!("no remark on {key}"));
        assert!(remark.contains(said), "{key}: {remark}");
    }
    for key in ["MaxConnections", "ServiceCluster", "PublishedPort", "AllowInsecure", "Config"] {
        assert_eq!(remark(key), None, "{key} is honoured");
    }
    assert!(keys.warnings.iter().all(|remark| !remark.reason.contains("not a known key")));
    assert!(keys.warnings.is_sorted_by_key(|remark| (remark.line, remark.column)));
}

#[test]
fn case_does_not_matter_and_no_key_is_given_twice() {
    for text in [
        "pollinterval = 3\n[extensions.a.config]\nreadtimeout = 9",
        "POLLINTERVAL = \"3\"\n[EXTENSIONS.a.CONFIG]\nREADTIMEOUT = \"9s\"",
    ] {
        let config = parse(text, &[]).expect("valid").config.expect("cluster keys");
        assert_eq!(config.poll_interval, Some(Duration::from_secs(3)));
        assert_eq!(config.proxies[0].1.read_timeout, Some(Duration::from_secs(9)));
    }
    // `extensions` and `Extensions` are two tables to TOML.
    let error = parse("[Extensions.a]\n[extensions.b]", &[]).expect_err("given twice");
    assert_eq!(error.key.as_deref(), Some("extensions"));
    let error = parse("PollInterval = 3\npollinterval = 4", &[]).expect_err("given twice");
    assert!(error.to_string().starts_with("line 2, column 1: pollinterval: is given twice"));
}

#[test]
fn what_a_key_means() {
    let with = |change: fn(&mut ProxyOptions)| {
        let mut options = ProxyOptions::default();
        change(&mut options);
        options
    };
    for (line, wanted) in [
        ("HTTPVersion = \"2\"", with(|o| o.http_version = UpstreamProtocol::Http2)),
        ("HTTPVersion = 2.0", with(|o| o.http_version = UpstreamProtocol::Http2)),
        ("HTTPVersion = \"1.0\"", ProxyOptions::default()),
        ("SSLVerify = \"on\"", ProxyOptions::default()),
        ("SSLVerify = \"off\"", with(|o| o.ssl_verify = SslVerify::None)),
        ("SSLVerify = \"None\"", with(|o| o.ssl_verify = SslVerify::None)),
        ("SSLProtocols = \"TLSv1.3\"", with(|o| o.ssl_protocols = SslProtocols::Tls13)),
        ("SSLProtocols = [\"TLSv1.2\", \"TLSv1.3\"]", ProxyOptions::default()),
        ("SSLCiphers = \"HIGH:!aNULL:!MD5\"", ProxyOptions::default()),
        (
            "SSLCiphers = \"TLS_AES_128_GCM_SHA256\"",
            with(|o| {
                o.ssl_ciphers = vec!["TLS_AES_128_GCM_SHA256".into()];
                o.ssl_protocols = SslProtocols::Tls13;
            }),
        ),
        // NGINX's four large buffers hold whatever the small one does not.
        ("ClientHeaderBufferSize = \"1k\"", with(|o| o.client_header_bytes_max = Some(32_768))),
        ("LargeClientHeaderBuffers = \"2 4k\"", with(|o| o.client_header_bytes_max = Some(8_192))),
        (
            "LargeClientHeaderBuffers = \"2 4k\"\nClientHeaderBufferSize = \"64k\"",
            with(|o| o.client_header_bytes_max = Some(65_536)),
        ),
        (
            "ServerTimeout = 9\nReadTimeout = 8",
            with(|o| o.read_timeout = Some(Duration::from_secs(8))),
        ),
        ("UnderscoresInHeaders = true", ProxyOptions::default()),
        ("UnderscoresInHeaders = \"off\"", with(|o| o.drop_underscored_headers = true)),
        ("ClientMaxBodySize = 0", with(|o| o.client_max_body_size = Some(0))),
        ("AccessLogPath = \"off\"", with(|o| o.access_log_path = Some("off".into()))),
        ("AccessLogPath = \"\"\nMainLogFormat = \"\"", ProxyOptions::default()),
        (
            "TrustedProxies = \"10.0.0.0/8, 2001:db8::/32\"",
            with(|o| {
                o.trusted_proxies =
                    ["10.0.0.0/8", "2001:db8::/32"].map(|s| s.parse().expect("valid")).to_vec();
            }),
        ),
        ("MergeHosts = \"None\"", with(|o| o.merge_hosts = MergeHosts::None)),
    ] {
        assert_eq!(options(line), wanted, "{line}");
    }
}

#[test]
fn a_refusal_names_place_and_key() {
    let config = |line: &str| format!("[Extensions.a.Config]\n  {line}\n");
    for (text, said) in [
        ("PollInterval = \"soon\"".to_owned(), "line 1, column 16: PollInterval: \"soon\" must be"),
        ("PollInterval = \"1ms\"".to_owned(), "must be from 100ms to 1day"),
        ("PollInterval = ".to_owned(), "line 1, column "),
        ("ListenAddr = true".to_owned(), "line 1, column 14: ListenAddr: true must be a text"),
        (
            "AllowInsecure = \"maybe\"".to_owned(),
            "line 1, column 17: AllowInsecure: \"maybe\" must",
        ),
        ("Extensions = 3".to_owned(), "Extensions: must be a table"),
        ("[Extensions.a]\nConfig = 3".to_owned(), "Extensions.a.Config: must be a table"),
        (
            config("ReadTimeout = -1"),
            "line 2, column 17: Extensions.a.Config.ReadTimeout: -1 must be a number",
        ),
        (config("ReadTimeout = 0"), "0 must be from 1ms to 1day"),
        (config("ReadTimeout = 99999999999999999999999"), "must be"),
        (config("ConnectTimeout = []"), "a list must be a number of seconds"),
        (config("HideInfoHeaders = \"yes\""), "line 2, column 21: Extensions.a.Config.HideInfo"),
        (config("ClientMaxBodySize = \"32 MB\""), "must be a size such as 32m, or 0 for no limit"),
        (config("ClientMaxBodySize = \"99999999999999999g\""), "must be a size such as 32m"),
        (config("ClientHeaderBufferSize = 512"), "512 bytes: must be from 1k to 1m in all"),
        (config("LargeClientHeaderBuffers = \"8k\""), "must be a number and a size, such as 4 8k"),
        (config("LargeClientHeaderBuffers = \"4 8k 1\""), "must be a number and a size"),
        (config("LargeClientHeaderBuffers = \"4 1m\""), "must be from 1k to 1m in all"),
        (config("MaxConnections = 0"), "0 must be a number from 1 to 10000000"),
        (config("MaxConnections = \"many\""), "\"many\" must be a number from 1"),
        (
            config("HTTPVersion = \"3\""),
            "line 2, column 17: Extensions.a.Config.HTTPVersion: \"3\"",
        ),
        (config("SSLVerify = \"maybe\""), "must be required, optional or none"),
        (config("SSLVerify = \"optional_no_ca\""), "is always verified"),
        (config("SSLProtocols = \"TLSv1 SSLv3\""), "names neither TLSv1.2 nor TLSv1.3"),
        (config("SSLProtocols = \"TLS12\""), "\"TLS12\" is no version of TLS"),
        (config("SSLCiphers = \"RC4:MD5\""), "leaves no cipher suite"),
        (
            config("SSLCiphers = \"ECDHE:!TLSv1.3\"\nSSLProtocols = \"TLSv1.3\""),
            "line 2, column 3: Extensions.a.Config.SSLCiphers: leaves no cipher suite of TLSv1.3",
        ),
        (config("AccessLogPath = \"syslog:server=a\""), "must be off or a file"),
        (config("MainLogFormat = \"'$status\""), "character 1: the quote is not closed"),
        (config("MainLogFormat = 3"), "3 must be a text"),
        (config("TrustedProxies = [\"10.0.0.0/33\"]"), "\"10.0.0.0/33\" must be an address or a"),
        (config("TrustedProxies = 10"), "10 must be a text or a list of texts"),
        (config("ProxyProtocol = 1"), "1 must be true or false"),
        (config("MergeHosts = \"some\""), "\"some\" must be all, stack or none"),
        (
            "[Extensions.a]\nPublishedPort = 0".to_owned(),
            "line 2, column 17: Extensions.a.Published",
        ),
        ("[Extensions.a]\nTargetSSLPort = 99999".to_owned(), "must be a number from 1 to 65535"),
        ("[Extensions.a]\nPublishMode = \"mesh\"".to_owned(), "must be ingress or host"),
        (
            "[Extensions.a]\nServiceCluster = \"a b\"".to_owned(),
            "line 2, column 18: Extensions.a.ServiceCluster: service cluster \"a b\"",
        ),
        (
            "[Extensions.a.Config]\nReadTimeout=1\n[Extensions.b]".to_owned(),
            "line 3, column 13: Extensions.b: another extension gives other options",
        ),
    ] {
        let error = parse(&text, &[]).expect_err(&text).to_string();
        assert!(error.contains(said), "{text}: {error}");
        assert!(!error.contains('\n'), "{error:?}");
    }
}

#[test]
fn an_unknown_key_is_named_with_what_was_probably_meant() {
    let text = "PolInterval = 3\nData_Dir = \"/data\"\nColour = \"blue\"\nReadTimeout = 3\n\
                [Extensions.a]\nProxyImages = \"a\"\nProxyColour = 1\n\
                [Extensions.a.Config]\nHideInfoHeader = true\nPublishedPort = 80\n\
                ProxyProtocol = true\n";
    let keys = parse(text, &["data-dir"]).expect("valid");
    let said: Vec<_> = keys.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "line 1, column 1: PolInterval: is not a known key and has no effect: is PollInterval \
             meant?",
            "line 3, column 1: Colour: is not a known key and has no effect",
            "line 4, column 1: ReadTimeout: is a key of Extensions.NAME.Config and has no effect \
             here",
            "line 6, column 1: Extensions.a.ProxyImages: is not a known key and has no effect: is \
             ProxyImage meant?",
            "line 7, column 1: Extensions.a.ProxyColour: is not a known key and has no effect",
            "line 9, column 1: Extensions.a.Config.HideInfoHeader: is not a known key and has no \
             effect: is HideInfoHeaders meant?",
            "line 10, column 1: Extensions.a.Config.PublishedPort: is a key of Extensions.NAME and \
             has no effect here",
            "line 11, column 1: Extensions.a.Config.ProxyProtocol: has no effect without \
             TrustedProxies: nobody's header is taken",
        ]
    );
    let large = "[Extensions.a.Config]\nLargeClientHeaderBuffers = \"8 16k\"";
    let keys = parse(large, &[]).expect("valid");
    assert_eq!(keys.warnings[0].reason, "is above what a proxy takes: 64k in all");
    let none = parse("DockerURL = \"unix:///a\"", &[]).expect("valid");
    assert_eq!(none.config, None, "no cluster key seeds nothing");
}

#[test]
fn a_secret_never_gets_past_the_file() {
    for text in [
        "[Extensions.a.Config]\nAdminPass = \"hunter2\"",
        "[Extensions.a.Config]\nadminpass = 12345",
        "[Extensions.a.Config]\nAdminPass = \"secret:\"",
        "AdminToken = \"hunter2\"",
        "[Extensions.a.Config]\nGlobalOptions = [\"-----BEGIN PRIVATE KEY----- hunter2\"]",
        "[Extensions.a.Labels]\nkey = \"x\\n-----BEGIN EC PRIVATE KEY-----\\nhunter2\"",
        "[[Extensions.a.List]]\nAdminPass = \"hunter2\"",
    ] {
        let error = parse(text, &[]).expect_err(text).to_string();
        assert!(error.contains("secret:NAME"), "{text}: {error}");
        assert!(!error.contains("hunter2") && !error.contains("12345"), "{error}");
    }
}
