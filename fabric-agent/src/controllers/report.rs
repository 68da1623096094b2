//! Tells the API what the node sees, every few seconds: for `fabric status`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clustermesh_api_proto::fabric::v1::{DropReport, PeerReport, ReportRequest};
use fabric_agent_datapath::Maps;
use fabric_agent_datapath::rows::Direction;
use fabric_wireguard::{DeviceStatus, PublicKey};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api_client::ApiClient;
use crate::health::Health;
use crate::reconcilers::datapath::Realised;
use crate::reconcilers::wireguard::LastStatus;
use crate::tables::{Mesh, Tables};

const INTERVAL: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(4);

/// What the node sees of itself.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    pub(crate) tables: Arc<Tables>,
    pub(crate) maps: Arc<Maps>,
    pub(crate) wireguard: LastStatus,
    pub(crate) realised: watch::Receiver<Realised>,
    pub(crate) health: Health,
}

impl Sight {
    /// Peers by node.
    pub(crate) fn peers(&self) -> Vec<PeerReport> {
        let status = self.wireguard.get().unwrap_or_default();
        peers(&self.tables.mesh.borrow(), &status, SystemTime::now())
    }

    /// All that is wrong: parts, maps, endpoints.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = self.health.problems();
        problems.extend(self.realised.borrow().problems.iter().cloned());
        let endpoints = Arc::clone(&self.tables.endpoints.borrow());
        let troubled = endpoints.values().filter(|row| !row.problem.is_empty());
        problems.extend(troubled.map(|row| format!("workload {}: {}", row.id, row.problem)));
        problems
    }

    /// Drops by reason and direction.
    pub(crate) fn drops(&self) -> Vec<DropReport> {
        let metrics = match self.maps.metrics() {
            Ok(metrics) => metrics,
            Err(error) => {
                self.health.set("metrics", &error);
                return Vec::new();
            }
        };
        let dropped = metrics.into_iter().filter(|metric| metric.reason != 0);
        let report = dropped.map(|metric| DropReport {
            reason: u32::from(metric.reason),
            direction: match metric.direction {
                Some(Direction::Ingress) => "ingress".to_owned(),
                Some(Direction::Egress) => "egress".to_owned(),
                None => String::new(),
            },
            packets: metric.packets,
            bytes: metric.bytes,
        });
        report.collect()
    }
}

fn peers(mesh: &Mesh, status: &DeviceStatus, now: SystemTime) -> Vec<PeerReport> {
    let by_key: BTreeMap<PublicKey, _> =
        mesh.nodes.values().filter_map(|node| Some((PublicKey::new(*node.wireguard?.as_bytes()), node))).collect();
    let report = status.peers.iter().filter_map(|(key, peer)| {
        let node = by_key.get(key)?;
        let age = peer.last_handshake.map(|then| now.duration_since(then).unwrap_or_default());
        Some(PeerReport {
            cluster: node.cluster.to_string(),
            node: node.name.to_string(),
            // 0 means never: a handshake of this very second counts as one second old.
            last_handshake_age_s: age.map_or(0, |age| age.as_secs().max(1)),
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
        })
    });
    report.collect()
}

/// Runs until cancelled. A report that does not arrive is not repeated: the next one says more.
pub(crate) async fn run(client: ApiClient, sight: Sight, cancel: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
        let request = ReportRequest {
            peers: sight.peers(),
            drops: sight.drops(),
            problems: sight.problems(),
            endpoints: u32::try_from(sight.tables.endpoints.borrow().len()).unwrap_or(u32::MAX),
        };
        let mut api = client.agent_api();
        let sent = cancel.run_until_cancelled(tokio::time::timeout(ANSWER, api.report(request))).await;
        if let Some(Ok(Err(status))) = sent {
            tracing::debug!(code = ?status.code(), "the report did not arrive");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fabric_wireguard::device::PeerStatus;

    use super::*;
    use crate::plan::fixtures;

    #[test]
    fn peers_are_named_after_their_nodes() {
        let nodes = fixtures::nodes().into_iter().map(|node| (node.key(), node)).collect();
        let mesh = Mesh { nodes: Arc::new(nodes), ..Mesh::default() };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let known =
            PeerStatus { last_handshake: Some(now - Duration::from_secs(7)), rx_bytes: 5, ..PeerStatus::default() };
        let status = DeviceStatus {
            peers: [(PublicKey::new([18; 32]), known), (PublicKey::new([99; 32]), PeerStatus::default())].into(),
            ..DeviceStatus::default()
        };
        let report = peers(&mesh, &status, now);
        assert_eq!(report.len(), 1);
        assert_eq!((report[0].node.as_str(), report[0].last_handshake_age_s, report[0].rx_bytes), ("n2", 7, 5));
    }
}
