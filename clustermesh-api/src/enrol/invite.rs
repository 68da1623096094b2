//! Invites: one cluster hands a line to another's owner, who links both with it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use clustermesh_api_proto::fabric::v1 as proto;
use clustermesh_api_proto::fabric::v1::enrol_client::EnrolClient;
use fabric_core::error_code as codes;
use fabric_core::invite::Invite;
use fabric_core::key::Pin as CorePin;
use fabric_core::secret::Secret;
use fabric_core::wire::heartbeat::rfc3339;
use tonic::Code;
use tonic::transport::Channel;

use super::{TTL_S, new_secret};
use crate::api::{Api, unix_seconds};
use crate::commit::Plan;
use crate::convert::{self, Offer, offer_from_proto};
use crate::failure::Failure;
use crate::link_probe::tls_failure;
use crate::links::{self, DryRun};
use crate::pki::{Pin, Role};
use crate::records::{self, InviteRecord, Stored, key};
use crate::store::Transaction;
use crate::tls::{ALPN_H2, ClientIdentity, Connector, ServerTrust, client_config, mesh_channel};

/// An invite lives this long unless asked otherwise.
const DEFAULT_TTL_S: u32 = 900;
/// Connecting to the other cluster's API, per address.
const CONNECT: Duration = Duration::from_secs(3);
/// The other cluster probes us while we wait.
const ANSWER: Duration = Duration::from_secs(15);

/// Creates an invite for one cluster.
///
/// # Errors
/// When the request makes no sense, or the store does not take it.
pub async fn create(api: &Api, request: &proto::CreateInviteRequest) -> Result<proto::CreateInviteResponse, Failure> {
    let peer = convert::cluster_name(&request.peer)?;
    if peer == api.cluster.name {
        let message = format_args!("cluster {peer} cannot invite itself");
        return Err(Failure::refused(codes::CANNOT_CONNECT_SELF, message));
    }
    let ttl = if request.ttl_s == 0 { DEFAULT_TTL_S } else { request.ttl_s };
    if !TTL_S.contains(&ttl) {
        return Err(Failure::invalid(format_args!("ttl of {ttl} s is over {} s", TTL_S.end())));
    }
    let secret = new_secret();
    let expires = SystemTime::now() + Duration::from_secs(u64::from(ttl));
    let record = InviteRecord {
        verifier: secret.verifier(),
        peer: peer.clone(),
        expires_at: unix_seconds(expires),
        used: false,
    };
    let invite_key = key::invite(&secret.id());
    api.commit(|_| {
        let value = records::encode(&record)?;
        Ok(Plan {
            transaction: Transaction::new().absent(invite_key.clone()).put(invite_key.clone(), value),
            value: (),
        })
    })
    .await?;
    let invite = Invite {
        cluster: api.cluster.name.clone(),
        peer,
        api: api.advertised.api.clone(),
        pin: CorePin::from_bytes(*api.authority.pin().as_bytes()),
        secret,
        expires,
    };
    Ok(proto::CreateInviteResponse { invite: invite.to_line().to_string(), expires: rfc3339(expires) })
}

/// The inviting side: links the cluster that shows the secret, once. With `dry_run` everything is checked and nothing
/// written.
///
/// # Errors
/// Unknown, used, expired, another cluster, or what stands against the link; nothing is changed then.
pub async fn redeem(
    api: &Api,
    request: &proto::RedeemRequest,
    now: SystemTime,
) -> Result<proto::RedeemResponse, Failure> {
    let secret = Secret::parse(&request.secret).map_err(|_| unknown())?;
    let invite_key = key::invite(&secret.id());
    let offer = offer_from_proto(request.offer.as_ref())?;
    read(api, &invite_key, &secret, &offer, now)?;
    links::put(api, &offer, DryRun::Yes).await?;
    if !request.dry_run {
        let record = offer.to_record();
        api.commit(|view| {
            let invite = read(api, &invite_key, &secret, &offer, now)?;
            links::check(api, view, &offer)?;
            let used = InviteRecord { used: true, ..invite.value };
            let transaction = Transaction::new()
                .unchanged(invite_key.clone(), invite.mod_revision)
                .put(invite_key.clone(), records::encode(&used)?);
            links::plan(view, &record, transaction)
        })
        .await?;
        tracing::info!(peer = %offer.cluster.name, "linked by invite");
    }
    Ok(proto::RedeemResponse { offer: Some(api.offer()) })
}

fn unknown() -> Failure {
    let message = "the invite is not known here: it was withdrawn, or is another cluster's";
    Failure::new(codes::INVITE_USED, Code::PermissionDenied, message)
}

