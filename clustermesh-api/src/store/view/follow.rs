//! Keeps a view in step with its store: list, watch, notice every way in which that can go wrong, begin again.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::View;
use super::keyspace::Gap;
use crate::store::client::{Listing, Store};
use crate::store::error::StoreError;
use crate::store::kv::{Event, KeyRange};
use crate::store::watch::{StoreWatch, WatchBatch};
use fabric_core::backoff::Backoff;

/// Between two tries to reach etcd.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// A store that is silent for this many progress intervals is away.
const SILENT_INTERVALS: u32 = 3;

/// Why following ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Gap(#[from] Gap),
    #[error("store said nothing for {0:?}")]
    Silent(Duration),
    #[error("store has another past than the one known: it was restored, or replaced")]
    OtherPast,
}

/// What has to be done before watching.
enum Begin {
    /// Watch from the revision known.
    Resume,
    /// List; revisions keep their meaning.
    List,
    /// List; what is known of revisions is void.
    NewGeneration,
}

pub(super) async fn follow(view: &View, store: &Store) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
    let mut begin = if view.status().loaded { Begin::Resume } else { Begin::List };
    loop {
        let Err(lost) = follow_once(view, store, begin, &mut backoff).await;
        view.shared.status.send_modify(|status| {
            status.available = false;
            status.detail = lost.to_string();
        });
        begin = after(&lost, view, store);
        match begin {
            Begin::Resume => tracing::warn!(error = %lost, "store is away"),
            Begin::List => tracing::warn!(error = %lost, "store's history is lost; listing it again"),
            Begin::NewGeneration => tracing::error!(error = %lost, "store's revisions begin anew; listing it again"),
        }
        tokio::time::sleep(backoff.next(rand::random())).await;
    }
}

fn after(lost: &Lost, view: &View, store: &Store) -> Begin {
    match lost {
        _ if !view.status().loaded => Begin::List,
        Lost::Store(StoreError::OtherCluster { found, .. }) => {
            store.adopt_cluster(*found);
            Begin::NewGeneration
        }
        Lost::Store(StoreError::WentBack { .. }) | Lost::OtherPast => Begin::NewGeneration,
        Lost::Store(StoreError::Compacted { .. }) | Lost::Gap(_) => Begin::List,
        Lost::Store(_) | Lost::Silent(_) => Begin::Resume,
    }
}

async fn follow_once(
    view: &View,
    store: &Store,
    begin: Begin,
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, Lost> {
    let store_status = store.status().await?;
    let (mut watch, target) = match begin {
        Begin::List if !view.status().loaded => load_with_history(view, store).await?,
        Begin::List => load(view, store, Generation::Same).await?,
        Begin::NewGeneration => load(view, store, Generation::New).await?,
        Begin::Resume => {
            let newest = same_past(view, store).await?;
            (store.watch(&KeyRange::all(), known(view) + 1).await?, newest)
        }
    };
    backoff.reset();
    view.write(|keyspace| keyspace.answered_by(store_status.header));
    let mut reached = false;
    let interval = view.shared.config.progress_interval;
    let mut progress = tokio::time::interval_at(Instant::now() + interval, interval);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        if !reached && known(view) >= target {
            reached = true;
            publish(view, |status| {
                (status.loaded, status.available) = (true, true);
                status.detail.clear();
                status.store = Some(store_status.clone());
            });
            tracing::info!(
                revision = known(view),
                keys = view.read(super::keyspace::Keyspace::len),
                "in step with the store"
            );
        }
        tokio::select! {
            // Both branches are cancel-safe; which of them wins does not matter.
            message = watch.next() => {
                heard = Instant::now();
                apply(view, message?)?;
            }
            _ = progress.tick() => {
                if heard.elapsed() > interval * SILENT_INTERVALS {
                    return Err(Lost::Silent(heard.elapsed()));
                }
                watch.request_progress().await?;
            }
        }
    }
}

fn known(view: &View) -> i64 {
    view.read(|keyspace| keyspace.header().revision)
}

fn publish(view: &View, change: impl FnOnce(&mut super::ViewStatus)) {
    let (generation, header, oldest) =
        view.read(|keyspace| (keyspace.generation(), keyspace.header(), keyspace.oldest()));
    view.shared.status.send_modify(|status| {
        (status.generation, status.header, status.oldest_revision) = (generation, header, oldest);
        change(status);
    });
}

