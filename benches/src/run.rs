//! `run`: every row of a cell in turn, again and again, each with a fresh server and a fresh client process.

use crate::admin::{self, Filter};
use crate::cell::{Cell, PATTERN, Target};
use crate::facts::Machine;
use crate::load::Measured;
use crate::report::{CellReport, Kind, Report, RowReport};
use crate::server::Server;
use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The filter that is taken from `MYELIN_FILTERS_DIR` where none is named: it decides by one header.
const FILTER_FILE: &str = "tenant.wasm";

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// What is measured under full load: payload bytes, publishers and subscribers of each cell.
    #[arg(long, value_delimiter = ',', default_value = "128:1-1")]
    cells: Vec<Cell>,
    /// Runs of each row; medians need at least 5.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Workers of the router; the relay is one thread.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Events a second of the latency rows (128 B, 1 to 1, on a fixed schedule); 0 leaves them out.
    #[arg(long, default_value_t = 10_000)]
    latency_rate: u64,
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
    /// Where the report goes; without it `bench/report.json` in the target folder.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What all runs have in common.
struct Bench<'a> {
    arguments: &'a RunArgs,
    router: PathBuf,
    filter: Option<PathBuf>,
}

/// Runs the bench; fails when an event was lost, doubled or refused.
pub(crate) fn run(arguments: &RunArgs) -> anyhow::Result<()> {
    ensure!(arguments.runs > 0 && arguments.seconds > 0.0, "give at least one run and some time");
    let own = std::env::current_exe()?;
    let beside = own.parent().context("this program lies in a folder")?;
    let router = arguments.router.clone().unwrap_or_else(|| beside.join("myelin"));
    ensure!(router.exists(), "there is no router at {}; build it, or name it with --router", router.display());
    let filter = find_filter(arguments)?;
    let bench = Bench { arguments, router, filter };
    let mut report = Report::new(Machine::here(), arguments.workers, arguments.runs, arguments.seconds);
    for cell in &arguments.cells {
        report.cells.push(bench.cell(*cell, None)?);
    }
    if arguments.latency_rate > 0 {
        let cell = Cell { payload_bytes: 128, publishers: 1, subscribers: 1 };
        report.cells.push(bench.cell(cell, Some(arguments.latency_rate))?);
    }
    println!("{}", report.text());
    if bench.filter.is_none() {
        println!("No rows with a filter: no --filter was given and MYELIN_FILTERS_DIR has no {FILTER_FILE}.");
    }
    let file = arguments.json.clone().or_else(|| Some(beside.parent()?.join("bench/report.json")));
    let file = file.context("no place for the report; name one with --json")?;
    write(&file, &serde_json::to_vec_pretty(&report)?)?;
    println!("Report: {}", file.display());
    ensure!(report.is_exact(), "events were lost, doubled or refused; see the table");
    Ok(())
}

fn find_filter(arguments: &RunArgs) -> anyhow::Result<Option<PathBuf>> {
    if let Some(file) = &arguments.filter {
        ensure!(file.exists(), "there is no filter at {}", file.display());
        return Ok(Some(file.clone()));
    }
    Ok(arguments.filters_dir.as_ref().map(|dir| dir.join(FILTER_FILE)).filter(|file| file.exists()))
}

fn write(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

impl Bench<'_> {
    /// Measures all rows of a cell, interleaved, so that what else the machine does hits all of them alike.
    fn cell(&self, cell: Cell, rate: Option<u64>) -> anyhow::Result<CellReport> {
        let kinds = Kind::ALL.into_iter().filter(|kind| self.filter.is_some() || !kind.has_header());
        let mut rows: Vec<RowReport> = kinds.map(RowReport::new).collect();
        for run in 0..self.arguments.runs {
            for row in &mut rows {
                eprint!("{cell}, run {} of {}, {}: ", run + 1, self.arguments.runs, row.kind.label());
                let measured =
                    self.row(row.kind, cell, rate).with_context(|| format!("{cell}, {}", row.kind.label()))?;
                eprintln!("{}", crate::report::line(&measured));
                row.runs.push(measured);
            }
        }
        Ok(CellReport { cell, rate, rows })
    }

    fn row(&self, kind: Kind, cell: Cell, rate: Option<u64>) -> anyhow::Result<Measured> {
        if kind == Kind::Relay {
            let server = Server::relay()?;
            let measured = self.load(&server, kind, cell, rate)?;
            server.kill()?;
            return Ok(measured);
        }
        let server = Server::router(&self.router, self.arguments.workers)?;
        if kind == Kind::Filter
            && let Some(file) = &self.filter
        {
            let RunArgs { filter_config: config, filter_grant: grant, .. } = self.arguments;
            let filter = Filter { file, config, grant, pattern: PATTERN };
            admin::bind(server.admin_addr()?, filter)?;
        }
        let measured = self.load(&server, kind, cell, rate)?;
        server.stop()?;
        Ok(measured)
    }

    /// Runs the client process against `server`.
    fn load(&self, server: &Server, kind: Kind, cell: Cell, rate: Option<u64>) -> anyhow::Result<Measured> {
        let target = if kind == Kind::Relay { Target::Relay } else { Target::Router };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["load", "--target", target.as_str(), "--cell", &cell.to_string()]);
        command.args(["--addr", &server.client_addr().to_string(), "--server-pid", &server.pid().to_string()]);
        command.args(["--seconds", &self.arguments.seconds.to_string(), "--certs"]).arg(server.certificates());
        if kind.has_header() {
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
