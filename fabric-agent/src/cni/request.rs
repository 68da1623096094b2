//! What the runtime asks for: environment variables and the network configuration, checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::answer::{CniError, Code};

/// The socket that is asked where the configuration names none.
const DEFAULT_SOCKET: &str = "/run/fabric/agent.sock";

/// Versions of the specification that the plugin speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CniVersion {
    V030,
    V031,
    V040,
    V100,
}

impl CniVersion {
    pub(super) const ALL: [Self; 4] = [Self::V030, Self::V031, Self::V040, Self::V100];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::V030 => "0.3.0",
            Self::V031 => "0.3.1",
            Self::V040 => "0.4.0",
            Self::V100 => "1.0.0",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// Results carry `"version": "4"` beside each address before 1.0.0.
    pub(super) fn names_address_family(self) -> bool {
        self < Self::V100
    }

    /// CHECK exists from 0.4.0 on.
    fn has_check(self) -> bool {
        self >= Self::V040
    }
}

/// The variables that the runtime sets.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<&'static str, String>);

const VARIABLES: [&str; 5] = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];

impl Environment {
    /// Reads the process's own.
    pub fn of_process() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Takes them from elsewhere.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        Self(VARIABLES.into_iter().filter_map(|name| Some((name, lookup(name)?))).collect())
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn require(&self, name: &str) -> Result<&str, CniError> {
        match self.get(name) {
            "" => Err(CniError::new(Code::InvalidEnvironment, format!("{name} is not set"))),
            value => Ok(value),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    Add(Attachment),
    Delete,
    Check { netns: PathBuf, previous: Value },
    Version,
}

/// The workload that ADD describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) netns: PathBuf,
    pub(super) interface: String,
    pub(super) kubernetes_namespace: String,
    pub(super) name: String,
    pub(super) labels: Vec<String>,
}

/// A request, complete and checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) version: CniVersion,
    pub(super) command: Command,
    /// The workload's id at the agent; empty for VERSION.
    pub(super) id: String,
    pub(super) socket: PathBuf,
}

/// The version in which an error is written, for input that may be anything.
pub(super) fn version_of(input: &[u8]) -> CniVersion {
    let config: Value = serde_json::from_slice(input).unwrap_or_default();
    config.get("cniVersion").and_then(Value::as_str).and_then(CniVersion::parse).unwrap_or(CniVersion::V100)
}

impl Request {
    pub(super) fn parse(environment: &Environment, input: &[u8]) -> Result<Self, CniError> {
        let command = environment.require("CNI_COMMAND")?;
        let config = parse_config(input)?;
        let version = parse_version(&config, command)?;
        let socket = match config.get("agentSocket") {
            None => PathBuf::from(DEFAULT_SOCKET),
            Some(Value::String(path)) if path.starts_with('/') => PathBuf::from(path),
            Some(other) => return Err(invalid("agentSocket", other, "an absolute path")),
        };
        if command == "VERSION" {
            return Ok(Self { version, command: Command::Version, id: String::new(), socket });
        }
        check_config(&config)?;
        let container = container_id(environment)?;
        let interface = interface_name(environment)?;
        let id = format!("{container}:{interface}");
        let command = match command {
            "ADD" => Command::Add(attachment(environment, &config, container, interface)?),
            "DEL" => Command::Delete,
            "CHECK" if version.has_check() => {
                let netns = PathBuf::from(environment.require("CNI_NETNS")?);
                let Some(previous) = config.get("prevResult") else {
                    return Err(CniError::new(Code::InvalidConfig, "CHECK needs prevResult"));
                };
                Command::Check { netns, previous: previous.clone() }
            }
            "CHECK" => return Err(CniError::new(Code::IncompatibleVersion, "CHECK exists from version 0.4.0 on")),
            other => {
                let text = format!("CNI_COMMAND {other:?} is none of ADD, DEL, CHECK, VERSION");
                return Err(CniError::new(Code::InvalidEnvironment, text));
            }
        };
        Ok(Self { version, command, id, socket })
    }
}

fn parse_config(input: &[u8]) -> Result<Map<String, Value>, CniError> {
    match serde_json::from_slice(input) {
        Ok(Value::Object(config)) => Ok(config),
        Ok(_) => Err(CniError::new(Code::Decode, "the network configuration is not a JSON object")),
        Err(error) => Err(CniError::new(Code::Decode, "the network configuration is not JSON").with_details(error)),
    }
}

