//! After a start: what an earlier process made is adopted, what vanished is withdrawn. And what changes for all
//! workloads at once (sizes of packets) is brought to each.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::add::row;
use super::identity::Publication;
use super::{EndpointController, EndpointError};
use crate::endpoint::record::EndpointRecord;
use crate::plan::LocalNode;
use crate::state_file::MachineGrant;
use crate::sys::netns::Netns;
use crate::tables::endpoint::{EndpointRow, Place};

/// How often it is looked whether workloads' devices are still there.
const LOOK: Duration = Duration::from_secs(10);

impl EndpointController {
    /// Restores, then follows changes of the node and of clusters, until cancelled.
    pub(crate) async fn follow(self, cancel: CancellationToken) -> anyhow::Result<()> {
        let mut tables = self.parts.tables.reader();
        let mut seen = None;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if let Some(snapshot) = tables.snapshot() {
                let now = (Arc::clone(&snapshot.local), Arc::clone(&snapshot.mesh.clusters));
                let first = seen.is_none();
                if first {
                    self.restore(&snapshot.local).await;
                    self.parts.tables.restored.send_replace(true);
                } else if seen.as_ref() != Some(&now) {
                    self.refresh(&snapshot.local).await;
                }
                seen = Some(now);
            }
            tokio::select! {
                changed = tables.changed() => if changed.is_err() { return Ok(()) },
                _ = look.tick(), if seen.is_some() => self.withdraw_vanished().await,
                () = cancel.cancelled() => return Ok(()),
            }
        }
    }

    /// A namespace that was removed took its devices along without a word: its workload is gone.
    async fn withdraw_vanished(&self) {
        let open: Vec<EndpointRow> = self.list().into_iter().filter(|row| row.is_open() && !row.is_machine()).collect();
        for row in open {
            let _turn = self.turn(&row.id).await;
            if !matches!(self.parts.netlink.link(&row.host_interface).await, Ok(None)) {
                continue;
            }
            tracing::info!(id = row.id, "the workload's namespace is gone; withdrawing it");
            match self.undo(&row.id).await {
                Ok(()) => drop(self.withdraw(&row.id).await),
                Err(error) => tracing::warn!(id = row.id, %error, "a vanished workload could not be cleaned up"),
            }
        }
    }

    async fn restore(&self, local: &LocalNode) {
        self.ledger().ipam.set_ranges(local.ranges.clone(), local.overlay.iter().copied());
        if local.machine {
            self.restore_machine(local);
            return;
        }
        let records: Vec<EndpointRecord> = self.ledger().records.endpoints.values().cloned().collect();
        let count = records.len();
        for record in records {
            let _turn = self.turn(&record.id).await;
            if let Err(error) = self.adopt(&record, local).await {
                tracing::warn!(id = record.id, error = error.status().message(), "a workload vanished; withdrawing it");
                if let Err(error) = self.undo(&record.id).await {
                    tracing::warn!(id = record.id, %error, "a vanished workload could not be cleaned up");
                }
            }
        }
        if count > 0 {
            tracing::info!(workloads = count, "restored");
        }
    }

    /// Takes up one workload as it is; what is missing of it is made anew.
    async fn adopt(&self, record: &EndpointRecord, local: &LocalNode) -> Result<(), EndpointError> {
        let netns = Netns::open(&record.netns)?;
        if netns.id() != record.netns_id {
            let why = "another namespace is there now".to_owned();
            return Err(EndpointError::Invalid { field: "netns", value: record.netns.display().to_string(), why });
        }
        let wiring = self.wiring(record, local);
        let link = wiring.make(&self.parts.netlink, &netns).await?;
        self.hang_programs(&link.name, link.index).await?;
        let publication = Publication::of(record);
        let known = self.known_identity(publication, local);
        let identity = known.as_ref().map(|known| known.id).or(record.identity);
        let labels = publication.label_set(&local.cluster).unwrap_or_default();
        self.put_row(row(record, &wiring, &link, identity, labels));
        if identity.is_some() {
            self.wait_realised(&record.id).await.or_else(|error| {
                // It worked before this start: its entries are still there, and the reconciler goes on.
                tracing::warn!(id = record.id, %error, "restored before the maps were");
                Ok::<(), EndpointError>(())
            })?;
            wiring.open(&self.parts.netlink, link.index).await?;
            self.change_row(&record.id, |row| row.open = true);
        }
        Ok(())
    }

    /// The machine itself as the one workload, on the programs' side of `fabric0`.
    fn restore_machine(&self, local: &LocalNode) {
        let registration = self.parts.registration.borrow().clone();
        let Some(grant) = registration.and_then(|registration| registration.machine) else { return };
        let publication = machine_publication(&grant);
        let identity = self.known_identity(publication, local).map(|known| known.id);
        self.put_row(EndpointRow {
            id: publication.id.to_owned(),
            kubernetes_namespace: grant.kubernetes_namespace.clone(),
            name: grant.name.clone(),
            labels: grant.labels.clone(),
            place: Place::Machine,
            host_interface: crate::controllers::node::HOST_DEVICE.to_owned(),
            device: local.devices.host_peer,
            mac: local.devices.host_mac,
            host_mac: local.devices.host_peer_mac,
            number: crate::plan::endpoints::HOST_NUMBER + 1,
            addresses: grant.addresses.clone(),
            identity,
            identity_labels: publication.label_set(&local.cluster).unwrap_or_default(),
            mtu: u32::from(crate::plan::mtu::endpoint(local).0.value()),
            open: true,
            problem: String::new(),
        });
    }

    /// Brings changed sizes to every workload.
    async fn refresh(&self, local: &LocalNode) {
        if local.machine {
            self.restore_machine_if_changed(local);
            return;
        }
        let records: Vec<EndpointRecord> = self.ledger().records.endpoints.values().cloned().collect();
        for record in records {
            let _turn = self.turn(&record.id).await;
            let open = self.parts.tables.endpoints.borrow().get(&record.id).is_some_and(EndpointRow::is_open);
            if !open {
                continue;
            }
            let wiring = self.wiring(&record, local);
            let refreshed = async {
                let netns = Netns::open(&record.netns)?;
                let link = wiring.make(&self.parts.netlink, &netns).await?;
                wiring.open(&self.parts.netlink, link.index).await?;
                Ok::<_, EndpointError>(link.index)
            };
            let problem = match refreshed.await {
                Ok(device) => {
                    self.change_row(&record.id, |row| (row.mtu, row.device) = (wiring.mtu, device));
                    String::new()
                }
                Err(error) => error.status().message().to_owned(),
            };
            self.change_row(&record.id, |row| row.problem = problem);
        }
    }

    fn restore_machine_if_changed(&self, local: &LocalNode) {
        let row = self.parts.tables.endpoints.borrow().values().next().cloned();
        if row.is_none_or(|row| row.device != local.devices.host_peer || row.addresses != local.overlay) {
            self.restore_machine(local);
        }
    }
}

/// What a machine publishes: itself, under its own name.
pub(super) fn machine_publication(grant: &MachineGrant) -> Publication<'_> {
    Publication {
        id: grant.name.as_str(),
        kubernetes_namespace: &grant.kubernetes_namespace,
        name: &grant.name,
        labels: &grant.labels,
        addresses: &grant.addresses,
    }
}
