//! What of a remote's rows is let in: each is judged alone, and what is let in is written in our own words.
//!
//! Values are encoded anew from what was understood. So nobody further on can read anything into them that was not judged.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use bytes::Bytes;
use fabric_core::admission::remote::RemoteGrant;
use fabric_core::admission::{NodeRef, Reason, Refusal};
use fabric_core::key::WireguardPublicKey;
use fabric_core::names::NodeName;
use fabric_core::wire::key::KeyError;
use fabric_core::wire::{self, Form, IpEntry, Key, Kind, NodeEntry, RowKey, ServiceEntry};

use super::writer::RowWrite;
use crate::api::SharedApi;
use crate::refusals::Refusals;
use crate::store::{Event, EventKind, KeyValue};

/// The judge of one link.
#[derive(Debug)]
pub struct Judge {
    api: SharedApi,
    grant: RemoteGrant,
    form: Form,
    refusals: Refusals,
    counts: BTreeMap<Kind, usize>,
}

impl Judge {
    /// A judge by what was agreed.
    pub fn new(api: SharedApi, grant: RemoteGrant, form: Form, refusals: Refusals) -> Self {
        Self { api, grant, form, refusals, counts: BTreeMap::new() }
    }

    /// Judges a whole family. Of nodes, what the cluster held before is forgotten first.
    pub fn list(&mut self, kind: Kind, kvs: &[KeyValue]) -> BTreeMap<RowKey, Bytes> {
        if kind == Kind::Nodes {
            self.claims(|claims| claims.release_cluster(&self.grant.cluster));
        }
        let mut rows = BTreeMap::new();
        for kv in kvs {
            let admitted = self.row(&kv.key).and_then(|row| {
                let Some(row) = row else { return Ok(None) };
                if row.kind() != kind {
                    return Ok(None);
                }
                self.grant.limits.admit_one_more(kind, rows.len())?;
                Ok(Some((row.clone(), self.value(&row, &kv.value)?)))
            });
            match admitted {
                Ok(row) => rows.extend(row),
                Err(refusal) => self.refuse(&kv.key, &refusal),
            }
        }
        self.counts.insert(kind, rows.len());
        rows
    }

    /// Judges changes. A row that was good and is so no more is withdrawn.
    pub fn changes(&mut self, events: &[Event]) -> Vec<RowWrite> {
        events.iter().filter_map(|event| self.change(event)).collect()
    }

    fn change(&mut self, event: &Event) -> Option<RowWrite> {
        let row = match self.row(&event.kv.key) {
            Ok(row) => row?,
            Err(refusal) => {
                self.refuse(&event.kv.key, &refusal);
                return None;
            }
        };
        let key = Key::row(Form::Cache, &self.grant.cluster, row.clone()).to_string();
        let present = self.api.view.get(key.as_bytes()).is_some();
        let judged = match event.kind {
            EventKind::Delete => None,
            EventKind::Put => self.put(&row, &event.kv, present),
        };
        let count = self.counts.entry(row.kind()).or_default();
        match (present, &judged) {
            (false, Some(_)) => *count += 1,
            (true, None) => *count = count.saturating_sub(1),
            _ => {}
        }
        if judged.is_none()
            && let RowKey::Node(name) = &row
        {
            let node = self.node_ref(name);
            self.claims(|claims| claims.release(&node));
        }
        Some((row, judged))
    }

    fn put(&self, row: &RowKey, kv: &KeyValue, present: bool) -> Option<Bytes> {
        let count = self.counts.get(&row.kind()).copied().unwrap_or(0);
        let room = if present { Ok(()) } else { self.grant.limits.admit_one_more(row.kind(), count) };
        let judged = room.and_then(|()| self.value(row, &kv.value));
        judged.map_err(|refusal| self.refuse(&kv.key, &refusal)).ok()
    }

    /// The row that a key names; `None` for keys that are nobody's business.
    fn row(&self, key: &[u8]) -> Result<Option<RowKey>, Refusal> {
        match Key::parse(key, &self.grant.cluster) {
            Ok(Key::Row { form, cluster, row }) if form == self.form => {
                if cluster == self.grant.cluster {
                    return Ok(Some(row));
                }
                // A copy of others' rows is served beside the remote's own by some; it is not read.
                if form == Form::Cache {
                    return Ok(None);
                }
                Err(Refusal::new(Reason::ClusterName, format_args!("it speaks for cluster {cluster}")))
            }
            Ok(_) | Err(KeyError::UnknownFamily) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn value(&self, row: &RowKey, value: &[u8]) -> Result<Bytes, Refusal> {
        let grant = &self.grant;
        let owned = self.api.owned.load();
        let bytes = match row {
            RowKey::Identity(id) => {
                let labels = wire::identity::decode(value)?;
                grant.admit_identity(*id, &labels)?;
                wire::identity::encode(&labels)
            }
            RowKey::Ip(prefix) => {
                let entry = IpEntry::decode_at(value, prefix)?;
                self.claims(|claims| grant.admit_ip(&entry, &owned, claims))?;
                entry.encode()
            }
            RowKey::Node(name) => {
                let entry = NodeEntry::decode_at(value, &grant.cluster, name)?;
                let (addresses, key) = node_claim(&entry);
                self.claims(|claims| {
                    grant.admit_node(&entry, &owned, claims)?;
                    claims.claim(&self.node_ref(name), addresses, key)
                })?;
                entry.encode()
            }
            RowKey::Service { namespace, name } => {
                let entry = ServiceEntry::decode_at(value, &grant.cluster, namespace, name)?;
                grant.admit_service(&entry)?;
                entry.encode()
            }
        };
        Ok(bytes.into())
    }

    fn claims<T>(&self, act: impl FnOnce(&mut fabric_core::admission::NodeClaims) -> T) -> T {
        act(&mut self.api.claims.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn node_ref(&self, name: &NodeName) -> NodeRef {
        NodeRef { cluster: self.grant.cluster.clone(), name: name.clone() }
    }

    fn refuse(&self, key: &[u8], refusal: &Refusal) {
        let key = String::from_utf8_lossy(key);
        self.refusals.count(
            self.grant.cluster.as_str(),
            refusal.reason.as_str(),
            format_args!("{key}: {}", refusal.detail),
        );
    }
}

/// What a node claims for itself alone.
pub fn node_claim(entry: &NodeEntry) -> (Vec<std::net::IpAddr>, Option<WireguardPublicKey>) {
    (entry.underlay_addresses().collect(), entry.wireguard_public_key)
}
