//! The answer on standard output: tables for people, JSON and YAML for programs. The story goes to standard error.

mod story;
mod table;

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::{Failure, Outcome};

pub use story::Story;
pub use table::Table;

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// One JSON document a line.
    Jsonl,
    /// Names alone.
    Name,
}

/// What a list command can print: rows of a kind.
pub trait Row: Serialize {
    /// Name of one item's kind, as in `kind:`.
    const KIND: &'static str;
    /// Column heads; those after [`Row::NARROW`] show with `-o wide` only.
    const HEADS: &'static [&'static str];
    /// How many columns the plain table has.
    const NARROW: usize;
    /// The cells, as many as there are heads.
    fn cells(&self) -> Vec<String>;
    /// For `-o name`.
    fn name(&self) -> String;
}

/// The envelope of every JSON and YAML answer; it does not break within v1.
#[derive(Serialize)]
struct Envelope<'a, T> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: String,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct Items<'a, T> {
    items: &'a [T],
}

const API_VERSION: &str = "fabric.io/v1";

/// Prints a list.
///
/// # Errors
/// When standard output is gone.
pub fn list<T: Row>(format: Format, rows: &[T]) -> Outcome {
    match format {
        Format::Table | Format::Wide => {
            let columns = if format == Format::Wide { T::HEADS.len() } else { T::NARROW };
            let mut table = Table::new(T::HEADS.iter().take(columns).copied());
            for row in rows {
                table.row(row.cells().into_iter().take(columns));
            }
            print(&table.to_string());
        }
        Format::Name => rows.iter().for_each(|r| print(&r.name())),
        Format::Jsonl => {
            for row in rows {
                print(&json(&Envelope { api_version: API_VERSION, kind: T::KIND.to_owned(), body: row }, false)?);
            }
        }
        Format::Json | Format::Yaml => {
            document(format, &format!("{}List", T::KIND), &Items { items: rows })?;
        }
    }
    Ok(())
}

/// Prints one object as JSON or YAML; table formats fall back to YAML.
///
/// # Errors
/// When it cannot be written as such.
pub fn document<T: Serialize>(format: Format, kind: &str, body: &T) -> Outcome {
    let envelope = Envelope { api_version: API_VERSION, kind: kind.to_owned(), body };
    match format {
        Format::Json => print(&json(&envelope, true)?),
        Format::Jsonl => print(&json(&envelope, false)?),
        Format::Table | Format::Wide | Format::Yaml | Format::Name => {
            let text = serde_yaml_ng::to_string(&envelope).map_err(|e| Failure::new(e.to_string()))?;
            print(text.trim_end());
        }
    }
    Ok(())
}

fn json<T: Serialize>(value: &T, pretty: bool) -> Result<String, Failure> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.map_err(|e| Failure::new(e.to_string()))
}

/// Prints a line of the answer. A reader that went away (`| head`) ends us quietly, as it does other tools.
pub fn print(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        #[expect(clippy::exit, reason = "nobody reads the answer any more")]
        std::process::exit(0);
    }
}

/// Prints a failure: as an object where the answer would have been one, and always on standard error.
pub fn failure(format: Format, failure: &Failure) {
    #[derive(Serialize)]
    struct Body<'a> {
        exit: i32,
        code: Option<String>,
        message: &'a str,
        next: Option<&'a str>,
    }
    if matches!(format, Format::Json | Format::Yaml | Format::Jsonl) {
        let body = Body {
            exit: failure.exit as i32,
            code: failure.code.map(|c| c.to_string()),
            message: &failure.message,
            next: failure.next.as_deref(),
        };
        drop(document(format, "Error", &body));
    }
    Story::new(false).fail(&failure.to_string());
}
