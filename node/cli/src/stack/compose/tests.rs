//! Stack files, right and wrong.

use super::*;

fn stack(text: &str) -> Stack {
    let environment = |name: &str| (name == "HOST").then(|| "shop.example".to_owned());
    read(text, "shop", &environment).expect("a stack file")
}

fn one(text: &str) -> Planned {
    let mut stack = stack(text);
    assert!(stack.remarks.is_empty(), "{:?}", stack.remarks);
    stack.services.remove(0).planned
}

#[test]
fn labels_are_a_map_or_a_list() {
    for labels in [
        "        com.docker.lb.hosts: www.${HOST}\n        com.docker.lb.port: 8080\n        \
         com.docker.lb.ip_hash: true\n",
        "        - com.docker.lb.hosts=www.$HOST\n        - \"com.docker.lb.port=8080\"\n        \
         - com.docker.lb.ip_hash=true\n",
    ] {
        let text = format!("services:\n  web:\n    deploy:\n      labels:\n{labels}");
        let planned = one(&text);
        assert_eq!(planned.name, "shop_web");
        let wanted = [
            ("com.docker.lb.hosts", "www.shop.example"),
            ("com.docker.lb.ip_hash", "true"),
            ("com.docker.lb.port", "8080"),
            (STACK_LABEL, "shop"),
        ];
        let wanted = wanted.map(|(label, value)| (label.to_owned(), value.to_owned()));
        assert_eq!(planned.labels, BTreeMap::from(wanted));
        assert_eq!(planned.scale, Scale::Replicated(1));
        assert_eq!(planned.networks, BTreeSet::from(["shop_default".to_owned()]));
    }
}

#[test]
fn networks_and_secrets_have_the_names_that_docker_gives_them() {
    let text = "\
services:
  web:
    networks: [own, out, named, older, default]
  api:
    networks:
      own: {aliases: [api]}
networks:
  own:
  out: {external: true}
  named: {name: front}
  older: {external: {name: legacy}}
secrets:
  cert: {file: ./cert.pem}
  key: {external: true}
  ca: {external: true, name: authorities}
";
    let stack = stack(text);
    assert!(stack.remarks.is_empty(), "{:?}", stack.remarks);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let networks: BTreeSet<String> = names(&["front", "legacy", "out", "shop_default", "shop_own"]);
    assert_eq!(stack.services[0].planned.networks, networks);
    assert_eq!(stack.services[1].planned.networks, names(&["shop_own"]));
    assert_eq!(stack.secrets, names(&["authorities", "key", "shop_cert"]));
}

#[test]
fn deploy_says_how_many_and_how_they_are_reached() {
    let with = |deploy: &str| one(&format!("services:\n  web:\n    deploy: {{{deploy}}}\n"));
    assert_eq!(with("replicas: 3").scale, Scale::Replicated(3));
    assert_eq!(with("replicas: \"${NONE:-4}\"").scale, Scale::Replicated(4));
    assert_eq!(with("mode: global").scale, Scale::Global);
    assert_eq!(with("mode: replicated-job").scale, Scale::Job);
    assert_eq!(with("endpoint_mode: dnsrr").endpoint_mode, EndpointMode::Dnsrr);
    let ports = "\
services:
  web:
    ports:
      - \"80:8080\"
      - {target: 8080, published: 80}
      - {target: 8080, published: \"9000\", mode: host}
      - {target: 8081, mode: host, protocol: tcp}
      - {target: 53, mode: host, protocol: udp}
";
    let host = |target, published| HostPort { target, published };
    assert_eq!(one(ports).host_ports, [host(8_080, 9_000), host(8_081, 0)]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 2_000, ..Default::default() })]

    /// Neither any text nor a nearly right one makes it panic.
    #[test]
    fn no_text_makes_it_panic(
        any in proptest::prelude::any::<String>(),
        edits in proptest::collection::vec((0..300_usize, "[-:{}$&*<\\[\\]'\"#|>? \nab]"), 1..8),
    ) {
        const SEED: &str = "services:\n  web: &web\n    networks: [a]\n    ports:\n      - \
            {target: 80, mode: host}\n    deploy:\n      replicas: ${N:-2}\n      labels:\n        \
            - com.docker.lb.hosts=$HOST\n  api:\n    <<: *web\nnetworks:\n  a: {external: true}\n\
            secrets: {b: {name: c}}\n";
        let mut text = SEED.to_owned();
        for (at, new) in edits {
            let at = at % text.len();
            text.replace_range(at..=at, &new);
        }
        for text in [any, text] {
            if let Ok(stack) = read(&text, "shop", &|_| None) {
                assert!(stack.services.iter().all(|one| one.place.line > 0));
            }
        }
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let text = "\
version: '2.4'
services:
  web:
    labels:
      com.docker.lb.hosts: a.example
      team: shop
    networks:
      - front
    deploy:
      mode: some
      replicas: many
      endpoint_mode: dns
      labels:
        com.docker.lb.hosts: [a.example]
        com.docker.lb.port: $NONE
        com.docker.lb.network: ${NONE}
  bad: 3
networks: none
";
    let told: Vec<_> = stack(text)
        .remarks
        .iter()
        .map(|remark| {
            let Place { line, column } = remark.place;
            let kind = if remark.severity == Severity::Warning { "warning " } else { "" };
            let Remark { service, label, reason, .. } = remark;
            format!("{line}:{column} {kind}{service} {label}: {reason}")
        })
        .collect();
    assert_eq!(
        told,
        [
            "1:10  : version 2.4: a stack file has version 3",
            "18:11  : networks must be a map",
            "5:7 shop_web com.docker.lb.hosts: is a label of the containers, which Swarm shows \
             to nobody: move it under deploy",
            "14:30 shop_web : must be a text, not a list or a map",
            "15:29 warning shop_web : variable NONE is not set: it is taken as empty",
            "8:9 shop_web : network front is not declared under networks at the top level",
            "12:22 shop_web : endpoint_mode \"dns\" must be vip or dnsrr",
            "10:13 shop_web : mode \"some\" must be replicated, global or a job",
            "11:17 shop_web : replicas \"many\" must be a whole number",
            "17:8 shop_bad : bad must be a map",
        ]
    );
    for (text, said) in [("", "is empty"), ("- a", "begins with keys"), ("a: [", "")] {
        let error = read(text, "shop", &|_| None).expect_err(text);
        assert!(error.reason.contains(said), "{text:?}: {error:?}");
    }
    assert_eq!(stack("networks: {}").remarks[0].reason, "the file has no services");
}
