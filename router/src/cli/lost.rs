//! A connection that is lost: what people are told of it, and how it is found out soon.

use super::failure::Failure;
use myelin_client::{Client, ClientConfig, ClientError, SessionInfo, Status};
use std::time::Duration;

/// A router that says nothing for so long is gone, in milliseconds: somebody at a terminal, or a script, waits for it.
const IDLE_TIMEOUT_MS: u32 = 6_000;
/// How often one that is there is made to say something, in milliseconds: twice may be lost.
const KEEP_ALIVE_MS: u32 = 2_000;

/// Longest pause between attempts to connect again, in milliseconds: a client that somebody waits for need not be modest.
const PAUSE_MS_MAX: u32 = 5_000;
/// How often is looked whether something has happened of which nobody tells.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Settings of a client that finds out soon that its router is gone.
pub(super) fn attentive(mut config: ClientConfig) -> ClientConfig {
    (config.quic.idle_timeout_ms, config.quic.keep_alive_ms) = (IDLE_TIMEOUT_MS, KEEP_ALIVE_MS);
    config.reconnect_most_ms = PAUSE_MS_MAX;
    config
}

/// Says on the standard error when the connection is lost, and when and where it is there again, until the client ends.
/// `then` is what it means for whoever reads that.
pub(super) async fn tell(client: Client, addrs: Vec<String>, then: &'static str) {
    let mut statuses = client.status();
    let mut told = Told { addrs, session: None, is_lost: false };
    loop {
        let status = statuses.borrow_and_update().clone();
        let lines = match &status {
            Status::Connected(session) => told.connected(&client, session, then),
            Status::Connecting => told.lost(&client).into_iter().collect(),
            Status::Closed(_) => return,
        };
        for line in lines {
            eprintln!("{line}");
        }
        if statuses.changed().await.is_err() {
            return;
        }
    }
}

/// What was told so far.
struct Told {
    addrs: Vec<String>,
    session: Option<SessionInfo>,
    is_lost: bool,
}

impl Told {
    fn connected(&mut self, client: &Client, session: &SessionInfo, then: &str) -> Vec<String> {
        let is_another = self.session.as_ref().is_some_and(|before| before.number != session.number);
        // Both may have happened since the last look.
        let mut lines: Vec<_> = self.lost(client).filter(|_| is_another).into_iter().collect();
        if is_another {
            lines.push(format!("connected again: {}; {then}", self.router(session)));
        }
        (self.session, self.is_lost) = (Some(session.clone()), false);
        lines
    }

    /// That the session is lost, where that is not told. One that this client ends itself is not lost.
    fn lost(&mut self, client: &Client) -> Option<String> {
        let loss = client.loss()?;
        let session = self.session.as_ref().filter(|session| !self.is_lost && loss.session >= session.number)?;
        let router = self.router(session);
        let told = match loss.is_drain {
            true => format!("the router is going away: {router}; connecting to another one"),
            false => format!("{}: {router}; connecting again", why(&loss.error)),
        };
        self.is_lost = true;
        Some(told)
    }

    fn router(&self, session: &SessionInfo) -> String {
        let addr = self.addrs.get(session.index).map_or("?", String::as_str);
        format!("{addr} ({}/{})", session.site, session.router)
    }
}

/// Why a connection was lost.
fn why(error: &ClientError) -> String {
    match error {
        ClientError::Lost(_) => error.to_string(),
        other => format!("the connection is lost: {other}"),
    }
}

/// Waits until the client has been without a session for `patience`, and has asked each of `routers` meanwhile: why there
/// is none.
pub(super) async fn nobody_is_there(client: &Client, routers: usize, patience: Duration) -> Failure {
    let mut statuses = client.status();
    let failures = || client.stats().connect_failures;
    loop {
        // A client that is over is told to whoever uses it.
        let _ = statuses.wait_for(|status| *status == Status::Connecting).await;
        let enough = failures() + routers as u64;
        let back = statuses.wait_for(|status| *status != Status::Connecting);
        let all_asked = async {
            tokio::time::sleep(patience).await;
            while failures() < enough {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::select! {
            _ = back => {}
            () = all_asked => break,
        }
    }
    let failed = client.loss().and_then(|loss| loss.failed);
    let told = failed.map_or_else(|| Failure::unanswered("none answers"), Failure::from);
    told.doing(format!("no router was there again within {patience:?}"))
}
