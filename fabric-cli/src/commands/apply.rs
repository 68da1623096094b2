//! `fabric apply|get|delete`: Kubernetes YAML, with or without Kubernetes.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use clustermesh_api_proto::fabric::v1 as proto;
use serde::Serialize;

use super::Global;
use crate::client;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{self, Format, Row};
use fabric_core::error_code;

/// Nobody writes more YAML by hand; what is longer is a mistake.
const MAX_BYTES: u64 = 4 << 20;

/// Arguments of `fabric apply`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  fabric apply -f policy.yaml\n  fabric apply -f - < service.yaml\n  fabric apply -f policies/ --dry-run"
)]
pub struct ApplyArgs {
    /// A file, a folder of `.yaml`, `.yml` and `.json` files, or `-` for standard input; can be given more than once.
    #[arg(short, long = "filename", required = true)]
    filename: Vec<PathBuf>,
    /// Check everything and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `fabric get`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  fabric get\n  fabric get networkpolicy\n  fabric get service cart -n shop -o yaml"
)]
pub struct GetArgs {
    /// A kind (`service`, `networkpolicy`, `cnp`, `ccnp`, `clusterlink`); all without it.
    kind: Option<String>,
    /// A name.
    name: Option<String>,
    /// Only this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
}

/// Arguments of `fabric delete`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  fabric delete networkpolicy db-in -n shop\n  fabric delete service cart -n shop\n  fabric delete -f policy.yaml"
)]
pub struct DeleteArgs {
    /// A kind.
    #[arg(required_unless_present = "filename")]
    kind: Option<String>,
    /// A name.
    #[arg(required_unless_present = "filename")]
    name: Option<String>,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Delete the objects that this file names.
    #[arg(short, long = "filename", conflicts_with_all = ["kind", "name"])]
    filename: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultRow {
    kind: String,
    namespace: String,
    name: String,
    outcome: String,
}

impl Row for ResultRow {
    const KIND: &'static str = "ApplyResult";
    const HEADS: &'static [&'static str] = &["KIND", "NAMESPACE", "NAME", "OUTCOME"];
    const NARROW: usize = 4;

    fn cells(&self) -> Vec<String> {
        vec![self.kind.clone(), self.namespace.clone(), self.name.clone(), self.outcome.clone()]
    }

