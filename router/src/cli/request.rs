//! `myelin request` and `myelin reply`

use super::connect::{self, Attributes, Connect, block_on};
use super::failure::{Exit, Failure, Result, exit_for_refusal, step_for_refusal};
use super::patterns;
use super::signals::Signals;
use super::subscribe::{Output, print_once};
use super::values::duration;
use anyhow::{Context, bail};
use clap::{ArgGroup, Args};
use myelin_client::{Client, ClientError, Code, Delivered, RequestError, SubscribeOptions};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::task::JoinSet;

/// Commands of `reply --exec` that run at the same time; further requests wait.
const COMMANDS_MAX: usize = 8;

const REQUEST_HELP: &str = "\
Examples:
  myelin request tools/echo -m hello
  myelin request inventory/lookup -f query.json --timeout 500ms

Exit code 3 when nobody is there to answer, 6 when no answer comes in time, 4 when the request is denied.";

const REPLY_HELP: &str = "\
Examples:
  myelin reply tools/echo --echo
  myelin reply 'tools/*' --exec 'tr a-z A-Z'             the request on stdin, the answer from stdout
  myelin reply tools/time --exec date --group clocks     several share the work

A command finds MYELIN_EVENT_TOPIC, MYELIN_EVENT_ID, MYELIN_EVENT_KEY and MYELIN_EVENT_SOURCE in its environment. When
it fails, no answer is sent.";

/// Send a request and print the answer
#[derive(Args, Debug)]
#[command(after_help = REQUEST_HELP, group = ArgGroup::new("what").args(["message", "file"]))]
pub(super) struct Request {
    /// Whom to ask
    topic: String,
    /// The payload
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    message: Option<String>,
    /// Read the payload from a file; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    timeout: Duration,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    attributes: Attributes,
    #[command(flatten)]
    connect: Connect,
}

impl Request {
    pub(super) fn run(self) -> Result<()> {
        block_on(self.request())
    }

    async fn request(self) -> Result<()> {
        let format = self.output.format()?;
        let payload = connect::payload(self.message.as_deref(), self.file.as_deref())?;
        let client = self.connect.client(|config| config.with_reconnect(false)).await?;
        let event = self.attributes.event(&self.topic, &payload);
        let answer = client.request_event(event, self.timeout).await;
        let printed = match answer {
            Ok(answer) => print_once(format, &answer),
            Err(error) => Err(failure(error, &self.topic).doing(&self.topic)),
        };
        client.close().await;
        printed
    }
}

fn failure(error: RequestError, topic: &str) -> Failure {
    let exit = match &error {
        RequestError::Timeout { .. } => Exit::Timeout,
        RequestError::NoResponder => Exit::NotFound,
        RequestError::Refused(refusal) => exit_for_refusal(refusal.code),
        RequestError::Client(error) => return error.clone().into(),
        _ => Exit::Failed,
    };
    let failure = Failure::new(exit, error.to_string());
    match error {
        RequestError::NoResponder => {
            failure.next("start one with `myelin reply TOPIC --echo`").coded(Code::NoResponder.name())
        }
        RequestError::Timeout { .. } => {
            failure.next("somebody subscribes but does not answer; wait longer with --timeout")
        }
        RequestError::Refused(refusal) => {
            failure.next(step_for_refusal(refusal.code, &format!("request {topic}"))).coded(refusal.code.name())
        }
        _ => failure,
    }
}

/// Answer requests
#[derive(Args, Debug)]
#[command(after_help = REPLY_HELP, group = ArgGroup::new("how").args(["echo", "exec", "message"]).required(true))]
pub(super) struct Reply {
    /// Which topics: * is exactly one level, ** at the end is any number; quote it
    pattern: String,
    /// Answer with the request's own payload
    #[arg(long)]
    echo: bool,
    /// Answer with what this shell command prints; the request is its stdin
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Answer with this
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    message: Option<String>,
    /// Share the requests with the other members of this queue group
    #[arg(short, long, value_name = "NAME")]
    group: Option<String>,
    /// End after so many requests
    #[arg(short = 'C', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How long a command may take
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    timeout: Duration,
    /// Do not say when the subscription is live
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Where answers come from.
#[derive(Debug)]
enum Answers {
    Echo,
    Fixed(String),
    Command { line: String, timeout: Duration },
}

impl Reply {
    pub(super) fn run(self) -> Result<()> {
        block_on(self.reply())
    }

