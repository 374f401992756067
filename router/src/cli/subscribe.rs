//! `myelin sub`

use super::connect::{Connect, block_on};
use super::failure::{Exit, Failure, Result};
use super::format::{self, Format};
use super::lost::{self, attentive};
use super::patterns;
use super::signals::Signals;
use super::values::duration;
use clap::{Args, ValueEnum};
use myelin_client::{Delivered, SubscribeOptions, Subscription};
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::time::Duration;

/// What a lost connection means for who subscribes: delivery is at most once.
const MISSING: &str = "events in between may be missing";

const AFTER_HELP: &str = "\
Examples:
  myelin sub 'orders/**'                        every event below orders/, payloads only
  myelin sub 'orders/*/new' -v                  * is one level; -v shows topic, id, source, headers
  myelin sub 'orders/**' --group billing        share the work with other members of the group
  myelin sub 'orders/**' -C 1 -W 5              the next event; exit code 6 when none comes in 5 seconds
  myelin sub 'orders/**' -F '%t %h{x-tenant} %p\\n'";

/// Subscribe and print events
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP, after_long_help = format!("{AFTER_HELP}\n\n{}", format::HELP))]
pub(super) struct Subscribe {
    /// Which topics: * is exactly one level, ** at the end is any number; quote it
    pattern: String,
    /// Share the events with the other members of this queue group
    #[arg(short, long, value_name = "NAME")]
    group: Option<String>,
    /// End after so many events
    #[arg(short = 'C', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time, with exit code 6
    #[arg(short = 'W', long, value_name = "SECONDS", value_parser = duration)]
    wait: Option<Duration>,
    /// What the router does when this subscriber does not keep up
    #[arg(long, value_enum, default_value_t)]
    overflow: Overflow,
    /// Do not say when the subscription is live
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

/// How events are printed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub(super) struct Output {
    /// Print by a format string; see --help
    #[arg(short = 'F', long, value_name = "FORMAT", value_parser = Format::parse, allow_hyphen_values = true)]
    format: Option<Format>,
    /// Print topic, id, source, key, generation and headers, too
    #[arg(short, long, conflicts_with_all = ["format", "json"])]
    verbose: bool,
    /// Print one JSON object a line
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// What the router does when a subscriber does not keep up.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Overflow {
    /// Drop the oldest events, and count them
    #[default]
    DropOldest,
    /// Close the connection
    Disconnect,
    /// Let the publishers wait
    Pause,
}

impl Output {
    /// How events are printed.
    pub(super) fn format(&self) -> Result<Format> {
        if self.json {
            return Ok(Format::Json);
        }
        let preset = if self.verbose { format::VERBOSE } else { format::PLAIN };
        match &self.format {
            Some(format) => Ok(format.clone()),
            None => Format::parse(preset).map_err(|told| Failure::new(Exit::Failed, told)),
        }
    }
}

impl From<Overflow> for myelin_client::Overflow {
    fn from(overflow: Overflow) -> Self {
        match overflow {
            Overflow::DropOldest => Self::DropOldest,
            Overflow::Disconnect => Self::Disconnect,
            Overflow::Pause => Self::Pause,
        }
    }
}

impl Subscribe {
    pub(super) fn run(self) -> Result<()> {
        block_on(self.subscribe())
    }

    async fn subscribe(self) -> Result<()> {
        let mut printer = Printer::new(self.output.format()?);
        patterns::hint(&self.pattern);
        let mut signals = Signals::catch()?;
        let client = self.connect.client(|config| attentive(config.with_overflow(self.overflow.into()))).await?;
        tokio::spawn(lost::tell(client.clone(), self.connect.addrs(), MISSING));
        let options = SubscribeOptions { group: self.group.clone() };
        let mut subscription = client.subscribe(&self.pattern, options).await?;
        if !self.quiet {
            eprintln!("listening on {} (Ctrl-C ends)", self.pattern);
        }
        let time_up = async {
            match self.wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = printer.print_all(&mut subscription, self.count) => ended,
            () = time_up => Ok(End::TimeUp),
            () = signals.next() => Ok(End::Asked),
        };
        let flushed = printer.flush();
        // Tells the router what was taken: else it counts the events as lost.
        client.close().await;
        flushed?;
        match ended? {
            End::Counted | End::Asked => Ok(()),
            End::TimeUp => Err(Failure::new(Exit::Timeout, self.missed(printer.count))),
            End::Over => Err(match subscription.error() {
                Some(error) => error.into(),
                None => Failure::new(Exit::Failed, "the subscription has ended"),
            }),
        }
    }

    fn missed(&self, count: u64) -> String {
        let waited = self.wait.unwrap_or_default();
        match self.count {
            Some(wanted) => format!("{count} of {wanted} events came on {} within {waited:?}", self.pattern),
            None => format!("the {waited:?} of -W are over; {count} events came on {}", self.pattern),
        }
    }
}

/// How printing ended.
enum End {
    /// As many as were wanted came, or nobody reads on.
    Counted,
    TimeUp,
    Asked,
    /// There will be no more.
    Over,
}

struct Printer {
    out: BufWriter<std::io::Stdout>,
    is_terminal: bool,
    format: Format,
    count: u64,
}

impl Printer {
    fn new(format: Format) -> Self {
        let out = std::io::stdout();
        let is_terminal = out.is_terminal();
        Self { out: BufWriter::new(out), is_terminal, format, count: 0 }
    }

    async fn print_all(&mut self, subscription: &mut Subscription, wanted: Option<u64>) -> Result<End> {
        while wanted.is_none_or(|wanted| self.count < wanted) {
            let event = match subscription.try_next() {
                Some(event) => event,
                None => {
                    if !self.flush()? {
                        return Ok(End::Counted);
                    }
                    match subscription.next().await {
                        Some(event) => event,
                        None => return Ok(End::Over),
                    }
                }
            };
            if !self.print(&event)? {
                return Ok(End::Counted);
            }
            // A busy subscription must not keep signals and the time from being seen.
            tokio::task::coop::consume_budget().await;
        }
        Ok(End::Counted)
    }

    fn print(&mut self, event: &Delivered) -> Result<bool> {
        self.count += 1;
        is_read(self.format.write(&mut self.out, event, self.is_terminal))
    }

    fn flush(&mut self) -> Result<bool> {
        is_read(self.out.flush())
    }
}

/// Whether somebody still reads what is printed: `| head` closes the pipe, and that is no failure.
fn is_read(written: std::io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::Error::from(error).context("stdout").into()),
    }
}

/// Prints one event.
pub(super) fn print_once(format: Format, event: &Delivered) -> Result<()> {
    let mut printer = Printer::new(format);
    printer.print(event).and_then(|_| printer.flush()).map(drop)
}
