//! Who may call what: every RPC of the admin API, and every kind of caller.

use dovetail_proto::FILE_DESCRIPTOR_SET;
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic_prost::ProstCodec;

use super::*;

/// The least role of each RPC. An RPC that is not here has not been thought about.
const ROLES: &[(&str, Role)] = &[
    ("Status", Role::Viewer),
    ("Routes", Role::Viewer),
    ("Problems", Role::Viewer),
    ("Plan", Role::Viewer),
    ("Annotate", Role::Operator),
    ("SetCanary", Role::Operator),
    ("ClearCanary", Role::Operator),
    ("PromoteCanary", Role::Operator),
    ("StartCanary", Role::Operator),
    ("PauseCanary", Role::Operator),
    ("ResumeCanary", Role::Operator),
    ("AbortCanary", Role::Operator),
    ("DrainUpstream", Role::Operator),
    ("UndrainUpstream", Role::Operator),
    ("Drains", Role::Viewer),
    ("Canaries", Role::Viewer),
    ("Backup", Role::Admin),
    ("ActivateRules", Role::Admin),
    ("ChangeMembers", Role::Admin),
    ("ApplyConfig", Role::Admin),
    ("Configs", Role::Viewer),
    ("Rollback", Role::Operator),
    ("Release", Role::Operator),
    ("IndexAt", Role::Viewer),
    ("Explain", Role::Viewer),
    ("Diff", Role::Viewer),
    ("History", Role::Viewer),
    ("Log", Role::Operator),
    ("FollowLog", Role::Admin),
    ("ExportLog", Role::Admin),
    ("VerifyLog", Role::Operator),
];

/// Within this a refusal comes.
const ANSWER: std::time::Duration = std::time::Duration::from_millis(300);

/// The RPCs that the shipped descriptors name.
fn rpcs() -> Vec<String> {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors").file;
    let services = files.into_iter().flat_map(|file| file.service);
    let admin = services.filter(|service| service.name() == "Admin");
    admin.flat_map(|service| service.method).map(|method| method.name().to_owned()).collect()
}

/// What an identity is told that calls an RPC with an empty request.
async fn call(stage: &Stage, identity: &str, rpc: &str) -> Option<Status> {
    let mut client = tonic::client::Grpc::new(stage.dial.channel(identity));
    client.ready().await.expect("it answers");
    let path = PathAndQuery::try_from(format!("/dovetail.v1.Admin/{rpc}")).expect("a path");
    // Whatever the answer holds is skipped: only whether there is one counts.
    let codec = ProstCodec::<(), ()>::default();
    match client.server_streaming(Request::new(()), path, codec).await {
        // Who is admitted to a stream may wait for ever for what it tells.
        Ok(answers) => {
            let mut answers = answers.into_inner();
            tokio::time::timeout(ANSWER, answers.message()).await.ok()?.err()
        }
        Err(status) => Some(status),
    }
}

#[tokio::test]
async fn every_rpc_admits_its_least_role_and_names_it_to_others() {
    let told: Vec<_> = ROLES.iter().map(|(rpc, _)| (*rpc).to_owned()).collect();
    let mut untold = rpcs();
    untold.retain(|rpc| !told.contains(rpc));
    assert!(untold.is_empty(), "whose least role is not in the table: {untold:?}");

    let stage = stage(FakeQuorum::leader());
    for (rpc, least) in ROLES {
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            let identity = format!("dovetail://operator/anna?role={role}");
            let refused = call(&stage, &identity, rpc).await;
            let denied = refused.as_ref().filter(|one| one.code() == Code::PermissionDenied);
            match denied {
                None => assert!(role >= *least, "{rpc} as {role}: {refused:?}"),
                Some(status) => {
                    assert!(role < *least, "{rpc} as {role}: {status:?}");
                    let missing = format!("it needs role {least}, and has {role}");
                    assert!(status.message().contains(&missing), "{}", status.message());
                }
            }
        }
        for identity in ["dovetail://proxy", "dovetail://proxy/edge", "dovetail://extension"] {
            let status = call(&stage, identity, rpc).await.expect("denied");
            assert_eq!(status.code(), Code::PermissionDenied, "{rpc} as {identity}");
            let only = format!("an operator of role {least}");
            assert!(status.message().contains(&only), "{rpc}: {}", status.message());
        }
    }
    assert!(stage.quorum.log().is_empty(), "nothing of this was an order");
}
