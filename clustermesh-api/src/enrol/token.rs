//! Tokens: create, list, revoke, redeem.

use std::time::{Duration, SystemTime};

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::error_code as codes;
use fabric_core::key::Pin;
use fabric_core::labels::user;
use fabric_core::names::NodeName;
use fabric_core::secret::Secret;
use fabric_core::token::{JoinToken, MemberKind};
use fabric_core::wire::heartbeat::rfc3339;
use tonic::Code;

use super::{TTL_S, new_secret};
use crate::api::{Api, unix_seconds};
use crate::commit::Plan;
use crate::convert;
use crate::failure::Failure;
use crate::members::{node, renew};
use crate::pki::Leaf;
use crate::records::{self, MachineGrant, NodeRecord, Stored, TokenRecord, key};
use crate::store::Transaction;

/// A token lives this long unless asked otherwise.
const DEFAULT_TTL_S: u32 = 3600;

/// Creates a token.
///
/// # Errors
/// When the request makes no sense, the name is taken, or the store does not take it.
pub async fn create(api: &Api, request: &proto::CreateTokenRequest) -> Result<proto::CreateTokenResponse, Failure> {
    let ttl = if request.ttl_s == 0 { DEFAULT_TTL_S } else { request.ttl_s };
    if !TTL_S.contains(&ttl) {
        return Err(Failure::invalid(format_args!("ttl of {ttl} s is over {} s", TTL_S.end())));
    }
    let name = if request.name.is_empty() { None } else { Some(convert::node_name(&request.name)?) };
    let (kind, grant) = match request.kind() {
        proto::NodeKind::Node if request.labels.is_empty() => (MemberKind::Node, None),
        proto::NodeKind::Node => return Err(Failure::invalid("a node has no labels; its endpoints have")),
        proto::NodeKind::Machine => (MemberKind::Machine, Some(grant(request, name.as_ref())?)),
        proto::NodeKind::Unspecified => return Err(Failure::invalid("what may join, a node or a machine, is missing")),
    };
    if let Some(name) = &name {
        node::free_name(&api.view, name)?;
    }
    let secret = new_secret();
    let expires = SystemTime::now() + Duration::from_secs(u64::from(ttl));
    let record = TokenRecord {
        verifier: secret.verifier(),
        kind,
        name: name.clone(),
        grant,
        expires_at: unix_seconds(expires),
        used_by: None,
    };
    let id = secret.id();
    let token_key = key::token(&id);
    api.commit(|_| {
        let transaction =
            Transaction::new().absent(token_key.clone()).put(token_key.clone(), records::encode(&record)?);
        Ok(Plan { transaction, value: () })
    })
    .await?;
    let line = JoinToken {
        cluster: api.cluster.name.clone(),
        api: api.advertised.api.clone(),
        pin: Pin::from_bytes(*api.authority.pin().as_bytes()),
        secret,
        expires,
        kind,
        name,
    };
    let line = line.to_line().to_string();
    Ok(proto::CreateTokenResponse { token: Some(to_proto(&id, &record)), line })
}

fn grant(request: &proto::CreateTokenRequest, name: Option<&NodeName>) -> Result<MachineGrant, Failure> {
    let name = name.ok_or_else(|| Failure::invalid("a machine's token needs its name"))?;
    let labels = user::parse_list(request.labels.iter().map(String::as_str)).map_err(Failure::invalid)?;
    Ok(MachineGrant {
        namespace: convert::namespace(&request.kubernetes_namespace)?,
        name: name.to_string(),
        labels: labels.iter().map(|label| format!("{}={}", label.key(), label.value())).collect(),
    })
}

