//! `myelin-bench`: what the hot path costs, beside a bare QUIC relay of the same events.
//!
//! `run` (the default) starts the servers and the client processes, interleaves the rows of a cell and prints medians;
//! `relay` and `load` are those processes, and can be run by hand.
#![forbid(unsafe_code)]

mod admin;
mod attacks;
mod cell;
mod facts;
mod load;
mod progress;
mod publisher;
mod relay;
mod report;
mod run;
mod server;
mod session;
mod subscriber;

use clap::{Parser, Subcommand};

/// Measures the hot path of a Myelin router.
#[derive(Debug, Parser)]
#[command(name = "myelin-bench", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start servers and clients, interleave the rows, print medians and write a report (the default).
    Run(run::RunArgs),
    /// Serve as a bare QUIC relay: events in from publishers, the same bytes out to every subscriber.
    Relay(relay::RelayArgs),
    /// Attack a router and gather crowds at it; print what the others notice.
    Attacks(attacks::AttackArgs),
    /// Publish to a server and check every event at the subscribers; prints one line of JSON.
    Load(load::LoadArgs),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        None => run::run(&cli.run),
        Some(Command::Run(arguments)) => run::run(&arguments),
        Some(Command::Relay(arguments)) => relay::run(&arguments),
        Some(Command::Load(arguments)) => load::run(&arguments),
        Some(Command::Attacks(arguments)) => attacks::run(&arguments),
    }
}
