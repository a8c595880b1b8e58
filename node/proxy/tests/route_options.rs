//! What a route asks for, on the wire: redirects, HTTPS only, rewriting, stickiness, passive checks.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::upstream::{App, Script, refused};
use common::{Proxy, RawClient, get, raw, route, snapshot, snapshot_with, until};
use dovetail_proxy::access_log::AccessLogTarget;
use dovetail_routing::entry::ProxyOptions;
use dovetail_routing::snapshot::{Redirect, Route, RouteOptions, Sticky, Tls};

fn with(mut route: Route, options: RouteOptions) -> Route {
    route.options = options;
    route
}

fn redirect_to(https: bool, authority: &str) -> RouteOptions {
    let redirect = Redirect { https, authority: authority.into(), prefix: "".into() };
    RouteOptions { redirect: Some(redirect), ..RouteOptions::default() }
}

fn ssl_only() -> RouteOptions {
    RouteOptions { ssl_only: true, ..RouteOptions::default() }
}

fn rewrite() -> RouteOptions {
    RouteOptions { rewrite: true, ..RouteOptions::default() }
}

fn sticky(cookie: &str) -> RouteOptions {
    let sticky = Sticky::Cookie(cookie.parse().expect("a cookie name"));
    RouteOptions { sticky, ..RouteOptions::default() }
}

#[tokio::test]
async fn an_old_host_is_redirected_with_path_and_query_and_says_who_did_it() {
    let app = App::start("app").await;
    let routes = || {
        let old = route("old.example", "/", &[app.address]);
        vec![
            with(old, redirect_to(false, "new.example")),
            route("new.example", "/", &[app.address]),
        ]
    };
    let proxy = Proxy::start(&snapshot(1, routes()));
    let mut client = RawClient::connect(proxy.address).await;
    for (target, location) in [("/", "http://new.example/"), ("/a?b=c", "http://new.example/a?b=c")]
    {
        let answer = client.get("old.example", target).await;
        assert_eq!((answer.status, answer.header("location")), (302, Some(location)));
        for present in ["x-request-id", "x-proxy-id", "x-server-info"] {
            assert!(answer.header(present).is_some(), "{present}: {answer:?}");
        }
        for absent in ["x-upstream-addr", "x-upstream-response-time", "x-dovetail-error"] {
            assert!(answer.header(absent).is_none(), "{absent}: {answer:?}");
        }
    }
    client.send("HEAD / HTTP/1.1\r\nHost: OLD.example.:80\r\n\r\n").await;
    assert_eq!(client.answer(true).await.expect("an answer").status, 302);
    assert_eq!(client.get("new.example", "/").await.body, "app");
    assert_eq!(app.count(), 1, "the application saw no redirected request");
    let options = ProxyOptions { hide_info_headers: true, ..ProxyOptions::default() };
    proxy.swap(&snapshot_with(2, routes(), options));
    let answer = get(proxy.address, "old.example", "/").await;
    assert_eq!(answer.status, 302);
    assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("x-")), "{answer:?}");
}

