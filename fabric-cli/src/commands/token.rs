//! `fabric token create|list|revoke`.

use clap::{Args, Subcommand};
use clustermesh_api_proto::fabric::v1::{self as proto, NodeKind};
use serde::Serialize;

use super::Global;
use crate::client;
use crate::duration::Span;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format, Row};

/// Tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token for one machine; it works once.
    Create(CreateArgs),
    /// List tokens, without their secrets.
    List,
    /// Revoke a token that nobody used yet.
    Revoke(RevokeArgs),
}

/// Arguments of `fabric token create`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  fabric token create --name db1 --labels app=db --ttl 1h     for a VM\n  fabric token create --node                                 for another node\n  fabric token create --name db1 -n shop --labels app=db,tier=data"
)]
pub struct CreateArgs {
    /// For a node that runs workloads, not for a machine that is one.
    #[arg(long)]
    node: bool,
    /// Name of the machine; fixes the name of a node.
    #[arg(long, required_unless_present = "node")]
    name: Option<String>,
    /// Namespace of the machine's labels.
    #[arg(short, long, default_value = "default", conflicts_with = "node")]
    namespace: String,
    /// Labels of the machine.
    #[arg(long, value_delimiter = ',', conflicts_with = "node")]
    labels: Vec<String>,
    /// How long it can be used.
    #[arg(long, default_value = "1h")]
    ttl: Span,
}

/// Arguments of `fabric token revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// As `fabric token list` shows it.
    id: String,
}

/// A token as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenRow {
    id: String,
    kind: &'static str,
    namespace: String,
    name: String,
    labels: Vec<String>,
    expires: String,
    used_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    token: String,
}

impl TokenRow {
    fn new(token: proto::Token, line: String) -> Self {
        Self {
            kind: client::kind_name(token.kind()),
            id: token.id,
            namespace: token.kubernetes_namespace,
            name: token.name,
            labels: token.labels,
            expires: token.expires,
            used_by: token.used_by,
            token: line,
        }
    }
}

impl Row for TokenRow {
    const KIND: &'static str = "Token";
    const HEADS: &'static [&'static str] = &["ID", "KIND", "NAME", "LABELS", "EXPIRES", "USED BY"];
    const NARROW: usize = 6;

    fn cells(&self) -> Vec<String> {
        let name =
            if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) };
        let (id, expires, used_by) = (self.id.clone(), self.expires.clone(), self.used_by.clone());
        vec![id, self.kind.to_owned(), name, self.labels.join(","), expires, used_by]
    }

    fn name(&self) -> String {
        self.id.clone()
    }
}

/// Runs the command.
///
/// # Errors
/// What the API refuses.
pub async fn run(global: &Global, command: &TokenCommand) -> Outcome {
    let mut admin = client::admin(global.context.as_deref()).await?;
    match command {
        TokenCommand::Create(args) => create(global, admin, args).await,
        TokenCommand::List => {
            let tokens = admin.list_tokens(proto::ListRequest::default()).await?.into_inner().tokens;
            let rows: Vec<_> = tokens.into_iter().map(|t| TokenRow::new(t, String::new())).collect();
            output::list(global.output, &rows)
        }
        TokenCommand::Revoke(args) => {
            admin.revoke_token(proto::RevokeTokenRequest { id: args.id.clone() }).await?;
            global.story().done(&args.id, "revoked");
            Ok(())
        }
    }
}

async fn create(global: &Global, mut admin: client::Admin, args: &CreateArgs) -> Outcome {
    let kind = if args.node { NodeKind::Node } else { NodeKind::Machine };
    let request = proto::CreateTokenRequest {
        kind: kind.into(),
        name: args.name.clone().unwrap_or_default(),
        kubernetes_namespace: if args.node { String::new() } else { args.namespace.clone() },
        labels: args.labels.clone(),
        ttl_s: args.ttl.seconds()?,
    };
    let answer = admin.create_token(request).await?.into_inner();
    let token = answer.token.ok_or_else(|| Failure::new("the API answered without a token"))?;
    match global.output {
        // The line alone, so that it can be piped to the machine that joins.
        Format::Table | Format::Wide | Format::Name => {
            output::print(&answer.line);
            let what = format!("works once, until {}", token.expires);
            global.story().done("token", &what);
            global.story().line("Next: sudo fabric join TOKEN   on the machine that joins");
            global.story().line(&format!("Undo: fabric token revoke {}", token.id));
            Ok(())
        }
        format => output::document(format, TokenRow::KIND, &TokenRow::new(token, answer.line)),
    }
}
