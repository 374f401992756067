//! Every row of a cell in turn, again and again, each with a fresh server and a fresh client process.

use crate::admin::{Bound, Filter, govern};
use crate::files;
use crate::goals;
use crate::load::PATTERN;
use crate::machine::Machine;
use crate::pair::Pair;
use crate::peers::{self, PeerArgs};
use crate::report::{CellReport, Report, RowReport, RunReport};
use crate::row::{self, Row};
use crate::server::Server;
use crate::swaps::{Swap, Swapper};
use anyhow::{Context, bail, ensure};
use clap::Args;
use myelin_load::{Cell, Form, Measured};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The filter that is taken from `MYELIN_FILTERS_DIR` where none is named: it decides by one header.
const FILTER_FILE: &str = "tenant.wasm";
/// The cell of the latency rows.
const LATENCY_CELL: Cell = Cell { payload_bytes: 128, publishers: 1, subscribers: 1 };
/// Events a second there, unless told.
const LATENCY_RATE: u64 = 10_000;
/// Seconds until the first of two servers surely knows of the second one's subscribers; no peer tells.
const SETTLE_S: &str = "0.5";
/// What a run takes beside its window, in seconds: a server that starts, a filter that is compiled, warming up.
const AROUND_A_RUN_S: f64 = 1.1;

/// Arguments of `run`, `scenarios` and `peers`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// What is measured under full load: payload bytes, publishers and subscribers of each cell.
    #[arg(long, value_delimiter = ',')]
    cells: Vec<Cell>,
    /// What does the work in each cell; the command decides where none are named.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Runs of each row; medians need at least 5.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Workers of the router; the relay is one thread.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Events a second of the latency rows (128 B, 1 to 1, on a fixed schedule); 0 leaves them out. Without it 10,000;
    /// of the scenarios each cell, at half of what its slowest row did under full load.
    #[arg(long)]
    latency_rate: Option<u64>,
    /// A filter (Wasm component) for the rows with one; without it `tenant.wasm` of MYELIN_FILTERS_DIR is taken.
    #[arg(long)]
    filter: Option<PathBuf>,
    /// The filter's configuration, as JSON; the default is for `tenant.wasm`.
    #[arg(long, default_value = r#"{"tenants":["acme"]}"#, value_parser = |text: &str| serde_json::from_str::<Value>(text))]
    filter_config: Value,
    /// Topics that the filter declares as routes, and is granted; the default is for `tenant.wasm`.
    #[arg(long, value_delimiter = ',', default_value = "audit/orders")]
    filter_grant: Vec<String>,
    /// The header that events of the rows with a filter carry.
    #[arg(long, default_value = "x-tenant=acme")]
    header: String,
    /// The router; without it the `myelin` beside this program is taken.
    #[arg(long, env = "MYELIN_BIN")]
    router: Option<PathBuf>,
    /// Folder of filters, see --filter.
    #[arg(long, env = "MYELIN_FILTERS_DIR")]
    filters_dir: Option<PathBuf>,
    /// Where all runs go as JSON; without it `report.json` in the report's folder.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The report's folder: JSON, `report.html`, one `.hgrm` for each latency row; without it `bench` in the target
    /// folder.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Print the tables as sections of a Markdown page, and nothing else on stdout.
    #[arg(long)]
    markdown: bool,
    /// Succeed also where a ratio is behind its goal; it is printed either way.
    #[arg(long)]
    tolerate_behind: bool,
    #[command(flatten)]
    peers: PeerArgs,
}

/// What is measured unless told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// The router beside the relay.
    HotPath,
    /// Every fan-out, size and filter.
    Scenarios,
    /// What policies, tenants and schemas cost.
    Governance,
    /// Other brokers, too.
    Peers,
    /// The same across two linked servers.
    Hops,
}

