//! How a call fails: a gRPC status whose message begins with a code of the catalogue and says what, where and why.

use std::fmt;

use fabric_core::error_code::{self as codes, ErrorCode};
use tonic::{Code, Status};

use crate::store::StoreError;

/// A refused or failed call.
#[derive(Debug, Clone)]
pub struct Failure {
    code: ErrorCode,
    grpc: Code,
    message: String,
}

impl Failure {
    /// A failure of this kind. `message`: what, where, why; lower case, no full stop.
    pub fn new(code: ErrorCode, grpc: Code, message: impl fmt::Display) -> Self {
        Self { code, grpc, message: message.to_string() }
    }

    /// Something in the request is not in its allowed form.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self::new(codes::INVALID_ARGUMENT, Code::InvalidArgument, message)
    }

    /// As things stand, the answer is no.
    pub fn refused(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self::new(code, Code::FailedPrecondition, message)
    }

    /// The caller may not.
    pub fn forbidden(message: impl fmt::Display) -> Self {
        Self::new(codes::FORBIDDEN, Code::PermissionDenied, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl fmt::Display) -> Self {
        Self::new(codes::NOT_FOUND, Code::NotFound, message)
    }

    /// A record of ours does not parse.
    pub fn garbage(key: &str, error: impl fmt::Display) -> Self {
        Self::new(codes::GARBAGE_IN_STORE, Code::DataLoss, format_args!("key {key}: {error}"))
    }

    /// Something that should not happen; the code is the nearest.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(codes::STORE_UNAVAILABLE, Code::Internal, message)
    }

    /// What another cluster's API said; its code stays in front.
    pub fn from_remote(cluster: &str, status: &Status) -> Self {
        let text = status.message();
        let (code, rest) = match text.split_once(' ').and_then(|(code, rest)| Some((code.parse().ok()?, rest))) {
            Some(parsed) => parsed,
            None => (codes::API_UNREACHABLE, text),
        };
        let rest: String = rest.chars().take(1000).collect();
        Self::new(code, status.code(), format_args!("cluster {cluster} answers: {rest}"))
    }

    /// Its code in the catalogue.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What, where, why.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        Status::new(failure.grpc, failure.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::NoSpace { .. } => Self::new(codes::STORE_FULL, Code::ResourceExhausted, &error),
            StoreError::Deadline(_) | StoreError::Unavailable { .. } => {
                Self::new(codes::STORE_UNAVAILABLE, Code::Unavailable, &error)
            }
            _ => Self::new(codes::STORE_UNAVAILABLE, Code::Internal, &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_comes_first() {
        let status = Status::from(Failure::refused(codes::NAME_TAKEN, "node eu/n1 is taken"));
        assert_eq!(status.message(), "FAB-3104 node eu/n1 is taken");
        assert_eq!(status.code(), Code::FailedPrecondition);
    }
}