#[tokio::test]
async fn plain_http_is_sent_to_https_where_a_route_asks_for_it() {
    let app = App::start("app").await;
    let mut passthrough = with(route("raw.example", "/", &[app.address]), ssl_only());
    passthrough.tls = Tls::Passthrough;
    let mut closed = route("closed.example", "/", &[app.address]);
    closed.tls = Tls::Passthrough;
    let routes = || {
        let only = with(route("shop.example", "/", &[app.address]), ssl_only());
        vec![only, passthrough.clone(), closed.clone()]
    };
    let options = |port| ProxyOptions { published_ssl_port: port, ..ProxyOptions::default() };
    let proxy = Proxy::start(&snapshot_with(1, routes(), options(Some(8_443))));
    let mut client = RawClient::connect(proxy.address).await;
    for (host, location) in [
        ("shop.example:8080", "https://shop.example:8443/a?b"),
        ("raw.example", "https://raw.example:8443/a?b"),
    ] {
        let answer = client.get(host, "/a?b").await;
        assert_eq!((answer.status, answer.header("location")), (302, Some(location)));
    }
    client.send("POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.answer(false).await.expect("an answer").status, 307);
    // A passthrough host that asks for no redirect is unknown over plain HTTP.
    let answer = client.get("closed.example", "/").await;
    assert_eq!((answer.status, answer.header("x-dovetail-error")), (503, Some("no_route")));
    proxy.swap(&snapshot_with(2, routes(), options(Some(443))));
    let answer = client.get("shop.example", "/").await;
    assert_eq!(answer.header("location"), Some("https://shop.example/"));
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn a_context_root_is_taken_off_for_whole_segments() {
    let app = App::start("app").await;
    let shop = with(route("shop.example", "/app", &[app.address]), rewrite());
    let plain = route("plain.example", "/app", &[app.address]);
    let proxy = Proxy::start(&snapshot(1, vec![shop, plain]));
    let mut client = RawClient::connect(proxy.address).await;
    for (target, seen) in [
        ("/app/", "/"),
        ("/app/x/y?z=/app", "/x/y?z=/app"),
        ("/app/a%2Fb/../c;d", "/a%2Fb/../c;d"),
        ("/app//evil.example/", "/evil.example/"),
        ("/app/?", "/?"),
    ] {
        assert_eq!(client.get("shop.example", target).await.status, 200, "{target}");
        let last = app.last();
        assert_eq!(last.target, seen, "{target}");
        assert_eq!(last.headers["x-forwarded-prefix"], "/app");
    }
    let answer = client.get("shop.example", "/app?b=c").await;
    assert_eq!((answer.status, answer.header("location")), (301, Some("/app/?b=c")));
    client.send("POST /app?b=c HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.answer(false).await.expect("an answer").status, 200);
    assert_eq!(app.last().target, "/?b=c", "a body would be lost in a redirect");
    for target in ["/", "/other", "/apple", "/apple/"] {
        assert_eq!(client.get("shop.example", target).await.status, 404, "{target}");
    }
    client
        .send("GET /app/x HTTP/1.1\r\nHost: plain.example\r\nX-Forwarded-Prefix: /evil\r\n\r\n")
        .await;
    assert_eq!(client.answer(false).await.expect("an answer").status, 200);
    assert_eq!(app.last().target, "/app/x");
    assert!(!app.last().headers.contains_key("x-forwarded-prefix"));
}

/// Asks as each user, twice and in turns; gives the upstream of each.
async fn upstreams_of(proxy: &Proxy, users: usize, cookie: bool) -> Vec<String> {
    let mut client = RawClient::connect(proxy.address).await;
    let mut rounds: [Vec<String>; 2] = Default::default();
    for round in &mut rounds {
        for user in 0..users {
            let cookie =
                if cookie { format!("Cookie: session=u{user}\r\n") } else { String::new() };
            client.send(format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{cookie}\r\n")).await;
            let answer = client.answer(false).await.expect("an answer");
            round.push(answer.header("x-upstream-addr").expect("an upstream").to_owned());
        }
    }
    let [first, second] = rounds;
    if cookie {
        assert_eq!(first, second, "every user stays");
    }
    first
}

#[tokio::test]
async fn a_user_with_the_cookie_stays_on_one_task_on_every_proxy() {
    let mut apps = Vec::new();
    for _ in 0..5 {
        apps.push(App::start("app").await);
    }
    let addresses: Vec<_> = apps.iter().map(|app| app.address).collect();
    let of = |upstreams: &[std::net::SocketAddr], options: RouteOptions| {
        with(route("shop.example", "/", upstreams), options)
    };
    let routes = || vec![of(&addresses, sticky("session"))];
    let proxies = [
        Proxy::start(&snapshot(1, routes())),
        Proxy::start_with(&snapshot(7, routes()), |config| {
            config.threads = 3;
            config.name = "proxy-2".into();
        }),
    ];
    let all = upstreams_of(&proxies[0], 40, true).await;
    assert_eq!(all, upstreams_of(&proxies[1], 40, true).await, "no proxy thinks otherwise");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 5, "all tasks have users");
    let without = upstreams_of(&proxies[0], 5, false).await;
    assert_eq!(without.iter().collect::<BTreeSet<_>>().len(), 5, "no cookie: in turns");
    // One task goes: its users move, all others stay.
    proxies[0].swap(&snapshot(2, vec![of(&addresses[1..], sticky("session"))]));
    let after = upstreams_of(&proxies[0], 40, true).await;
    let gone = addresses[0].to_string();
    for (before, after) in all.iter().zip(&after) {
        assert!(if *before == gone { *after != gone } else { before == after });
    }
    // The application died, and Swarm does not know yet: the next one has its users.
    proxies[0].swap(&snapshot(3, routes()));
    apps[0].stop();
    let failing = upstreams_of(&proxies[0], 40, true).await;
    assert_eq!(failing, after, "as if it were gone");
}

#[tokio::test]
async fn a_client_stays_on_one_task_by_its_address() {
    let mut apps = Vec::new();
    for _ in 0..4 {
        apps.push(App::start("app").await);
    }
    let addresses: Vec<_> = apps.iter().map(|app| app.address).collect();
    let by_address = RouteOptions { sticky: Sticky::ClientIp, ..RouteOptions::default() };
    let plain = || route("shop.example", "/", &addresses);
    let proxy = Proxy::start(&snapshot(1, vec![with(plain(), by_address)]));
    let asked = upstreams_of(&proxy, 10, false).await;
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 1);
    // The same by the option of the whole proxy.
    let options = ProxyOptions { ip_hash: true, ..ProxyOptions::default() };
    proxy.swap(&snapshot_with(2, vec![plain()], options));
    assert_eq!(upstreams_of(&proxy, 10, false).await, asked);
    proxy.swap(&snapshot(3, vec![plain()]));
    let asked = upstreams_of(&proxy, 4, false).await;
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 4);
}

#[tokio::test]
async fn failures_take_an_upstream_out_as_its_service_says() {
    // Answers 500, which is an answer.
    let broken = Script::start(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", false).await;
    let app = App::start("app").await;
    let route_with = |max_fails, fail_on_5xx| {
        let mut route = route("shop.example", "/", &[broken.address, app.address]);
        route.services[0].dial.max_fails = max_fails;
        route.services[0].dial.fail_timeout = Duration::from_secs(600);
        route.services[0].dial.fail_on_5xx = fail_on_5xx;
        route
    };
    let proxy = Proxy::start(&snapshot(1, vec![route_with(3, false)]));
    let failed = async || {
        let mut client = RawClient::connect(proxy.address).await;
        let mut failed = 0;
        for _ in 0..20 {
            failed += usize::from(client.get("shop.example", "/").await.status == 500);
        }
        failed
    };
    assert_eq!(failed().await, 10, "an answer is no failure");
    proxy.swap(&snapshot(2, vec![route_with(0, true)]));
    assert_eq!(failed().await, 10, "0 takes nobody out");
    proxy.swap(&snapshot(3, vec![route_with(2, true)]));
    assert_eq!(failed().await, 2, "counted where it is asked for, and not repeated");
    assert_eq!(failed().await, 0);
    // All of them out: better one of these than none.
    let mut alone = route("shop.example", "/", &[broken.address]);
    alone.services[0].dial.max_fails = 1;
    proxy.swap(&snapshot(4, vec![alone]));
    assert_eq!(get(proxy.address, "shop.example", "/").await.status, 500);
}

#[tokio::test]
async fn one_upstream_in_two_services_is_out_for_both_but_where_it_is_never() {
    let nobody = refused().await;
    let app = App::start("app").await;
    let once = |host, max_fails| {
        let mut route = route(host, "/", &[nobody, app.address]);
        route.services[0].dial.max_fails = max_fails;
        route
    };
    let routes = vec![once("a.example", 1), once("b.example", 5), once("c.example", 0)];
    let directory = tempfile::tempdir().expect("a folder");
    let log = directory.path().join("access.log");
    let proxy = Proxy::start_with(&snapshot(1, routes), |config| {
        config.access_log = AccessLogTarget::File(log.clone());
    });
    let mut client = RawClient::connect(proxy.address).await;
    for (host, tries) in [("a.example", true), ("b.example", false), ("c.example", true)] {
        for _ in 0..2 {
            assert_eq!(client.get(host, "/").await.body, "app");
        }
        let mut attempts = Vec::new();
        until("the access log is written", async || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines = text.lines().filter(|line| line.contains(host));
            let line = |line| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
            attempts = lines.map(|text| line(text)["attempts"].as_u64()).collect();
            attempts.len() == 2
        })
        .await;
        assert_eq!(attempts.contains(&Some(2)), tries, "{host}: {attempts:?}");
    }
}

#[tokio::test]
async fn a_redirect_ends_no_connection_and_loses_no_body() {
    let app = App::start("app").await;
    let old = with(route("old.example", "/", &[app.address]), redirect_to(true, "new.example"));
    let proxy = Proxy::start(&snapshot(1, vec![old, route("new.example", "/", &[app.address])]));
    // The body of a redirected request is no request.
    let answer = raw(
        proxy.address,
        b"POST / HTTP/1.1\r\nHost: old.example\r\nContent-Length: 41\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: new.example\r\n\
          GET / HTTP/1.1\r\nHost: new.example\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 302 "), "{answer}");
    assert!(app.seen().iter().all(|seen| seen.target == "/"), "{:?}", app.seen());
}

