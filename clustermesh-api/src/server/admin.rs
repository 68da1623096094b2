//! What people with the cluster's administration call.

use std::time::SystemTime;

use clustermesh_api_proto::fabric::v1 as proto;
use clustermesh_api_proto::fabric::v1::admin_server::Admin;
use proto::change::Row;
use tonic::{Request, Response, Status};

use super::access::{admin, admin_for};
use crate::api::SharedApi;
use crate::enrol::{invite, token};
use crate::links::{self, DryRun};
use crate::members::revoke;
use crate::sync_server::table::RowKey;
use crate::{convert, objects, status};

/// The service.
#[derive(Debug)]
pub struct AdminService {
    api: SharedApi,
}

impl AdminService {
    /// A service of this API.
    pub fn new(api: SharedApi) -> Self {
        Self { api }
    }

    /// Rows of one kind, of one cluster or all.
    fn rows<T>(&self, cluster: &str, pick: impl Fn(&Row) -> Option<(String, T)>) -> Vec<T> {
        self.api.rows.select(|_, row| {
            let (owner, row) = pick(row)?;
            (cluster.is_empty() || cluster == owner).then_some(row)
        })
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Admin for AdminService {
    async fn get_offer(&self, request: Request<proto::GetOfferRequest>) -> Answer<proto::LinkOffer> {
        admin(&self.api, &request)?;
        Ok(Response::new(self.api.offer()))
    }

    async fn get_status(&self, request: Request<proto::GetStatusRequest>) -> Answer<proto::ClusterStatus> {
        admin(&self.api, &request)?;
        Ok(Response::new(status::cluster(&self.api, SystemTime::now())))
    }

    async fn list_nodes(&self, request: Request<proto::ListRequest>) -> Answer<proto::NodeList> {
        admin(&self.api, &request)?;
        let nodes = self.rows(&request.get_ref().cluster, |row| match row {
            Row::Node(node) => Some((node.cluster.clone(), status::with_last_seen(&self.api, node.clone()))),
            _ => None,
        });
        Ok(Response::new(proto::NodeList { nodes }))
    }

    async fn list_identities(&self, request: Request<proto::ListRequest>) -> Answer<proto::IdentityList> {
        admin(&self.api, &request)?;
        let identities = self.rows(&request.get_ref().cluster, |row| match row {
            Row::Identity(identity) => Some((identity.cluster.clone(), identity.clone())),
            _ => None,
        });
        Ok(Response::new(proto::IdentityList { identities }))
    }

    async fn list_endpoints(&self, request: Request<proto::ListRequest>) -> Answer<proto::EndpointList> {
        admin(&self.api, &request)?;
        let endpoints = self.rows(&request.get_ref().cluster, |row| match row {
            Row::Ip(entry) => Some((entry.cluster.clone(), entry.clone())),
            _ => None,
        });
        Ok(Response::new(proto::EndpointList { endpoints }))
    }

    async fn list_services(&self, request: Request<proto::ListRequest>) -> Answer<proto::ServiceList> {
        admin(&self.api, &request)?;
        let own = self.api.cluster.name.to_string();
        let services = self.rows(&request.get_ref().cluster, |row| match row {
            Row::Service(service) => Some((own.clone(), service.clone())),
            _ => None,
        });
        Ok(Response::new(proto::ServiceList { services }))
    }

    async fn list_links(&self, request: Request<proto::ListRequest>) -> Answer<proto::LinkList> {
        admin(&self.api, &request)?;
        let wanted = &request.get_ref().cluster;
        let named = |link: &proto::Link| {
            let name = link.peer.as_ref().and_then(|peer| Some(&peer.cluster.as_ref()?.name));
            wanted.is_empty() || name == Some(wanted)
        };
        Ok(Response::new(proto::LinkList { links: links::list(&self.api).into_iter().filter(named).collect() }))
    }

    async fn put_link(&self, request: Request<proto::PutLinkRequest>) -> Answer<proto::Link> {
        admin_for(&self.api, &request, "PutLink")?;
        let request = request.get_ref();
        let offer = convert::offer_from_proto(request.peer.as_ref())?;
        Ok(Response::new(links::put(&self.api, &offer, DryRun::from(request.dry_run)).await?))
    }

    async fn delete_link(&self, request: Request<proto::DeleteLinkRequest>) -> Answer<proto::DeleteLinkResponse> {
        admin_for(&self.api, &request, "DeleteLink")?;
        let request = request.get_ref();
        links::delete(&self.api, &convert::cluster_name(&request.cluster)?, request.release).await?;
        Ok(Response::new(proto::DeleteLinkResponse {}))
    }

    async fn create_invite(&self, request: Request<proto::CreateInviteRequest>) -> Answer<proto::CreateInviteResponse> {
        admin_for(&self.api, &request, "CreateInvite")?;
        Ok(Response::new(invite::create(&self.api, request.get_ref()).await?))
    }

    async fn accept_invite(&self, request: Request<proto::AcceptInviteRequest>) -> Answer<proto::Link> {
        admin_for(&self.api, &request, "AcceptInvite")?;
        Ok(Response::new(invite::accept(&self.api, request.get_ref(), SystemTime::now()).await?))
    }

    async fn create_token(&self, request: Request<proto::CreateTokenRequest>) -> Answer<proto::CreateTokenResponse> {
        admin_for(&self.api, &request, "CreateToken")?;
        Ok(Response::new(token::create(&self.api, request.get_ref()).await?))
    }

    async fn list_tokens(&self, request: Request<proto::ListRequest>) -> Answer<proto::TokenList> {
        admin(&self.api, &request)?;
        Ok(Response::new(proto::TokenList { tokens: token::list(&self.api) }))
    }

    async fn revoke_token(&self, request: Request<proto::RevokeTokenRequest>) -> Answer<proto::RevokeTokenResponse> {
        admin_for(&self.api, &request, "RevokeToken")?;
        token::revoke(&self.api, &request.get_ref().id).await?;
        Ok(Response::new(proto::RevokeTokenResponse {}))
    }

    async fn revoke_node(&self, request: Request<proto::RevokeNodeRequest>) -> Answer<proto::RevokeNodeResponse> {
        admin_for(&self.api, &request, "RevokeNode")?;
        revoke::revoke(&self.api, &convert::node_name(&request.get_ref().name)?).await?;
        Ok(Response::new(proto::RevokeNodeResponse {}))
    }

    async fn apply(&self, request: Request<proto::ApplyRequest>) -> Answer<proto::ApplyResponse> {
        admin_for(&self.api, &request, "Apply")?;
        Ok(Response::new(objects::apply(&self.api, request.get_ref()).await?))
    }

    async fn delete_object(&self, request: Request<proto::DeleteObjectRequest>) -> Answer<proto::DeleteObjectResponse> {
        admin_for(&self.api, &request, "DeleteObject")?;
        objects::delete(&self.api, request.get_ref()).await?;
        Ok(Response::new(proto::DeleteObjectResponse {}))
    }

    async fn list_objects(&self, request: Request<proto::ListObjectsRequest>) -> Answer<proto::ObjectList> {
        admin(&self.api, &request)?;
        Ok(Response::new(objects::list(&self.api, request.get_ref())?))
    }

    async fn share_service(&self, request: Request<proto::ShareServiceRequest>) -> Answer<proto::ShareServiceResponse> {
        admin_for(&self.api, &request, "ShareService")?;
        let request = request.get_ref();
        let Some((namespace, name)) = objects::share(&self.api, request).await? else {
            return Ok(Response::new(proto::ShareServiceResponse { service: None }));
        };
        let key = RowKey::Service(namespace.to_string(), name.to_string());
        let service = self.api.rows.select(|row_key, row| match row {
            Row::Service(service) if *row_key == key => Some(service.clone()),
            _ => None,
        });
        // The row follows a moment after the object; what was asked for is true already.
        let service = service.into_iter().next().map(|mut service| {
            if !request.dry_run {
                (service.global, service.shared) = (request.shared, request.shared);
                if !request.affinity.is_empty() {
                    service.affinity.clone_from(&request.affinity);
                }
            }
            service
        });
        Ok(Response::new(proto::ShareServiceResponse { service }))
    }
}
