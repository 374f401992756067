//! `myelin capture start|ls|stop|rm|fetch`

use super::admin::Admin;
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::http::Body;
use super::listing::{Shape, items, size, table, text, time};
use super::patterns;
use super::resource::{Show, change};
use super::values::{bytes, duration, say};
use crate::files::write_private;
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use myelin_catalog::Name;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

const START_HELP: &str = "\
Examples:
  myelin capture start 'orders/**'                                 everything, for a minute, up to 8 MiB
  myelin capture start 'orders/**' --sample 1% --for 10m           one event in a hundred
  myelin capture start 'orders/**' --redact authorization,payload  parts that nobody is to see
  myelin capture start '**' --binding orders-schema --keep last    the latest of what one binding judges
  myelin capture fetch 1 --out orders.capture
  myelin replay orders.capture --module new.wasm                   what would the new filter say?

A capture runs at the router that is asked, in its memory, and ends by itself: when it is full, when its time is over, or
with the router. What --redact names is taken out before anything is kept: headers by their names, `payload`, `identity`
(the publisher), `config` (of the bindings). Batches are taken whole, so that a replay is exact: events that a filter
judged together with matching ones are in the file, too, unless --no-neighbours is given. docs/CAPTURE.md tells more.";

/// Keep live events with what filters said about them, for a replay
#[derive(Debug, Subcommand)]
pub(super) enum Capture {
    /// Begin a capture
    #[command(after_help = START_HELP)]
    Start(Start),
    /// Show the captures of a router
    #[command(after_help = "Examples:\n  \
        myelin capture ls\n  \
        myelin capture ls --watch 1")]
    Ls(Show),
    /// End a capture; it keeps what it has
    #[command(after_help = "Example:\n  myelin capture stop 1")]
    Stop(One),
    /// End a capture and forget what it has
    #[command(after_help = "Example:\n  myelin capture rm 1")]
    Rm(One),
    /// Write a capture into a file; one that still runs as it stands now
    #[command(after_help = "Examples:\n  \
        myelin capture fetch 1 --out orders.capture\n  \
        myelin replay orders.capture --module new.wasm")]
    Fetch(Fetch),
}

/// Begin a capture
#[derive(Args, Debug)]
pub(super) struct Start {
    /// The topics
    #[arg(value_name = "PATTERN")]
    pattern: String,
    /// Only what this binding judges
    #[arg(long, value_name = "NAME")]
    binding: Option<Name>,
    /// So much of it: a share of the events, or so many a second
    #[arg(long, value_name = "1%|N/s")]
    sample: Option<String>,
    /// Take this out: names of headers, `payload`, `identity`, `config`
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    redact: Vec<String>,
    /// Most bytes to keep, up to 32MiB [default: 8MiB]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_bytes: Option<u64>,
    /// Most matching events to keep [default: 10000]
    #[arg(long, value_name = "N")]
    max_events: Option<u64>,
    /// For how long, up to an hour
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, default_value = "60s")]
    time: Duration,
    /// What stays when there are more than fit: with `first` it is over then
    #[arg(long, value_enum, default_value_t)]
    keep: Keep,
    /// Leave out the events that only stood in one batch with matching ones
    #[arg(long)]
    no_neighbours: bool,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Keep {
    #[default]
    First,
    Last,
}

