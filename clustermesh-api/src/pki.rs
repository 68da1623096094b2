//! A cluster's own certificate authority: makes it once, issues leafs for roles, reads roles back out of certificates.
//!
//! Each cluster has one authority (ECDSA P-256). There is no authority above it: whoever trusts a cluster pins the hash
//! of this authority's public key ([`Pin`]). A leaf says who its holder is by one URI name, `spiffe://<cluster>/<role>`
//! ([`PeerName`]); nobody checks host names, because addresses move.
//!
//! What is not here: who may be given which name (enrolment), and TLS itself ([`crate::tls`]).
//!
//! Where to begin reading: [`Authority::open_or_create`], [`Authority::issue`].

mod authority;
mod name;
mod pin;
mod secret_file;

pub use authority::{Authority, AuthorityError, IssueError, KeyMaterial, Leaf, LeafError, LeafRequest, Validity};
pub use name::{NameError, PeerName, Role};
pub use pin::{Pin, PinError};
pub use secret_file::{read_secret, write_secret};
