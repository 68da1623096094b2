//! Bringing a workload up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use fabric_agent_datapath::Role;
use fabric_core::ids::IfIndex;
use fabric_core::labels::user;
use fabric_core::names::{Namespace, ObjectName};

use super::{EndpointController, EndpointError, REALISE, hash};
use crate::controllers::node::device_index;
use crate::endpoint::record::EndpointRecord;
use crate::endpoint::wiring::Wiring;
use crate::plan::LocalNode;
use crate::sys::netlink::{Link, MacAddress};
use crate::sys::netns::Netns;
use crate::tables::endpoint::{EndpointRow, Place};

/// A workload that shall be, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewWorkload {
    pub(crate) id: String,
    pub(crate) kubernetes_namespace: Namespace,
    pub(crate) name: ObjectName,
    pub(crate) labels: Vec<String>,
    pub(crate) netns: PathBuf,
    pub(crate) interface: String,
}

/// Longest id of a workload.
const MAX_ID: usize = 400;

impl NewWorkload {
    /// Checks what came over the socket.
    pub(crate) fn check(
        request: &clustermesh_api_proto::fabric::v1::AddWorkloadRequest,
    ) -> Result<Self, EndpointError> {
        let invalid = |field, value: &str, why: &dyn std::fmt::Display| EndpointError::Invalid {
            field,
            value: value.chars().take(100).collect(),
            why: why.to_string(),
        };
        let namespace = if request.kubernetes_namespace.is_empty() { "default" } else { &request.kubernetes_namespace };
        let kubernetes_namespace =
            Namespace::new(namespace).map_err(|error| invalid("namespace", namespace, &error))?;
        let name = ObjectName::new(&request.name).map_err(|error| invalid("name", &request.name, &error))?;
        let id = if request.id.is_empty() { format!("{kubernetes_namespace}/{name}") } else { request.id.clone() };
        check_id(&id).map_err(|why| invalid("id", &id, &why))?;
        let labels = user::parse_list(request.labels.iter().map(String::as_str))
            .map_err(|error| invalid("labels", &request.labels.join(","), &error))?;
        let labels = labels.iter().map(|label| format!("{}={}", label.key(), label.value())).collect();
        if !Path::new(&request.netns).is_absolute() {
            return Err(invalid("netns", &request.netns, &"an absolute path is needed, such as /run/netns/web"));
        }
        let interface = if request.interface.is_empty() { "eth0" } else { &request.interface };
        check_interface(interface).map_err(|why| invalid("interface", interface, &why))?;
        Ok(Self {
            id,
            kubernetes_namespace,
            name,
            labels,
            netns: PathBuf::from(&request.netns),
            interface: interface.to_owned(),
        })
    }

    fn is(&self, record: &EndpointRecord) -> bool {
        self.kubernetes_namespace == record.kubernetes_namespace
            && self.name == record.name
            && self.labels == record.labels
            && self.interface == record.interface
    }
}

fn check_id(id: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    if id.len() > MAX_ID {
        return Err("it is too long");
    }
    if id.bytes().all(allowed) { Ok(()) } else { Err("letters, digits and -_.:/ are allowed") }
}

fn check_interface(name: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    if (1..=15).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(allowed) {
        return Ok(());
    }
    Err("a device name has 1 to 15 characters")
}

impl EndpointController {
    /// Brings a workload up; one that is up already is answered as it is.
    pub(crate) async fn add(&self, workload: NewWorkload) -> Result<EndpointRow, EndpointError> {
        let _turn = self.turn(&workload.id).await;
        let local = self.local().await?;
        if local.machine {
            return Err(EndpointError::Machine);
        }
        let netns = Netns::open(&workload.netns)?;
        let known = self.ledger().records.endpoints.get(&workload.id).cloned();
        if let Some(known) = known {
            if !workload.is(&known) || known.netns_id != netns.id() {
                return Err(EndpointError::Exists { id: workload.id });
            }
            let row = self.parts.tables.endpoints.borrow().get(&workload.id).cloned();
            if let Some(row) = row.filter(EndpointRow::is_open) {
                return Ok(row);
            }
        }
        let record = self.reserve(&workload, &netns, &local)?;
        match self.bring_up(record, &netns, &local).await {
            Ok(row) => Ok(row),
            Err(error) => {
                // What was made is unmade, so that the caller can begin anew or walk away.
                if let Err(undo) = self.undo(&workload.id).await {
                    tracing::warn!(id = workload.id, error = %undo, "a half-made workload could not be undone");
                }
                Err(error)
            }
        }
    }

    /// Picks addresses and names, and writes them down before anything is made.
    fn reserve(
        &self,
        workload: &NewWorkload,
        netns: &Netns,
        local: &LocalNode,
    ) -> Result<EndpointRecord, EndpointError> {
        let mut ledger = self.ledger();
        ledger.ipam.set_ranges(local.ranges.clone(), local.overlay.iter().copied());
        let addresses = ledger.ipam.allocate(&workload.id, SystemTime::now())?;
        let [a, b, c, d, ..] = hash("device", &workload.id);
        let number = ledger.records.endpoints.get(&workload.id).map(|known| known.number);
        let record = EndpointRecord {
            id: workload.id.clone(),
            kubernetes_namespace: workload.kubernetes_namespace.clone(),
            name: workload.name.clone(),
            labels: workload.labels.clone(),
            netns: workload.netns.clone(),
            netns_id: netns.id(),
            interface: workload.interface.clone(),
            host_interface: format!("fab{a:02x}{b:02x}{c:02x}{d:02x}"),
            host_mac: MacAddress::from_hash(&hash(&format!("{} node side", local.name), &workload.id)),
            mac: MacAddress::from_hash(&hash(&format!("{} workload side", local.name), &workload.id)),
            addresses,
            number: number.unwrap_or_else(|| ledger.free_number()),
            identity: None,
        };
        ledger.records.withdrawn.remove(&workload.id);
        ledger.records.endpoints.insert(workload.id.clone(), record.clone());
        ledger.save()?;
        Ok(record)
    }

