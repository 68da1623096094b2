//! Against a real etcd.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinHandle;

use super::*;
use crate::store::etcd_child::ChildStatus;
use crate::store::{EtcdChild, EtcdChildConfig};

struct Running {
    view: View,
    store: Store,
    status: watch::Receiver<ChildStatus>,
    child: JoinHandle<()>,
    follower: JoinHandle<()>,
    follow: CancellationToken,
    cancel: CancellationToken,
}

/// An etcd in `directory`, and a view that follows it.
async fn start(directory: &Path, view: View) -> Running {
    let child = EtcdChild::start(EtcdChildConfig::new(directory.join("etcd"))).await.unwrap();
    let (store, status, cancel) = (child.store(), child.status(), CancellationToken::new());
    let child = tokio::spawn(child.run(cancel.clone()));
    let follow = cancel.child_token();
    let follower = follower(&view, &store, &follow);
    within(view.loaded()).await;
    Running { view, store, status, child, follower, follow, cancel }
}

fn follower(view: &View, store: &Store, cancel: &CancellationToken) -> JoinHandle<()> {
    let (view, store, cancel) = (view.clone(), store.clone(), cancel.clone());
    tokio::spawn(async move { view.follow(&store, cancel).await })
}

impl Running {
    async fn stop(self) -> View {
        self.cancel.cancel();
        self.child.await.unwrap();
        self.follower.await.unwrap();
        self.view
    }

    /// Ends the follower, lets `meanwhile` happen, and follows again.
    async fn while_not_following(&mut self, meanwhile: impl AsyncFnOnce(&Store)) {
        self.follow.cancel();
        (&mut self.follower).await.unwrap();
        meanwhile(&self.store).await;
        self.follow = self.cancel.child_token();
        self.follower = follower(&self.view, &self.store, &self.follow);
    }