/// Applies the revisions of a message, each whole.
fn apply(view: &View, message: WatchBatch) -> Result<(), Gap> {
    if message.events.is_empty() {
        return Ok(());
    }
    let outcome = view.write(|keyspace| {
        let mut events = message.events.into_iter().peekable();
        while let Some(first) = events.next() {
            let revision = first.kv.mod_revision;
            let mut batch = vec![first];
            let same = |event: &Event| event.kv.mod_revision == revision;
            batch.extend(std::iter::from_fn(|| events.next_if(same)));
            keyspace.apply(message.header, batch)?;
        }
        Ok(())
    });
    publish(view, |_| {});
    outcome
}

enum Generation {
    Same,
    New,
}

/// Lists everything at the newest revision. Subscribers will be told to resync.
async fn load(view: &View, store: &Store, generation: Generation) -> Result<(StoreWatch, i64), Lost> {
    let listing = store.list(&KeyRange::all()).await?;
    let revision = listing.header.revision;
    if matches!(generation, Generation::Same) && revision < known(view) {
        return Err(StoreError::WentBack { known: known(view), found: revision }.into());
    }
    let watch = store.watch(&KeyRange::all(), revision + 1).await?;
    take(view, listing, &generation);
    Ok((watch, revision))
}

/// At the first load, lists at the oldest revision that etcd still has and catches up from there: readers that were
/// connected to an earlier process find the history that they need to go on.
async fn load_with_history(view: &View, store: &Store) -> Result<(StoreWatch, i64), Lost> {
    let newest = store.page(&KeyRange::key("fabric/"), 1, 0).await?.header.revision;
    let history = i64::try_from(view.shared.config.history_events).unwrap_or(i64::MAX);
    let wanted = newest.saturating_sub(history).max(1);
    let mut start = wanted;
    for _ in 0..2 {
        match watch_and_list(store, start).await {
            Ok((watch, listing)) => {
                take(view, listing, &Generation::Same);
                return Ok((watch, newest));
            }
            Err(StoreError::Compacted { compacted }) if compacted > start => start = compacted,
            Err(StoreError::Compacted { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    load(view, store, Generation::Same).await
}

async fn watch_and_list(store: &Store, revision: i64) -> Result<(StoreWatch, Listing), StoreError> {
    let mut watch = store.watch(&KeyRange::all(), revision + 1).await?;
    match store.list_at(&KeyRange::all(), revision).await {
        Ok(listing) => Ok((watch, listing)),
        // Only the watch says from where on history is kept; it says so first of all.
        Err(StoreError::Compacted { .. }) => match watch.next().await {
            Err(error) => Err(error),
            Ok(_) => Err(StoreError::Compacted { compacted: 0 }),
        },
        Err(error) => Err(error),
    }
}

fn take(view: &View, listing: Listing, generation: &Generation) {
    let Listing { header, kvs, .. } = listing;
    let (put, swept) = view.write(|keyspace| {
        let generation = match (generation, keyspace.generation()) {
            (_, 0) => header.cluster_id,
            (Generation::Same, known) => known,
            // The same cluster id with another past: readers must not take one for the other.
            (Generation::New, known) if known == header.cluster_id => rand::random(),
            (Generation::New, _) => header.cluster_id,
        };
        keyspace.replace(generation, header, kvs)
    });
    tracing::debug!(revision = header.revision, put, swept, "listed the store");
    // Not published before the watch has caught up, unless somebody reads already.
    if view.status().loaded {
        publish(view, |_| {});
    }
}

/// Checks that the store still has what was last seen of it. Returns its newest revision.
async fn same_past(view: &View, store: &Store) -> Result<i64, Lost> {
    let (newest, proof) = view.read(|keyspace| (keyspace.header(), keyspace.newest_put().cloned()));
    let key = proof.as_ref().map_or_else(|| "fabric/".into(), |kv| kv.key.clone());
    let header = store.page(&KeyRange::key(key.clone()), 1, 0).await?.header;
    let (known, found) = (newest.revision, header.revision);
    if header.cluster_id != newest.cluster_id {
        return Err(StoreError::OtherCluster { expected: newest.cluster_id, found: header.cluster_id }.into());
    }
    if found < known {
        return Err(StoreError::WentBack { known, found }.into());
    }
    let Some(proof) = proof else { return Ok(found) };
    match store.page(&KeyRange::key(key), 1, proof.mod_revision).await {
        Ok(listing) if listing.kvs.first() == Some(&proof) => Ok(found),
        Ok(_) => Err(Lost::OtherPast),
        // Too old to tell; the watch will say whether it can go on.
        Err(StoreError::Compacted { .. }) => Ok(found),
        Err(error) => Err(error.into()),
    }
}