    fn name(&self) -> String {
        format!("{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

#[derive(Debug, Serialize)]
struct ObjectRow {
    kind: String,
    namespace: String,
    name: String,
    object: serde_json::Value,
}

impl Row for ObjectRow {
    const KIND: &'static str = "Object";
    const HEADS: &'static [&'static str] = &["KIND", "NAMESPACE", "NAME"];
    const NARROW: usize = 3;

    fn cells(&self) -> Vec<String> {
        vec![self.kind.clone(), self.namespace.clone(), self.name.clone()]
    }

    fn name(&self) -> String {
        format!("{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// `fabric apply`.
///
/// # Errors
/// When a document is refused; then none was applied.
pub async fn apply(global: &Global, args: &ApplyArgs) -> Outcome {
    let mut documents = Vec::new();
    for path in &args.filename {
        for (file, text) in read(path)? {
            documents.extend(parse(&file, &text)?);
        }
    }
    let mut admin = client::admin(global.context.as_deref()).await?;
    let request = proto::ApplyRequest { documents, dry_run: args.dry_run };
    let results = admin.apply(request).await?.into_inner().results;
    let row = |r: proto::ObjectResult| ResultRow {
        kind: r.kind,
        namespace: r.kubernetes_namespace,
        name: r.name,
        outcome: if args.dry_run { format!("{} (dry run)", r.outcome) } else { r.outcome },
    };
    let rows: Vec<ResultRow> = results.into_iter().map(row).collect();
    output::list(global.output, &rows)
}

/// `fabric get`.
///
/// # Errors
/// When there is no such object.
pub async fn get(global: &Global, args: &GetArgs) -> Outcome {
    let kind = args.kind.as_deref().map(canonical_kind).transpose()?.unwrap_or_default();
    let mut admin = client::admin(global.context.as_deref()).await?;
    let namespace = args.namespace.clone().unwrap_or_default();
    let request = proto::ListObjectsRequest { kind: kind.clone(), kubernetes_namespace: namespace };
    let mut objects = admin.list_objects(request).await?.into_inner().objects;
    if let Some(name) = &args.name {
        objects.retain(|o| o.name == *name);
        if objects.is_empty() {
            return Err(Failure::new(format!("there is no {kind} {name}")).code(error_code::NOT_FOUND));
        }
    }
    let row = |o: proto::Object| -> Result<ObjectRow, Failure> {
        let object = serde_json::from_str(&o.document).map_err(|e| Failure::new(format!("{}: {e}", o.name)))?;
        Ok(ObjectRow { kind: o.kind, namespace: o.kubernetes_namespace, name: o.name, object })
    };
    let rows = objects.into_iter().map(row).collect::<Result<Vec<_>, _>>()?;
    match (global.output, rows.as_slice()) {
        (Format::Json | Format::Yaml, [one]) if args.name.is_some() => {
            let text = match global.output {
                Format::Json => serde_json::to_string_pretty(&one.object).map_err(|e| Failure::new(e.to_string()))?,
                _ => serde_yaml_ng::to_string(&one.object).map_err(|e| Failure::new(e.to_string()))?,
            };
            output::print(text.trim_end());
            Ok(())
        }
        (format, rows) => output::list(format, rows),
    }
}

/// `fabric delete`.
///
/// # Errors
/// When there is no such object.
pub async fn delete(global: &Global, args: &DeleteArgs) -> Outcome {
    let mut admin = client::admin(global.context.as_deref()).await?;
    let targets = match (&args.filename, &args.kind, &args.name) {
        (Some(file), ..) => named_in(file)?,
        (None, Some(kind), Some(name)) => vec![(canonical_kind(kind)?, args.namespace.clone(), name.clone())],
        _ => return Err(Failure::usage("name a kind and an object, or a file")),
    };
    for (kind, kubernetes_namespace, name) in targets {
        let request = proto::DeleteObjectRequest { kind: kind.clone(), kubernetes_namespace, name: name.clone() };
        admin.delete_object(request).await?;
        global.story().done(&name, &format!("{kind} deleted"));
    }
    Ok(())
}

fn canonical_kind(text: &str) -> Result<String, Failure> {
    let kind = match text.to_ascii_lowercase().as_str() {
        "service" | "services" | "svc" => "Service",
        "networkpolicy" | "networkpolicies" | "netpol" => "NetworkPolicy",
        "ciliumnetworkpolicy" | "ciliumnetworkpolicies" | "cnp" => "CiliumNetworkPolicy",
        "ciliumclusterwidenetworkpolicy" | "ciliumclusterwidenetworkpolicies" | "ccnp" => {
            "CiliumClusterwideNetworkPolicy"
        }
        "clusterlink" | "clusterlinks" | "link" => "ClusterLink",
        _ => {
            return Err(Failure::usage(format!(
                "kind {text:?} is not known; it is one of service, networkpolicy, cnp, ccnp, clusterlink"
            )));
        }
    };
    Ok(kind.to_owned())
}

fn named_in(file: &Path) -> Result<Vec<(String, String, String)>, Failure> {
    let mut all = Vec::new();
    for (file, text) in read(file)? {
        for document in parse(&file, &text)? {
            let value: serde_json::Value = serde_json::from_str(&document).map_err(|e| Failure::new(e.to_string()))?;
            let text = |path: &str| value.pointer(path).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
            let namespace = text("/metadata/namespace");
            let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
            all.push((canonical_kind(&text("/kind"))?, namespace, text("/metadata/name")));
        }
    }
    Ok(all)
}

/// Each file's name with its text.
fn read(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let shown = path.display().to_string();
    let cannot =
        |e: std::io::Error| Failure::usage(format!("cannot read {shown}: {e}")).code(error_code::INVALID_ARGUMENT);
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text).map_err(cannot)?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    if path.is_dir() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(path).map_err(cannot)?.flatten().map(|e| e.path()).collect();
        files.retain(|f| f.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json"));
        files.sort();
        let mut all = Vec::new();
        for file in files {
            all.extend(read(&file)?);
        }
        return Ok(all);
    }
    let size = std::fs::metadata(path).map_err(cannot)?.len();
    if size > MAX_BYTES {
        return Err(Failure::usage(format!("{shown} has {size} bytes; at most {MAX_BYTES} are read"))
            .code(error_code::INVALID_ARGUMENT));
    }
    Ok(vec![(shown.clone(), std::fs::read_to_string(path).map_err(cannot)?)])
}

/// Checks all documents of a file before anything is sent, and gives them as JSON.
fn parse(file: &str, text: &str) -> Result<Vec<String>, Failure> {
    let objects = fabric_core::manifest::parse(text)
        .map_err(|e| Failure::usage(format!("{file}: {e}")).code(error_code::MALFORMED_DOCUMENT).exit(Exit::Usage))?;
    Ok(objects.iter().map(fabric_core::manifest::Object::to_json).collect())
}
