//! Decisions without I/O: packets, events and instants in; packets and outcomes out.

pub(crate) mod model;
pub(crate) mod packet;
pub(crate) mod routes;
pub(crate) mod tunnel;