impl Preset {
    fn cells(self) -> Vec<Cell> {
        let cells = |sizes: &[usize], fan_outs: &[(usize, usize)]| {
            let each = sizes.iter().flat_map(|size| fan_outs.iter().map(move |fan_out| (*size, *fan_out)));
            each.map(|(payload_bytes, (publishers, subscribers))| Cell { payload_bytes, publishers, subscribers })
                .collect()
        };
        match self {
            Self::HotPath => cells(&[128], &[(1, 1)]),
            Self::Governance => cells(&[128, 1024], &[(1, 1)]),
            Self::Scenarios => cells(&[128, 1024, 16 * 1024], &[(1, 1), (1, 8), (4, 4)]),
            Self::Peers => cells(&[128, 1024], &[(1, 1), (1, 8)]),
            Self::Hops => cells(&[128, 1024], &[(1, 1)]),
        }
    }

    fn rows(self) -> Vec<Row> {
        match self {
            Self::HotPath => Row::HOT_PATH.to_vec(),
            Self::Scenarios => Row::SCENARIOS.to_vec(),
            Self::Governance => Row::GOVERNANCE.to_vec(),
            Self::Peers => [Row::Relay, Row::Router].into_iter().chain(Row::PEERS).collect(),
            Self::Hops => [Row::Router].into_iter().chain(Row::PEERS).collect(),
        }
    }

    /// The folder below `bench`, so that one report does not overwrite another.
    fn folder(self) -> &'static str {
        match self {
            Self::HotPath => "",
            Self::Scenarios => "scenarios",
            Self::Governance => "governance",
            Self::Peers => "peers",
            Self::Hops => "hops",
        }
    }

    /// Whether other brokers are compared with.
    fn is_beside_peers(self) -> bool {
        matches!(self, Self::Peers | Self::Hops)
    }

    /// Whether a ratio behind its goal is a failure.
    fn is_judged(self) -> bool {
        self.is_beside_peers() || self == Self::Governance
    }

    /// Servers that an event passes.
    fn hops(self) -> usize {
        if self == Self::Hops { 2 } else { 1 }
    }
}

/// What all runs have in common.
struct Bench<'a> {
    arguments: &'a RunArgs,
    /// Servers that an event passes.
    hops: usize,
    rows: Vec<Row>,
    router: PathBuf,
    filter: Option<PathBuf>,
}

/// Runs the bench; fails when an event of ours was lost, doubled or refused, and beside peers when a ratio is behind.
pub(crate) fn run(arguments: &RunArgs, preset: Preset) -> anyhow::Result<()> {
    ensure!(arguments.runs > 0 && arguments.seconds > 0.0, "give at least one run and some time");
    let own = std::env::current_exe()?;
    let beside = own.parent().context("this program lies in a folder")?;
    let router = arguments.router.clone().unwrap_or_else(|| beside.join("myelin"));
    ensure!(router.exists(), "there is no router at {}; build it, or name it with --router", router.display());
    let filter = find_filter(arguments)?;
    let mut rows = if arguments.rows.is_empty() { preset.rows() } else { arguments.rows.clone() };
    if filter.is_none() && rows.iter().any(|row| row.needs_filter()) {
        ensure!(arguments.rows.is_empty(), "no --filter was given and MYELIN_FILTERS_DIR has no {FILTER_FILE}");
        eprintln!("No rows with a filter: no --filter was given and MYELIN_FILTERS_DIR has no {FILTER_FILE}.");
        rows.retain(|row| !row.has_header());
    }
    let cells = if arguments.cells.is_empty() { preset.cells() } else { arguments.cells.clone() };
    let hops = preset.hops();
    ensure!(hops == 1 || rows.iter().all(|row| row.has_pair()), "two hops are measured without relay and filters");
    let bench = Bench { arguments, hops, rows, router, filter };
    let mut machine = Machine::here();
    if preset.is_beside_peers() {
        machine.packages.extend(arguments.peers.versions());
    }
    let mut report = Report::new(machine, arguments.workers, arguments.runs, arguments.seconds);
    let folder = arguments.report.clone().or_else(|| Some(beside.parent()?.join("bench").join(preset.folder())));
    let folder = folder.context("no place for the report; name one with --report")?;
    let (fixed, halves) = match (arguments.latency_rate, preset) {
        (None, Preset::Scenarios) => (None, cells.len()),
        (rate, _) => (Some(rate.unwrap_or(LATENCY_RATE)).filter(|rate| *rate > 0), 0),
    };
    bench.announce(cells.len() + halves + usize::from(fixed.is_some()));
    println!("\n{}", report.facts().join("\n"));
    // Each table as soon as it is there, and what there is so far in the files: a run takes minutes, and may be ended.
    let mut take = |cell: CellReport| {
        println!("\n{}", cell.text(arguments.markdown));
        report.cells.push(cell);
        files::write(&report, &folder, arguments.json.as_deref())
    };
    for cell in &cells {
        let full = bench.cell(*cell, None)?;
        let half = full.half_load();
        take(full)?;
        if halves > 0 {
            take(bench.cell(*cell, Some(half))?)?;
        }
    }
    if fixed.is_some() {
        take(bench.cell(LATENCY_CELL, fixed)?)?;
    }
    report.goals = goals::judge(&report.cells);
    print!("{}", report.end(arguments.markdown));
    files::write(&report, &folder, arguments.json.as_deref())?;
    eprintln!("Report: {}", folder.join("report.html").display());
    for loss in report.losses_of_peers() {
        eprintln!("warning: {loss}; its figures are of what arrived");
    }
    ensure!(report.is_exact(), "events were lost, doubled or refused; see the table");
    let behind: Vec<&str> =
        report.goals.iter().filter(|goal| goal.is_behind()).map(|goal| goal.what.as_str()).collect();
    if preset.is_judged() && !arguments.tolerate_behind && !behind.is_empty() {
        bail!("behind the goal: {}; --tolerate-behind makes this no failure", behind.join("; "));
    }
    Ok(())
}

