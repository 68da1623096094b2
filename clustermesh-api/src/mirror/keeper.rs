//! Starts and stops mirrors as links come and go, and cleans up behind those that went.
//!
//! It only looks at what the links' records say, so it finishes after a restart what was begun before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fabric_core::admission::OwnedPrefixes;
use fabric_core::backoff::Backoff;
use fabric_core::names::ClusterName;
use fabric_core::wire::key::{CLUSTER_CONFIG_PREFIX, SYNCED_PREFIX};
use fabric_core::wire::{Form, Key, Kind};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::session::Mirror;
use super::writer;
use crate::api::SharedApi;
use crate::convert::authority_from_pem;
use crate::failure::Failure;
use crate::records::{self, LinkMode, LinkRecord, Stored, key};
use crate::store::{KeyRange, Transaction, Update};
use crate::tls::{Grant, PeerAuthority};

/// A mirror that ended by itself is looked after this soon.
const RECHECK: Duration = Duration::from_secs(5);

struct Running {
    stop: CancellationToken,
    mod_revision: i64,
}

/// Keeps mirrors in step with links until stopped.
///
/// # Errors
/// When a mirror panics.
pub async fn keep(api: SharedApi, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = api.view.loaded() => {}
    }
    let mut keeper =
        Keeper { api, stop: stop.clone(), mirrors: JoinSet::new(), running: BTreeMap::new(), settled: None };
    let mut backoff = Backoff::new(Duration::from_millis(100), RECHECK);
    loop {
        let snapshot = keeper.api.view.list(&KeyRange::prefix(key::LINKS));
        let mut changes = keeper.api.view.subscribe(snapshot.position);
        let settled = keeper.settle().await;
        let pause = match settled {
            Ok(()) => {
                backoff.reset();
                RECHECK
            }
            Err(error) => {
                tracing::warn!(%error, "links are not settled yet");
                backoff.next(rand::random())
            }
        };
        let again = tokio::time::sleep(pause);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    keeper.mirrors.shutdown().await;
                    return Ok(());
                }
                Some(ended) = keeper.mirrors.join_next() => {
                    ended?;
                    break;
                }
                () = &mut again => break,
                update = changes.next() => match update {
                    Update::Resync => break,
                    Update::Changes(batches) => {
                        let touched = batches.iter().flat_map(|batch| &batch.events).any(|event| event.kv.key.starts_with(key::LINKS.as_bytes()));
                        if touched {
                            break;
                        }
                    }
                },
            }
        }
    }
}

struct Keeper {
    api: SharedApi,
    stop: CancellationToken,
    mirrors: JoinSet<()>,
    running: BTreeMap<ClusterName, Running>,
    /// The links' revisions when everything was last as they say.
    settled: Option<BTreeMap<ClusterName, i64>>,
}

impl Keeper {
    /// Makes everything as the records say.
    async fn settle(&mut self) -> Result<(), Failure> {
        let links = records::read_all::<LinkRecord>(&self.api.view, key::LINKS);
        let links: BTreeMap<ClusterName, Stored<LinkRecord>> =
            links.into_iter().map(|link| (link.value.cluster.name.clone(), link)).collect();
        self.trust(&links);
        self.running.retain(|name, running| {
            let wanted = links
                .get(name)
                .is_some_and(|link| link.value.mode == LinkMode::Active && link.mod_revision == running.mod_revision);
            if !wanted {
                running.stop.cancel();
            }
            wanted && !running.stop.is_cancelled()
        });
        for (name, link) in &links {
            match link.value.mode {
                LinkMode::Active => self.start(name, link),
                LinkMode::Blocked | LinkMode::Released => self.clean(name, Some(link)).await?,
            }
        }
        let revisions = links.iter().map(|(name, link)| (name.clone(), link.mod_revision)).collect();
        // Looking for strangers means looking at every copied row.
        if self.settled.as_ref() != Some(&revisions) {
            for name in self.strangers(&links) {
                self.clean(&name, None).await?;
            }
            self.settled = Some(revisions);
        }
        Ok(())
    }

    /// Whom the mesh endpoint lets in, and whose prefixes are whose.
    fn trust(&self, links: &BTreeMap<ClusterName, Stored<LinkRecord>>) {
        let peers = links.iter().filter_map(|(name, link)| {
            let (certificate, _) = authority_from_pem(&link.value.authority_pem).ok()?;
            let grant = if link.value.mode == LinkMode::Active { Grant::Read } else { Grant::None };
            Some(PeerAuthority { cluster: name.clone(), certificate, grant })
        });
        self.api.trusted.set_peers(peers.collect());
        let own = std::iter::once(&self.api.cluster);
        let specs = own.chain(links.values().map(|link| &link.value.cluster));
        let owned = specs.flat_map(|spec| spec.prefixes.iter().map(|prefix| (*prefix, spec.name.clone())));
        self.api.owned.store(Arc::new(OwnedPrefixes::new(owned)));
    }

    fn start(&mut self, name: &ClusterName, link: &Stored<LinkRecord>) {
        if self.running.get(name).is_some_and(|running| !running.stop.is_cancelled()) {
            return;
        }
        let stop = self.stop.child_token();
        self.running.insert(name.clone(), Running { stop: stop.clone(), mod_revision: link.mod_revision });
        let mirror = Mirror::new(Arc::clone(&self.api), link.clone());
        self.mirrors.spawn(async move {
            mirror.run(stop.clone()).await;
            // However it ended: the keeper may start another.
            stop.cancel();
        });
    }

    async fn clean(&self, name: &ClusterName, link: Option<&Stored<LinkRecord>>) -> Result<(), Failure> {
        let api = &self.api;
        let revision = link.map_or(0, |link| link.mod_revision);
        writer::remove(&api.store, &api.view, name, revision).await?;
        api.claims.lock().unwrap_or_else(PoisonError::into_inner).release_cluster(name);
        api.links.forget(name);
        if let Some(link) = link.filter(|link| link.value.mode == LinkMode::Released) {
            let transaction =
                Transaction::new().unchanged(link.key.clone(), link.mod_revision).delete(link.key.clone());
            api.store.transact(transaction).await?;
        }
        Ok(())
    }

    /// Clusters of which there are rows but no link: what an interrupted disconnect left.
    fn strangers(&self, links: &BTreeMap<ClusterName, Stored<LinkRecord>>) -> BTreeSet<ClusterName> {
        let api = &self.api;
        let bases = Kind::ALL.map(|kind| format!("{}/", kind.base(Form::Cache)));
        let ranges = bases.into_iter().chain([CLUSTER_CONFIG_PREFIX.to_owned(), SYNCED_PREFIX.to_owned()]);
        let mut found = BTreeSet::new();
        for prefix in ranges {
            for kv in api.view.list(&KeyRange::prefix(prefix)).kvs {
                let Ok(Key::Row { cluster, .. } | Key::Synced { cluster, .. } | Key::ClusterConfig(cluster)) =
                    Key::parse(&kv.key, &api.cluster.name)
                else {
                    continue;
                };
                if cluster != api.cluster.name && !links.contains_key(&cluster) {
                    found.insert(cluster);
                }
            }
        }
        found
    }
}
