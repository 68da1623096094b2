//! `fabric up`: a cluster is born on this machine: its authority, its server, its first node.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use clustermesh_api::pki::{Authority, KeyMaterial, Leaf, LeafRequest, Role, Validity};
use fabric_core::cluster::{ClusterSpec, Encryption, Routing};
use fabric_core::config::{ApiConfig, EtcdConfig, MemberKind, NodeConfig, WireguardConfig, WireguardMode};
use fabric_core::error_code;
use fabric_core::ids::ClusterId;
use fabric_core::names::{ClusterName, NodeName};
use fabric_core::prefix::Prefix;

use super::demo::RoutingArg;
use super::{Dirs, Global};
use crate::context::{self, Context, write_private};
use crate::failure::{Exit, Failure, Outcome};
use crate::machine;

/// Arguments of `fabric up`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  sudo fabric up --cluster eu\n  sudo fabric up --cluster eu --address 192.0.2.1 --routing geneve\n  sudo fabric up --cluster eu --dry-run"
)]
pub struct UpArgs {
    /// Name of the cluster.
    #[arg(long)]
    cluster: ClusterName,
    /// Its id, 1 to 255; without it, derived from the name.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=255))]
    id: Option<u16>,
    /// A workload prefix, one of each family; without it, derived from the name.
    #[arg(long)]
    prefix: Vec<Prefix>,
    /// A service range, one of each family; without it, the usual one.
    #[arg(long)]
    service_prefix: Vec<Prefix>,
    /// How packets travel between nodes.
    #[arg(long, value_enum, default_value = "vxlan")]
    routing: RoutingArg,
    /// Leave packets between nodes in clear.
    #[arg(long)]
    no_encryption: bool,
    /// URLs of an etcd of your own, instead of a child process.
    #[arg(long, requires_all = ["etcd_ca", "etcd_cert", "etcd_key"])]
    etcd_endpoints: Vec<String>,
    /// Authority of that etcd, PEM.
    #[arg(long)]
    etcd_ca: Option<PathBuf>,
    /// Our certificate for that etcd, PEM.
    #[arg(long)]
    etcd_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long)]
    etcd_key: Option<PathBuf>,
    /// Throw away the cluster that this machine has, and begin again.
    #[arg(long)]
    recreate: bool,
    /// Say what would be made, and make nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Where a machine stands and keeps its things: common to `up` and `join`.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
    /// Name of this machine; without it, its host name.
    #[arg(long)]
    pub name: Option<NodeName>,
    /// An address of this machine that other nodes reach; without it, the one of the default route.
    #[arg(long)]
    pub address: Vec<IpAddr>,
    /// Name of the WireGuard device.
    #[arg(long, default_value = "fabric_wg")]
    pub wireguard_interface: String,
    /// Where eBPF maps and links are pinned.
    #[arg(long, default_value = "/sys/fs/bpf/fabric")]
    pub bpf_dir: PathBuf,
    /// The cgroup (v2) of this machine's workloads; without it, the root.
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
    /// Run in the foreground, instead of as services.
    #[arg(long)]
    pub foreground: bool,
    #[command(flatten)]
    pub dirs: Dirs,
}