/// One capture
#[derive(Args, Debug)]
pub(super) struct One {
    /// Its number; `myelin capture ls` shows it
    #[arg(value_name = "ID")]
    id: u64,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

/// Write a capture into a file
#[derive(Args, Debug)]
pub(super) struct Fetch {
    /// Its number; `myelin capture ls` shows it
    #[arg(value_name = "ID")]
    id: u64,
    /// The file; only its owner may read it
    #[arg(long, short_alias = 'o', alias = "output", value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    admin: Admin,
}

impl Capture {
    pub(super) fn run(self) -> Result<()> {
        block_on(async {
            match self {
                Self::Start(start) => start.run().await,
                Self::Ls(all) => all.run("/v1/captures", show).await,
                Self::Stop(One { id, shape, admin }) => {
                    let path = format!("/v1/captures/{id}/stop");
                    let info: Value = admin.api()?.ask(Method::POST, &path, Body::None).await?;
                    shape.tell(&info, |info| {
                        let (events, fetching) = (&info["events"], fetching(id));
                        format!("capture {id} is over and keeps {events} events; fetch it with `{fetching}`\n")
                    });
                    Ok(())
                }
                Self::Rm(One { id, shape, admin }) => {
                    admin.api()?.tell(Method::DELETE, &format!("/v1/captures/{id}"), Body::None).await?;
                    let done = change("capture", &id.to_string(), "removed", None);
                    shape.tell(&done, |_| format!("capture {id} is gone\n"));
                    Ok(())
                }
                Self::Fetch(fetch) => fetch.run().await,
            }
        })
    }
}

fn fetching(id: u64) -> String {
    format!("myelin capture fetch {id} --out FILE")
}

impl Start {
    fn body(&self) -> Result<Value> {
        let seconds = self.time.as_secs() + u64::from(self.time.subsec_nanos() > 0);
        if self.pattern.is_empty() {
            return Err(Failure::new(Exit::Usage, "the pattern is empty").next("'**' stands for all topics"));
        }
        let mut body = json!({
            "pattern": self.pattern, "redact": self.redact, "seconds": seconds, "neighbours": !self.no_neighbours,
            "keep": if self.keep == Keep::First { "first" } else { "last" },
        });
        let more = [
            ("binding", self.binding.as_ref().map(|binding| binding.as_str().into())),
            ("sample", self.sample.as_ref().map(|sample| sample.as_str().into())),
            ("bytes_max", self.max_bytes.map(Value::from)),
            ("events_max", self.max_events.map(Value::from)),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        Ok(body)
    }

    async fn run(self) -> Result<()> {
        patterns::hint(&self.pattern);
        let body = Body::Json(self.body()?);
        let info: Value = self.admin.api()?.ask(Method::POST, "/v1/captures", body).await?;
        let id = info["id"].as_u64().unwrap_or_default();
        self.shape.tell(&info, |info| {
            format!("capture {id} runs for {} s at most; fetch it with `{}`\n", info["seconds"], fetching(id))
        });
        Ok(())
    }
}

impl Fetch {
    async fn run(self) -> Result<()> {
        let file = self.admin.api()?.text(&format!("/v1/captures/{}/file", self.id)).await?;
        let told = || format!("writing {}", self.out.display());
        // It holds what services said to each other.
        write_private(&self.out, &file).with_context(told)?;
        let end: Value = file.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        let (state, events) = (text(&end["end"]["state"]), &end["end"]["events"]);
        say!("{}: {events} events, {} bytes ({state})", self.out.display(), file.len());
        Ok(())
    }
}

fn show(value: &Value) -> String {
    let rows = items(value, "captures").iter().map(|capture| {
        let mut row =
            ["id", "state", "pattern", "binding", "sample", "redact", "events"].map(|f| text(&capture[f])).to_vec();
        row.push(size(&capture["bytes"]));
        row.push(text(&capture["evicted"]));
        row.push(time(&capture["started_unix_ms"]));
        row
    });
    let header = ["id", "state", "pattern", "binding", "sample", "redact", "events", "size", "evicted", "started"];
    table(&header, &["id", "events", "size", "evicted"], rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use crate::capture::CaptureSpec;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        start: Start,
    }

    #[test]
    fn the_flags_make_what_the_api_takes() {
        let line = "x orders/** --sample 1% --redact authorization,payload --max-bytes 1MiB --max-events 5 --for 1.5s \
            --keep last --no-neighbours --binding b";
        let body = Line::parse_from(line.split_whitespace()).start.body().unwrap();
        let spec: CaptureSpec = serde_json::from_value(body.clone()).unwrap();
        assert_eq!((spec.bytes_max, spec.events_max, spec.seconds), (1 << 20, 5, 2));
        assert_eq!(spec.redact, ["authorization", "payload"]);
        assert_eq!((body["keep"].as_str(), spec.neighbours, spec.sample.as_deref()), (Some("last"), false, Some("1%")));
        let body = Line::parse_from(["x", "**"]).start.body().unwrap();
        let spec: CaptureSpec = serde_json::from_value(body).unwrap();
        assert_eq!((spec.bytes_max, spec.events_max, spec.seconds), (8 << 20, 10_000, 60));
    }

    #[test]
    fn captures_are_listed() {
        let shown =
            show(&json!({"captures": [{"id": 1, "state": "full", "pattern": "a/**", "redact": ["x", "payload"],
            "events": 7, "bytes": 20_480, "evicted": 0, "started_unix_ms": 0}]}));
        for part in ["full", "a/**", "x, payload", "20 KiB", "1970-01-01"] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }
}
