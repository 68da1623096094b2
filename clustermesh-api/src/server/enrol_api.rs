//! The two calls that work without a certificate, each against a single-use secret.

use std::time::SystemTime;

use clustermesh_api_proto::fabric::v1 as proto;
use clustermesh_api_proto::fabric::v1::enrol_server::Enrol;
use tonic::{Request, Response, Status};

use crate::api::SharedApi;
use crate::convert;
use crate::enrol::{invite, token};

/// The service.
#[derive(Debug)]
pub struct EnrolService {
    api: SharedApi,
}

impl EnrolService {
    /// A service of this API.
    pub fn new(api: SharedApi) -> Self {
        Self { api }
    }
}

#[tonic::async_trait]
impl Enrol for EnrolService {
    async fn join(&self, request: Request<proto::JoinRequest>) -> Result<Response<proto::JoinResponse>, Status> {
        let joined = token::join(&self.api, request.get_ref(), SystemTime::now()).await?;
        let cluster = proto::Cluster { local: true, ..convert::cluster_to_proto(&self.api.cluster) };
        Ok(Response::new(proto::JoinResponse {
            certificate_pem: joined.leaf.chain_pem,
            authority_pem: self.api.authority.certificate_pem().to_owned(),
            cluster: Some(cluster),
            kind: convert::kind_to_proto(joined.kind).into(),
            name: joined.name.to_string(),
            api_endpoints: self.api.api_endpoints(),
        }))
    }

    async fn redeem(&self, request: Request<proto::RedeemRequest>) -> Result<Response<proto::RedeemResponse>, Status> {
        Ok(Response::new(invite::redeem(&self.api, request.get_ref(), SystemTime::now()).await?))
    }
}