impl PlaceArgs {
    /// Addresses given, or the one of the default route.
    ///
    /// # Errors
    /// When there is neither.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        if !self.address.is_empty() {
            return Ok(self.address.clone());
        }
        machine::default_address().map(|a| vec![a])
    }

    /// Name given, or the host name.
    ///
    /// # Errors
    /// When the host name is not a name for a node.
    pub fn node_name(&self) -> Result<NodeName, Failure> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let host = nix::unistd::gethostname().map_err(|e| Failure::new(format!("no host name: {e}")))?;
        let host = host.to_string_lossy().to_ascii_lowercase();
        NodeName::new(host.split('.').next().unwrap_or_default())
            .map_err(|e| Failure::usage(format!("the host name cannot name a node: {e}")).next("give one with --name"))
    }

    /// The node's configuration.
    pub fn node_config(&self, cluster: &ClusterSpec, name: NodeName, addresses: Vec<IpAddr>) -> NodeConfig {
        NodeConfig {
            cluster: cluster.name.clone(),
            name,
            kind: MemberKind::Node,
            addresses,
            api_endpoints: Vec::new(),
            routing: cluster.routing,
            encryption: cluster.encryption,
            devices: Vec::new(),
            state_dir: self.dirs.state_dir.clone(),
            run_dir: self.dirs.run_dir.clone(),
            bpf_dir: self.bpf_dir.clone(),
            cgroup: self.cgroup.clone(),
            wireguard: WireguardConfig {
                interface: self.wireguard_interface.clone(),
                mode: WireguardMode::Auto,
                ..WireguardConfig::default()
            },
            observer_port: 4244,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When this machine cannot be a node, or is one already.
pub async fn run(global: &Global, args: &UpArgs) -> Outcome {
    let spec = spec(args)?;
    let addresses = args.place.addresses()?;
    let name = args.place.node_name()?;
    let api = api_config(args, &spec, &addresses)?;
    let mut node = args.place.node_config(&spec, name, addresses);
    node.api_endpoints = api.api_endpoints();
    let invalid =
        |e: fabric_core::config::InvalidConfig| Failure::usage(e.to_string()).code(error_code::CONFIG_INVALID);
    api.validate().map_err(invalid)?;
    node.validate().map_err(invalid)?;
    let story = global.story();
    let prefixes: Vec<String> = spec.prefixes.iter().map(ToString::to_string).collect();
    let what = format!("id {}, {}, {}, {}", spec.id, prefixes.join(" "), spec.routing, spec.encryption);
    if args.dry_run {
        crate::output::print(&format!("cluster {}: {what}\nnode {}", spec.name, node.name));
        return Ok(());
    }
    machine::require(&node)?;
    let again = existing(args, &api)?;
    if !again {
        machine::require_ports_free(&api)?;
        create(&api, &node)?;
    }
    story.done(spec.name.as_str(), &what);
    machine::start(global, &args.place, &node).await?;
    story.line(&format!(
        "Next: fabric token create --node   for more nodes; fabric connect {} OTHER     Undo: fabric leave",
        spec.name
    ));
    Ok(())
}

fn spec(args: &UpArgs) -> Result<ClusterSpec, Failure> {
    let mut spec = ClusterSpec::from_name(args.cluster.clone());
    if let Some(id) = args.id {
        spec.id = ClusterId::new(id).map_err(|e| Failure::usage(e.to_string()))?;
    }
    if !args.prefix.is_empty() {
        spec.prefixes.clone_from(&args.prefix);
    }
    if !args.service_prefix.is_empty() {
        spec.service_prefixes.clone_from(&args.service_prefix);
    }
    spec.routing = match args.routing {
        RoutingArg::Vxlan => Routing::Vxlan,
        RoutingArg::Geneve => Routing::Geneve,
        RoutingArg::Native => Routing::Native,
    };
    spec.encryption = if args.no_encryption { Encryption::None } else { Encryption::Wireguard };
    spec.validate().map_err(|e| Failure::usage(e.to_string()).code(error_code::INVALID_ARGUMENT))?;
    Ok(spec)
}

fn api_config(args: &UpArgs, spec: &ClusterSpec, addresses: &[IpAddr]) -> Result<ApiConfig, Failure> {
    let etcd = match (&args.etcd_ca, &args.etcd_cert, &args.etcd_key) {
        _ if args.etcd_endpoints.is_empty() => EtcdConfig::Child,
        (Some(ca), Some(cert), Some(key)) => EtcdConfig::External {
            endpoints: args.etcd_endpoints.clone(),
            ca_file: ca.clone(),
            cert_file: cert.clone(),
            key_file: key.clone(),
        },
        _ => return Err(Failure::usage("an etcd of your own needs --etcd-ca, --etcd-cert and --etcd-key")),
    };
    Ok(ApiConfig {
        cluster: spec.clone(),
        addresses: addresses.to_vec(),
        api_port: 4250,
        mesh_port: 2379,
        etcd,
        state_dir: args.place.dirs.state_dir.clone(),
        run_dir: args.place.dirs.run_dir.clone(),
    })
}

/// Whether this machine already is what was asked for; with `--recreate` it is emptied.
fn existing(args: &UpArgs, api: &ApiConfig) -> Result<bool, Failure> {
    let file = api.state_dir.join("api.yaml");
    let membership = api.state_dir.join("node.yaml");
    if !file.exists() && !membership.exists() {
        return Ok(false);
    }
    if args.recreate {
        machine::forget(&api.state_dir, &api.run_dir)?;
        return Ok(false);
    }
    let same = machine::read_yaml::<ApiConfig>(&file).is_ok_and(|old| old == *api);
    if same {
        return Ok(true);
    }
    Err(Failure::new(format!(
        "{} already holds a membership that differs from what is asked for",
        api.state_dir.display()
    ))
    .exit(Exit::No)
    .code(error_code::ALREADY_JOINED)
    .next("fabric leave, or fabric up … --recreate"))
}

/// Authority, certificates, configuration files, context.
fn create(api: &ApiConfig, node: &NodeConfig) -> Outcome {
    let now = SystemTime::now();
    let authority = Authority::open_or_create(&api.pki_dir(), &api.cluster.name, now)
        .map_err(|e| Failure::from(anyhow::Error::new(e)))?;
    let issue = |role: Role, validity: Validity| -> Result<Leaf, Failure> {
        let request = LeafRequest { role, addresses: Vec::new(), validity };
        authority.issue(&request, &KeyMaterial::Generate).map_err(|e| Failure::from(anyhow::Error::new(e)))
    };
    let leaf = issue(Role::Node(node.name.clone()), Validity::day(now))?;
    write_membership(node, &leaf.chain_pem, leaf.key_pem().unwrap_or_default(), authority.certificate_pem())?;
    let admin = issue(Role::Admin("admin".to_owned()), Validity::year(now))?;
    let servers = api.api_endpoints().iter().map(SocketAddr::to_string).collect();
    context::add(
        &context::path(),
        Context {
            name: api.cluster.name.to_string(),
            servers,
            authority_pem: authority.certificate_pem().to_owned(),
            certificate_pem: admin.chain_pem.clone(),
            key_pem: admin.key_pem().unwrap_or_default().to_owned(),
        },
    )?;
    write_yaml(&api.state_dir.join("api.yaml"), api)?;
    write_yaml(&api.state_dir.join("node.yaml"), node)
}

/// A node's certificate, key, authority: what its agent finds in the state folder.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_membership(node: &NodeConfig, chain_pem: &str, key_pem: &str, authority_pem: &str) -> Outcome {
    let dir = node.state_dir.join("pki");
    machine::private_dir(&node.state_dir)?;
    machine::private_dir(&dir)?;
    let write =
        |path: &Path, text: &str| write_private(path, text.as_bytes()).map_err(|e| machine::cannot_write(path, &e));
    write(&node.authority_file(), authority_pem)?;
    write(&node.certificate_file(), chain_pem)?;
    write(&node.key_file(), key_pem)
}

/// Writes a configuration file.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_yaml<T: serde::Serialize>(path: &Path, value: &T) -> Outcome {
    let text = serde_yaml_ng::to_string(value).map_err(|e| Failure::new(e.to_string()))?;
    write_private(path, text.as_bytes()).map_err(|e| machine::cannot_write(path, &e))
}
