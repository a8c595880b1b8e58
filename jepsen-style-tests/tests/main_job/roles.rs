//! Each RPC says which identities may call it, and refuses all others.

use std::path::PathBuf;
use std::time::Duration;

use dovetail_jepsen::operator::Operator;
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::admin_client::AdminClient;
use dovetail_proto::v1::feed_client::FeedClient;
use dovetail_proto::v1::raft_client::RaftClient;
use tonic::{Code, Status};

use crate::fixture::System;

const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(ANSWER_DEADLINE, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}

/// What an identity got from each service.
async fn codes(folder: PathBuf, addr: &str) -> Vec<(&'static str, Code)> {
    let channel = Operator::load(&folder).unwrap().channel(addr).unwrap();
    let code =
        |outcome: Result<(), Status>| outcome.map_or_else(|status| status.code(), |()| Code::Ok);

    let mut admin = AdminClient::new(channel.clone());
    let status = within(admin.status(pb::StatusRequest::default())).await.map(drop);
    let routes = within(admin.routes(pb::RoutesRequest::default())).await.map(drop);
    let problems = within(admin.problems(pb::ProblemsRequest::default())).await.map(drop);
    let log = within(admin.log(pb::LogRequest::default())).await.map(drop);
    let note =
        pb::AnnotateRequest { request_id: "role".into(), text: "role".into(), dry_run: false };
    let annotate = within(admin.annotate(note)).await.map(drop);

    let mut raft = RaftClient::new(channel.clone());
    let hello = within(raft.hello(pb::MemberHello::default())).await.map(drop);
    let found = within(raft.found(pb::FoundRequest::default())).await.map(drop);
    let vote = within(raft.vote(pb::RaftMessage::default())).await.map(drop);
    let pre_vote = within(raft.pre_vote(pb::RaftMessage::default())).await.map(drop);
    let transfer = within(raft.transfer_leader(pb::RaftMessage::default())).await.map(drop);
    let nothing = || tokio_stream::iter([pb::RaftMessage::default()]);
    let append = within(async { raft.append(nothing()).await?.into_inner().message().await })
        .await
        .map(drop);
    let install = within(raft.install_snapshot(nothing())).await.map(drop);
    let local = within(raft.local(pb::LocalRequest::default())).await.map(drop);

    let hello_feed = pb::FollowRequest {
        request: Some(pb::follow_request::Request::Hello(pb::Hello {
            name: "role".into(),
            format_newest: 1,
            ..Default::default()
        })),
    };
    let mut feed = FeedClient::new(channel);
    let follow = within(async {
        // The stream stays open, as a subscriber's does.
        let (sender, requests) = tokio::sync::mpsc::channel(1);
        sender.send(hello_feed).await.map_err(|_| Status::internal("no stream"))?;
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        feed.follow(requests).await?.into_inner().message().await
    })
    .await
    .map(drop);

    [
        ("Admin.Status", status),
        ("Admin.Routes", routes),
        ("Admin.Problems", problems),
        ("Admin.Log", log),
        ("Admin.Annotate", annotate),
        ("Raft.Hello", hello),
        ("Raft.Found", found),
        ("Raft.Vote", vote),
        ("Raft.PreVote", pre_vote),
        ("Raft.TransferLeader", transfer),
        ("Raft.Append", append),
        ("Raft.InstallSnapshot", install),
        ("Raft.Local", local),
        ("Feed.Follow", follow),
    ]
    .map(|(rpc, outcome)| (rpc, code(outcome)))
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rpc_refuses_other_roles() {
    let system = System::start().await;
    let leader = system.cluster.leader(ANSWER_DEADLINE).await.unwrap();
    let addr = system.cluster.member_addr(leader).to_string();
    let tls = system.cluster.tls_dir();
    issue(&system, "operator/reader", "viewer").await;
    let allowed = |role: &str, rpc: &str| match role {
        "operator" => rpc.starts_with("Admin."),
        "viewer" => matches!(rpc, "Admin.Status" | "Admin.Routes" | "Admin.Problems"),
        _ => rpc == "Feed.Follow",
    };
    for (role, folder) in [
        ("operator", tls.join("operator")),
        ("viewer", tls.join("operator-reader")),
        ("proxy", tls.join("proxy")),
        ("extension", tls.join("extension")),
    ] {
        for (rpc, code) in codes(folder, &addr).await {
            if allowed(role, rpc) {
                assert_eq!(code, Code::Ok, "{rpc} as {role}");
            } else {
                assert_eq!(code, Code::PermissionDenied, "{rpc} as {role}");
            }
        }
    }
}

async fn issue(system: &System, identity: &str, role: &str) {
    let dir = system.cluster.tls_dir();
    let done = system
        .cluster
        .dovetail(&["pki", "issue", &dir.to_string_lossy(), identity, "--role", role])
        .await
        .unwrap();
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_is_refused_by_both_sides() {
    let system = System::start().await;
    let other = system.cluster.place().path("other-tls");
    system.cluster.make_certificates(&other).await.unwrap();
    let addr = system.cluster.member_addr(1).to_string();
    let stranger = Operator::load(&other.join("operator")).unwrap();
    let refused = stranger.local_status(&addr, ANSWER_DEADLINE).await.unwrap_err();
    println!("{refused}");
    assert!(!refused.contains("no answer within"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_certificate_of_one_slot_cannot_speak_for_another() {
    let system = System::start().await;
    let addr = system.cluster.member_addr(1).to_string();
    let channel =
        Operator::load(&system.cluster.tls_dir().join("member-2")).unwrap().channel(&addr).unwrap();
    let cluster_id = system.cluster.status().await.unwrap().cluster_id;
    let sender = pb::Sender { cluster_id, slot: 3, incarnation: "00".repeat(16), node_id: 3 };
    let request = pb::MemberHello { sender: Some(sender), ..Default::default() };
    let refused = within(RaftClient::new(channel).hello(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    println!("{}", refused.message());
}
