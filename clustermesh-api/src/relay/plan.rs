//! What a request for flows asks for, within bounds.

use clustermesh_api_proto::observer::GetFlowsRequest;
use tonic::Status;

use super::merge::Keep;

/// Most flows asked of one node, and most that one answer without `follow` holds.
pub(super) const MOST_FLOWS: u64 = 100_000;

/// A request, checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// What each node is asked.
    pub(super) request: GetFlowsRequest,
    /// Which of all nodes' flows are answered.
    pub(super) keep: Keep,
}

impl Plan {
    /// Reads a request. One for more flows than there may be gets as many as there may be.
    ///
    /// # Errors
    /// When it contradicts itself.
    pub(super) fn new(mut request: GetFlowsRequest) -> Result<Self, Status> {
        if request.first && request.follow {
            return Err(Status::invalid_argument("first and follow exclude each other"));
        }
        request.number = request.number.min(MOST_FLOWS);
        let most = if request.number == 0 { MOST_FLOWS } else { request.number };
        // It fits: there are at most MOST_FLOWS.
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let keep = if request.first { Keep::First(most) } else { Keep::Newest(most) };
        Ok(Self { request, keep })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(number: u64, first: bool) -> Plan {
        Plan::new(GetFlowsRequest { number, first, ..GetFlowsRequest::default() }).unwrap()
    }

    #[test]
    fn requests_are_bounded() {
        assert_eq!(plan(20, false).keep, Keep::Newest(20));
        assert_eq!(plan(20, true).keep, Keep::First(20));
        assert_eq!(plan(u64::MAX, false).request.number, MOST_FLOWS);
        assert_eq!((plan(0, false).request.number, plan(0, false).keep), (0, Keep::Newest(100_000)));
    }

    #[test]
    fn contradictions_are_refused() {
        let both = GetFlowsRequest { first: true, follow: true, ..GetFlowsRequest::default() };
        assert_eq!(Plan::new(both).unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
