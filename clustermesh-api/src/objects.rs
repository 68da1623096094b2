//! Documents that users apply: services, policies, links. Checked whole, stored in one form, all or none.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::error_code as codes;
use fabric_core::manifest::{self, Kind, Object, ObjectKey, Problem, Spec};
use fabric_core::names::{Namespace, ObjectName};
use fabric_core::prefix::Prefix;
use fabric_core::service::{ClusterIps, Sharing, allot, annotations};
use tonic::Code;

use crate::api::Api;
use crate::commit::Plan;
use crate::convert;
use crate::failure::Failure;
use crate::links::{self, DryRun};
use crate::records::key;
use crate::store::{KeyRange, Transaction, View};

/// Most documents in one call: their writes must fit one transaction.
const MOST: usize = 40;

/// Applies documents.
///
/// # Errors
/// The first document that is no good, by name and field; nothing is changed then.
pub async fn apply(api: &Api, request: &proto::ApplyRequest) -> Result<proto::ApplyResponse, Failure> {
    let objects = parse(&request.documents)?;
    let dry_run = DryRun::from(request.dry_run);
    let (links, stored): (Vec<Object>, Vec<Object>) =
        objects.into_iter().partition(|object| object.kind() == Kind::ClusterLink);
    // What can be refused is asked of all before anything is written.
    let mut results = Vec::new();
    for link in &links {
        put_link(api, link, DryRun::Yes).await?;
        results.push(result(&link.key(), link_outcome(api, link)));
    }
    if stored.len() > MOST {
        return Err(Failure::invalid(format_args!(
            "{} documents in one call, at most {MOST} are allowed",
            stored.len()
        )));
    }
    let planned = match dry_run {
        DryRun::Yes => plan(api, &api.view, &stored)?.value,
        DryRun::No => api.commit(|view| plan(api, view, &stored)).await?.value,
    };
    if dry_run == DryRun::No {
        for link in &links {
            put_link(api, link, DryRun::No).await?;
        }
    }
    results.extend(planned.iter().map(|(key, outcome)| result(key, outcome)));
    Ok(proto::ApplyResponse { results })
}

fn parse(documents: &[String]) -> Result<Vec<Object>, Failure> {
    let mut objects = Vec::new();
    let mut keys = BTreeSet::new();
    for document in documents {
        for object in manifest::parse(document).map_err(|error| manifest_failure(&error))? {
            if !keys.insert(object.key()) {
                return Err(Failure::new(
                    codes::OBJECT_INVALID,
                    Code::InvalidArgument,
                    format_args!("{} is there twice", object.key()),
                ));
            }
            objects.push(object);
        }
    }
    Ok(objects)
}

fn manifest_failure(error: &manifest::ManifestError) -> Failure {
    let code = match &error.problem {
        Problem::Unsupported(_) => codes::POLICY_UNSUPPORTED,
        Problem::UnknownField(_) => codes::UNKNOWN_FIELD,
        Problem::Syntax(_) => codes::MALFORMED_DOCUMENT,
        _ => codes::OBJECT_INVALID,
    };
    Failure::new(code, Code::InvalidArgument, error)
}

fn result(key: &ObjectKey, outcome: &str) -> proto::ObjectResult {
    proto::ObjectResult {
        kind: key.kind.to_string(),
        kubernetes_namespace: key.namespace.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: key.name.to_string(),
        outcome: outcome.to_owned(),
    }
}

