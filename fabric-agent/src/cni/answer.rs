//! JSON that the plugin writes: results in each version's form, the version list, error objects.

use std::fmt::Display;

use clustermesh_api_proto::fabric::v1::Workload;
use serde_json::{Map, Value, json};

use super::request::CniVersion;

/// Error codes. Source: CNI specification 1.0.0, section "Error"; 100 and above are a plugin's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Decode = 6,
    InvalidConfig = 7,
    TryAgainLater = 11,
    /// The agent refused or failed.
    Agent = 100,
    /// CHECK found something else than ADD had made.
    Differs = 101,
}

/// A failure, as the runtime gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CniError {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) details: String,
}

impl CniError {
    pub(super) fn new(code: Code, message: impl Display) -> Self {
        Self { code, message: message.to_string(), details: String::new() }
    }

    pub(super) fn io(message: &str, error: &std::io::Error) -> Self {
        Self { code: Code::Io, message: message.to_owned(), details: error.to_string() }
    }

    pub(super) fn with_details(mut self, details: impl Display) -> Self {
        self.details = details.to_string();
        self
    }

    pub(super) fn to_json(&self, version: CniVersion) -> Value {
        let mut object = json!({"cniVersion": version.as_str(), "code": self.code as u32, "msg": self.message});
        if let (Some(object), false) = (object.as_object_mut(), self.details.is_empty()) {
            object.insert("details".to_owned(), json!(self.details));
        }
        object
    }
}

pub(super) fn versions(asked: CniVersion) -> Value {
    let supported: Vec<&str> = CniVersion::ALL.iter().map(|version| version.as_str()).collect();
    json!({"cniVersion": asked.as_str(), "supportedVersions": supported})
}

/// The result of ADD.
pub(super) fn added(version: CniVersion, workload: &Workload) -> Value {
    let addresses = workload.addresses.iter().map(|address| {
        let ipv6 = address.contains(':');
        let gateway = workload.gateways.iter().find(|gateway| gateway.contains(':') == ipv6);
        let mut ip = Map::new();
        if version.names_address_family() {
            ip.insert("version".to_owned(), json!(if ipv6 { "6" } else { "4" }));
        }
        ip.insert("interface".to_owned(), json!(1));
        ip.insert("address".to_owned(), json!(format!("{}/{}", address, if ipv6 { 128 } else { 32 })));
        ip.extend(gateway.map(|gateway| ("gateway".to_owned(), json!(gateway))));
        Value::Object(ip)
    });
    let routes = workload.gateways.iter().map(|gateway| {
        let destination = if gateway.contains(':') { "::/0" } else { "0.0.0.0/0" };
        json!({"dst": destination, "gw": gateway})
    });
    json!({
        "cniVersion": version.as_str(),
        "interfaces": [
            {"name": workload.host_interface},
            {"name": workload.interface, "mac": workload.mac, "sandbox": workload.netns},
        ],
        "ips": addresses.collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
        "dns": {},
    })
}

/// Compares what ADD had answered with what the agent has now.
pub(super) fn check(previous: &Value, workload: &Workload) -> Result<(), CniError> {
    let differs = |what: String| Err(CniError::new(Code::Differs, what));
    if !workload.problem.is_empty() {
        return differs(format!("the workload is not ready: {}", workload.problem));
    }
    let interfaces = previous.get("interfaces").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let inside =
        interfaces.iter().find(|one| one.get("sandbox").and_then(Value::as_str).is_some_and(|s| !s.is_empty()));
    let Some(inside) = inside else {
        return differs("prevResult names no interface with a sandbox".to_owned());
    };
    for (field, now) in [("name", &workload.interface), ("mac", &workload.mac), ("sandbox", &workload.netns)] {
        let before = inside.get(field).and_then(Value::as_str).unwrap_or_default();
        if before != now {
            return differs(format!("interface {field} was {before:?} and is {now:?}"));
        }
    }
    let mut before: Vec<&str> = previous
        .get("ips")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter_map(|ip| ip.get("address").and_then(Value::as_str))
        .filter_map(|address| address.split('/').next())
        .collect();
    let mut now: Vec<&str> = workload.addresses.iter().map(String::as_str).collect();
    before.sort_unstable();
    now.sort_unstable();
    if before != now {
        return differs(format!("addresses were {before:?} and are {now:?}"));
    }
    Ok(())
}
