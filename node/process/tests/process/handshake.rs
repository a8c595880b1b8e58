//! Who may talk to whom, and what is said when it may not.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use dovetail_process::grpc::{ChannelOptions, channel, channel_with, describe};
use dovetail_process::tls::{TlsDir, provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{
    Validity, ask, authority, call, craft, eventually, loopback, serve, tls, uri,
};

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_member_knows_who_calls() {
    let dir = authority();
    let address = serve(tls(&dir, "member-1")).await;
    for (who, identity) in [
        ("operator", "dovetail://operator/operator?role=admin"),
        ("proxy", "dovetail://proxy"),
        ("extension", "dovetail://extension"),
        ("member-2", "dovetail://member/2"),
    ] {
        assert_eq!(ask(&tls(&dir, who), &address).await.expect("answer"), identity);
    }
    let localhost = address.replace("127.0.0.1", "localhost");
    assert!(ask(&tls(&dir, "proxy"), &localhost).await.is_ok());
}

#[tokio::test]
async fn only_a_member_is_a_server() {
    let dir = authority();
    let address = serve(tls(&dir, "proxy")).await;
    let reason = ask(&tls(&dir, "operator"), &address).await.expect_err("a proxy");
    assert_eq!(
        reason,
        format!("connect to {address}: its certificate is dovetail://proxy, not a member")
    );
    // Nor when its certificate is good for servers.
    let eve = craft(
        dir.path(),
        "eve",
        &[uri("dovetail://operator/eve?role=admin"), loopback()],
        Validity::Now,
    );
    let address = serve(TlsDir::load(&eve).expect("loaded")).await;
    let reason = ask(&tls(&dir, "proxy"), &address).await.expect_err("an operator");
    assert!(reason.contains("is dovetail://operator/eve?role=admin, not a member"), "{reason}");
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let (ours, theirs) = (authority(), authority());
    let address = serve(tls(&theirs, "member-1")).await;
    let reason = ask(&tls(&ours, "operator"), &address).await.expect_err("another authority");
    assert_eq!(reason, format!("connect to {address}: its certificate is not signed by ca.pem"));
}

#[tokio::test]
async fn a_certificate_is_good_only_for_its_names() {
    let dir = authority();
    let elsewhere = craft(
        dir.path(),
        "elsewhere",
        &[uri("dovetail://member/1"), rcgen::SanType::DnsName("core-1".try_into().expect("name"))],
        Validity::Now,
    );
    let address = serve(TlsDir::load(&elsewhere).expect("loaded")).await;
    let reason = ask(&tls(&dir, "operator"), &address).await.expect_err("another name");
    assert_eq!(
        reason,
        format!("connect to {address}: its certificate is for core-1, not for 127.0.0.1")
    );
}

#[tokio::test]
async fn an_expired_member_is_refused() {
    let dir = authority();
    let old = craft(dir.path(), "old", &[uri("dovetail://member/1"), loopback()], Validity::Past);
    // A member that ran when its certificate expired; a start would be refused.
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(old.join("cert.pem")).expect("certificate")],
            PrivateKeyDer::from_pem_file(old.join("key.pem")).expect("key"),
        )
        .expect("configuration");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let _ = TlsAcceptor::from(Arc::new(config.clone())).accept(tcp).await;
        }
    });
    let reason = ask(&tls(&dir, "operator"), &address).await.expect_err("expired");
    assert_eq!(reason, format!("connect to {address}: its certificate has expired"));
}

/// A client that shows the certificate of this folder, and takes any server of ours.
fn raw_client(authority: &std::path::Path, folder: Option<&std::path::Path>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority.join("ca/ca.pem")).expect("authority"))
        .expect("root");
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let config = match folder {
        None => builder.with_no_client_auth(),
        Some(folder) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(folder.join("cert.pem")).expect("certificate")],
                PrivateKeyDer::from_pem_file(folder.join("key.pem")).expect("key"),
            )
            .expect("configuration"),
    };
    TlsConnector::from(Arc::new(config))
}

/// What the server's refusal looks like to a raw client.
async fn refusal(connector: &TlsConnector, address: &str) -> String {
    let tcp = TcpStream::connect(address).await.expect("TCP");
    let name = ServerName::try_from("127.0.0.1").expect("name");
    let talked = async {
        let mut stream = connector.connect(name, tcp).await?;
        // In TLS 1.3 the refusal comes after the client's handshake.
        stream.read_u8().await
    };
    let talked = tokio::time::timeout(PATIENCE, talked).await.expect("an answer");
    talked.expect_err("a refusal").to_string()
}

#[tokio::test]
async fn who_cannot_say_who_it_is_is_refused_and_the_rest_are_served() {
    let (dir, theirs) = (authority(), authority());
    let address = serve(tls(&dir, "member-1")).await;
    let nameless = craft(dir.path(), "nameless", &[loopback()], Validity::Now);
    let old = craft(dir.path(), "old", &[uri("dovetail://proxy")], Validity::Past);

    let none = refusal(&raw_client(dir.path(), None), &address).await;
    assert!(none.contains("CertificateRequired"), "{none}");
    let other =
        refusal(&raw_client(dir.path(), Some(&theirs.path().join("proxy"))), &address).await;
    assert!(other.contains("UnknownCA"), "{other}");
    let nobody = refusal(&raw_client(dir.path(), Some(&nameless)), &address).await;
    assert!(nobody.contains("received fatal alert"), "{nobody}");
    let expired = refusal(&raw_client(dir.path(), Some(&old)), &address).await;
    assert!(expired.contains("CertificateExpired"), "{expired}");

    // In plain text, which is answered with an alert at most and then closed.
    let mut plain = TcpStream::connect(&address).await.expect("TCP");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection is closed");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    assert!(ask(&tls(&dir, "proxy"), &address).await.is_ok());
}

