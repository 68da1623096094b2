//! What went wrong, as the person at the shell reads it: what, why, what to do, and a stable code.

use std::fmt;

use fabric_core::error_code::{self, ErrorCode};

/// Exit codes of `fabric`; scripts lean on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// It works, but something is unhealthy or degraded.
    Degraded = 3,
    /// The answer is "no": denied, differs, would break.
    No = 4,
    /// Timed out waiting.
    TimedOut = 5,
    /// Interrupted (Ctrl-C).
    Interrupted = 130,
}

/// A failure with all that a person needs to get on.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// `FAB-nnnn`, for `fabric explain`.
    pub code: Option<ErrorCode>,
    /// What went wrong, where, and why.
    pub message: String,
    /// What to do next.
    pub next: Option<String>,
}

impl Failure {
    /// A plain failure.
    pub fn new(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, code: None, message: message.into(), next: None }
    }

    /// A command line that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message) }
    }

    /// The same with another exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The same with a stable code.
    #[must_use]
    pub fn code(mut self, code: ErrorCode) -> Self {
        self.code = Some(code);
        self
    }

    /// The same with a next step.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(code) = self.code {
            write!(f, "{code} ")?;
        }
        f.write_str(&self.message)?;
        if let Some(next) = &self.next {
            write!(f, "\n  → {next}")?;
        }
        Ok(())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<tonic::Status>() {
            Ok(status) => status.into(),
            Err(error) if is_full(&error) => Self::new(format!("{error:#}")).code(error_code::NO_SPACE),
            Err(error) => split_code(format!("{error:#}")),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let failure = split_code(status.message().to_owned());
        match status.code() {
            tonic::Code::InvalidArgument => failure.exit(Exit::Usage),
            tonic::Code::FailedPrecondition | tonic::Code::AlreadyExists | tonic::Code::PermissionDenied => {
                failure.exit(Exit::No)
            }
            tonic::Code::DeadlineExceeded => failure.exit(Exit::TimedOut),
            tonic::Code::Unavailable => failure.next("fabric status"),
            _ => failure,
        }
    }
}

/// Whether the disk (or a quota) being full is behind it.
fn is_full(error: &anyhow::Error) -> bool {
    let full =
        |e: &std::io::Error| matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(full)
}

/// Servers put the stable code first, or in brackets; it is shown once, in front.
fn split_code(message: String) -> Failure {
    let Some(at) = message.find("FAB-") else { return Failure::new(message) };
    let text: String = message.chars().skip(message[..at].chars().count()).take(8).collect();
    let Ok(code) = text.parse::<ErrorCode>() else { return Failure::new(message) };
    let rest = message.replacen(&text, "", 1).replace("[]", "").replace("()", "");
    let failure = Failure::new(rest.trim_matches([' ', ':']).to_owned()).code(code);
    failure.next(format!("fabric explain {code}"))
}

/// What every command gives back.
pub type Outcome = Result<(), Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_moves_to_the_front() {
        let failure = split_code("cluster eu: FAB-2101 same id 7 on both sides".to_owned());
        assert_eq!(failure.code, Some(error_code::SAME_CLUSTER_ID));
        assert!(failure.to_string().starts_with("FAB-2101 cluster eu"), "{failure}");
    }

    #[test]
    fn refusal_of_a_server_is_the_answer_no() {
        let failure = Failure::from(tonic::Status::failed_precondition("FAB-2103 overlapping prefixes"));
        assert_eq!(failure.exit, Exit::No);
    }
}
