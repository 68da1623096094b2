//! The server as a whole: real etcd, real TLS, on loopback.

mod cluster;
mod enrolment;
mod flows;
mod hostile;
mod links;
mod members;
mod restart;
mod services;
