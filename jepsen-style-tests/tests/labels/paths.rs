//! Context roots (A10 to A14).

use crate::lab::Lab;

const REWRITTEN: [(&str, &str); 2] = [("context_root", "/app"), ("context_root_rewrite", "true")];

/// A10.
pub(crate) async fn a10_a_rewritten_root_is_taken_off_the_path(lab: &Lab) {
    let labels = [&REWRITTEN[..], &[("hosts", "a10.example")]].concat();
    let _service = lab.publish("a10", 1, &labels).await;
    let curl = lab.curl(1);
    for (sent, path, query) in [
        ("/app/headers", "/headers", None),
        ("/app/x/headers?a=b", "/x/headers", Some("a=b")),
        ("/app/%2e%2e/headers", "/%2e%2e/headers", None),
    ] {
        let seen = curl.get(&format!("http://a10.example{sent}")).await.json();
        assert_eq!((seen["path"].as_str(), seen["query"].as_str()), (Some(path), query));
        assert_eq!(seen["headers"]["x-forwarded-prefix"][0], "/app");
    }
    let answer = curl.get("http://a10.example/app/").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// A11. Interlock adds a slash to every path below the root without a dot, absolutely and
/// with the wrong port, and to a POST, too. Ours adds it to the root alone, relatively, and
/// for GET and HEAD.
pub(crate) async fn a11_the_root_itself_gets_its_slash(lab: &Lab) {
    let labels = [&REWRITTEN[..], &[("hosts", "a11.example")]].concat();
    let _service = lab.publish("a11", 1, &labels).await;
    let curl = lab.curl(1);
    let answer = curl.get("http://a11.example/app?a=b").await;
    assert_eq!((answer.status, answer.header("location")), (301, "/app/?a=b"), "{answer:?}");
    let followed = curl.clone().with(&["--location"]).get("http://a11.example/app").await;
    assert_eq!(followed.status, 200, "{followed:?}");
    let posted = curl.clone().with(&["--data", "x=y"]).get("http://a11.example/app").await;
    assert_eq!(posted.status, 200, "{posted:?}");
    let below = curl.get("http://a11.example/app/foo").await;
    assert_eq!(below.status, 200, "{below:?}");
}

/// A12.
pub(crate) async fn a12_paths_beside_the_root_are_unknown(lab: &Lab) {
    let labels = [&REWRITTEN[..], &[("hosts", "a12.example")]].concat();
    let _service = lab.publish("a12", 1, &labels).await;
    for path in ["/", "/other", "/apple", "/App"] {
        let answer = lab.curl(2).get(&format!("http://a12.example{path}")).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        assert_eq!(answer.header("x-dovetail-error"), "unknown_path");
    }
}

/// A13.
pub(crate) async fn a13_a_root_that_is_not_rewritten_stays_in_the_path(lab: &Lab) {
    let labels = [("hosts", "a13.example"), ("context_root", "/app")];
    let _service = lab.publish("a13", 1, &labels).await;
    let seen = lab.curl(1).get("http://a13.example/app/headers").await.json();
    assert_eq!(seen["path"], "/app/headers");
    let answer = lab.curl(1).get("http://a13.example/app").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// A14. Interlock documents one path per host; here any number of services share one.
pub(crate) async fn a14_two_services_have_a_path_each_on_one_host(lab: &Lab) {
    let host = ("hosts", "a14.example");
    let a = lab.publish("a14-a", 1, &[host, ("context_root", "/a")]).await;
    let b = lab.publish("a14-b", 1, &[host, ("context_root", "/b")]).await;
    let deeper = lab.publish("a14-deeper", 1, &[host, ("context_root", "/a/deeper")]).await;
    for (path, service) in [("/a/x", &a), ("/b/x", &b), ("/a/deeper/x", &deeper), ("/a", &a)] {
        let answer = lab.curl(1).get(&format!("http://a14.example{path}")).await;
        assert_eq!(answer.by(), service.tasks()[0].name, "{path}");
    }
    for service in [&a, &b, &deeper] {
        assert_eq!(lab.problems(service).await, []);
    }
}