fn parse_version(config: &Map<String, Value>, command: &str) -> Result<CniVersion, CniError> {
    match config.get("cniVersion") {
        // VERSION must answer whatever the caller speaks.
        other if command == "VERSION" => {
            Ok(other.and_then(Value::as_str).and_then(CniVersion::parse).unwrap_or(CniVersion::V100))
        }
        Some(Value::String(text)) => CniVersion::parse(text).ok_or_else(|| {
            let known = CniVersion::ALL.map(CniVersion::as_str).join(", ");
            let text = format!("cniVersion {text:?} is not supported");
            CniError::new(Code::IncompatibleVersion, text).with_details(format!("supported: {known}"))
        }),
        Some(other) => Err(invalid("cniVersion", other, "text")),
        None => Err(CniError::new(Code::InvalidConfig, "cniVersion is missing")),
    }
}

fn check_config(config: &Map<String, Value>) -> Result<(), CniError> {
    match config.get("name") {
        Some(Value::String(name)) if !name.is_empty() => {}
        Some(other) => return Err(invalid("name", other, "the network's name")),
        None => return Err(CniError::new(Code::InvalidConfig, "name is missing")),
    }
    match config.get("ipam") {
        Some(ipam) if ipam.as_object().is_none_or(|object| !object.is_empty()) => {
            let text = format!("ipam {ipam} is not supported: the agent allots addresses");
            Err(CniError::new(Code::UnsupportedField, text))
        }
        _ => Ok(()),
    }
}

fn invalid(field: &str, value: &Value, expected: &str) -> CniError {
    CniError::new(Code::InvalidConfig, format!("{field} {value} is not {expected}"))
}

fn container_id(environment: &Environment) -> Result<&str, CniError> {
    let id = environment.require("CNI_CONTAINERID")?;
    let starts_well = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if starts_well && id.len() <= 253 && id.bytes().all(allowed) {
        return Ok(id);
    }
    Err(CniError::new(Code::InvalidEnvironment, format!("CNI_CONTAINERID {id:?} is not a container's id")))
}

fn interface_name(environment: &Environment) -> Result<&str, CniError> {
    let name = environment.require("CNI_IFNAME")?;
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    if name.len() <= 15 && name != "." && name != ".." && name.bytes().all(allowed) {
        return Ok(name);
    }
    Err(CniError::new(Code::InvalidEnvironment, format!("CNI_IFNAME {name:?} is not a device's name")))
}

fn attachment(
    environment: &Environment,
    config: &Map<String, Value>,
    container: &str,
    interface: &str,
) -> Result<Attachment, CniError> {
    let netns = PathBuf::from(environment.require("CNI_NETNS")?);
    if config.get("prevResult").is_some_and(|previous| !previous.is_null()) {
        return Err(CniError::new(Code::InvalidConfig, "fabric-cni must be the first plugin of its list"));
    }
    let arguments = arguments(environment.get("CNI_ARGS"))?;
    let argument = |name: &str| arguments.get(name).filter(|value| !value.is_empty()).cloned();
    Ok(Attachment {
        netns,
        interface: interface.to_owned(),
        kubernetes_namespace: argument("K8S_POD_NAMESPACE").unwrap_or_else(|| "default".to_owned()),
        name: argument("K8S_POD_NAME").unwrap_or_else(|| container.to_ascii_lowercase()),
        labels: labels(config)?,
    })
}

fn arguments(text: &str) -> Result<BTreeMap<String, String>, CniError> {
    let pairs = text.split(';').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => {
                Err(CniError::new(Code::InvalidEnvironment, format!("CNI_ARGS holds {pair:?}, which is not KEY=VALUE")))
            }
        })
        .collect()
}

/// Labels from `args.cni.labels` and `runtimeConfig.labels`; of a key in both, the latter counts.
///
/// Two forms: the one of CNI's conventions, a list of `{"key": …, "value": …}`, and an object.
fn labels(config: &Map<String, Value>) -> Result<Vec<String>, CniError> {
    let mut found = BTreeMap::new();
    let by_args = config.get("args").and_then(|args| args.get("cni")).and_then(|cni| cni.get("labels"));
    let by_runtime = config.get("runtimeConfig").and_then(|runtime| runtime.get("labels"));
    for (place, value) in [("args.cni.labels", by_args), ("runtimeConfig.labels", by_runtime)] {
        match value {
            None | Some(Value::Null) => {}
            Some(Value::Array(list)) => {
                for one in list {
                    let text = |field: &str| one.get(field).and_then(Value::as_str).map(str::to_owned);
                    let (Some(key), Some(value)) = (text("key"), text("value")) else {
                        return Err(invalid(place, one, "a key and a value"));
                    };
                    found.insert(key, value);
                }
            }
            Some(Value::Object(object)) => {
                for (key, value) in object {
                    let Value::String(text) = value else { return Err(invalid(place, value, "text")) };
                    found.insert(key.clone(), text.clone());
                }
            }
            Some(other) => return Err(invalid(place, other, "a list or an object")),
        }
    }
    Ok(found.into_iter().map(|(key, value)| format!("{key}={value}")).collect())
}
