//! Lines as they are written: as JSON, in NGINX's words, and where they go.

use super::*;
use crate::table::tests::entry;
use http::HeaderMap;

fn line() -> Line {
    Line {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_000_000_123),
        client: "10.0.0.9:4711".parse().expect("an address"),
        method: Method::GET,
        host: Some(HeaderValue::from_static("Shop.example:8080")),
        uri: "/a?b=\\c".parse().expect("a target"),
        version: Version::HTTP_11,
        https: false,
        tls: None,
        status: 200,
        bytes: 12,
        duration: Duration::from_micros(1_234_567),
        until_head: Some(Duration::from_millis(7)),
        upstream_status: Some(200),
        entry: Some(Arc::new(entry(&[(10_000, "aa")]))),
        candidate: Some(1),
        attempts: 2,
        revision: Some(Revision(42)),
        request_id: Some(HeaderValue::from_static("abc")),
        error: None,
        detail: None,
        format: None,
        captured: None,
    }
}

fn printed(format: &str, line: &mut Line, headers: &[(&'static str, &'static [u8])]) -> String {
    let format = LineFormat::parse(format).expect("a format");
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_bytes(value).expect("a value"));
    }
    line.captured = format.capture(&map);
    if let Some(captured) = line.captured.as_deref_mut() {
        format.capture_response(captured, &map);
    }
    let mut batch = Vec::new();
    format.append(&mut batch, line, "proxy-1");
    String::from_utf8(batch).expect("text")
}

#[test]
fn a_line_names_route_service_task_and_upstream() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let target = AccessLogTarget::File(path.clone());
    let (log, writer) = AccessLog::open(&target, "proxy-1").expect("a log");
    log.write(Line { time: SystemTime::UNIX_EPOCH, ..line() });
    drop(log);
    writer.finish();
    let text = std::fs::read_to_string(path).expect("a log");
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).expect("JSON");
    assert_eq!(line["time"], "1970-01-01T00:00:00.000Z");
    assert_eq!(line["client"], "10.0.0.9:4711");
    assert_eq!(line["route"], "shop.example/");
    assert_eq!(line["service"], "service-0");
    assert_eq!(line["task"], "task-1002");
    assert_eq!(line["upstream"], "127.0.0.1:1002");
    assert_eq!(line["duration_ms"], 1234.567);
    assert_eq!(line["revision"], 42);
}

#[test]
fn a_line_in_nginxs_words_is_nginxs_line() {
    let headers: [(&str, &[u8]); 4] = [
        ("user-agent", b"curl/8"),
        ("referer", b"http://a.example/"),
        ("authorization", b"Basic YW5uYTpzZWNyZXQ="),
        ("cookie", b"a=1; session=xyz"),
    ];
    for (format, expected) in [
        (
            "'$remote_addr - $remote_user [$time_local] \"$request\" '\n\
             '$status $body_bytes_sent \"$http_referer\" \"$http_user_agent\"';",
            "10.0.0.9 - anna [18/Nov/2026:11:06:40 +0000] \"GET /a?b=\\x5Cc HTTP/1.1\" \
             200 12 \"http://a.example/\" \"curl/8\"\n",
        ),
        ("$time_iso8601 $msec", "2026-11-18T11:06:40+00:00 1795000000.123\n"),
        (
            "$request_method $request_uri $uri $args $is_args $query_string",
            "GET /a?b=\\x5Cc /a b=\\x5Cc ? b=\\x5Cc\n",
        ),
        (
            "$host $server_name $server_protocol $scheme $https. $hostname $remote_port",
            "shop.example shop.example HTTP/1.1 http . proxy-1 4711\n",
        ),
        (
            "$upstream_addr $upstream_status $upstream_header_time $upstream_response_time $request_time",
            "127.0.0.1:1002 200 0.007 1.234 1.234\n",
        ),
        ("$cookie_session $cookie_none $sent_http_user_agent", "xyz - curl/8\n"),
        (
            "$route $service $task $revision $attempts $error",
            "shop.example/ service-0 task-1002 42 2 -\n",
        ),
        ("$request_id $connection $request_length $ssl_protocol $gzip_ratio", "abc - - - -\n"),
        ("$proxy_add_x_forwarded_for ${status}ms", "10.0.0.9 200ms\n"),
    ] {
        assert_eq!(printed(format, &mut line(), &headers), expected, "{format}");
    }
    let mut secure = Line {
        https: true,
        tls: Some(ClientTls {
            protocol: "TLSv1.3",
            cipher: Some("TLS_AES_128_GCM_SHA256".into()),
            server_name: Some("shop.example".into()),
            ..ClientTls::default()
        }),
        ..line()
    };
    let format = "$scheme $https $ssl_protocol $ssl_cipher $ssl_server_name";
    let expected = "https on TLSv1.3 TLS_AES_128_GCM_SHA256 shop.example\n";
    assert_eq!(printed(format, &mut secure, &[]), expected);
}

#[test]
fn no_client_can_forge_a_line() {
    let evil: &[u8] = b"x\" 200 - \\ \xff\x09";
    let line = &mut line();
    let headers = [("user-agent", evil)];
    let plain = printed("'\"$http_user_agent\"'", line, &headers);
    assert_eq!(plain, "\"x\\x22 200 - \\x5C \\xFF\\x09\"\n");
    let json =
        printed("escape=json '{\"a\":\"$http_user_agent\",\"b\":\"$http_b\"}'", line, &headers);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (json["a"].as_str(), json["b"].as_str()),
        (Some("x\" 200 - \\ \u{fffd}\t"), Some(""))
    );
    // What would break a line is no header and no target to begin with.
    assert!(HeaderValue::from_bytes(b"a\nb").is_err() && "/a\nb".parse::<Uri>().is_err());
    assert_eq!(
        printed("'$remote_user'", line, &[("authorization", b"Basic YQ0KYjpj")]),
        "a\\x0D\\x0Ab\n"
    );
}

#[test]
fn lines_turn_to_where_the_configuration_says_and_stay_where_they_can() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    let (log, writer) = AccessLog::open(&AccessLogTarget::Configured, "proxy-1").expect("a log");
    log.configure(Some(&path("one"))).expect("a file");
    log.write(line());
    log.configure(Some(&path("two"))).expect("a file");
    log.write(line());
    let error = log.configure(Some(&path("none/three"))).expect_err("there is no such folder");
    assert!(error.to_string().contains("none/three"), "{error}");
    assert!(log.configure(Some("three")).is_err(), "relative to what?");
    log.write(line());
    assert!(log.wants_lines());
    log.configure(Some("off")).expect("nowhere");
    assert!(!log.wants_lines());
    log.configure(Some(&path("one"))).expect("a file");
    log.write(line());
    writer.finish();
    assert_eq!((read("one").lines().count(), read("two").lines().count()), (2, 2));
    // A flag wins.
    let (log, writer) =
        AccessLog::open(&AccessLogTarget::File(path("flag").into()), "proxy-1").expect("a log");
    log.configure(Some(&path("four"))).expect("it does not matter");
    log.write(line());
    writer.finish();
    assert_eq!((read("flag").lines().count(), read("four").lines().count()), (1, 0));
}

#[test]
fn targets_are_words_or_a_file() {
    assert_eq!("stdout".parse(), Ok(AccessLogTarget::Stdout));
    assert_eq!("none".parse(), Ok(AccessLogTarget::None));
    assert_eq!("/var/log/a".parse(), Ok(AccessLogTarget::File("/var/log/a".into())));
    assert!("".parse::<AccessLogTarget>().is_err());
}
