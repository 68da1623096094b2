//! One link's mirror: connect, list, watch, and again.
//!
//! A session lists everything at one revision and then watches from the next, so what vanished while nobody looked goes
//! with the list. While the remote is away, what was read of it stays.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clustermesh_api_proto::fabric::v1::LinkState;
use fabric_core::admission::Refusal;
use fabric_core::admission::remote::RemoteGrant;
use fabric_core::error_code as codes;
use fabric_core::link::{Link, Request, State};
use fabric_core::names::ClusterName;
use fabric_core::wire::{ClusterConfig, Kind, heartbeat};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::admit::Judge;
use super::remote::{Remote, RemoteError, decode_config};
use super::writer::{WriteError, Writer};
use crate::api::SharedApi;
use crate::convert::authority_from_pem;
use crate::failure::Failure;
use crate::links;
use crate::records::{LinkRecord, Stored};
use crate::store::{EventKind, Store, StoreError, StoreWatch};
use crate::tls::Connector;

/// How often a remote that is not ready yet is asked again.
const POLL: Duration = Duration::from_millis(500);
/// Each call to the remote.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The remote is not what was agreed.
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Setup(#[from] Failure),
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        Self::Remote(error.into())
    }
}

/// One link's mirror.
#[derive(Debug)]
pub struct Mirror {
    api: SharedApi,
    record: LinkRecord,
    name: ClusterName,
    writer: Writer,
    grant: RemoteGrant,
    link: Mutex<Link>,
    probe: Notify,
}

impl Mirror {
    /// A mirror of what a link's record says.
    pub fn new(api: SharedApi, link: Stored<LinkRecord>) -> Self {
        let name = link.value.cluster.name.clone();
        let writer = Writer::new(api.store.clone(), api.view.clone(), name.clone(), link.mod_revision);
        let grant = RemoteGrant::of(&link.value.cluster);
        let life = Mutex::new(Link::new(Instant::now()));
        Self { api, record: link.value, name, writer, grant, link: life, probe: Notify::new() }
    }