    async fn signal(&mut self, signal: Signal) {
        let running = |status: &ChildStatus| matches!(status, ChildStatus::Running { .. });
        let status = within(self.status.wait_for(running)).await.unwrap().clone();
        let ChildStatus::Running { pid } = status else { panic!("{status:?}") };
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    async fn availability(&self, wanted: bool) {
        within(self.view.status_changes().wait_for(|status| status.available == wanted)).await.unwrap();
    }

    /// The view holds exactly what etcd does.
    async fn equal(&self) {
        let listing = within(self.store.list(&KeyRange::all())).await.unwrap();
        within(self.view.reached(listing.header.revision)).await;
        let snapshot = self.view.list(&KeyRange::all());
        assert_eq!(snapshot.position.revision, listing.header.revision);
        assert_eq!(snapshot.kvs, listing.kvs);
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in 30 s")
}

fn view() -> View {
    View::new(ViewConfig { progress_interval: Duration::from_millis(200), ..ViewConfig::default() })
}

/// Writes until it is taken: etcd may be away.
async fn put(store: &Store, key: &str, value: &str) -> i64 {
    let writing = async {
        loop {
            match store.put(key.to_owned(), value.to_owned()).await {
                Ok(revision) => break revision,
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
    };
    within(writing).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_gets_every_change_in_order_through_kills_of_etcd() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = start(directory.path(), view()).await;
    let mut subscription = running.view.subscribe(running.view.list(&KeyRange::all()).position);
    let mut seen = subscription.position().revision;
    let mut last = seen;
    let writer = {
        let store = running.store.clone();
        tokio::spawn(async move {
            let mut last = 0;
            for index in 0..600 {
                last = put(&store, &format!("k{}", index % 7), &index.to_string()).await;
            }
            last
        })
    };
    for round in 1..4 {
        within(running.view.reached(seen + round * 50)).await;
        running.signal(Signal::SIGKILL).await;
        running.availability(false).await;
        // What was known is still there to read, at the same revision or later ones.
        assert!(running.view.get(b"k0").is_some());
        running.availability(true).await;
    }
    last = last.max(within(writer).await.unwrap());
    while seen < last {
        let Update::Changes(batches) = within(subscription.next()).await else { panic!("resync") };
        for batch in batches {
            assert_eq!(batch.revision, seen + 1);
            seen = batch.revision;
        }
    }
    running.equal().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_is_away_and_the_view_serves_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = start(directory.path(), view()).await;
    let revision = put(&running.store, "a", "1").await;
    within(running.view.reached(revision)).await;
    running.signal(Signal::SIGSTOP).await;
    running.availability(false).await;
    assert_eq!(running.view.get(b"a").unwrap().value, "1");
    assert!(running.view.status().detail.contains("said nothing"), "{:?}", running.view.status());
    running.signal(Signal::SIGCONT).await;
    running.availability(true).await;
    running.equal().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_was_compacted_away_is_listed_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = start(directory.path(), view()).await;
    for key in ["kept", "swept", "changed"] {
        put(&running.store, key, "1").await;
    }
    running.equal().await;
    let position = running.view.list(&KeyRange::all()).position;
    let mut subscription = running.view.subscribe(position);
    running
        .while_not_following(async |store| {
            store.delete(&KeyRange::key("swept")).await.unwrap();
            put(store, "changed", "2").await;
            let last = put(store, "new", "1").await;
            store.compact(last).await.unwrap();
        })
        .await;
    assert!(matches!(within(subscription.next()).await, Update::Resync));
    let now = running.view.list(&KeyRange::all()).position;
    assert_eq!(now.generation, position.generation, "revisions keep their meaning");
    running.equal().await;
    assert!(running.view.get(b"swept").is_none());
    // The list's position can be continued.
    let mut subscription = running.view.subscribe(now);
    let revision = put(&running.store, "newer", "1").await;
    let Update::Changes(batches) = within(subscription.next()).await else { panic!("resync") };
    assert_eq!((batches[0].revision, &batches[0].events[0].kv.key[..]), (revision, &b"newer"[..]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_an_earlier_process_go_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), view()).await;
    let position = running.view.list(&KeyRange::all()).position;
    for index in 0..20 {
        put(&running.store, "a", &index.to_string()).await;
    }
    running.stop().await;
    // A new process: nothing is left but etcd's data.
    let running = start(directory.path(), view()).await;
    let mut subscription = running.view.subscribe(position);
    let Update::Changes(batches) = within(subscription.next()).await else { panic!("resync") };
    assert_eq!(batches.len(), 20);
    assert_eq!(batches[19].events[0].previous.as_ref().unwrap().value, "18");
    assert_eq!(batches[19].events[0].kv.version, 20);
    // The same with the history compacted: what etcd still has is taken.
    let middle = position.revision + 10;
    running.store.compact(middle).await.unwrap();
    running.stop().await;
    let running = start(directory.path(), view()).await;
    assert_eq!(running.view.status().oldest_revision, middle);
    assert!(matches!(within(running.view.subscribe(position).next()).await, Update::Resync));
    running.equal().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_restored_from_an_older_state_is_a_new_generation() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), view()).await;
    for key in ["a", "b"] {
        put(&running.store, key, "1").await;
    }
    running.equal().await;
    let view = running.stop().await;
    let (data, copy) = (directory.path().join("etcd/data"), directory.path().join("copy"));
    copy_directory(&data, &copy);
    let running = start(directory.path(), view).await;
    for key in ["c", "d", "e"] {
        put(&running.store, key, "1").await;
    }
    running.equal().await;
    let before = running.view.list(&KeyRange::all()).position;
    let view = running.stop().await;

    // First with fewer revisions than were known, then with as many, but others.
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    copy_directory(&data, &copy);
    let mut subscription = view.subscribe(before);
    let running = start(directory.path(), view).await;
    assert!(matches!(within(subscription.next()).await, Update::Resync));
    let restored = running.view.list(&KeyRange::all());
    assert_ne!(restored.position.generation, before.generation);
    assert_eq!(restored.kvs.len(), 2);
    running.availability(true).await;
    running.equal().await;
    for key in ["x", "y"] {
        put(&running.store, key, "1").await;
    }
    running.equal().await;
    let before = running.view.list(&KeyRange::all()).position;
    let view = running.stop().await;

    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    let other = start(directory.path(), self::view()).await;
    for key in ["p", "q", "r"] {
        put(&other.store, key, "1").await;
    }
    other.stop().await;
    let mut subscription = view.subscribe(before);
    let running = start(directory.path(), view).await;
    assert!(matches!(within(subscription.next()).await, Update::Resync));
    running.availability(true).await;
    running.equal().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_etcd_is_a_new_generation() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let running = start(first.path(), view()).await;
    put(&running.store, "a", "1").await;
    running.equal().await;
    let before = running.view.list(&KeyRange::all()).position;
    let view = running.stop().await;
    let mut subscription = view.subscribe(before);
    let running = start(second.path(), view).await;
    assert!(matches!(within(subscription.next()).await, Update::Resync));
    running.availability(true).await;
    assert_eq!(running.view.status().generation, running.store.cluster_id());
    assert!(running.view.get(b"a").is_none());
    running.equal().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_falls_behind_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let config = ViewConfig { history_events: 10, ..ViewConfig::default() };
    let running = start(directory.path(), View::new(config)).await;
    let mut slow = running.view.subscribe(running.view.list(&KeyRange::all()).position);
    let mut last = 0;
    for index in 0..30 {
        last = put(&running.store, "a", &index.to_string()).await;
    }
    within(running.view.reached(last)).await;
    assert!(matches!(within(slow.next()).await, Update::Resync));
    running.stop().await;
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