fn read(
    api: &Api,
    invite_key: &str,
    secret: &Secret,
    offer: &Offer,
    now: SystemTime,
) -> Result<Stored<InviteRecord>, Failure> {
    let invite = records::read::<InviteRecord>(&api.view, invite_key)?.ok_or_else(unknown)?;
    if invite.value.verifier != secret.verifier() {
        return Err(unknown());
    }
    let refuse = |code, message: String| Err(Failure::new(code, Code::PermissionDenied, message));
    if invite.value.peer != offer.cluster.name {
        let message = format!("the invite is for cluster {}, not for {}", invite.value.peer, offer.cluster.name);
        return refuse(codes::INVITE_OTHER_PEER, message);
    }
    if invite.value.used {
        return refuse(codes::INVITE_USED, "the invite was used already".to_owned());
    }
    if invite.value.expires_at <= unix_seconds(now) {
        return refuse(codes::INVITE_EXPIRED, "the invite has expired".to_owned());
    }
    Ok(invite)
}

/// The invited side: shows the secret to the inviting cluster, and links it here.
///
/// Everything that either side could refuse is asked before either writes.
///
/// # Errors
/// A line that is no good, or what either side has against the link.
pub async fn accept(api: &Api, request: &proto::AcceptInviteRequest, now: SystemTime) -> Result<proto::Link, Failure> {
    let invite = Invite::parse(&request.invite)
        .map_err(|error| Failure::new(Invite::error_code(&error), Code::InvalidArgument, &error))?;
    if invite.peer != api.cluster.name {
        let message = format_args!("the invite is for cluster {}, this is {}", invite.peer, api.cluster.name);
        return Err(Failure::refused(codes::INVITE_OTHER_PEER, message));
    }
    if invite.is_expired(now) {
        let message = format_args!("the invite expired at {}", rfc3339(invite.expires));
        return Err(Failure::refused(codes::INVITE_EXPIRED, message));
    }
    let mut client = Client::connect(&invite).await?;
    let offer = client.redeem(api, &invite, true).await?;
    links::put(api, &offer, DryRun::Yes).await?;
    if request.dry_run {
        return Ok(links::to_proto(api, &offer.to_record()));
    }
    let offer = client.redeem(api, &invite, false).await?;
    links::put(api, &offer, DryRun::No).await
}

struct Client {
    enrol: EnrolClient<Channel>,
    pin: Pin,
}

impl Client {
    async fn connect(invite: &Invite) -> Result<Self, Failure> {
        let pin = Pin::from(*invite.pin.as_bytes());
        let trust = ServerTrust {
            cluster: Some(invite.cluster.clone()),
            role: Some(Role::Api),
            ..ServerTrust::pinned_api(pin)
        };
        let tls = client_config(&trust, &ClientIdentity::Anonymous, &[ALPN_H2]).map_err(Failure::internal)?;
        let connector = Connector::new(&invite.api, tls);
        let what = format!("API of cluster {}", invite.cluster);
        // The channel would say only "unavailable": the reason is what a person needs.
        connector.connect(CONNECT).await.map_err(|error| tls_failure(&what, &shown(&invite.api), &error))?;
        Ok(Self { enrol: EnrolClient::new(mesh_channel(&connector, CONNECT)), pin })
    }

    async fn redeem(&mut self, api: &Api, invite: &Invite, dry_run: bool) -> Result<Offer, Failure> {
        let secret = invite.secret.reveal().to_string();
        let request = proto::RedeemRequest { secret, offer: Some(api.offer()), dry_run };
        let answer = tokio::time::timeout(ANSWER, self.enrol.redeem(request)).await;
        let answer = answer.map_err(|_| unreachable(invite, "no answer in time"))?;
        let offer = answer.map_err(|status| Failure::from_remote(invite.cluster.as_str(), &status))?.into_inner();
        let offer = offer_from_proto(offer.offer.as_ref())?;
        if offer.pin != self.pin || offer.cluster.name != invite.cluster {
            let message = format_args!("cluster {} offers another authority than its invite names", invite.cluster);
            return Err(Failure::refused(codes::WRONG_AUTHORITY, message));
        }
        Ok(offer)
    }
}

fn unreachable(invite: &Invite, why: &str) -> Failure {
    let message = format_args!("API of cluster {} at {}: {why}", invite.cluster, shown(&invite.api));
    Failure::refused(codes::ENDPOINT_UNREACHABLE, message)
}

fn shown(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}
