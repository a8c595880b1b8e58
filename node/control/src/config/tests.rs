//! What is taken from a file, what is warned of, and what is refused.

use std::time::Duration;

use super::*;

const FILE: &str = r#"
listenaddr = ":8080"
POLLINTERVAL = "3s"
data_dir = "/var/lib/dovetail"
Colour = "blue"

[Extensions.public]
  Image = "nginx"
  ServiceCluster = "public"
  ProxyColour = "red"
  [Extensions.public.Config]
    ConnectTimeout = 5
    readtimeout = "1m30s"
    SendTimeout = "60"
    KeepaliveTimeout = "75s"
    ClientMaxBodySize = "32m"
    HideInfoHeaders = true
    AdminUser = ""
    AdminPass = "secret:stats"
    SSLVerify = "required"

[extensions.default]
"#;

#[test]
fn interlocks_keys_are_taken_whatever_their_case() {
    // `extensions` and `Extensions` are two tables to TOML.
    let error = parse(FILE, &["data-dir"]).expect_err("given twice");
    assert_eq!(error.key.as_deref(), Some("extensions"));

    let file = FILE.replace("[extensions.default]", "[Extensions.default]");
    let keys = parse(&file, &["data-dir"]).expect("valid");
    let config = keys.config.expect("cluster keys");
    assert_eq!(config.poll_interval, Some(Duration::from_secs(3)));
    let options = ProxyOptions {
        hide_info_headers: true,
        connect_timeout: Some(Duration::from_secs(5)),
        read_timeout: Some(Duration::from_secs(90)),
        send_timeout: Some(Duration::from_secs(60)),
        keepalive_timeout: Some(Duration::from_secs(75)),
        client_max_body_size: Some(32 * 1_024 * 1_024),
        ..ProxyOptions::default()
    };
    let public: ServiceCluster = "public".parse().expect("valid");
    assert_eq!(
        config.proxies,
        [(ServiceCluster::default(), ProxyOptions::default()), (public, options)]
    );
    let warned: Vec<_> =
        keys.warnings.iter().map(|remark| (remark.line, remark.key.as_str())).collect();
    assert_eq!(
        warned,
        [
            (5, "Colour"),
            (8, "Extensions.public.Image"),
            (10, "Extensions.public.ProxyColour"),
            (18, "Extensions.public.Config.AdminUser"),
            (19, "Extensions.public.Config.AdminPass"),
            (20, "Extensions.public.Config.SSLVerify"),
        ]
    );
}

#[test]
fn the_source_depends_on_the_cluster_keys_alone() {
    let source = |text: &str| parse(text, &[]).expect("valid").config.map(|c| c.source);
    let one = source("PollInterval = \"3s\"\nDockerURL = \"unix:///a\"");
    assert_eq!(one, source("# ours\nDockerURL = \"tcp://b\"\npollinterval = 3"));
    assert_ne!(one, source("PollInterval = \"4s\""));
    assert_eq!(source("DockerURL = \"unix:///a\""), None, "no cluster key seeds nothing");
}

#[test]
fn a_refusal_names_place_and_key() {
    let config = |line: &str| format!("[Extensions.a]\n[Extensions.a.Config]\n{line}\n");
    for (text, said) in [
        ("PollInterval = \"soon\"".to_owned(), "line 1, column 16: PollInterval: \"soon\" must be"),
        ("PollInterval = \"1ms\"".to_owned(), "must be from 100ms to 1day"),
        ("PollInterval = ".to_owned(), "line 1, column "),
        ("Extensions = 3".to_owned(), "Extensions: must be a table"),
        (
            config("ReadTimeout = -1"),
            "line 3, column 15: Extensions.a.Config.ReadTimeout: -1 must be a number",
        ),
        (config("ReadTimeout = 0"), "0 must be from 1ms to 1day"),
        (config("ReadTimeout = 99999999999999999999999"), "must be"),
        (config("HideInfoHeaders = \"yes\""), "\"yes\" must be true or false"),
        (config("ClientMaxBodySize = \"32 MB\""), "must be a size such as 32m"),
        (config("ClientMaxBodySize = \"99999999999999999g\""), "must be a size such as 32m"),
        (
            "[Extensions.a]\nServiceCluster = \"a b\"".to_owned(),
            "line 2, column 18: Extensions.a.ServiceCluster: service cluster \"a b\"",
        ),
        (
            "[Extensions.a.Config]\nReadTimeout=1\n[Extensions.b]".to_owned(),
            "line 3, column 13: Extensions.b: another extension gives other options",
        ),
        (
            "PollInterval = 3\npollinterval = 4".to_owned(),
            "line 2, column 1: pollinterval: is given twice",
        ),
    ] {
        let error = parse(&text, &[]).expect_err(&text).to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
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
