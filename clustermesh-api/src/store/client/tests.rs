//! Tests of `client`.

use super::*;
use crate::store::{EtcdChild, EtcdChildConfig};

async fn etcd() -> (tempfile::TempDir, EtcdChild, Store) {
    let directory = tempfile::tempdir().unwrap();
    let child = EtcdChild::start(EtcdChildConfig::new(directory.path().join("etcd"))).await.unwrap();
    let store = child.store();
    (directory, child, store)
}

#[test]
fn endpoints_are_https_with_a_port() {
    for good in ["https://10.0.0.1:2379", "10.0.0.1:2379", "https://[::1]:2379/", "etcd.example:2379"] {
        assert!(host(good).is_ok(), "{good}");
    }
    for bad in ["", "http://10.0.0.1:2379", "10.0.0.1", ":2379", "https://etcd", "a:b"] {
        assert!(host(bad).is_err(), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_decide_races() {
    let (_directory, _child, store) = etcd().await;
    let revision = store.create("a", "1").await.unwrap().done().unwrap();
    let Outcome::Conflict { found, .. } = store.create("a", "2").await.unwrap() else { panic!("created twice") };
    assert_eq!(found[0].as_ref().unwrap().value, "1");
    assert!(store.replace("a", revision, "2").await.unwrap().done().is_some());
    let Outcome::Conflict { found, .. } = store.replace("a", revision, "3").await.unwrap() else { panic!("stale") };
    assert_eq!((&found[0].as_ref().unwrap().value[..], found[0].as_ref().unwrap().version), (&b"2"[..], 2));
    // All or none: one condition fails, nothing is written.
    let both = Transaction::new().present("a").absent("a").put("b", "1").delete("a");
    let Outcome::Conflict { found, .. } = store.transact(both).await.unwrap() else { panic!("both held") };
    assert_eq!(found.len(), 2);
    assert!(store.get("b").await.unwrap().is_none() && store.get("a").await.unwrap().is_some());
    let move_it = Transaction::new().present("a").absent("b").put("b", "1").delete("a");
    let done = store.transact(move_it).await.unwrap().done().unwrap();
    assert_eq!(store.get("b").await.unwrap().unwrap().create_revision, done);
    assert!(store.get("a").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_create_one_key_have_one_winner() {
    let (_directory, _child, store) = etcd().await;
    let racers = (0..20).map(|racer: i32| {
        let store = store.clone();
        async move { store.create("one", racer.to_string()).await.unwrap().done().is_some() }
    });
    let won = futures::future::join_all(racers).await;
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_of_one_revision_however_many_pages() {
    let (_directory, _child, store) = etcd().await;
    for chunk in (0..2500).collect::<Vec<i32>>().chunks(Transaction::MAX_WRITES) {
        let put = |transaction: Transaction, index: &i32| transaction.put(format!("k{index:05}"), "1");
        store.transact(chunk.iter().fold(Transaction::new(), put)).await.unwrap();
    }
    // A message limit that no full page fits in: pages shrink.
    let narrow = store.clone().with_message_limit(20_000);
    for store in [&store, &narrow] {
        let listing = store.list(&KeyRange::all()).await.unwrap();
        assert!(listing.kvs.iter().enumerate().all(|(index, kv)| kv.key == format!("k{index:05}")));
        assert_eq!((listing.kvs.len(), listing.count, listing.more), (2500, 2500, false));
    }
    let revision = store.put("k00000", "2").await.unwrap();
    let before = store.list_at(&KeyRange::all(), revision - 1).await.unwrap();
    assert_eq!((&before.kvs[0].value[..], before.header.revision), (&b"1"[..], revision - 1));
    assert_eq!(store.delete(&KeyRange::prefix("k")).await.unwrap(), (2500, revision + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_apart() {
    let (_directory, _child, store) = etcd().await;
    for index in 0..5 {
        store.put("a", index.to_string()).await.unwrap();
    }
    store.compact(5).await.unwrap();
    assert!(matches!(store.list_at(&KeyRange::all(), 3).await, Err(StoreError::Compacted { .. })));
    let mut watch = store.watch(&KeyRange::all(), 3).await.unwrap();
    assert!(matches!(watch.next().await, Err(StoreError::Compacted { compacted: 5 })));
    let future = store.page(&KeyRange::all(), 1, 1_000_000).await.unwrap_err();
    assert!(matches!(&future, StoreError::Protocol { .. }) && !future.is_transient(), "{future}");
    // Another cluster's answers are not taken.
    let known = store.cluster_id();
    store.adopt_cluster(known ^ 1);
    assert!(matches!(store.get("a").await, Err(StoreError::OtherCluster { found, .. }) if found == known));
    store.adopt_cluster(0);
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_not_renewed_takes_its_keys_along() {
    let (_directory, _child, store) = etcd().await;
    let lease = store.grant_lease(1).await.unwrap();
    let written = store.transact(Transaction::new().put_leased("a", "1", lease)).await.unwrap().done().unwrap();
    assert!(store.renew_lease(lease).await.unwrap());
    assert_eq!(store.get("a").await.unwrap().unwrap().lease, lease);
    let mut watch = store.watch(&KeyRange::key("a"), written + 1).await.unwrap();
    let gone = tokio::time::timeout(Duration::from_secs(30), watch.next()).await.unwrap().unwrap();
    assert_eq!(gone.events[0].kind, crate::store::EventKind::Delete);
    assert!(!store.renew_lease(lease).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let config = EtcdChildConfig { quota_bytes: 4 << 20, ..EtcdChildConfig::new(directory.path().join("etcd")) };
    let child = EtcdChild::start(config).await.unwrap();
    let store = child.store();
    let full = async {
        for index in 0.. {
            if let Err(error) = store.put(format!("k{index}"), vec![0; 512 << 10]).await {
                return error;
            }
        }
        unreachable!("it has a quota")
    };
    let error = tokio::time::timeout(Duration::from_secs(30), full).await.unwrap();
    assert!(matches!(error, StoreError::NoSpace { .. }) && error.is_transient(), "{error}");
    // Reads go on.
    assert!(store.get("k0").await.unwrap().is_some());
    assert!(store.status().await.unwrap().no_space);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_s_etcd_is_reached_with_files() {
    let (directory, child, store) = etcd().await;
    store.put("a", "1").await.unwrap();
    let file = |name: &str| directory.path().join("etcd").join(name);
    let mut access = EtcdAccess {
        endpoints: child.addresses().iter().map(|address| format!("https://{address}")).collect(),
        authority: file("authority.crt"),
        certificate: file("server.crt"),
        key: file("server.key"),
    };
    // One member is down: the next is asked.
    access.endpoints.insert(0, "https://127.0.0.1:1".to_owned());
    assert_eq!(Store::open(&access).unwrap().get("a").await.unwrap().unwrap().value, "1");
    access.authority = file("missing");
    assert!(Store::open(&access).unwrap_err().to_string().starts_with("etcd's authority "));
}

#[tokio::test]
async fn an_etcd_that_is_away_fails_quickly_and_transiently() {
    let directory = tempfile::tempdir().unwrap();
    let child = EtcdChild::start(EtcdChildConfig::new(directory.path().join("etcd"))).await.unwrap();
    let store = child.store();
    store.put("a", "1").await.unwrap();
    drop(child);
    let begin = tokio::time::Instant::now();
    let error = store.put("a", "2").await.unwrap_err();
    assert!(error.is_transient() && begin.elapsed() < Store::DEADLINE, "{error}");
}
