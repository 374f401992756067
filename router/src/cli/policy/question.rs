//! The head of an event that a question is about.

use crate::cli::values::pair;
use crate::policy::PolicyEvent;
use clap::Args;

/// The event, where policies look at it
#[derive(Args, Debug)]
#[group(id = "event")]
#[command(next_help_heading = "The event, where policies look at it")]
pub(super) struct EventArgs {
    /// Its type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Where it comes from
    #[arg(long)]
    source: Option<String>,
    /// Its key
    #[arg(id = "event-key", long = "event-key", value_name = "KEY")]
    key: Option<String>,
    /// The type of its payload
    #[arg(long)]
    content_type: Option<String>,
    /// The schema that it names
    #[arg(long)]
    schema: Option<String>,
    /// A header; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
}

impl EventArgs {
    /// The event; none where nothing is said of one.
    pub(super) fn read(self) -> Option<PolicyEvent> {
        let Self { kind, source, key, content_type, schema, headers } = self;
        let texts = [&kind, &source, &key, &content_type, &schema];
        if texts.iter().all(|text| text.is_none()) && headers.is_empty() {
            return None;
        }
        Some(PolicyEvent {
            id: String::new(),
            source: source.unwrap_or_default(),
            kind: kind.unwrap_or_default(),
            key: key.unwrap_or_default(),
            content_type: content_type.unwrap_or_default(),
            schema: schema.unwrap_or_default(),
            headers: headers.into_iter().collect(),
        })
    }
}