    /// Mirrors until stopped, or until the link is not what it was. All decisions about its life are the state
    /// machine's; here they are carried out.
    pub async fn run(self, stop: CancellationToken) {
        let mut session: Option<Pin<Box<dyn Future<Output = SessionError> + Send + '_>>> = None;
        loop {
            while let Some(request) = self.link().poll_transmit() {
                match request {
                    Request::Connect => session = Some(Box::pin(self.session_end())),
                    Request::Close => session = None,
                    Request::Probe => self.probe.notify_one(),
                }
            }
            self.report();
            let deadline = self.link().poll_timeout();
            let timeout = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                ended = async { match session.as_mut() { Some(open) => open.await, None => std::future::pending().await } } => {
                    session = None;
                    if matches!(ended, SessionError::Write(WriteError::Fenced)) {
                        tracing::debug!(cluster = %self.name, "the link changed; its mirror ends");
                        return;
                    }
                    self.ended(&ended);
                }
                () = timeout => self.link().handle_timeout(Instant::now()),
            }
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn session_end(&self) -> SessionError {
        let Err(error) = self.session().await;
        error
    }

    fn ended(&self, error: &SessionError) {
        let now = Instant::now();
        match error {
            SessionError::Refused(refusal) => {
                let refusals = self.api.links.get(&self.name).refusals;
                refusals.count(self.name.as_str(), refusal.reason.as_str(), &refusal.detail);
                self.api.links.update(&self.name, |report| report.refusals = refusals);
                self.link().handle_refused(refusal.to_string(), now);
            }
            SessionError::Remote(RemoteError::Store(StoreError::Denied { .. })) => {
                let problem = format!("{} the other side has no link to us", codes::ACCESS_NOT_GRANTED);
                self.link().handle_closed(problem, rand::random(), now);
            }
            _ => self.link().handle_closed(error.to_string(), rand::random(), now),
        }
    }

    /// Tells what changed: the log once, `fabric status` always.
    fn report(&self) {
        let mut link = self.link();
        while let Some(changed) = link.poll_event() {
            let (from, to) = (changed.from.as_str(), changed.to.as_str());
            if from != to {
                tracing::info!(cluster = %self.name, from, to, detail = changed.to.detail(), "link");
            }
        }
        let (state, detail) = (link.state().clone(), link.state().detail().to_owned());
        let heard = link.age(Instant::now()).and_then(|age| Instant::now().checked_sub(age));
        drop(link);
        self.api.links.update(&self.name, |report| {
            report.state = match state {
                State::Connecting { .. } => LinkState::Connecting,
                State::Synced => LinkState::Synced,
                State::Silent { .. } => LinkState::Silent,
                State::StoreDown => LinkState::StoreDown,
                State::Refused { .. } => LinkState::Refused,
                State::Blocked => LinkState::Blocked,
            };
            // While it waits for the remote to be complete, what it waits for stands there.
            if !detail.is_empty() || state != (State::Connecting { problem: String::new() }) {
                report.detail = detail;
            }
            report.heard = heard;
        });
    }

    fn heard(&self) {
        let now = Instant::now();
        self.link().handle_word(now);
        self.api.links.update(&self.name, |report| report.heard = Some(now));
    }

    fn waiting(&self, detail: &str) {
        self.heard();
        self.api.links.update(&self.name, |report| detail.clone_into(&mut report.detail));
    }

    fn connect(&self) -> Result<Remote, SessionError> {
        let (authority, pin) = authority_from_pem(&self.record.authority_pem)?;
        let tls = links::client_tls(&self.api, &authority, pin, &self.name)?;
        let connector = Connector::new(&links::mesh_addresses(&self.record), tls);
        let store = Store::new(&connector).with_deadline(DEADLINE);
        Ok(Remote::new(store, self.name.clone()))
    }

    async fn session(&self) -> Result<Infallible, SessionError> {
        let mut remote = self.connect()?;
        let config = self.ready(&mut remote).await?;
        let refusals = self.api.links.get(&self.name).refusals;
        let mut judge = Judge::new(Arc::clone(&self.api), self.grant.clone(), config.form(), refusals);
        let revision = self.copy(&mut remote, &config, &mut judge).await?;
        let rows = remote.watch_rows(config.form(), revision + 1).await?;
        let configs = remote.watch_config(revision + 1).await?;
        self.link().handle_synced(Instant::now());
        self.report();
        self.follow(&mut remote, &mut judge, rows, configs).await
    }

    /// Waits until the remote says what it is and that all it has is there.
    async fn ready(&self, remote: &mut Remote) -> Result<ClusterConfig, SessionError> {
        loop {
            let config = remote.config().await?;
            let Some(config) = config else {
                self.waiting("it has not published its configuration yet");
                tokio::time::sleep(POLL).await;
                continue;
            };
            if let Err(refusal) = self.grant.admit_config(&config) {
                // It is not the cluster that was agreed: nothing of it stays.
                self.writer.replace(BTreeMap::new()).await?;
                return Err(refusal.into());
            }
            if !config.capabilities.synced_canaries {
                return Ok(config);
            }
            let missing = remote.incomplete(config.form(), &kinds(&config)).await?;
            let Some(first) = missing.first() else { return Ok(config) };
            self.waiting(&format!("its {} are not complete yet", first.as_str()));
            tokio::time::sleep(POLL).await;
        }
    }

    /// Makes our copy equal to what the remote has now. Returns the revision of "now".
    async fn copy(&self, remote: &mut Remote, config: &ClusterConfig, judge: &mut Judge) -> Result<i64, SessionError> {
        let mut revision = 0;
        let mut rows = BTreeMap::new();
        for kind in kinds(config) {
            let (at, kvs) = remote.list(config.form(), kind, revision).await?;
            revision = at;
            self.heard();
            rows.extend(judge.list(kind, &kvs));
        }
        self.writer.replace(rows).await?;
        self.writer.complete(config.cached().encode(), heartbeat::encode(SystemTime::now())).await?;
        Ok(revision)
    }

    async fn follow(
        &self,
        remote: &mut Remote,
        judge: &mut Judge,
        mut rows: StoreWatch,
        mut configs: StoreWatch,
    ) -> Result<Infallible, SessionError> {
        loop {
            tokio::select! {
                batch = rows.next() => {
                    let batch = batch?;
                    remote.seen(&batch.header);
                    self.heard();
                    let writes = judge.changes(&batch.events);
                    self.writer.write(writes).await?;
                }
                batch = configs.next() => {
                    for event in batch?.events {
                        if event.kind == EventKind::Put {
                            self.grant.admit_config(&decode_config(&event.kv)?)?;
                        }
                    }
                }
                () = self.probe.notified() => {
                    rows.request_progress().await?;
                    let now = Instant::now();
                    let has_store = remote.has_store().await;
                    let was_down = *self.link().state() == State::StoreDown;
                    match (was_down, has_store) {
                        (_, false) => self.link().handle_store_down(now),
                        // Nothing was missed: the watch went on all the time.
                        (true, true) => self.link().handle_synced(now),
                        (false, true) => {}
                    }
                    self.report();
                }
            }
        }
    }
}

/// The families that a remote publishes and we read.
fn kinds(config: &ClusterConfig) -> Vec<Kind> {
    Kind::ALL.into_iter().filter(|kind| *kind != Kind::Services || config.publishes_services()).collect()
}
