//! Renews the node's certificate, two thirds into its life.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use clustermesh_api_proto::fabric::v1::RenewCertificateRequest;
use fabric_core::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use crate::api_client::{ApiClient, Credentials};
use crate::health::Health;

const ANSWER: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LAST: Duration = Duration::from_mins(5);
/// A clock may jump: what is left is looked at this often.
const LOOK: Duration = Duration::from_mins(10);

/// Runs until cancelled. Whoever presents the certificate reads it from `credentials` each time.
pub(crate) async fn run(
    client: ApiClient,
    credentials: Arc<ArcSwap<Credentials>>,
    health: Health,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LAST);
    loop {
        let current = credentials.load_full();
        let left = current.renew_at().duration_since(SystemTime::now()).unwrap_or_default();
        let mut wait = left.min(LOOK);
        if left.is_zero() {
            match renew(&client, &current).await {
                Ok(renewed) => {
                    credentials.store(Arc::new(renewed));
                    backoff.reset();
                    health.clear("certificate");
                    tracing::info!("the node's certificate was renewed");
                }
                Err(error) => {
                    health.set_text("certificate", format!("not renewed: {error:#}"));
                    wait = backoff.next(rand::random());
                }
            }
        }
        if cancel.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return Ok(());
        }
    }
}

async fn renew(client: &ApiClient, credentials: &Credentials) -> anyhow::Result<Credentials> {
    let request = RenewCertificateRequest { csr: credentials.signing_request()? };
    let mut api = client.agent_api();
    let answer = tokio::time::timeout(ANSWER, api.renew_certificate(request)).await.context("no answer")??;
    let renewed = credentials.accept_renewal(&answer.into_inner().certificate_pem)?;
    client.renew(&renewed)?;
    Ok(renewed)
}
