//! `fabric explain FAB-nnnn`, offline.

use clap::Args;
use fabric_core::error_code::{CATALOGUE, Entry, ErrorCode};
use serde::Serialize;

use super::Global;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format, Row};

/// Arguments of `fabric explain`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  fabric explain FAB-2101\n  fabric explain 2101\n  fabric explain              the whole list"
)]
pub struct ExplainArgs {
    /// The code; all of them without it.
    code: Option<String>,
}

#[derive(Debug, Serialize)]
struct CodeRow {
    code: String,
    title: &'static str,
    meaning: &'static str,
    action: &'static str,
}

impl From<&Entry> for CodeRow {
    fn from(e: &Entry) -> Self {
        Self { code: e.code.to_string(), title: e.title, meaning: e.meaning, action: e.action }
    }
}

impl Row for CodeRow {
    const KIND: &'static str = "ErrorCode";
    const HEADS: &'static [&'static str] = &["CODE", "TITLE", "MEANING", "ACTION"];
    const NARROW: usize = 2;

    fn cells(&self) -> Vec<String> {
        vec![self.code.clone(), self.title.to_owned(), self.meaning.to_owned(), self.action.to_owned()]
    }

    fn name(&self) -> String {
        self.code.clone()
    }
}

/// Runs the command.
///
/// # Errors
/// When there is no such code.
pub fn run(global: &Global, args: &ExplainArgs) -> Outcome {
    let Some(text) = &args.code else {
        let rows: Vec<CodeRow> = CATALOGUE.iter().map(Into::into).collect();
        return output::list(global.output, &rows);
    };
    let code: ErrorCode = text.parse().map_err(|e: fabric_core::error_code::UnknownCode| {
        Failure::usage(e.to_string()).next("fabric explain   lists all codes")
    })?;
    let entry = code.entry().ok_or_else(|| Failure::usage(format!("{code} is not in the catalogue")))?;
    match global.output {
        Format::Table | Format::Wide => {
            output::print(&format!(
                "{code}  {}\n\nWhat it means   {}\nWhat to do      {}",
                entry.title, entry.meaning, entry.action
            ));
            Ok(())
        }
        Format::Name => {
            output::print(&code.to_string());
            Ok(())
        }
        format => output::document(format, CodeRow::KIND, &CodeRow::from(entry)),
    }
}
