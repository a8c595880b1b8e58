//! What is printed: the shapes that scripts rely on, and tables for people.

use crate::fake::{Cli, Mode, certificates, dead, member};

/// Compares text with lines, so that a difference is read line by line.
fn assert_lines(text: &str, lines: &[&str]) {
    assert_eq!(text.lines().collect::<Vec<_>>(), lines, "\n{text}");
}

#[tokio::test]
async fn status_as_json_has_the_contracts_shape() {
    let certificates = certificates();
    let (address, _) = member(&certificates, 1, Mode::Leader).await;
    let ran = Cli::new(&address, &certificates).run(&["-o", "json", "status"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(
        ran.stdout,
        concat!(
            r#"{"cluster_id":"c1","leader":1,"term":3,"index":57,"#,
            r#""service_clusters":[{"name":"","revision":42,"digest":"aabbccddeeff00112233"},"#,
            r#"{"name":"blue","revision":40,"digest":"00"}],"#,
            r#""members":[{"id":1,"address":"core-1:8080","role":"leader","applied":57,"#,
            r#""reachable":true,"incarnation":"a1","rules_newest":2},"#,
            r#"{"id":2,"address":"core-2:8080","role":"follower","applied":50,"#,
            r#""reachable":false,"incarnation":"b2","rules_newest":0}],"#,
            r#""proxies":[{"name":"edge-1","address":"10.0.0.9","service_cluster":"","#,
            r#""revision":42,"digest":"aa","connected":true,"member":1,"nack":""},"#,
            r#"{"name":"edge-2","address":"10.0.0.9","service_cluster":"","#,
            r#""revision":41,"digest":"aa","connected":true,"member":1,"nack":""},"#,
            r#"{"name":"edge-3","address":"10.0.0.9","service_cluster":"","#,
            r#""revision":41,"digest":"aa","connected":true,"member":1,"nack":"digest differs"},"#,
            r#"{"name":"edge-4","address":"10.0.0.9","service_cluster":"","#,
            r#""revision":40,"digest":"aa","connected":false,"member":0,"nack":""}],"#,
            r#""problems":2,"view":"leader","docker_age_seconds":0.25,"docker_error":"","#,
            r#""rolled_back":0,"rules":1}"#,
            "\n"
        )
    );
}

#[tokio::test]
async fn a_leader_that_nobody_knows_is_null() {
    let certificates = certificates();
    let (address, _) = member(&certificates, 1, Mode::NoQuorum).await;
    let ran = Cli::new(&address, &certificates).run(&["-o", "json", "status"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let status: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(status["leader"], serde_json::Value::Null);
    assert_eq!(status["view"], "local");
    assert_eq!(status["docker_age_seconds"], serde_json::Value::Null);
}

#[tokio::test]
async fn routes_as_json_have_the_contracts_shape() {
    let certificates = certificates();
    let (address, _) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&address, &certificates);
    let ran = cli.run(&["routes", "-o", "json", "--service-cluster", "blue"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(
        ran.stdout,
        concat!(
            r#"{"service_cluster":"blue","revision":42,"digest":"aabbccddeeff00112233","#,
            r#""routes":[{"host":"shop.example","path":"/","tls":"terminate","services":["#,
            r#"{"name":"shop_v1","weight":9000,"upstreams":["#,
            r#"{"address":"10.0.1.3:8080","state":"active","task":"t1","node":"n1"},"#,
            r#"{"address":"10.0.1.4:8080","state":"draining","task":"t1","node":"n1","#,
            r#""reason":"operator"}]},"#,
            r#"{"name":"shop_v2","weight":1000,"upstreams":["#,
            r#"{"address":"10.0.1.5:8080","state":"active","task":"t1","node":"n1"}]}]},"#,
            r#"{"host":"a.example","path":"/","tls":"terminate","services":[],"#,
            r#""certificate":{"cert":"a.cert","key":"a.key"},"#,
            r#""options":{"rewrite":true,"sticky":"cookie session"}},"#,
            r#"{"host":"*","path":"/app","tls":"none","services":["#,
            r#"{"name":"empty","weight":10000,"upstreams":[]}]}],"index":57,"age_ms":0}"#,
            "\n"
        )
    );
}

#[tokio::test]
async fn problems_members_and_proxies_are_lists() {
    let certificates = certificates();
    let (address, _) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&address, &certificates);
    let ran = cli.run(&["-o", "json", "problems"]).await;
    assert_eq!(
        ran.stdout,
        concat!(
            r#"[{"service":"shop","label":"com.docker.lb.port","value":"http\u001b[2J","#,
            r#""reason":"not a number from 1 to 65535","since_index":12}]"#,
            "\n"
        )
    );
    for (verb, length) in [("members", 2), ("proxies", 4)] {
        let ran = cli.run(&["-o", "json", verb]).await;
        let list: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(list.as_array().map(Vec::len), Some(length), "{verb}");
    }
}

#[tokio::test]
async fn the_log_as_json_is_one_object_per_line() {
    let certificates = certificates();
    let (address, _) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&address, &certificates);
    let ran = cli.run(&["-o", "json", "log", "show", "--from", "2", "--limit", "5"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_lines(
        &ran.stdout,
        &[
            r#"{"index":2,"term":1,"leader_time_ms":1700000000002,"kind":"command","actor":"dovetail://operator/anna","request_id":"r2","cause":"","summary":"annotate \"2\"","hash":"ff"}"#,
            r#"{"index":3,"term":1,"leader_time_ms":1700000000003,"kind":"command","actor":"dovetail://operator/anna","request_id":"r3","cause":"","summary":"annotate \"3\"","hash":"ff"}"#,
        ],
    );
}

#[tokio::test]
async fn tables_fit_the_width_and_carry_no_colour_into_a_pipe() {
    let certificates = certificates();
    let (address, _) = member(&certificates, 1, Mode::Leader).await;
    let mut cli = Cli::new(&address, &certificates);
    cli.columns = Some(60);
    for verb in ["status", "routes", "problems", "members", "proxies"] {
        let ran = cli.run(&[verb]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(!ran.stdout.contains('\u{1b}'), "{}", ran.stdout);
        for line in ran.stdout.lines().filter(|line| !line.starts_with("cluster ")) {
            assert!(line.chars().count() <= 60, "{verb}: {line}");
        }
    }
}

#[tokio::test]
async fn status_for_people() {
    let certificates = certificates();
    let (address, _) = member(&certificates, 1, Mode::Leader).await;
    let mut cli = Cli::new(&address, &certificates);
    cli.columns = Some(100);
    let ran = cli.run(&["status"]).await;
    assert_lines(
        &ran.stdout,
        &[
            "cluster c1  leader member 1  term 3  index 57",
            "problems 2  Docker read 0.2 s ago",
            "",
            "SERVICE CLUSTER  REVISION  DIGEST",
            "(default)        42        aabbccddeeff",
            "blue             40        00",
            "",
            "MEMBER  ADDRESS      ROLE      APPLIED  REACHABLE",
            "1       core-1:8080  leader    57       yes",
            "2       core-2:8080  follower  50       no",
            "",
            "PROXY   ADDRESS   SERVICE CLUSTER  REVISION  MEMBER  STATE",
            "edge-1  10.0.0.9  (default)        42        1       in force",
            "edge-2  10.0.0.9  (default)        41        1       behind revision 42",
            "edge-3  10.0.0.9  (default)        41        1       refused: digest differs",
            "edge-4  10.0.0.9  (default)        40        -       gone",
        ],
    );
}

#[tokio::test]
async fn routes_problems_and_the_log_for_people() {
    let certificates = certificates();
    let (address, _) = member(&certificates, 1, Mode::Leader).await;
    let mut cli = Cli::new(&address, &certificates);
    cli.columns = Some(120);
    assert_lines(
        &cli.run(&["routes"]).await.stdout,
        &[
            "service cluster (default)  revision 42  digest aabbccddeeff",
            "HOST          PATH  TLS        SERVICE  SHARE  UPSTREAM       STATE",
            "shop.example  /     terminate  shop_v1  90%    10.0.1.3:8080  active",
            "                                               10.0.1.4:8080  draining (operator)",
            "                               shop_v2  10%    10.0.1.5:8080  active",
            "*             /app  none       empty    100%   -              no running task",
        ],
    );
    assert_lines(
        &cli.run(&["problems"]).await.stdout,
        &[
            "SERVICE  LABEL               VALUE          REASON                        SINCE",
            "shop     com.docker.lb.port  http\\u{1b}[2J  not a number from 1 to 65535  12",
        ],
    );
    assert_lines(
        &cli.run(&["log", "show", "--limit", "1"]).await.stdout,
        &[
            "INDEX  TERM  TIME                            KIND     ACTOR          SUMMARY       CAUSE",
            "1      1     2023-11-14 22:13:20.001 +00:00  command  operator/anna  annotate \"1\"",
        ],
    );
    let none = cli.run(&["log", "show", "--from", "9"]).await;
    assert_eq!((none.code, none.stdout.as_str()), (0, "no entries\n"));
}

#[tokio::test]
async fn watch_asks_again_and_survives_a_broken_pipe() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let certificates = certificates();
    let (address, _) = member(&certificates, 1, Mode::Leader).await;
    let core = format!("{},{address}", dead().await);
    let mut child = crate::fake::bare()
        .env("DOVETAIL_CORE", core)
        .env("DOVETAIL_TLS_DIR", certificates.path().join("operator"))
        .args(["-o", "json", "status", "--watch"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    for _ in 0..2 {
        let line = lines.next_line().await.expect("read").expect("a line");
        assert!(line.starts_with("{\"cluster_id\":\"c1\""), "{line}");
    }
    drop(lines);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), child.wait()).await;
    assert_eq!(ended.expect("it ends").expect("waited for").code(), Some(0));
}
