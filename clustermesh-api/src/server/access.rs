//! Who calls, and whether it may.

use std::time::SystemTime;

use fabric_core::error_code as codes;
use fabric_core::token::MemberKind;
use tonic::{Code, Request};

use super::connection::Caller;
use crate::api::Api;
use crate::failure::Failure;
use crate::members::Member;
use crate::pki::{Pin, Role};
use crate::records::key;
use crate::tls::{AuthorityOf, PeerIdentity};

fn identity<T>(request: &Request<T>) -> Result<&PeerIdentity, Failure> {
    let caller = request.extensions().get::<Caller>();
    let identity = caller.and_then(|caller| caller.identity.as_ref());
    let identity = identity.ok_or_else(|| {
        Failure::new(codes::FORBIDDEN, Code::Unauthenticated, "this call needs a client certificate of the cluster")
    })?;
    if identity.authority != AuthorityOf::Own {
        return Err(Failure::forbidden("the certificate is another cluster's"));
    }
    Ok(identity)
}

fn role<T>(api: &Api, request: &Request<T>) -> Result<(Role, Pin), Failure> {
    let identity = identity(request)?;
    not_revoked(api, &identity.key)?;
    match &identity.name {
        Some(name) if name.cluster == api.cluster.name => Ok((name.role.clone(), identity.key)),
        _ => Err(Failure::forbidden("the certificate names nobody of this cluster")),
    }
}

/// Whether a certificate's key is still good.
///
/// # Errors
/// When it was revoked.
pub fn not_revoked(api: &Api, key: &Pin) -> Result<(), Failure> {
    if api.view.get(key::revoked(key).as_bytes()).is_none() {
        return Ok(());
    }
    Err(Failure::new(codes::NODE_REVOKED, Code::PermissionDenied, "this certificate was revoked"))
}

/// The caller as a node or machine of this cluster.
///
/// # Errors
/// When it is none, or was revoked.
pub fn member<T>(api: &Api, request: &Request<T>) -> Result<Member, Failure> {
    let (kind, name, key) = match role(api, request)? {
        (Role::Node(name), key) => (MemberKind::Node, name, key),
        (Role::Machine(name), key) => (MemberKind::Machine, name, key),
        _ => return Err(Failure::forbidden("only a node's or machine's certificate may call this")),
    };
    let member = Member { name, kind, key };
    still_member(api, &member)?;
    api.nodes.heard(&member.name, SystemTime::now());
    Ok(member)
}

/// Whether a member's certificate is (still) the one that counts for its name.
///
/// # Errors
/// When it was revoked, or the name is another key's.
pub fn still_member(api: &Api, member: &Member) -> Result<(), Failure> {
    not_revoked(api, &member.key)?;
    match member.record(&api.view) {
        // A record that somebody damaged keeps nobody out; what needs it says so.
        Err(failure) if failure.code() == codes::GARBAGE_IN_STORE => Ok(()),
        Err(failure) => Err(failure),
        Ok(_) => Ok(()),
    }
}

/// That the caller administers this cluster. Returns its name.
///
/// # Errors
/// When it does not.
pub fn admin<T>(api: &Api, request: &Request<T>) -> Result<String, Failure> {
    match role(api, request)? {
        (Role::Admin(name), _) => Ok(name),
        _ => Err(Failure::forbidden("only an administrator's certificate may call this")),
    }
}

/// That the caller administers this cluster, logged with what it asks for.
///
/// # Errors
/// When it does not.
pub fn admin_for<T>(api: &Api, request: &Request<T>, call: &'static str) -> Result<(), Failure> {
    let admin = admin(api, request)?;
    tracing::info!(admin, call, "administration");
    Ok(())
}