#[tokio::test]
async fn trusted_proxies_speak_for_their_clients_and_nobody_else_does() {
    let app = App::start("app").await;
    let routes = || {
        let only = with(route("only.example", "/", &[app.address]), ssl_only());
        vec![only, route("shop.example", "/", &[app.address])]
    };
    let trusting = |trusted: &str| ProxyOptions {
        trusted_proxies: vec![trusted.parse().expect("a subnet")],
        ..ProxyOptions::default()
    };
    let proxy = Proxy::start(&snapshot_with(1, routes(), trusting("127.0.0.0/8")));
    let request = |host: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: {host}:8080\r\nX-Forwarded-For: 6.6.6.6, 203.0.113.9\r\n\
             X-Forwarded-For: 127.0.0.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 8443\r\n\
             X-Forwarded-Host: outer.example\r\nForwarded: for=203.0.113.9\r\nX-Real-IP: 6.6.6.6\r\n\
             Origin: https://outer.example\r\n\r\n"
        )
    };
    let mut client = RawClient::connect(proxy.address).await;
    let mut seen = async |revision, options, host: &str| {
        if revision > 1 {
            proxy.swap(&snapshot_with(revision, routes(), options));
        }
        client.send(request(host)).await;
        let status = client.answer(false).await.expect("an answer").status;
        let headers = app.seen().pop().map(|seen| seen.headers).unwrap_or_default();
        let name = |name| headers.get(name).map(|v| v.to_str().expect("text").to_owned());
        (
            status,
            name("x-forwarded-for"),
            name("x-real-ip"),
            name("x-forwarded-proto"),
            name("x-forwarded-port"),
            name("x-forwarded-host"),
            name("forwarded"),
            name("origin"),
        )
    };
    let text = |value: &str| Some(value.to_owned());
    let outer = || text("https://outer.example");
    // It came over HTTPS to the trusted proxy: no redirect.
    for host in ["shop.example", "only.example"] {
        let kept = (
            200,
            text("6.6.6.6, 203.0.113.9, 127.0.0.7, 127.0.0.1"),
            text("203.0.113.9"),
            text("https"),
            text("8443"),
            text("outer.example"),
            text("for=203.0.113.9"),
            outer(),
        );
        assert_eq!(seen(1, ProxyOptions::default(), host).await, kept, "{host}");
    }
    let replaced = (
        200,
        text("127.0.0.1"),
        text("127.0.0.1"),
        text("http"),
        text("8080"),
        text("shop.example:8080"),
        None,
        outer(),
    );
    assert_eq!(seen(2, trusting("10.0.0.0/8"), "shop.example").await, replaced);
    assert_eq!(seen(3, ProxyOptions::default(), "shop.example").await, replaced);
    assert_eq!(seen(4, ProxyOptions::default(), "only.example").await.0, 302);
}

#[tokio::test]
async fn headers_with_underscores_are_dropped_where_the_configuration_says_so() {
    let app = App::start("app").await;
    let routes = || vec![route("shop.example", "/", &[app.address])];
    let drops = ProxyOptions { drop_underscored_headers: true, ..ProxyOptions::default() };
    let proxy = Proxy::start(&snapshot(1, routes()));
    let mut client = RawClient::connect(proxy.address).await;
    for (revision, options, kept) in [(2, ProxyOptions::default(), true), (3, drops, false)] {
        proxy.swap(&snapshot_with(revision, routes(), options));
        client.send("GET / HTTP/1.1\r\nHost: shop.example\r\nMy_Header: 1\r\nX-A: 2\r\n\r\n").await;
        assert_eq!(client.answer(false).await.expect("an answer").status, 200);
        let headers = app.last().headers;
        assert_eq!(headers.contains_key("my_header"), kept);
        assert!(headers.contains_key("x-a"));
    }
}
