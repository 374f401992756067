//! The command line: every command is one file that parses its arguments and calls what does the work.

mod admin;
mod apply;
mod audit;
mod bench;
mod binding;
pub mod build;
mod capture;
mod cert;
mod client;
mod config;
mod connect;
mod demo;
mod dev;
mod development;
mod distance;
mod doctor;
mod examine;
mod expectation;
mod explain;
mod failure;
mod filter;
mod fixtures;
mod format;
#[cfg(test)]
mod grammar;
mod help;
mod http;
mod ledger;
mod link;
mod listing;
mod logging;
mod lost;
mod made_up;
mod mesh;
mod oci;
mod patterns;
mod policy;
mod publish;
mod replay;
mod request;
mod resource;
mod rollout;
mod schema;
mod secrets;
mod serve;
mod shadow;
mod signals;
mod signing;
mod site;
mod subscribe;
mod tenant;
mod top;
mod topic;
mod trace;
mod trial;
mod trust;
mod values;
mod whoami;

pub use failure::{Exit, Failure};

use crate::node::COMPILE_COMMAND;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use failure::Result;
use myelin_engine::{CompilerLimits, compiler_child_main};
use std::process::ExitCode;

const AFTER_HELP: &str = "\
First steps, in two terminals:
  myelin serve --dev                     a router with certificates of its own
  myelin sub 'demo/**'                   prints what arrives below demo/
  myelin pub demo/hello -m 'hi there'    sends one event

Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 denied, 5 conflict, 6 timeout, 7 gate failed, 8 would change (`apply
--dry-run --exit-code`).
Where JSON is asked for, an error is JSON, too: the last line of the standard error. What is wrong with the command line
itself (exit code 2) may be told as text all the same. docs/OPERATIONS.md tells more.";

