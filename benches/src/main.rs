//! `myelin-bench`: what the hot path costs, beside a bare QUIC relay of the same events and beside other brokers.
//!
//! `run` (the default), `scenarios`, `governance`, `peers` and `hops` start servers and client processes, interleave the rows of a cell and
//! print medians; they differ in what is measured unless told. `relay` and `load` are those processes, and can be run
//! by hand. `micro` and `memory` look at single parts.
#![forbid(unsafe_code)]

mod admin;
mod attacks;
mod files;
mod goals;
mod load;
mod machine;
mod memory;
mod mesh;
mod micro;
mod pair;
mod peers;
mod policies;
mod relay;
mod report;
mod row;
mod run;
mod scenarios;
mod schemas;
mod server;
mod swaps;

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
    /// The hot path beside the bare relay (the default).
    Run(run::RunArgs),
    /// Every fan-out and payload size, without and with filters, and with a swap each second.
    Scenarios(run::RunArgs),
    /// What policies, tenants and schemas add to an event.
    Governance(run::RunArgs),
    /// The same work by NATS over TLS and Zenoh over QUIC and TLS; fails where a ratio is behind its goal.
    Peers(run::RunArgs),
    /// Two hops: published at a router, taken at a second one, beside two linked servers of NATS and of Zenoh.
    Hops(run::RunArgs),
    /// What single parts cost: table, filter, allocations, swap.
    Micro(micro::PartArgs),
    /// What a router needs to be there, and for each thing that it holds.
    Memory(micro::PartArgs),
    /// Serve as a bare QUIC relay: events in from publishers, the same bytes out to every subscriber.
    Relay(relay::RelayArgs),
    /// Attack a router and gather crowds at it; print what the others notice.
    Attacks(scenarios::ScenarioArgs),
    /// Break links and kill routers on the way of events, change interest, roll out: how long others wait for it.
    Mesh(scenarios::ScenarioArgs),
    /// Publish to a server and check every event at the subscribers; prints one line of JSON.
    Load(load::LoadArgs),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        None => run::run(&cli.run, run::Preset::HotPath),
        Some(Command::Run(arguments)) => run::run(&arguments, run::Preset::HotPath),
        Some(Command::Scenarios(arguments)) => run::run(&arguments, run::Preset::Scenarios),
        Some(Command::Governance(arguments)) => run::run(&arguments, run::Preset::Governance),
        Some(Command::Peers(arguments)) => run::run(&arguments, run::Preset::Peers),
        Some(Command::Hops(arguments)) => run::run(&arguments, run::Preset::Hops),
        Some(Command::Micro(arguments)) => micro::run(&arguments),
        Some(Command::Memory(arguments)) => memory::run(&arguments),
        Some(Command::Relay(arguments)) => relay::run(&arguments),
        Some(Command::Load(arguments)) => load::run(&arguments),
        Some(Command::Attacks(arguments)) => attacks::run(&arguments),
        Some(Command::Mesh(arguments)) => mesh::run(&arguments),
    }
}