#[tokio::test]
async fn a_server_that_does_not_trust_us_is_named() {
    let (dir, theirs) = (authority(), authority());
    let both = [&dir, &theirs]
        .map(|dir| fs::read_to_string(dir.path().join("ca/ca.pem")).expect("authority"));
    // The client trusts both authorities, the server only ours.
    let address = serve(tls(&dir, "member-1")).await;
    let client = theirs.path().join("proxy");
    fs::write(client.join("ca.pem"), both.concat()).expect("written");
    let client = TlsDir::load(&client).expect("loaded");
    let reason = ask(&client, &address).await.expect_err("not trusted");
    assert_eq!(reason, format!("{address}: it refused our certificate: not signed by its ca.pem"));
}

#[tokio::test]
async fn a_silent_client_holds_up_nobody() {
    let dir = authority();
    let address = serve(tls(&dir, "member-1")).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(&address).await.expect("TCP"));
    }
    let asked = tokio::time::timeout(PATIENCE / 2, ask(&tls(&dir, "proxy"), &address)).await;
    assert!(asked.expect("in time").is_ok());
}

#[tokio::test]
async fn another_member_than_expected_is_refused() {
    let dir = authority();
    let address = serve(tls(&dir, "member-2")).await;
    let to = |slot| ChannelOptions { expected_slot: Some(slot), ..ChannelOptions::default() };
    let operator = tls(&dir, "operator");
    let two = channel_with(&operator, &address, &to(2)).expect("channel");
    assert!(call(two).await.is_ok());
    let one = channel_with(&operator, &address, &to(1)).expect("channel");
    let status = call(one).await.expect_err("another member");
    assert_eq!(
        describe(&status),
        format!(
            "connect to {address}: its certificate is dovetail://member/2, not dovetail://member/1"
        )
    );
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let dir = authority();
    let operator = tls(&dir, "operator");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    drop(listener);
    let reason = ask(&operator, &address).await.expect_err("nobody");
    assert!(reason.starts_with(&format!("connect to {address}: Connection refused")), "{reason}");

    // Somebody who accepts and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    let options =
        ChannelOptions { connect_timeout: Duration::from_millis(100), ..ChannelOptions::default() };
    let silent = channel_with(&operator, &address, &options).expect("channel");
    let status = call(silent).await.expect_err("silence");
    assert_eq!(describe(&status), format!("connect to {address}: no answer within 100ms"));

    // Somebody who speaks plain text.
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let reason = ask(&operator, &address).await.expect_err("plain text");
    assert_eq!(reason, format!("connect to {address}: it does not speak TLS"));
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_at_once() {
    let dir = authority();
    let operator = tls(&dir, "operator");
    for address in
        ["", "localhost", "localhost:0", "localhost:99999", "a b:1", "u@h:1", "h:1/x", "h:1?x"]
    {
        let error = channel(&operator, address).expect_err(address).to_string();
        assert!(error.starts_with(&format!("address {address:?}: ")), "{error}");
    }
    for address in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "core-1:8080", "core_1:80"] {
        assert!(channel(&operator, address).is_ok(), "{address}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_used_and_a_broken_one_is_not() {
    let dir = authority();
    let folder = dir.path().join("member-1");
    let server = tls(&dir, "member-1");
    let before = server.expiry();
    let address = serve(server.clone()).await;
    let proxy = tls(&dir, "proxy");
    assert!(ask(&proxy, &address).await.is_ok());

    // Broken: the old one stays.
    let good = fs::read(folder.join("cert.pem")).expect("read");
    fs::write(folder.join("cert.pem"), b"broken").expect("written");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(ask(&proxy, &address).await.is_ok());
    assert_eq!(server.expiry(), before);
    fs::write(folder.join("cert.pem"), good).expect("written");

    // Another identity: refused too.
    craft(dir.path(), "member-1", &[uri("dovetail://member/2"), loopback()], Validity::Now);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(server.expiry(), before);

    // Renewed: seen within about a second.
    craft(dir.path(), "member-1", &[uri("dovetail://member/1"), loopback()], Validity::Now);
    eventually(PATIENCE, async || {
        if server.expiry() == before {
            Err("the old certificate is still in force")
        } else {
            Ok(())
        }
    })
    .await;
    assert!(ask(&proxy, &address).await.is_ok());
    // Its name is gone with the old certificate, so that the new one is in use.
    let reason = ask(&proxy, &address.replace("127.0.0.1", "localhost")).await;
    let reason = reason.expect_err("not among the new names");
    assert!(reason.contains("is for 127.0.0.1, not for localhost"), "{reason}");
}
