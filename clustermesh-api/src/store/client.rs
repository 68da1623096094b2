//! Calls to etcd, each with a deadline. Also the client that reads other clusters' mesh endpoints.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clustermesh_api_proto::etcdserverpb as pb;
use clustermesh_api_proto::etcdserverpb::kv_client::KvClient;
use clustermesh_api_proto::etcdserverpb::lease_client::LeaseClient;
use clustermesh_api_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use clustermesh_api_proto::etcdserverpb::watch_client::WatchClient;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::error::{OpenError, StoreError};
use super::kv::{Header, KeyRange, KeyValue};
use super::txn::{Outcome, Transaction};
use super::watch::StoreWatch;
use crate::pki::{Leaf, read_secret};
use crate::tls::{ClientIdentity, Connector, host_checked_config, mesh_channel};

/// How to reach an etcd that the user brings.
#[derive(Debug, Clone)]
pub struct EtcdAccess {
    /// `https://host:port` or `host:port` of each member.
    pub endpoints: Vec<String>,
    /// PEM file of the authority that signed etcd's certificates.
    pub authority: PathBuf,
    /// PEM file of our client certificate.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

/// A client of etcd. Clones share one connection.
#[derive(Debug, Clone)]
pub struct Store {
    channel: Channel,
    deadline: Duration,
    message_bytes: usize,
    /// etcd's cluster id as of the first answer; 0 = none yet.
    cluster_id: Arc<AtomicU64>,
}

/// Keys with the header of the answer that held them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// etcd's header; its revision is the store's newest, not that of a pinned read.
    pub header: Header,
    /// In key order.
    pub kvs: Vec<KeyValue>,
    /// Keys of the range in all, those left out by a limit included.
    pub count: i64,
    /// Whether a limit left some out.
    pub more: bool,
}

/// What etcd says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStatus {
    /// etcd's header.
    pub header: Header,
    /// Its version.
    pub version: String,
    /// Bytes of its database file.
    pub db_size_bytes: i64,
    /// Bytes in use of them.
    pub db_in_use_bytes: i64,
    /// Whether its quota is used up.
    pub no_space: bool,
    /// Raft's index.
    pub raft_index: u64,
    /// Member id of the leader; 0 = none.
    pub leader: u64,
}

impl Store {
    /// Every call ends after this long unless another deadline is set.
    pub const DEADLINE: Duration = Duration::from_secs(5);
    /// No answer may be larger unless another limit is set.
    pub const MESSAGE_BYTES: usize = 64 << 20;
    /// A new connection takes at most this long per address.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
    /// Keys per page of a list.
    const PAGE: i64 = 1000;

    /// A client of the etcd at which a connector points. Connects when first used.
    pub fn new(connector: &Connector) -> Self {
        let cluster_id = Arc::new(AtomicU64::new(0));
        let channel = mesh_channel(connector, Self::CONNECT_TIMEOUT);
        Self { channel, deadline: Self::DEADLINE, message_bytes: Self::MESSAGE_BYTES, cluster_id }
    }

    /// A client of an etcd that the user brings.
    ///
    /// # Errors
    /// When a file cannot be read or an endpoint is not an address.
    pub fn open(access: &EtcdAccess) -> Result<Self, OpenError> {
        let authority = read("authority", &access.authority)?;
        let (certificate, key) = (read("certificate", &access.certificate)?, read_key(&access.key)?);
        let leaf = Leaf::from_pem(&certificate, &key).map_err(OpenError::Leaf)?;
        let config = host_checked_config(&authority, &ClientIdentity::Leaf(&leaf)).map_err(OpenError::Tls)?;
        let hosts: Vec<String> = access.endpoints.iter().map(|endpoint| host(endpoint)).collect::<Result<_, _>>()?;
        if hosts.is_empty() {
            return Err(OpenError::Endpoint { endpoint: String::new() });
        }
        Ok(Self::new(&Connector::with_hosts(hosts, config)))
    }

    /// The same client with another deadline for its calls.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same client that takes no answer larger than this, bytes.
    #[must_use]
    pub fn with_message_limit(mut self, bytes: usize) -> Self {
        self.message_bytes = bytes;
        self
    }

