//! Users stay where they are (A25, A26).

use std::collections::BTreeSet;

use crate::curl::{Answer, counts};
use crate::lab::Lab;

fn upstreams(answers: &[Answer]) -> BTreeSet<&str> {
    answers.iter().map(|answer| answer.header("x-upstream-addr")).collect()
}

/// A25. The cookie is the application's, as with Interlock; the proxy makes none.
pub(crate) async fn a25_a_cookie_of_the_application_keeps_its_user(lab: &Lab) {
    let labels = [("hosts", "a25.example"), ("sticky_session_cookie", "session")];
    let _service = lab.publish("a25", 5, &labels).await;
    // The first answer sets the cookie, and curl sends it from then on.
    let jar = lab.file("a25.jar", "");
    let with_jar = |proxy| lab.curl(proxy).with(&["--cookie", &jar, "--cookie-jar", &jar]);
    with_jar(1).get("http://a25.example/ping").await;
    let mut home = BTreeSet::new();
    for proxy in [1, 2] {
        let answers = with_jar(proxy).all("http://a25.example/ping?[1-20]").await;
        home.extend(upstreams(&answers).into_iter().map(str::to_owned));
    }
    assert_eq!(home.len(), 1, "the same upstream through both proxies: {home:?}");
    // Others with other cookies live elsewhere, each always at the same place.
    let mut homes = BTreeSet::new();
    for user in 0..20 {
        let cookie = format!("other=1; session=user-{user}");
        let mut home = BTreeSet::new();
        for proxy in [1, 2] {
            let curl = lab.curl(proxy).with(&["--cookie", &cookie]);
            let answers = curl.all("http://a25.example/ping?[1-3]").await;
            home.extend(upstreams(&answers).into_iter().map(str::to_owned));
        }
        assert_eq!(home.len(), 1, "user {user}: {home:?}");
        homes.extend(home);
    }
    assert!(homes.len() >= 3, "20 users live at {homes:?}");
    // Without a cookie requests take turns.
    let answers = lab.curl(1).all("http://a25.example/ping?[1-20]").await;
    assert!(counts(&answers).values().all(|count| *count == 4), "{:?}", counts(&answers));
}

/// A26.
pub(crate) async fn a26_a_client_address_keeps_its_upstream(lab: &Lab) {
    let labels = [("hosts", "a26.example"), ("ip_hash", "true")];
    let service = lab.publish("a26", 5, &labels).await;
    let home = async |client: &str| {
        let mut home = BTreeSet::new();
        for proxy in [1, 2] {
            let curl = lab.curl(proxy).with(&["--interface", client]);
            let answers = curl.all("http://a26.example/ping?[1-20]").await;
            home.extend(upstreams(&answers).into_iter().map(str::to_owned));
        }
        assert_eq!(home.len(), 1, "client {client}: {home:?}");
        home
    };
    let clients: Vec<String> = (10..22).map(|host| format!("127.9.9.{host}")).collect();
    let mut homes = BTreeSet::new();
    for client in &clients {
        homes.extend(home(client).await);
    }
    assert!(homes.len() >= 2, "not all clients live in one place: {homes:?}");
    let before = home(&clients[0]).await;
    assert_eq!(home(&clients[0]).await, before);
    // Another home perhaps, and then that one.
    service.scale(10).await;
    let after = home(&clients[0]).await;
    assert_eq!(home(&clients[0]).await, after);
}
