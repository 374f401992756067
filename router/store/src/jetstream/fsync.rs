//! Whether the servers write to their disks before they answer.
//!
//! JetStream syncs its files every two minutes unless `sync_interval: always` is set, and no answer to a client says
//! which. The system account is told, by each server for itself.

use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt as _;
use serde::Deserialize;

use super::connect::unavailable;
use super::options::JetstreamOptions;
use crate::error::StoreError;

/// Asks every server of the system about its JetStream.
const QUESTION: &str = "$SYS.REQ.SERVER.PING.JSZ";
/// After the last answer: nobody says how many servers there are.
const QUIET: Duration = Duration::from_millis(500);
/// Answers that are read: more servers than a system has, and an end to a flood.
const ANSWERS_MAX: usize = 1_024;

#[derive(Debug, Deserialize)]
struct Answer {
    server: Server,
    data: Option<Data>,
}

#[derive(Debug, Deserialize)]
struct Server {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Data {
    #[serde(default)]
    disabled: bool,
    config: Option<Config>,
}

#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default)]
    sync_always: bool,
}

/// Refuses servers that answer before they have synced, unless the operator accepts that.
pub(super) async fn check(system: &Client, options: &JetstreamOptions) -> Result<(), StoreError> {
    let answers = ask(system, options).await.map_err(|why| unavailable(options, "ask the system account of", why))?;
    let mut problems = Vec::new();
    let mut servers = 0;
    for answer in &answers {
        let Some(data) = answer.data.as_ref().filter(|data| !data.disabled) else { continue };
        servers += 1;
        if !data.config.as_ref().is_some_and(|config| config.sync_always) && !options.accept_lazy_fsync {
            problems.push(format!(
                "server {} answers before it has synced; set `jetstream {{ sync_interval: always }}` there, or accept it \
                 with `accept_lazy_fsync = true`",
                answer.server.name
            ));
        }
    }
    if servers < options.replicas_min() {
        problems.push(format!(
            "{servers} servers with JetStream answer the user of `system_urls`, and {} are needed; start the others, and \
             see that this user is one of the system account",
            options.replicas_min()
        ));
    }
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Unfit { place: options.place(), problems }) }
}

async fn ask(system: &Client, options: &JetstreamOptions) -> Result<Vec<Answer>, String> {
    let inbox = system.new_inbox();
    let mut subscription = system.subscribe(inbox.clone()).await.map_err(|e| e.to_string())?;
    system.publish_with_reply(QUESTION, inbox, "".into()).await.map_err(|e| e.to_string())?;
    let (mut answers, mut wait) = (Vec::new(), options.call_timeout());
    while answers.len() < ANSWERS_MAX {
        let Ok(Some(message)) = tokio::time::timeout(wait, subscription.next()).await else { break };
        if message.status.is_some() {
            return Err("nobody answers; `system_urls` must name a user of the system account".into());
        }
        answers.push(serde_json::from_slice(&message.payload).map_err(|e| format!("an answer cannot be read: {e}"))?);
        wait = QUIET;
    }
    if answers.is_empty() { Err("nobody answered in time".into()) } else { Ok(answers) }
}