    async fn reply(self) -> Result<()> {
        let answers = Arc::new(match (&self.exec, &self.message) {
            (Some(line), _) => Answers::Command { line: line.clone(), timeout: self.timeout },
            (None, Some(text)) => Answers::Fixed(text.clone()),
            (None, None) => Answers::Echo,
        });
        patterns::hint(&self.pattern);
        let mut signals = Signals::catch()?;
        let client = self.connect.client(|config| config).await?;
        let options = SubscribeOptions { group: self.group.clone() };
        let mut requests = client.subscribe(&self.pattern, options).await?;
        if !self.quiet {
            eprintln!("answering on {} (Ctrl-C ends)", self.pattern);
        }
        let mut running = JoinSet::new();
        let mut taken = 0;
        let mut ended = None;
        while self.count.is_none_or(|count| taken < count) {
            let request = tokio::select! {
                request = requests.next() => request,
                () = signals.next() => break,
            };
            let Some(request) = request else {
                ended = Some(requests.error().map_or_else(
                    || Failure::new(Exit::Failed, "the subscription has ended"),
                    |error: ClientError| error.into(),
                ));
                break;
            };
            taken += 1;
            if running.len() >= COMMANDS_MAX {
                running.join_next().await;
            }
            running.spawn(answer(client.clone(), answers.clone(), request));
        }
        while running.join_next().await.is_some() {}
        client.close().await;
        ended.map_or(Ok(()), Err)
    }
}

/// Answers one request; a failure is told and leaves the others alone.
async fn answer(client: Client, answers: Arc<Answers>, request: Delivered) {
    let answered = async {
        let payload = match &*answers {
            Answers::Echo => request.payload().to_vec(),
            Answers::Fixed(text) => text.as_bytes().to_vec(),
            Answers::Command { line, timeout } => {
                let ran = tokio::time::timeout(*timeout, run(line, &request)).await;
                ran.with_context(|| format!("`{line}` took longer than {timeout:?}"))??
            }
        };
        client.reply(&request, &payload).await?;
        anyhow::Ok(())
    };
    if let Err(error) = answered.await {
        eprintln!("no answer on {}: {error:#}", request.topic().escape_debug());
    }
}

/// What the shell command `line` prints when it is given `request`.
async fn run(line: &str, request: &Delivered) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let key = request.key().and_then(|key| std::str::from_utf8(key).ok());
    let variables = [
        ("MYELIN_EVENT_TOPIC", Some(request.topic())),
        ("MYELIN_EVENT_ID", Some(&*request.id())),
        ("MYELIN_EVENT_KEY", key),
        ("MYELIN_EVENT_SOURCE", request.source()),
    ];
    for (name, value) in variables {
        // A zero byte fits no environment.
        if let Some(value) = value.filter(|value| !value.contains('\0')) {
            command.env(name, value);
        }
    }
    let mut child = command.spawn().context("cannot start a shell")?;
    let (mut stdin, stdout) = child.stdin.take().zip(child.stdout.take()).context("the shell has no pipes")?;
    let give = async move {
        // A command that does not read its input is no failure.
        let _ = stdin.write_all(request.payload()).await;
        drop(stdin);
    };
    let mut payload = Vec::new();
    let mut limited = stdout.take(connect::PAYLOAD_BYTES_MAX + 1);
    let ((), read) = tokio::join!(give, limited.read_to_end(&mut payload));
    read.context("reading the answer")?;
    if payload.len() as u64 > connect::PAYLOAD_BYTES_MAX {
        bail!("`{line}` printed more than {} bytes", connect::PAYLOAD_BYTES_MAX);
    }
    let status = child.wait().await?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_client::{Code, Refusal};

    #[test]
    fn requests_fail_with_the_documented_exit_codes() {
        let exit = |error| failure(error, "a").exit as u8;
        assert_eq!(exit(RequestError::Timeout { waited_ms: 1 }), 6);
        assert_eq!(exit(RequestError::NoResponder), 3);
        assert_eq!(exit(RequestError::Refused(Refusal::new(Code::Denied, "no"))), 4);
        assert_eq!(exit(RequestError::Unknown), 1);
        let denied = failure(RequestError::Refused(Refusal::new(Code::Forbidden, "no")), "tools/a");
        assert!(denied.next.is_some_and(|next| next.contains("policy explain WHO request tools/a")));
    }
}