/// The WebAssembly-programmable edge router of an event mesh.
#[derive(Debug, Parser)]
#[command(name = "myelin", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a router
    Serve(serve::Serve),
    /// Publish events
    #[command(name = "pub")]
    Publish(publish::Publish),
    /// Subscribe and print events
    #[command(name = "sub")]
    Subscribe(subscribe::Subscribe),
    /// Send a request and print the answer
    Request(request::Request),
    /// Answer requests
    Reply(request::Reply),
    /// Make, test and build filters, and manage the modules of a router
    #[command(subcommand)]
    Filter(filter::Filter),
    /// Run a filter on live traffic, anew with every save
    Dev(dev::Dev),
    /// Attach a filter to the events of a pattern, and make it active
    Bind(binding::Bind),
    /// Detach a filter
    Unbind(binding::Unbind),
    /// Make staged bindings active, or go back
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// Show what the new filters of a rollout would change, while they judge copies of live events
    #[command(subcommand)]
    Shadow(shadow::Shadow),
    /// Keep live events with what filters said about them, for a replay
    #[command(subcommand)]
    Capture(capture::Capture),
    /// Run another module over captured events, offline, and show what would change
    Replay(replay::Replay),
    /// Show and verify who did what, and what became of it
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Show rates, filters and queues of a router, live
    Top(top::Top),
    /// Show what became of every event
    Ledger(ledger::Ledger),
    /// Say what would become of an event, router by router, without sending it
    Explain(explain::Explain),
    /// Show the mesh as a router sees it: links, interest, alarms, keys
    Mesh(mesh::Mesh),
    /// Show how many clients are connected, and what they were refused
    #[command(subcommand)]
    Client(client::Client),
    /// Show the links of a router to those of other sites
    #[command(subcommand)]
    Link(link::Link),
    /// Show and change who belongs to the mesh
    #[command(subcommand)]
    Site(site::Site),
    /// Show and change whose topics are whose, and how much each tenant may use
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// Show and change where events of which topics may be
    #[command(subcommand)]
    Topic(topic::Topic),
    /// Show, register, compare and delete schemas of payloads
    #[command(subcommand)]
    Schema(schema::Schema),
    /// Show, change and test who may publish and subscribe
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Make tenants, schemas, topics, policies and bindings what a folder says
    Apply(apply::Apply),
    /// Write tenants, schemas, topics, policies and bindings as a folder
    Export(apply::Export),
    /// Write topics and schemas as an AsyncAPI document, or read one
    #[command(subcommand, name = "asyncapi")]
    AsyncApi(apply::AsyncApi),
    /// Show as whom the admin API knows this command, and what that may
    Whoami(whoami::Whoami),
    /// Show and change whose signatures on modules count
    #[command(subcommand)]
    Trust(trust::Trust),
    /// Make certificates
    #[command(subcommand)]
    Cert(cert::Cert),
    /// Show or check configuration
    #[command(subcommand)]
    Config(config::Config),
    /// Play real events through filters that are swapped under load
    Demo(demo::Demo),
    /// Measure a running router under load
    Bench(bench::Bench),
    /// Look whether this machine has what is needed
    Doctor(doctor::Doctor),
    /// Compile a module from stdin to stdout within limits; the router starts this by itself
    #[command(name = COMPILE_COMMAND, hide = true)]
    CompileModule { address_space_bytes: u64, cpu_seconds: u64, module_bytes_max: usize },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let parsed = help::laid_out(Cli::command())
        .try_get_matches()
        .and_then(|told| Ok((listing::is_for_programs(&told), Cli::from_arg_matches(&told)?)));
    let (is_for_programs, cli) = match parsed {
        Ok(parsed) => parsed,
        Err(told) => {
            // `--help` and `--version` come this way, too, and go to stdout.
            let _ = told.print();
            return if told.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    if let Command::CompileModule { address_space_bytes, cpu_seconds, module_bytes_max } = cli.command {
        let limits = CompilerLimits { address_space_bytes, cpu_seconds, module_bytes_max };
        return compiler_child_main(&limits);
    }
    match run(cli.command).and_then(|exit| values::printed().map(|()| exit)) {
        Ok(exit) => exit.map_or(ExitCode::SUCCESS, ExitCode::from),
        Err(failure) => {
            match is_for_programs {
                true => eprintln!("{}", failure.for_programs()),
                false => eprintln!("{failure}"),
            }
            failure.exit.into()
        }
    }
}

/// Runs a command; gives the exit code where that says more than that it went well.
fn run(command: Command) -> Result<Option<Exit>> {
    let done = match command {
        Command::Serve(serve) => serve.run(),
        Command::Publish(publish) => publish.run(),
        Command::Subscribe(subscribe) => subscribe.run(),
        Command::Request(request) => request.run(),
        Command::Reply(reply) => reply.run(),
        Command::Filter(filter) => filter.run(),
        Command::Dev(dev) => dev.run(),
        Command::Bind(bind) => bind.run(),
        Command::Unbind(unbind) => unbind.run(),
        Command::Rollout(rollout) => rollout.run(),
        Command::Shadow(shadow) => shadow.run(),
        Command::Capture(capture) => capture.run(),
        Command::Replay(replay) => replay.run(),
        Command::Audit(audit) => audit.run(),
        Command::Top(top) => top.run(),
        Command::Ledger(ledger) => ledger.run(),
        Command::Explain(explain) => explain.run(),
        Command::Mesh(mesh) => mesh.run(),
        Command::Client(client) => client.run(),
        Command::Link(link) => link.run(),
        Command::Site(site) => site.run(),
        Command::Tenant(tenant) => tenant.run(),
        Command::Topic(topic) => topic.run(),
        Command::Schema(schema) => schema.run(),
        Command::Policy(policy) => policy.run(),
        Command::Apply(apply) => return apply.run(),
        Command::Export(export) => export.run(),
        Command::AsyncApi(asyncapi) => asyncapi.run(),
        Command::Whoami(whoami) => whoami.run(),
        Command::Trust(trust) => trust.run(),
        Command::Cert(cert) => cert.run(),
        Command::Config(config) => config.run(),
        Command::Demo(demo) => demo.run(),
        Command::Bench(bench) => bench.run(),
        Command::Doctor(doctor) => doctor.run(),
        // Needs an exit code of its own: `main` has dealt with it.
        Command::CompileModule { .. } => Ok(()),
    };
    done.map(|()| None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    /// How a command line ends.
    fn exit(words: &[&str]) -> Result<Option<Exit>, Exit> {
        let cli = Cli::try_parse_from([&["myelin"], words].concat()).unwrap();
        run(cli.command).map_err(|failure| failure.exit)
    }

    #[test]
    fn a_file_that_is_missing_or_wrong_is_the_command_lines_fault() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let file = folder.path().join(name);
            std::fs::write(&file, bytes).unwrap();
            file.to_str().unwrap().to_owned()
        };
        let (bytes, untyped) =
            (file("bytes.cedar", b"\xff\xfe"), file("untyped.cedar", b"permit (principal, action);"));
        let table = file(
            "table.toml",
            b"policies = [\"untyped.cedar\"]\n[[case]]\nprincipal = \"spiffe://a/service/b\"\n\
            action = \"publish\"\nresource = \"a\"\nexpect = \"deny\"\n",
        );
        for words in [
            "policy apply /nope.cedar",
            "policy apply /nope/",
            &format!("policy apply {bytes}"),
            &format!("policy apply {untyped}"),
            "policy test /nope",
            &format!("policy test {table}"),
            "apply -f /nope",
            &format!("apply -f {bytes}"),
            "audit verify --file /nope",
            "schema register orders /nope.json",
            "filter push /nope.wasm",
            "filter sign /nope.wasm --key /nope",
            "trust sign /nope --key /nope",
            "asyncapi import /nope /nope/dir",
        ] {
            assert_eq!(exit(&words.split(' ').collect::<Vec<_>>()), Err(Exit::Usage), "{words}");
        }
    }

    #[test]
    fn an_admin_api_that_does_not_answer_is_not_found() {
        for words in [
            "audit ls",
            "audit verify",
            "asyncapi export",
            "capture ls",
            "client ls",
            "export /nope/dir",
            "filter ls",
            "ledger",
            "link ls",
            "mesh",
            "mesh keys ls",
            "policy ls",
            "rollout status",
            "schema ls",
            "site ls",
            "tenant ls",
            "topic ls",
            "trust ls",
            "whoami",
        ] {
            let words: Vec<_> = words.split(' ').chain(["--admin", "http://127.0.0.1:1"]).collect();
            assert_eq!(exit(&words), Err(Exit::NotFound), "{words:?}");
        }
    }

    #[test]
    fn the_grammar_holds_together() {
        Cli::command().debug_assert();
    }
}
