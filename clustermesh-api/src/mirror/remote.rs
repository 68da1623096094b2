//! The other cluster's mesh endpoint, read with suspicion: bounded answers, one store identity per session (the store
//! client sees to that), revisions that only rise.

use std::time::Duration;

use fabric_core::names::ClusterName;
use fabric_core::wire::key::{CACHE_PREFIX, CLUSTER_CONFIG_PREFIX, STATE_PREFIX, SYNCED_PREFIX};
use fabric_core::wire::{ClusterConfig, Form, Key, Kind};

use crate::store::{Header, KeyRange, KeyValue, Listing, Store, StoreError, StoreWatch};

/// Keys per page, as Cilium's readers ask for.
const PAGE: i64 = 256;
/// More keys of one family than any cluster has; a remote that sends them has lost its mind or means harm.
const MOST_KEYS: usize = 2_000_000;
/// The remote's word about its own store may take this long.
const STATUS: Duration = Duration::from_secs(2);
/// No answer of a remote is larger than this, bytes.
const ANSWER_BYTES: usize = 16 << 20;

/// Why reading the remote ended.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The store client's reasons.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its store was restored from an older state.
    #[error("its store went back from revision {from} to {to}")]
    WentBack {
        /// Known.
        from: i64,
        /// Now.
        to: i64,
    },
    /// Its configuration cannot be read.
    #[error("its cluster configuration cannot be used: {0}")]
    Config(String),
    /// It has more keys than can be.
    #[error("it has over {MOST_KEYS} {0}")]
    TooMany(&'static str),
}

/// One session with a remote.
#[derive(Debug)]
pub struct Remote {
    store: Store,
    cluster: ClusterName,
    revision: i64,
}

impl Remote {
    /// Begins a session with a client that has said nothing yet.
    pub fn new(store: Store, cluster: ClusterName) -> Self {
        Self { store: store.with_message_limit(ANSWER_BYTES), cluster, revision: 0 }
    }

    /// The remote agreed on this answer after it was asked: it is not older than what was known before.
    fn fresh(&mut self, header: &Header) -> Result<(), RemoteError> {
        if header.revision < self.revision {
            return Err(RemoteError::WentBack { from: self.revision, to: header.revision });
        }
        self.revision = header.revision;
        Ok(())
    }

    /// Answers of a watch may lag behind others; they move what is known only forwards.
    pub fn seen(&mut self, header: &Header) {
        self.revision = self.revision.max(header.revision);
    }

    async fn small(&mut self, range: &KeyRange) -> Result<Listing, RemoteError> {
        let listing = self.store.page(range, PAGE, 0).await?;
        self.fresh(&listing.header)?;
        Ok(listing)
    }

    /// Asks for the remote's configuration. `None`: it has none (yet).
    pub async fn config(&mut self) -> Result<Option<ClusterConfig>, RemoteError> {
        let listing = self.small(&self.config_range()).await?;
        listing.kvs.first().map(decode_config).transpose()
    }

    fn config_range(&self) -> KeyRange {
        KeyRange::key(format!("{CLUSTER_CONFIG_PREFIX}{}", self.cluster))
    }

    /// Which of these families the remote has not completed yet.
    pub async fn incomplete(&mut self, form: Form, kinds: &[Kind]) -> Result<Vec<Kind>, RemoteError> {
        let listing = self.small(&KeyRange::prefix(format!("{SYNCED_PREFIX}{}/", self.cluster))).await?;
        let complete = |kind: &Kind| {
            let key = Key::synced(form, &self.cluster, *kind).to_string();
            listing.kvs.iter().any(|kv| kv.key == key.as_bytes())
        };
        Ok(kinds.iter().copied().filter(|kind| !complete(kind)).collect())
    }

    /// Lists one family page by page at a revision (0 = now). Returns the revision that all pages are of.
    pub async fn list(&mut self, form: Form, kind: Kind, at: i64) -> Result<(i64, Vec<KeyValue>), RemoteError> {
        let mut range = KeyRange::prefix(kind.rows_prefix(form, &self.cluster));
        let (mut revision, mut size) = (at, PAGE);
        let mut kvs: Vec<KeyValue> = Vec::new();
        loop {
            let page = match self.store.page(&range, size, revision).await {
                Err(StoreError::TooLarge { .. }) if size > 1 => {
                    size /= 4;
                    continue;
                }
                page => page?,
            };
            self.fresh(&page.header)?;
            if revision == 0 {
                revision = page.header.revision;
            }
            let last = page.kvs.last().map(|kv| kv.key.clone());
            kvs.extend(page.kvs);
            if kvs.len() > MOST_KEYS {
                return Err(RemoteError::TooMany(kind.as_str()));
            }
            match last {
                Some(last) if page.more => range = range.after(&last),
                _ => return Ok((revision, kvs)),
            }
        }
    }

    /// Whether the remote's own store answers. Ours says so; of others' etcd the answer itself is the proof.
    pub async fn has_store(&self) -> bool {
        let status = tokio::time::timeout(STATUS, self.store.status()).await;
        !matches!(status, Ok(Ok(status)) if status.leader == 0)
    }

    /// Watches everything that the remote says of itself in one stream, so that its order is the remote's own.
    pub async fn watch_rows(&self, form: Form, from: i64) -> Result<StoreWatch, RemoteError> {
        let prefix = match form {
            Form::State => STATE_PREFIX,
            Form::Cache => CACHE_PREFIX,
        };
        Ok(self.store.watch(&KeyRange::prefix(prefix), from).await?)
    }

    /// Watches the remote's configuration.
    pub async fn watch_config(&self, from: i64) -> Result<StoreWatch, RemoteError> {
        Ok(self.store.watch(&self.config_range(), from).await?)
    }
}

/// Reads a configuration.
///
/// # Errors
/// When it is none.
pub fn decode_config(kv: &KeyValue) -> Result<ClusterConfig, RemoteError> {
    ClusterConfig::decode(&kv.value).map_err(|error| RemoteError::Config(error.to_string()))
}
