//! Which backends get traffic now. Source: `wire.md` section 6, "Affinity".

use std::fmt;
use std::str::FromStr;

/// Whose backends are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Affinity {
    /// Nobody's.
    #[default]
    None,
    /// Those of the own cluster, while one is healthy.
    Local,
    /// Those of other clusters, while one is healthy.
    Remote,
}

/// Whether a backend can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BackendState {
    /// It serves.
    #[default]
    Active,
    /// It is going away: open connections go on, new ones come only when nobody else can take them.
    Terminating,
    /// Its check does not pass, or its cluster is silent for too long.
    Unhealthy,
}

/// What the choice needs to know of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Of the own cluster.
    pub local: bool,
    /// Whether it can serve.
    pub state: BackendState,
}

/// Positions of the backends that get new connections, in order.
///
/// - `Local`: the own cluster's always; the others' too when no own one is active and some other is healthy.
/// - `Remote`: the other clusters'; the own ones too when no other is healthy.
/// - `None`: all.
///
/// A terminating backend counts as healthy for the side that would be failed over *to*, but does not hold back fail-over
/// from its own. Of the sides chosen, unhealthy backends are left out, and terminating ones unless nobody else is left.
pub fn active_backends(affinity: Affinity, candidates: &[Candidate]) -> Vec<usize> {
    let any = |local: bool, states: &[BackendState]| {
        candidates.iter().any(|one| one.local == local && states.contains(&one.state))
    };
    let healthy = [BackendState::Active, BackendState::Terminating];
    let (use_local, use_remote) = match affinity {
        Affinity::None => (true, true),
        Affinity::Local => (true, !any(true, &[BackendState::Active]) && any(false, &healthy)),
        Affinity::Remote => (!any(false, &healthy), true),
    };
    let chosen = |one: &Candidate| if one.local { use_local } else { use_remote };
    let in_state = |state| {
        let positions = candidates.iter().enumerate();
        let fitting = positions.filter(move |(_, one)| chosen(one) && one.state == state);
        fitting.map(|(position, _)| position).collect::<Vec<usize>>()
    };
    let active = in_state(BackendState::Active);
    if active.is_empty() { in_state(BackendState::Terminating) } else { active }
}

impl Affinity {
    /// As annotations, flags and rows spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no affinity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not local, remote or none")]
pub struct UnknownAffinity(pub String);

impl FromStr for Affinity {
    type Err = UnknownAffinity;

    /// In any case.
    fn from_str(text: &str) -> Result<Self, UnknownAffinity> {
        [Self::None, Self::Local, Self::Remote]
            .into_iter()
            .find(|affinity| affinity.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownAffinity(text.chars().take(32).collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `L` local, `R` remote; small letter = terminating; `x`, `y` = unhealthy local, remote.
    fn pick(affinity: Affinity, candidates: &str) -> String {
        let parsed: Vec<Candidate> = candidates
            .chars()
            .map(|c| match c {
                'L' => Candidate { local: true, state: BackendState::Active },
                'l' => Candidate { local: true, state: BackendState::Terminating },
                'x' => Candidate { local: true, state: BackendState::Unhealthy },
                'R' => Candidate { local: false, state: BackendState::Active },
                'r' => Candidate { local: false, state: BackendState::Terminating },
                'y' => Candidate { local: false, state: BackendState::Unhealthy },
                other => panic!("{other}"),
            })
            .collect();
        active_backends(affinity, &parsed).into_iter().filter_map(|at| candidates.chars().nth(at)).collect()
    }

    #[test]
    fn table() {
        use Affinity::{Local, None, Remote};
        let cases = [
            (None, "LRLR", "LRLR"),
            (None, "LxyR", "LR"),
            (None, "Llr", "L"),
            (None, "lr", "lr"),
            (None, "xy", ""),
            (Local, "LR", "L"),
            (Local, "LxR", "L"),
            (Local, "xR", "R"),
            // Terminating local ones do not hold back fail-over.
            (Local, "lR", "R"),
            (Local, "lr", "lr"),
            (Local, "ly", "l"),
            (Local, "R", "R"),
            (Remote, "LR", "R"),
            (Remote, "Ly", "L"),
            // A terminating remote one still counts as healthy for the side that is preferred.
            (Remote, "Lr", "r"),
            (Remote, "L", "L"),
            (Remote, "", ""),
        ];
        for (affinity, candidates, expected) in cases {
            assert_eq!(pick(affinity, candidates), expected, "{affinity} of {candidates}");
        }
    }

    proptest! {
        #[test]
        fn a_service_with_an_active_backend_is_never_without(
            states in proptest::collection::vec((any::<bool>(), 0_u8..3), 0..8), affinity in 0_u8..3,
        ) {
            let affinity = [Affinity::None, Affinity::Local, Affinity::Remote][usize::from(affinity)];
            let kinds = [BackendState::Active, BackendState::Terminating, BackendState::Unhealthy];
            let candidates: Vec<Candidate> = states
                .iter()
                .map(|&(local, state)| Candidate { local, state: kinds[usize::from(state)] })
                .collect();
            let picked = active_backends(affinity, &candidates);
            let able = candidates.iter().any(|one| one.state != BackendState::Unhealthy);
            prop_assert_eq!(picked.is_empty(), !able);
            prop_assert!(picked.iter().all(|&at| candidates[at].state != BackendState::Unhealthy));
        }
    }
}