fn find_filter(arguments: &RunArgs) -> anyhow::Result<Option<PathBuf>> {
    if let Some(file) = &arguments.filter {
        ensure!(file.exists(), "there is no filter at {}", file.display());
        return Ok(Some(file.clone()));
    }
    Ok(arguments.filters_dir.as_ref().map(|dir| dir.join(FILTER_FILE)).filter(|file| file.exists()))
}

impl Bench<'_> {
    /// Says how long it takes, to somebody who is about to wait.
    fn announce(&self, cells: usize) {
        let runs = cells * self.rows.len() * self.arguments.runs;
        let minutes = runs as f64 * (self.arguments.seconds + AROUND_A_RUN_S) / 60.0;
        eprintln!("{runs} runs in {cells} tables, about {minutes:.0} min");
    }

    /// Measures all rows of a cell, interleaved, so that what else the machine does hits all of them alike.
    fn cell(&self, cell: Cell, rate: Option<u64>) -> anyhow::Result<CellReport> {
        let mut rows: Vec<RowReport> = self.rows.iter().map(|row| RowReport::new(*row)).collect();
        for run in 0..self.arguments.runs {
            for row in &mut rows {
                eprint!("{cell}, run {} of {}, {}: ", run + 1, self.arguments.runs, row.row.label());
                let (measured, swaps) =
                    self.row(row.row, cell, rate).with_context(|| format!("{cell}, {}", row.row.label()))?;
                let run = RunReport { measured, swaps };
                eprintln!("{}", run.line());
                row.runs.push(run);
            }
        }
        Ok(CellReport { cell, rate, hops: self.hops, rows })
    }

    fn row(&self, row: Row, cell: Cell, rate: Option<u64>) -> anyhow::Result<(Measured, Vec<Swap>)> {
        if self.hops == 2 {
            return Ok((self.pair_row(row, cell, rate)?, Vec::new()));
        }
        let peers = &self.arguments.peers;
        let server = match row.server() {
            row::Server::Relay => Server::relay()?,
            row::Server::Nats => peers::nats(peers.program(&peers.nats_server, "nats-server")?)?,
            row::Server::Zenoh { scheme } => peers::zenoh(peers.program(&peers.zenohd, "zenohd")?, scheme)?,
            row::Server::Router { filters, swaps } => return self.router_row(row, filters, swaps, cell, rate),
            row::Server::Governed => {
                let server = Server::router(&self.router, self.arguments.workers)?;
                govern(server.admin_addr()?, PATTERN, row.form())?;
                let measured = self.load(std::slice::from_ref(&server), row, cell, rate)?;
                server.stop()?;
                return Ok((measured, Vec::new()));
            }
        };
        let measured = self.load(std::slice::from_ref(&server), row, cell, rate)?;
        server.kill()?;
        Ok((measured, Vec::new()))
    }

    /// A row across two linked servers.
    fn pair_row(&self, row: Row, cell: Cell, rate: Option<u64>) -> anyhow::Result<Measured> {
        let peers = &self.arguments.peers;
        let servers = match row.server() {
            row::Server::Nats => peers::nats_pair(peers.program(&peers.nats_server, "nats-server")?)?,
            row::Server::Zenoh { scheme } => peers::zenoh_pair(peers.program(&peers.zenohd, "zenohd")?, scheme)?,
            row::Server::Relay | row::Server::Router { .. } | row::Server::Governed => {
                let pair = Pair::start(&self.router, self.arguments.workers)?;
                let measured = self.load(&pair.routers, row, cell, rate)?;
                pair.stop()?;
                return Ok(measured);
            }
        };
        let measured = self.load(&servers, row, cell, rate)?;
        servers.into_iter().try_for_each(Server::kill)?;
        Ok(measured)
    }

    fn router_row(
        &self,
        row: Row,
        filters: usize,
        swaps: bool,
        cell: Cell,
        rate: Option<u64>,
    ) -> anyhow::Result<(Measured, Vec<Swap>)> {
        let server = Server::router(&self.router, self.arguments.workers)?;
        let bound = match &self.filter {
            Some(file) if filters > 0 => {
                let RunArgs { filter_config: config, filter_grant: grant, .. } = self.arguments;
                Some(Bound::new(server.admin_addr()?, Filter { file, config, grant, pattern: PATTERN }, filters)?)
            }
            _ => None,
        };
        let swapper = bound.filter(|_| swaps).map(Swapper::start);
        let measured = self.load(std::slice::from_ref(&server), row, cell, rate);
        let swaps = swapper.map_or(Ok(Vec::new()), Swapper::end);
        let measured = measured?;
        server.stop()?;
        Ok((measured, swaps?))
    }

    /// Runs the client process: publishers at the first of `servers`, subscribers at the last.
    fn load(&self, servers: &[Server], row: Row, cell: Cell, rate: Option<u64>) -> anyhow::Result<Measured> {
        let (first, last) = servers.first().zip(servers.last()).context("there is a server")?;
        let mut command = match row.server() {
            row::Server::Relay | row::Server::Router { .. } | row::Server::Governed => {
                let target = if row == Row::Relay { "relay" } else { "router" };
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["load", "--target", target]);
                command
            }
            row::Server::Nats | row::Server::Zenoh { .. } => {
                let peers = &self.arguments.peers;
                let mut command = Command::new(peers.program(&peers.peers_client, "client of the peers")?);
                command.args(["--peer", &row.name()]);
                command
            }
        };
        command.args(["--cell", &cell.to_string(), "--addr", &first.client_addr().to_string()]);
        if servers.len() > 1 {
            command.args(["--subscribers-addr", &last.client_addr().to_string(), "--settle", SETTLE_S]);
        }
        for server in servers {
            command.args(["--server-pid", &server.pid().to_string()]);
        }
        command.args(["--seconds", &self.arguments.seconds.to_string(), "--certs"]).arg(first.certificates());
        if row.form() != Form::Raw {
            command.args(["--form", &row.form().name()]);
        }
        if row.has_header() {
            command.args(["--header", &self.arguments.header]);
        }
        if let Some(rate) = rate {
            command.args(["--rate", &rate.to_string()]);
        }
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("the client failed ({})", output.status);
        }
        serde_json::from_slice(&output.stdout).context("the client's answer is not as known")
    }
}
