//! Labels: what an endpoint is called by, and what policy selects on.
//!
//! [`Label`] and [`LabelSet`] are here in Cilium's form, [`well_known`] has the keys with a meaning, [`user`] checks what
//! a user may set, [`LabelSelector`] matches sets, [`LabelInterner`] shares equal sets.

mod interner;
mod label;
mod selector;
mod set;
mod text_selector;
pub mod user;
pub mod well_known;

pub use interner::LabelInterner;
pub use label::{InvalidLabel, Label, MAX_LABEL_BYTES};
pub use selector::{
    InvalidSelector, KeySyntax, LabelKey, LabelSelector, MatchExpression, MatchOperator, RawLabelSelector, Requirement,
};
pub use set::{InvalidLabelSet, LabelSet, MAX_LABELS, MAX_SET_BYTES};