fn to_proto(id: &str, record: &TokenRecord) -> proto::Token {
    let grant = record.grant.as_ref();
    proto::Token {
        id: id.to_owned(),
        kind: convert::kind_to_proto(record.kind).into(),
        name: record.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        kubernetes_namespace: grant.map(|grant| grant.namespace.to_string()).unwrap_or_default(),
        labels: grant.map(|grant| grant.labels.clone()).unwrap_or_default(),
        expires: rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(record.expires_at)),
        used_by: record.used_by.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// All tokens that are known.
pub fn list(api: &Api) -> Vec<proto::Token> {
    let tokens = records::read_all::<TokenRecord>(&api.view, key::TOKENS);
    tokens.iter().map(|token| to_proto(token.name_after(key::TOKENS), &token.value)).collect()
}

/// Withdraws a token.
///
/// # Errors
/// When there is none of that id, or the store does not take it.
pub async fn revoke(api: &Api, id: &str) -> Result<(), Failure> {
    let token_key = key::token(id);
    api.commit(|view| {
        let kv = view.get(token_key.as_bytes()).filter(|_| is_id(id));
        let kv = kv.ok_or_else(|| Failure::not_found("there is no token of that id"))?;
        let transaction = Transaction::new().unchanged(token_key.clone(), kv.mod_revision).delete(token_key.clone());
        Ok(Plan { transaction, value: () })
    })
    .await?;
    Ok(())
}

fn is_id(id: &str) -> bool {
    id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A new member.
#[derive(Debug)]
pub struct Joined {
    /// Its certificate.
    pub leaf: Leaf,
    /// What it is.
    pub kind: MemberKind,
    /// Its name.
    pub name: NodeName,
}

/// Redeems a token.
///
/// # Errors
/// Unknown, used, expired, name taken, a request that proves nothing; each with its own words.
pub async fn join(api: &Api, request: &proto::JoinRequest, now: SystemTime) -> Result<Joined, Failure> {
    let secret = Secret::parse(&request.secret).map_err(|_| unknown())?;
    let token_key = key::token(&secret.id());
    let token = read(api, &token_key, &secret, now)?;
    let name = match (&token.value.name, request.name.as_str()) {
        (Some(fixed), "") => fixed.clone(),
        (Some(fixed), asked) if fixed.as_str() == asked => fixed.clone(),
        (Some(fixed), _) => return Err(Failure::invalid(format_args!("the token is for the name {fixed}"))),
        (None, asked) => convert::node_name(asked)?,
    };
    let (leaf, pin) = renew::sign(api, token.value.kind, &name, &request.csr)?;
    let kind = token.value.kind;
    api.commit(|view| {
        let token = read(api, &token_key, &secret, now)?;
        node::free_name(view, &name)?;
        let node_key = key::node(&name);
        let node = NodeRecord { grant: token.value.grant.clone(), ..NodeRecord::new(kind, pin.to_string()) };
        let used = TokenRecord { used_by: Some(name.clone()), ..token.value };
        let transaction = Transaction::new()
            .unchanged(token_key.clone(), token.mod_revision)
            .absent(node_key.clone())
            .put(token_key.clone(), records::encode(&used)?)
            .put(node_key, records::encode(&node)?);
        Ok(Plan { transaction, value: () })
    })
    .await?;
    tracing::info!(%name, %kind, "joined");
    Ok(Joined { leaf, kind, name })
}

fn unknown() -> Failure {
    Failure::new(
        codes::TOKEN_USED,
        Code::PermissionDenied,
        "the token is not known here: it was revoked, or is another cluster's",
    )
}

fn read(api: &Api, token_key: &str, secret: &Secret, now: SystemTime) -> Result<Stored<TokenRecord>, Failure> {
    let token = records::read::<TokenRecord>(&api.view, token_key)?.ok_or_else(unknown)?;
    // The key is a hash of the secret already; the verifier is the whole of it.
    if token.value.verifier != secret.verifier() {
        return Err(unknown());
    }
    if let Some(user) = &token.value.used_by {
        let message = format_args!("the token was used already, by {user}");
        return Err(Failure::new(codes::TOKEN_USED, Code::PermissionDenied, message));
    }
    if token.value.expires_at <= unix_seconds(now) {
        let at = rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(token.value.expires_at));
        let message = format_args!("the token expired at {at}");
        return Err(Failure::new(codes::TOKEN_EXPIRED, Code::PermissionDenied, message));
    }
    Ok(token)
}
