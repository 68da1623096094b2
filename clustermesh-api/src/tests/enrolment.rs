//! Tokens.

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::token::JoinToken;
use tonic::Code;

use super::cluster::{Cluster, node_request};
use crate::pki::Leaf;

/// A key and a request signed with it.
fn request() -> (rcgen::KeyPair, Vec<u8>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    (key, csr.der().to_vec())
}

async fn token(cluster: &Cluster, kind: proto::NodeKind, name: &str, labels: &[&str], ttl_s: u32) -> String {
    let request = proto::CreateTokenRequest {
        kind: kind.into(),
        name: name.to_owned(),
        kubernetes_namespace: "demo".to_owned(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        ttl_s,
    };
    let answer = cluster.admin().create_token(request).await.unwrap().into_inner();
    let line = JoinToken::parse(&answer.line).unwrap();
    assert_eq!(line.cluster, "eu");
    line.secret.reveal().to_string()
}

fn join(secret: &str, name: &str, csr: &[u8]) -> proto::JoinRequest {
    proto::JoinRequest { secret: secret.to_owned(), csr: csr.to_vec(), name: name.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_what_its_token_made_it() {
    let eu = Cluster::start("eu").await;
    let secret = token(&eu, proto::NodeKind::Machine, "db1", &["app=db"], 60).await;
    let (key, csr) = request();
    let answer = eu.anonymous().join(join(&secret, "", &csr)).await.unwrap().into_inner();
    assert_eq!((answer.name.as_str(), answer.kind()), ("db1", proto::NodeKind::Machine));
    let leaf = Leaf::from_pem(&answer.certificate_pem, &key.serialize_pem()).unwrap();
    let mut agent = eu.agent(&leaf);
    let registered = agent.register_node(node_request("db1", 9)).await.unwrap().into_inner();
    let grant = registered.machine.unwrap();
    assert_eq!((grant.name.as_str(), grant.labels.as_slice()), ("db1", ["app=db".to_owned()].as_slice()));
    assert_eq!(grant.addresses.len(), 2);

    let mut put = proto::PutEndpointRequest {
        name: "machine".to_owned(),
        kubernetes_namespace: "demo".to_owned(),
        labels: grant.labels.clone(),
        addresses: grant.addresses.clone(),
        workload: "db1".to_owned(),
        ..Default::default()
    };
    let identity = agent.put_endpoint(put.clone()).await.unwrap().into_inner().identity.unwrap();
    assert!(identity.labels.contains(&"k8s:app=db".to_owned()));
    put.labels = vec!["app=web".to_owned()];
    assert!(agent.put_endpoint(put).await.unwrap_err().message().starts_with("FAB-5106"));

    let used = eu.anonymous().join(join(&secret, "", &request().1)).await.unwrap_err();
    assert_eq!(used.code(), Code::PermissionDenied);
    assert!(used.message().starts_with("FAB-3103") && used.message().contains("db1"), "{}", used.message());
    let listed = eu.admin().list_tokens(proto::ListRequest::default()).await.unwrap().into_inner().tokens;
    assert_eq!(listed[0].used_by, "db1");

    eu.admin().revoke_node(proto::RevokeNodeRequest { name: "db1".to_owned() }).await.unwrap();
    assert!(eu.keys("cilium/state/ip/").is_empty() && eu.keys("cilium/state/nodes/").is_empty());
    assert!(eu.keys("fabric/claims/").is_empty());
    assert!(agent.report(proto::ReportRequest::default()).await.unwrap_err().message().starts_with("FAB-3105"));
    eu.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_refused_with_the_reason() {
    let eu = Cluster::start("eu").await;
    let (_, csr) = request();
    let mut enrol = eu.anonymous();
    let mut refused = async |request| enrol.join(request).await.unwrap_err().message().to_owned();
    let unknown = fabric_core::secret::Secret::from_bytes(&mut [7; 32]).reveal().to_string();
    assert!(refused(join(&unknown, "n1", &csr)).await.starts_with("FAB-3103"));
    assert!(refused(join("garbage", "n1", &csr)).await.starts_with("FAB-3103"));
    let short = token(&eu, proto::NodeKind::Node, "", &[], 1).await;
    super::cluster::eventually("the token expires", || async {
        let answer = eu.anonymous().join(join(&short, "BAD NAME", &csr)).await.unwrap_err();
        answer.message().starts_with("FAB-3102").then_some(())
    })
    .await;
    let good = token(&eu, proto::NodeKind::Node, "", &[], 60).await;
    assert!(refused(join(&good, "n1", b"not a request")).await.starts_with("FAB-1004"));
    eu.node("n1", 1).await;
    assert!(refused(join(&good, "n1", &csr)).await.starts_with("FAB-3104"));
    // None of that used it up; and of many who use it at once, one succeeds.
    let joins = (2..8u8).map(|number| {
        let (mut enrol, secret, csr) = (eu.anonymous(), good.clone(), request().1);
        async move { enrol.join(join(&secret, &format!("n{number}"), &csr)).await.is_ok() }
    });
    let joined = futures::future::join_all(joins).await;
    assert_eq!(joined.iter().filter(|ok| **ok).count(), 1, "{joined:?}");
    let anonymous = proto::GetStatusRequest {};
    let channel = eu.channel(&crate::tls::ClientIdentity::Anonymous);
    let mut admin = proto::admin_client::AdminClient::new(channel);
    assert_eq!(admin.get_status(anonymous).await.unwrap_err().code(), Code::Unauthenticated);
    eu.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_with_another_key() {
    let eu = Cluster::start("eu").await;
    let (mut agent, _) = eu.node("n1", 1).await;
    let (key, csr) = request();
    let answer = agent.renew_certificate(proto::RenewCertificateRequest { csr }).await.unwrap().into_inner();
    let leaf = Leaf::from_pem(&answer.certificate_pem, &key.serialize_pem()).unwrap();
    let mut renewed = eu.agent(&leaf);
    renewed.register_node(node_request("n1", 1)).await.unwrap();
    agent.register_node(node_request("n1", 1)).await.unwrap();
    // After a second renewal the first key is of no use any more, and after a revocation neither is any other.
    renewed.renew_certificate(proto::RenewCertificateRequest { csr: request().1 }).await.unwrap();
    let refused = agent.sync(proto::SyncRequest::default()).await.unwrap_err();
    assert!(refused.message().starts_with("FAB-3104"), "{}", refused.message());
    renewed.register_node(node_request("n1", 1)).await.unwrap();
    eu.admin().revoke_node(proto::RevokeNodeRequest { name: "n1".to_owned() }).await.unwrap();
    for mut old in [agent, renewed] {
        let refused = old.register_node(node_request("n1", 1)).await.unwrap_err();
        assert!(refused.message().starts_with("FAB-3105"), "{}", refused.message());
    }
    // The name may be given anew.
    let secret = token(&eu, proto::NodeKind::Node, "n1", &[], 60).await;
    let (key, csr) = request();
    let answer = eu.anonymous().join(join(&secret, "n1", &csr)).await.unwrap().into_inner();
    let leaf = Leaf::from_pem(&answer.certificate_pem, &key.serialize_pem()).unwrap();
    eu.agent(&leaf).register_node(node_request("n1", 1)).await.unwrap();
    eu.stop().await;
}
