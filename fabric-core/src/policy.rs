//! Policy: who may talk to whom, by identity.
//!
//! [`model`] is the one form that all three kinds of policy are brought to ([`mod@resolve`] does it), [`compile`] turns the
//! policies that select an endpoint's identity into policy map entries, [`cidr`] gives prefixes outside the mesh the
//! node-local identities that those entries name. [`mod@reference`] says the same slowly and obviously; tests hold the two
//! together.
//!
//! Rules that hold throughout:
//! - A selector that names no cluster means the policy's own cluster, one that names no namespace the policy's own.
//! - Selectors by label match identities of endpoints alone, never reserved or CIDR identities (those have rules of
//!   their own), so that no condition of the form "label is not there" can match the world.
//! - CIDR rules match only addresses outside the mesh.
//! - Deny wins over allow, however specific either is. The own node ([`crate::ids::Identity::HOST`]) always reaches its
//!   endpoints.

pub mod cidr;
pub mod compile;
pub mod model;
mod ports;
pub mod reference;
pub mod resolve;
mod set;

pub use cidr::{CidrChanges, CidrTable};
pub use compile::{
    ANY_PEER, Action, Compiler, Decision, EntryChanges, EntryKey, EntryValue, MapEntry, Origin, SubjectPolicy,
};
pub use model::{CidrBlock, Direction, DirectionRules, Entity, Peer, PeerRule, Peers, Policy, Rule, RuleRef, Section};
pub use ports::{PortBlock, PortMatch, Protocol};
pub use resolve::resolve;
pub use set::{IdentityTable, PolicySet};
