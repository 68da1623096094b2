//! Services in one cluster and in two.

use clustermesh_api_proto::fabric::v1 as proto;
use proto::change::Row;

use super::cluster::{Cluster, address, endpoint, eventually, linked};

const SERVICE: &str = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"demo"},
"spec":{"selector":{"app":"web"},"ports":[{"name":"http","port":80,"targetPort":8080}]}}"#;

async fn apply(cluster: &Cluster, document: &str) -> proto::ApplyResponse {
    let request = proto::ApplyRequest { documents: vec![document.to_owned()], dry_run: false };
    cluster.admin().apply(request).await.unwrap().into_inner()
}

fn service(cluster: &Cluster) -> Option<proto::Service> {
    let rows = cluster.api.rows.select(|_, row| match row {
        Row::Service(service) => Some(service.clone()),
        _ => None,
    });
    rows.into_iter().next()
}

async fn backends(cluster: &Cluster, wanted: &[String]) {
    let mut wanted = wanted.to_vec();
    wanted.sort();
    eventually(&format!("backends {wanted:?}"), || async {
        let mut found: Vec<String> =
            service(cluster)?.backends.iter().map(|one| format!("{}:{}", one.address, one.port)).collect();
        found.sort();
        (found == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_service_has_the_backends_of_both() {
    let (eu, us) = linked("eu", "us").await;
    let (mut a1, eu1) = eu.node("a1", 1).await;
    let (mut b1, us1) = us.node("b1", 2).await;
    let results = apply(&eu, SERVICE).await.results;
    assert_eq!(results[0].outcome, "created");
    assert_eq!(apply(&eu, SERVICE).await.results[0].outcome, "unchanged");
    apply(&us, SERVICE).await;
    a1.put_endpoint(endpoint("demo/web", "app=web", address(&eu1, 5))).await.unwrap();
    b1.put_endpoint(endpoint("demo/web", "app=web", address(&us1, 6))).await.unwrap();
    let (here, there) = (format!("{}:8080", address(&eu1, 5)), format!("{}:8080", address(&us1, 6)));
    backends(&eu, std::slice::from_ref(&here)).await;
    assert!(eu.keys("cilium/state/services/").is_empty(), "it is not shared");
    assert_eq!(service(&eu).unwrap().frontends.len(), 2);

    let share = |shared| proto::ShareServiceRequest {
        kubernetes_namespace: "demo".to_owned(),
        name: "web".to_owned(),
        shared,
        affinity: "local".to_owned(),
        dry_run: false,
    };
    for cluster in [&eu, &us] {
        let answer = cluster.admin().share_service(share(true)).await.unwrap().into_inner();
        assert!(answer.service.unwrap().shared);
    }
    backends(&eu, &[here.clone(), there.clone()]).await;
    backends(&us, &[here.clone(), there.clone()]).await;
    assert_eq!(service(&eu).unwrap().affinity, "local");
    a1.delete_endpoint(proto::DeleteEndpointRequest { name: "demo/web".to_owned() }).await.unwrap();
    backends(&eu, std::slice::from_ref(&there)).await;
    backends(&us, std::slice::from_ref(&there)).await;
    us.admin().share_service(share(false)).await.unwrap();
    backends(&eu, &[]).await;
    backends(&us, &[there]).await;
    let missing = proto::ShareServiceRequest { name: "nothing".to_owned(), ..share(true) };
    assert_eq!(eu.admin().share_service(missing).await.unwrap().into_inner().service, None);
    eu.stop().await;
    us.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_applied_all_or_none() {
    let eu = Cluster::start("eu").await;
    let policy = r#"{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"in","namespace":"demo"},
        "spec":{"podSelector":{},"policyTypes":["Ingress"]}}"#;
    let bad = policy.replace("\"podSelector\":{}", "\"podSelector\":{},\"podSelektor\":{}");
    let both = proto::ApplyRequest { documents: vec![SERVICE.to_owned(), bad], dry_run: false };
    let refused = eu.admin().apply(both).await.unwrap_err();
    assert!(refused.message().starts_with("FAB-1003"), "{}", refused.message());
    let garbage = proto::ApplyRequest { documents: vec!["{".to_owned()], dry_run: false };
    let garbage = eu.admin().apply(garbage).await.unwrap_err();
    assert!(garbage.message().starts_with("FAB-1002"), "{}", garbage.message());
    let dry = proto::ApplyRequest { documents: vec![SERVICE.to_owned()], dry_run: true };
    assert_eq!(eu.admin().apply(dry).await.unwrap().into_inner().results[0].outcome, "created");
    assert!(eu.keys("fabric/objects/").is_empty() && eu.keys("fabric/claims/").is_empty());
    apply(&eu, policy).await;
    apply(&eu, SERVICE).await;
    eventually("the policy's row", || async {
        let rows = eu.api.rows.select(|_, row| matches!(row, Row::Policy(policy) if policy.name == "in").then_some(()));
        rows.first().copied()
    })
    .await;
    let listed = eu.admin().list_objects(proto::ListObjectsRequest::default()).await.unwrap().into_inner().objects;
    assert_eq!(listed.len(), 2);
    let delete = proto::DeleteObjectRequest {
        kind: "Service".to_owned(),
        kubernetes_namespace: "demo".to_owned(),
        name: "web".to_owned(),
    };
    eu.admin().delete_object(delete.clone()).await.unwrap();
    assert!(eu.keys("fabric/claims/").is_empty(), "its addresses are free again");
    assert!(eu.admin().delete_object(delete).await.unwrap_err().message().starts_with("FAB-1007"));
    eu.stop().await;
}
