//! After each registration at the API: every endpoint is published again, and what is gone is withdrawn.
//!
//! So the API knows the truth again whatever it forgot, and endpoints that came up without it get their identity.

use std::time::Duration;

use fabric_core::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use super::identity::Publication;
use super::{EndpointController, EndpointError};
use crate::tables::endpoint::EndpointRow;

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(15);

impl EndpointController {
    /// Runs until cancelled.
    pub(crate) async fn keep_published(self, cancel: CancellationToken) -> anyhow::Result<()> {
        let mut connection = self.parts.connection.clone();
        let mut restored = self.parts.tables.restored.subscribe();
        if cancel.run_until_cancelled(restored.wait_for(|restored| *restored)).await.is_none() {
            return Ok(());
        }
        let mut rows = self.parts.tables.endpoints.subscribe();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LAST);
        let mut published = 0;
        loop {
            let sessions = connection.borrow_and_update().sessions;
            rows.mark_unchanged();
            let mut wait = None;
            if sessions > 0 && (sessions != published || self.has_unfinished()) {
                if self.publish_all(sessions != published).await {
                    published = sessions;
                    backoff.reset();
                } else {
                    wait = Some(backoff.next(rand::random()));
                }
            }
            let pause = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = connection.changed() => if changed.is_err() { return Ok(()) },
                changed = rows.changed() => if changed.is_err() { return Ok(()) },
                () = pause => {}
                () = cancel.cancelled() => return Ok(()),
            }
        }
    }

    /// Whether something is withdrawn that the API was not told, or an endpoint has no identity yet.
    fn has_unfinished(&self) -> bool {
        let nameless = self.parts.tables.endpoints.borrow().values().any(|row| row.identity.is_none());
        nameless || !self.ledger().records.withdrawn.is_empty()
    }

    /// Publishes all (or those without identity) and withdraws what is gone; says whether all of it was heard.
    async fn publish_all(&self, all: bool) -> bool {
        let withdrawn: Vec<String> = self.ledger().records.withdrawn.iter().cloned().collect();
        let mut heard = true;
        for id in withdrawn {
            heard &= self.withdraw(&id).await;
        }
        let rows: Vec<EndpointRow> = self.list().into_iter().filter(|row| all || row.identity.is_none()).collect();
        for row in rows {
            heard &= self.publish_row(&row).await;
        }
        heard
    }

    async fn publish_row(&self, row: &EndpointRow) -> bool {
        let publication = Publication {
            id: &row.id,
            kubernetes_namespace: &row.kubernetes_namespace,
            name: &row.name,
            labels: &row.labels,
            addresses: &row.addresses,
        };
        match self.publish(publication).await {
            Ok(identity) => {
                if let Err(error) = self.remember_identity(&row.id, identity.id) {
                    tracing::warn!(id = row.id, %error, "the identity could not be written down");
                }
                let news = row.identity != Some(identity.id);
                self.change_row(&row.id, |row| {
                    row.identity = Some(identity.id);
                    row.identity_labels = identity.labels.clone();
                    row.problem = String::new();
                });
                if news {
                    self.open_named(&row.id).await;
                }
                true
            }
            Err(EndpointError::NoIdentity { why }) => {
                tracing::debug!(id = row.id, why, "not published");
                false
            }
            Err(error) => {
                // The API answered, and said no: a person must see it. Asking again would not help.
                tracing::warn!(id = row.id, %error, "the API refused an endpoint");
                self.change_row(&row.id, |row| row.problem = error.to_string());
                true
            }
        }
    }

    /// Opens an endpoint that was restored without an identity and has one now.
    async fn open_named(&self, id: &str) {
        let row = self.parts.tables.endpoints.borrow().get(id).cloned();
        let record = self.ledger().records.endpoints.get(id).cloned();
        let local = self.parts.tables.local.borrow().clone();
        let (Some(row), Some(record), Some(local)) = (row, record, local) else { return };
        if row.open {
            return;
        }
        let opened = async {
            self.wait_realised(id).await?;
            self.wiring(&record, &local).open(&self.parts.netlink, row.device).await?;
            Ok::<(), EndpointError>(())
        };
        match opened.await {
            Ok(()) => self.change_row(id, |row| row.open = true),
            Err(error) => self.change_row(id, |row| row.problem = error.to_string()),
        }
    }
}
