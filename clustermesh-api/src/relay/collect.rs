//! Flows up to now, of all nodes at once.
//!
//! Nodes are read side by side, each within a deadline; one that fails costs only its own flows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clustermesh_api_proto::observer::{GetFlowsRequest, GetFlowsResponse};
use futures::StreamExt as _;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::directory::Nodes;
use super::merge::Selection;
use super::node::{Node, NodeError};
use super::plan::Plan;

/// Nodes asked at once.
pub(super) const ASKED_AT_ONCE: usize = 512;
/// A node that has not told all by then has told what it has.
const DEADLINE: Duration = Duration::from_secs(10);

/// Which nodes failed, then what was lost, then the flows by time.
///
/// # Errors
/// When every node refuses the request; the first one's reason.
pub(super) async fn collect(nodes: &Nodes, plan: Plan) -> Result<Vec<GetFlowsResponse>, Status> {
    let selection = Arc::new(Mutex::new(Selection::new(plan.keep)));
    let deadline = Instant::now() + DEADLINE;
    let reads: Vec<_> = nodes
        .values()
        .map(|node| read(Arc::clone(node), plan.request.clone(), Arc::clone(&selection), deadline))
        .collect();
    let count = reads.len();
    let failures = futures::stream::iter(reads).buffered(ASKED_AT_ONCE).filter_map(std::future::ready);
    let failures: Vec<(Arc<Node>, NodeError)> = failures.collect().await;
    let refused = |(_, error): &(_, NodeError)| matches!(error, NodeError::Refused(_));
    if failures.len() == count
        && failures.iter().all(refused)
        && let Some((_, NodeError::Refused(status))) = failures.first()
    {
        return Err(Status::new(status.code(), status.message()));
    }
    let selection =
        std::mem::replace(&mut *selection.lock().unwrap_or_else(PoisonError::into_inner), Selection::new(plan.keep));
    let told = failures.into_iter().map(|(node, error)| node.told(error.state(), error.to_string()));
    Ok(told.chain(selection.into_answers()).collect())
}

async fn read(
    node: Arc<Node>,
    request: GetFlowsRequest,
    selection: Arc<Mutex<Selection>>,
    deadline: Instant,
) -> Option<(Arc<Node>, NodeError)> {
    let all = async {
        let mut flows = node.flows(request).await?;
        while let Some(answer) = flows.next().await? {
            selection.lock().unwrap_or_else(PoisonError::into_inner).add(answer);
        }
        Ok(())
    };
    let read = timeout_at(deadline, all).await;
    let late = |_| Err(NodeError::Unavailable(format!("did not tell all its flows within {} s", DEADLINE.as_secs())));
    let error = read.unwrap_or_else(late).err()?;
    Some((node, error))
}
