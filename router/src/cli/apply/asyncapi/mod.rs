//! `myelin asyncapi export|import`: topics and schemas as an AsyncAPI 3 document, and such documents as a folder.
//!
//! The specification: <https://www.asyncapi.com/docs/reference/specification/v3.0.0>.

mod document;
mod import;
mod references;

use super::export::{counts, pinned, read, write};
use crate::cli::admin::Admin;
use crate::cli::connect::block_on;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::values::{print, read_text, say, write_atomically};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::path::PathBuf;

/// What Myelin says beside what the specification knows; import takes it from there.
const EXTENSION: &str = "x-myelin";
/// Bytes of the largest document that is read.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Topics and schemas as an AsyncAPI 3 document
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AsyncApi {
    /// Print topics and schemas as a document
    #[command(
        after_help = "Example:\n  myelin asyncapi export --title 'Orders' --server eu=eu1.example.org:7443 --out asyncapi.json\n\n\
        Each rule for topics is a channel, each subject a message with its newest schema. Who may send and receive is for \
        policies to say, so there are no operations."
    )]
    Export(Box<Export>),
    /// Make a folder of a document, for `myelin apply -f`
    #[command(
        after_help = "Example:\n  myelin asyncapi import asyncapi.yaml mesh.d && myelin apply -f mesh.d --dry-run\n\n\
        Channels become rules for topics, payloads become subjects. Nothing outside the document is read."
    )]
    Import(Import),
}

/// Print a document
#[derive(Args, Debug)]
pub(in crate::cli) struct Export {
    /// Into this file, in place of the standard output
    #[arg(long, short_alias = 'o', alias = "output", value_name = "FILE")]
    out: Option<PathBuf>,
    /// What the document is called
    #[arg(long, value_name = "TEXT", default_value = "Events of this mesh")]
    title: String,
    /// Where clients connect, as NAME=HOST:PORT; may be repeated
    #[arg(long, value_name = "SERVER", value_parser = crate::cli::values::pair)]
    server: Vec<(String, String)>,
    #[command(flatten)]
    admin: Admin,
}

/// Read a document
#[derive(Args, Debug)]
pub(in crate::cli) struct Import {
    /// The document, in JSON or YAML
    file: PathBuf,
    /// The folder: a new one, or an empty one
    dir: PathBuf,
}

impl AsyncApi {
    pub(in crate::cli) fn run(self) -> Result<()> {
        match self {
            Self::Export(export) => block_on(export.run()),
            Self::Import(import) => import.run(),
        }
    }
}

impl Export {
    async fn run(self) -> Result<()> {
        let (state, revision) = read(&self.admin.api()?).await?;
        pinned(&state).iter().for_each(|remark| eprintln!("note: {remark}"));
        let document = document::document(&state, &self.title, revision, &self.server);
        let text = format!("{document:#}\n");
        match &self.out {
            None => print(text),
            Some(file) => {
                write_atomically(file, &text).map_err(|error| Failure::of_file(file, error))?;
                let (channels, messages) = (state.topics.len(), state.schemas.len());
                say!("{} has {channels} channels and {messages} messages", file.display());
            }
        }
        Ok(())
    }
}

impl Import {
    fn run(self) -> Result<()> {
        let file = self.file.display();
        let refuse = |why: String| Failure::new(Exit::Usage, format!("{file}: {why}"));
        let text = read_text(&self.file, DOCUMENT_BYTES_MAX).map_err(refuse)?;
        // JSON is YAML, too, but its own reader says better what is wrong with it.
        let document: Value = match text.trim_start().starts_with('{') {
            true => serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?,
            false => serde_saphyr::from_str(&text).map_err(|error| refuse(error.to_string()))?,
        };
        let (state, remarks) = import::state(&document).map_err(|faults| refuse(faults.join("\n  ")))?;
        write(&self.dir, &state)?;
        for remark in remarks {
            say!("note: {remark}");
        }
        say!("{} has {}", self.dir.display(), counts(&state));
        say!("  next: myelin apply -f {} --dry-run", self.dir.display());
        Ok(())
    }
}