    async fn bring_up(
        &self,
        record: EndpointRecord,
        netns: &Netns,
        local: &LocalNode,
    ) -> Result<EndpointRow, EndpointError> {
        let wiring = self.wiring(&record, local);
        let (link, identity) = tokio::join!(self.make_devices(&wiring, netns), self.identity_of_new(&record, local));
        let (link, identity) = (link?, identity?);
        let id = record.id.clone();
        self.put_row(row(&record, &wiring, &link, Some(identity.id), identity.labels));
        self.remember_identity(&id, identity.id)?;
        self.wait_realised(&id).await?;
        wiring.open(&self.parts.netlink, link.index).await?;
        self.change_row(&id, |row| row.open = true);
        let row = self.parts.tables.endpoints.borrow().get(&id).cloned();
        tracing::info!(id, identity = %identity.id, "workload is up");
        row.ok_or_else(|| EndpointError::NotRealised { why: "it was deleted meanwhile".to_owned() })
    }

    /// The devices, down on the node's side, with programs.
    async fn make_devices(&self, wiring: &Wiring, netns: &Netns) -> Result<Link, EndpointError> {
        let link = wiring.make(&self.parts.netlink, netns).await?;
        self.hang_programs(&link.name, link.index).await?;
        Ok(link)
    }

    pub(super) async fn hang_programs(&self, name: &str, device: IfIndex) -> Result<(), EndpointError> {
        let datapath = Arc::clone(&self.parts.datapath);
        let hang = move || -> anyhow::Result<()> { Ok(datapath.attach(Role::Endpoint, device_index(device)?)?) };
        let done = tokio::task::spawn_blocking(hang).await.map_err(anyhow::Error::from).and_then(|done| done);
        done.map_err(|error| EndpointError::Programs { device: name.to_owned(), why: format!("{error:#}") })
    }

    pub(super) async fn wait_realised(&self, id: &str) -> Result<(), EndpointError> {
        let mut realised = self.parts.realised.clone();
        let there = tokio::time::timeout(REALISE, realised.wait_for(|realised| realised.endpoints.contains_key(id)));
        if matches!(there.await, Ok(Ok(_))) {
            return Ok(());
        }
        let problems = self.parts.realised.borrow().problems.join("; ");
        let why = if problems.is_empty() { "no pass over the maps was done".to_owned() } else { problems };
        Err(EndpointError::NotRealised { why })
    }
}

/// The table's row of a record whose devices are there.
pub(super) fn row(
    record: &EndpointRecord,
    wiring: &Wiring,
    link: &Link,
    identity: Option<fabric_core::ids::Identity>,
    identity_labels: fabric_core::labels::LabelSet,
) -> EndpointRow {
    EndpointRow {
        id: record.id.clone(),
        kubernetes_namespace: record.kubernetes_namespace.clone(),
        name: record.name.clone(),
        labels: record.labels.clone(),
        place: Place::Workload { netns: record.netns.clone(), interface: record.interface.clone() },
        host_interface: record.host_interface.clone(),
        device: link.index,
        mac: record.mac,
        host_mac: record.host_mac,
        number: record.number,
        addresses: record.addresses.clone(),
        identity,
        identity_labels,
        mtu: wiring.mtu,
        open: link.up,
        problem: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use clustermesh_api_proto::fabric::v1::AddWorkloadRequest;

    use super::*;

    fn request() -> AddWorkloadRequest {
        AddWorkloadRequest {
            name: "web".to_owned(),
            labels: vec!["app=web".to_owned()],
            netns: "/run/netns/web".to_owned(),
            ..AddWorkloadRequest::default()
        }
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let workload = NewWorkload::check(&request()).unwrap();
        assert_eq!((workload.id.as_str(), workload.interface.as_str()), ("default/web", "eth0"));
        assert_eq!(workload.labels, ["app=web"]);
    }

    #[test]
    fn each_refusal_names_its_field() {
        let cases: [(&str, AddWorkloadRequest); 6] = [
            ("name", AddWorkloadRequest { name: "Web".to_owned(), ..request() }),
            ("namespace", AddWorkloadRequest { kubernetes_namespace: "a/b".to_owned(), ..request() }),
            ("id", AddWorkloadRequest { id: "a b".to_owned(), ..request() }),
            ("labels", AddWorkloadRequest { labels: vec!["=x".to_owned()], ..request() }),
            ("netns", AddWorkloadRequest { netns: "web".to_owned(), ..request() }),
            ("interface", AddWorkloadRequest { interface: "a/b".to_owned(), ..request() }),
        ];
        for (field, request) in cases {
            let error = NewWorkload::check(&request).unwrap_err();
            assert!(matches!(&error, EndpointError::Invalid { field: named, .. } if *named == field), "{error}");
            assert_eq!(error.status().code(), tonic::Code::InvalidArgument);
        }
    }
}