type Outcomes = Vec<(ObjectKey, &'static str)>;

fn plan(api: &Api, view: &View, objects: &[Object]) -> Result<Plan<Outcomes>, Failure> {
    let mut transaction = Transaction::new();
    let mut outcomes = Vec::new();
    let mut given = BTreeSet::new();
    for object in objects {
        let object_key = key_of(&object.key());
        let before = view.get(object_key.as_bytes());
        let old = before.as_ref().and_then(|kv| Object::from_json(std::str::from_utf8(&kv.value).ok()?).ok());
        let object = match &object.spec {
            Spec::Service(_) => {
                let addressed;
                (addressed, transaction) = address(api, view, object, old.as_ref(), &mut given, transaction)?;
                addressed
            }
            _ => object.clone(),
        };
        let outcome = match &old {
            None => "created",
            Some(old) if old.to_json() == object.to_json() => "unchanged",
            Some(_) => "configured",
        };
        if outcome != "unchanged" {
            transaction = match &before {
                Some(kv) => transaction.unchanged(object_key.clone(), kv.mod_revision),
                None => transaction.absent(object_key.clone()),
            };
            transaction = transaction.put(object_key, object.to_json());
        }
        outcomes.push((object.key(), outcome));
    }
    Ok(Plan { transaction, value: outcomes })
}

fn key_of(object: &ObjectKey) -> String {
    key::object(object.kind.as_str(), object.namespace.as_ref(), &object.name)
}

/// Gives a service its addresses: those that it had, those that it asks for, or free ones; and claims them.
fn address(
    api: &Api,
    view: &View,
    object: &Object,
    old: Option<&Object>,
    given: &mut BTreeSet<IpAddr>,
    mut transaction: Transaction,
) -> Result<(Object, Transaction), Failure> {
    let Spec::Service(spec) = &object.spec else { return Ok((object.clone(), transaction)) };
    let mut spec = spec.clone();
    let owner = object.key().to_string();
    let had = old.map(own_addresses).unwrap_or_default();
    if spec.cluster_ips == ClusterIps::Allotted && !had.is_empty() {
        // Applying a document again must not move a service.
        spec.cluster_ips = ClusterIps::Given(had.clone());
    }
    let taken = |address: IpAddr| {
        let claim = view.get(key::claim(Prefix::host(address)).as_bytes());
        given.contains(&address) || claim.is_some_and(|kv| kv.value != owner.as_bytes())
    };
    let addresses = allot(&owner, &spec, &api.cluster.service_prefixes, taken)
        .map_err(|error| Failure::refused(codes::OBJECT_INVALID, format_args!("{owner}: {error}")))?;
    for address in &addresses {
        given.insert(*address);
        let claim = key::claim(Prefix::host(*address));
        if view.get(claim.as_bytes()).is_none() {
            transaction = transaction.absent(claim.clone()).put(claim, owner.clone());
        }
    }
    for address in had.iter().filter(|address| !addresses.contains(address)) {
        transaction = transaction.delete(key::claim(Prefix::host(*address)));
    }
    if addresses.is_empty() {
        return Ok((object.clone(), transaction));
    }
    let object = object
        .with_cluster_ips(&addresses)
        .map_err(|error| Failure::new(codes::OBJECT_INVALID, Code::InvalidArgument, error))?;
    Ok((object, transaction))
}

fn own_addresses(object: &Object) -> Vec<IpAddr> {
    match &object.spec {
        Spec::Service(spec) => match &spec.cluster_ips {
            ClusterIps::Given(addresses) => addresses.clone(),
            ClusterIps::Headless | ClusterIps::Allotted => Vec::new(),
        },
        _ => Vec::new(),
    }
}

async fn put_link(api: &Api, object: &Object, dry_run: DryRun) -> Result<(), Failure> {
    let Spec::ClusterLink(link) = &object.spec else { return Ok(()) };
    let texts = |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect();
    let offer = proto::LinkOffer {
        cluster: Some(convert::cluster_to_proto(&link.cluster)),
        authority_pem: link.authority_pem.clone(),
        mesh_endpoints: texts(&link.mesh_endpoints),
        api_endpoints: texts(&link.api_endpoints),
        max_connected_clusters: link.max_connected_clusters,
    };
    links::put(api, &convert::offer_from_proto(Some(&offer))?, dry_run).await?;
    Ok(())
}

fn link_outcome(api: &Api, object: &Object) -> &'static str {
    let key = format!("{}{}", key::LINKS, object.metadata.name);
    if api.view.get(key.as_bytes()).is_some() { "configured" } else { "created" }
}