    /// etcd's cluster id as of the first answer; 0 = none yet. Answers with another fail with
    /// [`StoreError::OtherCluster`] until it is adopted.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id.load(Ordering::Relaxed)
    }

    /// Takes another cluster id for right from now on; 0 = that of the next answer.
    pub fn adopt_cluster(&self, cluster_id: u64) {
        self.cluster_id.store(cluster_id, Ordering::Relaxed);
    }

    /// Reads one key, as all members agree on it.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, StoreError> {
        let listing = self.page(&KeyRange::key(key), 0, 0).await?;
        Ok(listing.kvs.into_iter().next())
    }

    /// Reads every key of a range at one revision, page by page. The listing's revision is that one.
    pub async fn list(&self, range: &KeyRange) -> Result<Listing, StoreError> {
        self.list_at(range, 0).await
    }

    /// The same at a revision (0 = the newest).
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when it is not kept any more.
    pub async fn list_at(&self, range: &KeyRange, revision: i64) -> Result<Listing, StoreError> {
        let mut size = Self::PAGE;
        let mut all: Option<Listing> = None;
        let mut rest = range.clone();
        loop {
            let pinned = all.as_ref().map_or(revision, |listing| listing.header.revision);
            let mut page = match self.page(&rest, size, pinned).await {
                Err(StoreError::TooLarge { .. }) if size > 1 => {
                    size /= 4;
                    continue;
                }
                page => page?,
            };
            if pinned != 0 {
                page.header.revision = pinned;
            }
            let (more, last) = (page.more, page.kvs.last().map(|kv| kv.key.clone()));
            let listing = match all.take() {
                None => all.insert(page),
                Some(mut listing) => {
                    listing.kvs.append(&mut page.kvs);
                    all.insert(listing)
                }
            };
            match last {
                Some(last) if more => rest = range.after(&last),
                _ => {
                    listing.more = false;
                    break;
                }
            }
        }
        all.ok_or_else(|| StoreError::protocol("no page"))
    }

    /// Reads at most `limit` keys of a range (0 = all), at a revision (0 = the newest).
    pub async fn page(&self, range: &KeyRange, limit: i64, revision: i64) -> Result<Listing, StoreError> {
        let request = pb::RangeRequest {
            key: range.wire_start(),
            range_end: range.wire_end(),
            limit,
            revision,
            ..pb::RangeRequest::default()
        };
        let mut kv = self.kv();
        let answer = self.call(kv.range(self.request(request))).await?;
        let kvs: Vec<KeyValue> = answer.kvs.into_iter().map(KeyValue::from).collect();
        Ok(Listing { header: self.checked(answer.header)?, kvs, count: answer.count, more: answer.more })
    }

    /// Writes one key. Returns the store's revision.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<i64, StoreError> {
        let request = pb::PutRequest { key: key.into(), value: value.into(), ..pb::PutRequest::default() };
        let mut kv = self.kv();
        let answer = self.call(kv.put(self.request(request))).await?;
        Ok(self.checked(answer.header)?.revision)
    }

    /// Deletes every key of a range. Returns how many there were, and the store's revision.
    pub async fn delete(&self, range: &KeyRange) -> Result<(i64, i64), StoreError> {
        let request = pb::DeleteRangeRequest { key: range.wire_start(), range_end: range.wire_end(), prev_kv: false };
        let mut kv = self.kv();
        let answer = self.call(kv.delete_range(self.request(request))).await?;
        Ok((answer.deleted, self.checked(answer.header)?.revision))
    }

    /// Creates a key if it is not there.
    pub async fn create(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Outcome, StoreError> {
        let key: Bytes = key.into();
        self.transact(Transaction::new().absent(key.clone()).put(key, value)).await
    }

    /// Writes a key if it was last changed at `mod_revision`.
    pub async fn replace(
        &self,
        key: impl Into<Bytes>,
        mod_revision: i64,
        value: impl Into<Bytes>,
    ) -> Result<Outcome, StoreError> {
        let key: Bytes = key.into();
        self.transact(Transaction::new().unchanged(key.clone(), mod_revision).put(key, value)).await
    }

    /// Does all of a transaction or nothing.
    ///
    /// After [`StoreError::Deadline`] or [`StoreError::Unavailable`] it may or may not have happened: read again.
    pub async fn transact(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        let mut kv = self.kv();
        let answer = self.call(kv.txn(self.request(transaction.into_wire()))).await?;
        let revision = self.checked(answer.header)?.revision;
        Ok(Outcome::of_wire(answer.succeeded, answer.responses, revision))
    }

    /// Watches a range from a revision on (included), without previous values. Returns once etcd has taken the watch.
    pub async fn watch(&self, range: &KeyRange, from_revision: i64) -> Result<StoreWatch, StoreError> {
        let client = WatchClient::new(self.channel.clone()).max_decoding_message_size(self.message_bytes);
        let opening = StoreWatch::open(client, range, from_revision, self.clone());
        tokio::time::timeout(self.deadline, opening).await.map_err(|_| StoreError::Deadline(self.deadline))?
    }

    /// Grants a lease of that many seconds; keys on it go when it is not renewed.
    pub async fn grant_lease(&self, ttl_s: i64) -> Result<i64, StoreError> {
        let mut lease = LeaseClient::new(self.channel.clone());
        let request = self.request(pb::LeaseGrantRequest { ttl: ttl_s, id: 0 });
        let answer = self.call(lease.lease_grant(request)).await?;
        self.checked(answer.header)?;
        if answer.error.is_empty() { Ok(answer.id) } else { Err(StoreError::protocol(answer.error)) }
    }

    /// Renews a lease once. `false`: there is none such any more.
    pub async fn renew_lease(&self, lease: i64) -> Result<bool, StoreError> {
        let mut client = LeaseClient::new(self.channel.clone());
        let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id: lease });
        let renewing = async {
            let mut answers = client.lease_keep_alive(self.request(requests)).await?.into_inner();
            answers.message().await.map(Response::new)
        };
        let answer = self.call(renewing).await?.ok_or_else(|| StoreError::protocol("no answer to a renewal"))?;
        self.checked(answer.header)?;
        Ok(answer.ttl > 0)
    }

    /// Lets etcd forget superseded values before a revision.
    pub async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        let mut kv = self.kv();
        let answer = self.call(kv.compact(self.request(pb::CompactionRequest { revision, physical: false }))).await?;
        self.checked(answer.header).map(|_| ())
    }

    /// Asks the member that answers how it is.
    pub async fn status(&self) -> Result<StoreStatus, StoreError> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        let answer = self.call(client.status(self.request(pb::StatusRequest {}))).await?;
        Ok(StoreStatus {
            header: self.checked(answer.header)?,
            version: answer.version,
            db_size_bytes: answer.db_size,
            db_in_use_bytes: answer.db_size_in_use,
            no_space: answer.errors.iter().any(|error| error.contains("NOSPACE")),
            raft_index: answer.raft_index,
            leader: answer.leader,
        })
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
            .max_decoding_message_size(self.message_bytes)
            .max_encoding_message_size(self.message_bytes)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }

    async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, StoreError> {
        match tokio::time::timeout(self.deadline, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(StoreError::of_status(&status, self.deadline)),
            Err(_) => Err(StoreError::Deadline(self.deadline)),
        }
    }

    /// Checks that the same etcd cluster answers as before.
    pub(super) fn checked(&self, header: Option<pb::ResponseHeader>) -> Result<Header, StoreError> {
        let header = header.map(Header::from).ok_or_else(|| StoreError::protocol("answer without a header"))?;
        let found = header.cluster_id;
        match self.cluster_id.compare_exchange(0, found, Ordering::Relaxed, Ordering::Relaxed) {
            Err(expected) if expected != found => Err(StoreError::OtherCluster { expected, found }),
            _ => Ok(header),
        }
    }

    /// For tests that ask etcd what this client does not.
    #[cfg(test)]
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(super) fn message_limit(&self) -> usize {
        self.message_bytes
    }
}

fn read(what: &'static str, path: &Path) -> Result<String, OpenError> {
    std::fs::read_to_string(path).map_err(|source| OpenError::File { what, path: path.to_owned(), source })
}

fn read_key(path: &Path) -> Result<zeroize::Zeroizing<String>, OpenError> {
    read_secret(path).map_err(|source| OpenError::File { what: "key", path: path.to_owned(), source })
}

fn host(endpoint: &str) -> Result<String, OpenError> {
    let host = endpoint.strip_prefix("https://").unwrap_or(endpoint).trim_end_matches('/');
    let port = host.rsplit_once(':').filter(|(name, _)| !name.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) if !host.contains("://") => Ok(host.to_owned()),
        _ => Err(OpenError::Endpoint { endpoint: endpoint.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
