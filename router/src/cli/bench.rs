//! `myelin bench`: load for a running router, and what it made of it.

use super::connect::Connect;
use super::failure::{Exit, Failure, Result};
use super::listing::table;
use super::values::{duration, pair, print, say, write_atomically};
use anyhow::Context;
use clap::Args;
use myelin_load::page::{Page, Section, Throughput};
use myelin_load::{Cell, Channel, Client, Distribution, Measured, Plan, Target, attributes, hgrm};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

const AFTER_HELP: &str = "\
Examples:
  myelin bench                                           10,000 events/s of 128 bytes for 5 seconds
  myelin bench --scenario 128:1-1,1024:1-8 --seconds 10  two scenarios: bytes:publishers-subscribers
  myelin bench --flat-out                                as fast as it goes; then latency says nothing
  myelin bench -H x-tenant=acme --report out             with a header; .hgrm, JSON and one HTML page into out/

Every event has a number, and every subscriber checks every number: exit code 7 when one was lost, doubled or refused.
Events have a schedule, and a latency counts from an event's scheduled time: a router that stalls is charged for the
events that waited (corrected for coordinated omission). For Myelin beside other brokers: `cargo xtask bench peers`.";

/// Columns of the table; all but the first are numbers.
const COLUMNS: [&str; 10] =
    ["scenario", "delivered/s", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us", "lost", "doubled", "refused"];

/// Measure a running router under load
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Bench {
    /// What is measured, each in turn: payload bytes, connections that publish, connections that subscribe
    #[arg(long, value_name = "BYTES:N-N", value_delimiter = ',', default_value = "128:1-1", value_parser = scenario)]
    scenario: Vec<Cell>,
    /// Events a second of each publisher
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rate: u64,
    /// As fast as the router takes them, instead of a rate
    #[arg(long, conflicts_with = "rate")]
    flat_out: bool,
    /// How long each scenario is measured
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    seconds: Duration,
    /// How long it runs before that
    #[arg(long, value_name = "DURATION", default_value = "700ms", value_parser = duration)]
    warm_up: Duration,
    /// A header that every event carries
    #[arg(short = 'H', long, value_name = "NAME=VALUE", value_parser = pair)]
    header: Option<(String, String)>,
    /// Events go to TOPIC/RUN/events, where RUN is new each time
    #[arg(long, value_name = "TOPIC", default_value = "bench")]
    topic: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write report.json, report.html and, for each scenario with a rate, an .hgrm file into this folder
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    #[command(flatten)]
    connect: Connect,
}

/// What a scenario came to.
#[derive(Debug, Serialize)]
struct Scenario {
    scenario: String,
    /// Events a second of each publisher; none = flat out.
    rate: Option<u64>,
    delivered_per_second: f64,
    latency_us: Option<myelin_load::Percentiles>,
    #[serde(flatten)]
    measured: Measured,
}

impl Bench {
    pub(super) fn run(self) -> Result<()> {
        let scenarios = self.scenario.iter().map(|cell| self.measure(cell)).collect::<Result<Vec<_>>>()?;
        if self.json {
            say!("{}", serde_json::to_string(&scenarios).context("the scenarios as JSON")?);
        } else {
            print(self.table(&scenarios));
        }
        if let Some(folder) = &self.report {
            write_report(folder, &scenarios).with_context(|| format!("the report in {}", folder.display()))?;
        }
        match scenarios.iter().find(|scenario| !scenario.measured.is_exact()) {
            None => Ok(()),
            Some(wrong) => {
                let Measured { lost, doubled, refused, .. } = wrong.measured;
                let what = format!("{}: {lost} events lost, {doubled} doubled, {refused} refused", wrong.scenario);
                Err(Failure::new(Exit::GateFailed, what)
                    .next("`myelin ledger` tells where they stayed; a filter may have refused them"))
            }
        }
    }

    fn measure(&self, cell: &Cell) -> Result<Scenario> {
        let run = format!("{}/{}", self.topic, run_name());
        let channel = Channel { topic: format!("{run}/events"), pattern: format!("{run}/**") };
        let header = self.header.as_ref().map(|(name, value)| format!("{name}={value}"));
        let attributes = attributes(header.as_deref())?;
        let (rate, server_pids) = ((!self.flat_out).then_some(self.rate), self.connect.server_pid());
        let server_pids = server_pids.into_iter().collect();
        let plan = Plan { warm_up: self.warm_up, length: self.seconds, rate, server_pids, ..Plan::default() };
        let client = Client::new(Target::Router, channel, cell, attributes, self.connect.dial()?)
            .with_token(self.connect.token()?);
        let measured = client.run(&plan).map_err(|error| Failure::from(error).doing(cell))?;
        Ok(Scenario {
            scenario: cell.to_string(),
            rate,
            delivered_per_second: measured.delivered_per_second(),
            latency_us: measured.latency.as_ref().map(Distribution::percentiles),
            measured,
        })
    }

    fn table(&self, scenarios: &[Scenario]) -> String {
        let mut text = table(&COLUMNS, &COLUMNS[1..], scenarios.iter().map(Scenario::row));
        for scenario in scenarios.iter().filter(|scenario| scenario.measured.server_cpu_seconds > 0.0) {
            let (measured, cell) = (&scenario.measured, &scenario.scenario);
            text.push_str(&format!(
                "{cell}: the router used {:.3} s of CPU for a million events, and {:.0} MiB of memory\n",
                measured.server_cpu_seconds_per_million(),
                measured.server_memory_mib
            ));
        }
        text
    }
}

impl Scenario {
    fn row(&self) -> Vec<String> {
        let at = |value: fn(&myelin_load::Percentiles) -> f64| {
            self.latency_us.as_ref().map_or_else(|| "-".to_owned(), |latency| format!("{:.0}", value(latency)))
        };
        let mut row = vec![self.scenario.clone(), format!("{:.0}", self.delivered_per_second)];
        row.extend([at(|l| l.p50_us), at(|l| l.p90_us), at(|l| l.p99_us), at(|l| l.p999_us), at(|l| l.max_us)]);
        row.extend([self.measured.lost, self.measured.doubled, self.measured.refused].map(|count| count.to_string()));
        row
    }

    fn section(&self) -> Section {
        let load = self.rate.map_or_else(|| "flat out".to_owned(), |rate| format!("{rate} events/s of each publisher"));
        let latencies = self.measured.latency.as_ref().map(|latency| Distribution::merge([latency]));
        let delivered = self.measured.timeline.iter().map(|(ms, count)| (*ms as f64 / 1e3, *count as f64)).collect();
        Section {
            title: format!("{}, {load}", self.scenario),
            table: vec![COLUMNS.map(str::to_owned).to_vec(), self.row()],
            latencies: latencies.map(|latencies| (self.scenario.clone(), latencies)).into_iter().collect(),
            throughput: vec![Throughput { label: self.scenario.clone(), delivered, marks: Vec::new() }],
        }
    }
}

fn write_report(folder: &Path, scenarios: &[Scenario]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    write_atomically(&folder.join("report.json"), &serde_json::to_string_pretty(scenarios)?)?;
    let page = Page {
        title: "myelin bench".into(),
        intro: vec![format!("myelin {}, against a running router.", env!("CARGO_PKG_VERSION"))],
        sections: scenarios.iter().map(Scenario::section).collect(),
    };
    write_atomically(&folder.join("report.html"), &page.html()?)?;
    for scenario in scenarios {
        if let Some(latency) = &scenario.measured.latency {
            let file = format!("{}.hgrm", scenario.scenario.replace(':', "b-"));
            write_atomically(&folder.join(file), &hgrm::text(&Distribution::merge([latency])))?;
        }
    }
    Ok(())
}

fn scenario(text: &str) -> Result<Cell, String> {
    text.parse().map_err(|error: anyhow::Error| error.to_string())
}

/// A level of a topic that no other run has: two at a time must not see each other's events.
fn run_name() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", since.as_nanos(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_all_its_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let measured = Measured {
            seconds: 1.0,
            delivered: 3,
            latency: Some(Distribution(vec![(200_000, 2), (900_000, 1)])),
            timeline: vec![(1_000, 3)],
            ..Measured::default()
        };
        let scenario = Scenario {
            scenario: "128:1-1".into(),
            rate: Some(3),
            delivered_per_second: 3.0,
            latency_us: measured.latency.as_ref().map(Distribution::percentiles),
            measured,
        };
        assert_eq!(scenario.row()[..3], ["128:1-1", "3", "200"]);
        write_report(folder.path(), &[scenario]).expect("it can be written");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
        assert_eq!(read("report.html").matches("<svg").count(), 2, "latencies and throughput");
        assert!(read("128b-1-1.hgrm").contains("Total count"));
        assert!(read("report.json").contains("\"delivered_per_second\": 3.0"));
    }
}
