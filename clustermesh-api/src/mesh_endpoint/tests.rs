//! The mesh endpoint as its clients meet it: over TLS, beside a real etcd that holds the same.

mod etcdctl;
mod links;
mod ranges;
mod watches;
mod world;
