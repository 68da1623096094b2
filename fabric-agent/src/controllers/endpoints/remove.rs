//! Taking a workload down.

use std::sync::Arc;
use std::time::SystemTime;

use clustermesh_api_proto::fabric::v1::DeleteEndpointRequest;
use fabric_core::ids::IfIndex;

use super::{EndpointController, EndpointError, IDENTITY, REALISE};
use crate::controllers::node::device_index;

impl EndpointController {
    /// Takes a workload down; one that is not there succeeds.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), EndpointError> {
        let _turn = self.turn(id).await;
        if !self.ledger().records.endpoints.contains_key(id) {
            return Ok(());
        }
        self.undo(id).await?;
        tracing::info!(id, "workload is gone");
        // Told at once where the API answers; else the publisher tells it later.
        self.withdraw(id).await;
        Ok(())
    }

    /// Everything but the API: traffic stops first, then the addresses leave the maps, then they rest.
    pub(super) async fn undo(&self, id: &str) -> Result<(), EndpointError> {
        let record = self.ledger().records.endpoints.get(id).cloned();
        let Some(record) = record else { return Ok(()) };
        let link = self.parts.netlink.link(&record.host_interface).await?;
        if let Some(link) = &link {
            self.parts.netlink.set_down(link.index).await?;
        }
        self.remove_row(id);
        self.wait_gone(id).await;
        if let Some(link) = link {
            self.take_programs_off(link.index).await;
            self.parts.netlink.delete_link(link.index).await?;
        }
        self.forget(id)
    }

    /// The record goes, its addresses rest, the API is still to be told.
    pub(super) fn forget(&self, id: &str) -> Result<(), EndpointError> {
        let mut ledger = self.ledger();
        ledger.ipam.release(id, SystemTime::now());
        ledger.records.endpoints.remove(id);
        ledger.records.withdrawn.insert(id.to_owned());
        Ok(ledger.save()?)
    }

    /// Waits until the maps no longer know an endpoint; goes on without when that takes long, since its device is down.
    async fn wait_gone(&self, id: &str) {
        let mut realised = self.parts.realised.clone();
        let passes = realised.borrow().passes;
        let gone = realised.wait_for(|realised| realised.passes > passes && !realised.endpoints.contains_key(id));
        if !matches!(tokio::time::timeout(REALISE, gone).await, Ok(Ok(_))) {
            tracing::warn!(id, "the maps still know the workload");
        }
    }

    async fn take_programs_off(&self, device: IfIndex) {
        let datapath = Arc::clone(&self.parts.datapath);
        let take = move || -> anyhow::Result<()> { Ok(datapath.detach(device_index(device)?)?) };
        // A pin that stays behind is forgotten at the next start.
        match tokio::task::spawn_blocking(take).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%device, error = format!("{error:#}"), "programs remain on a device"),
            Err(error) => tracing::warn!(%device, %error, "programs remain on a device"),
        }
    }

    /// Tells the API that an endpoint is gone; says whether it took note.
    pub(super) async fn withdraw(&self, id: &str) -> bool {
        let mut api = self.parts.client.agent_api();
        let request = DeleteEndpointRequest { name: id.to_owned() };
        let told = tokio::time::timeout(IDENTITY, api.delete_endpoint(request)).await;
        if !matches!(told, Ok(Ok(_))) {
            return false;
        }
        let mut ledger = self.ledger();
        // It may have come back while the API was being told.
        if !ledger.records.endpoints.contains_key(id)
            && ledger.records.withdrawn.remove(id)
            && let Err(error) = ledger.save()
        {
            tracing::warn!(%error, "the records could not be written");
        }
        true
    }
}
