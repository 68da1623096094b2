//! Turn inputs into rows: the API's stream, the local socket, what the kernel has. Each writes its own tables.

pub(crate) mod api_stream;
pub(crate) mod certificate;
pub(crate) mod endpoints;
pub(crate) mod local_api;
pub(crate) mod node;
pub(crate) mod report;
pub(crate) mod state;