/// Deletes a document, and what the cluster allotted for it.
///
/// # Errors
/// When there is none, or the store does not take it.
pub async fn delete(api: &Api, request: &proto::DeleteObjectRequest) -> Result<(), Failure> {
    let object = name_of(&request.kind, &request.kubernetes_namespace, &request.name)?;
    if object.kind == Kind::ClusterLink {
        return links::delete(api, &convert::cluster_name(object.name.as_str())?, false).await;
    }
    let object_key = key_of(&object);
    api.commit(|view| {
        let kv =
            view.get(object_key.as_bytes()).ok_or_else(|| Failure::not_found(format_args!("there is no {object}")))?;
        let mut transaction =
            Transaction::new().unchanged(object_key.clone(), kv.mod_revision).delete(object_key.clone());
        let old = std::str::from_utf8(&kv.value).ok().and_then(|text| Object::from_json(text).ok());
        for address in old.map(|old| own_addresses(&old)).unwrap_or_default() {
            transaction = transaction.delete(key::claim(Prefix::host(address)));
        }
        Ok(Plan { transaction, value: () })
    })
    .await?;
    Ok(())
}

fn name_of(kind: &str, namespace: &str, name: &str) -> Result<ObjectKey, Failure> {
    let kind: Kind = convert::field("kind", kind)?;
    let namespace = if kind.is_namespaced() { Some(convert::namespace(namespace)?) } else { None };
    Ok(ObjectKey { kind, namespace, name: convert::object_name(name)? })
}

/// Lists documents.
///
/// # Errors
/// When a kind or namespace is none.
pub fn list(api: &Api, request: &proto::ListObjectsRequest) -> Result<proto::ObjectList, Failure> {
    let kind = if request.kind.is_empty() { None } else { Some(convert::field::<Kind>("kind", &request.kind)?) };
    let snapshot = api.view.list(&KeyRange::prefix(key::OBJECTS));
    let objects = snapshot.kvs.iter().filter_map(|kv| {
        let document = std::str::from_utf8(&kv.value).ok()?;
        let object = Object::from_json(document).ok()?;
        let namespace = object.metadata.namespace.as_ref().map(ToString::to_string).unwrap_or_default();
        let wanted = kind.is_none_or(|kind| kind == object.kind())
            && (request.kubernetes_namespace.is_empty() || request.kubernetes_namespace == namespace);
        wanted.then(|| proto::Object {
            kind: object.kind().to_string(),
            kubernetes_namespace: namespace,
            name: object.metadata.name.to_string(),
            document: document.to_owned(),
        })
    });
    Ok(proto::ObjectList { objects: objects.collect() })
}

/// Shares a service with other clusters, or stops that. A cluster that has no such service says so by `false`.
///
/// # Errors
/// When names or words are none, or the store does not take it.
pub async fn share(
    api: &Api,
    request: &proto::ShareServiceRequest,
) -> Result<Option<(Namespace, ObjectName)>, Failure> {
    let name = (convert::namespace(&request.kubernetes_namespace)?, convert::object_name(&request.name)?);
    let affinity =
        if request.affinity.is_empty() { None } else { Some(convert::field("affinity", &request.affinity)?) };
    let object_key = key::object(Kind::Service.as_str(), Some(&name.0), &name.1);
    let decide = |view: &View| {
        let Some(kv) = view.get(object_key.as_bytes()) else { return Ok(Plan::nothing(false)) };
        let text = std::str::from_utf8(&kv.value).map_err(|error| Failure::garbage(&object_key, error))?;
        let object = Object::from_json(text).map_err(|error| Failure::garbage(&object_key, error))?;
        let Spec::Service(spec) = &object.spec else { return Ok(Plan::nothing(false)) };
        let affinity = affinity.unwrap_or(spec.sharing.affinity);
        let sharing = Sharing { global: request.shared, shared: request.shared, affinity };
        let changed = object
            .with_annotations(&annotations::write(sharing))
            .map_err(|error| Failure::garbage(&object_key, error))?;
        if changed.to_json() == text {
            return Ok(Plan::nothing(true));
        }
        let transaction = Transaction::new()
            .unchanged(object_key.clone(), kv.mod_revision)
            .put(object_key.clone(), changed.to_json());
        Ok(Plan { transaction, value: true })
    };
    let there = if request.dry_run { decide(&api.view)?.value } else { api.commit(decide).await?.value };
    Ok(there.then_some(name))
}
