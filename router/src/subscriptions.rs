//! The writer of the subscription table: one task that takes every change and publishes snapshots.

use crate::shared::{InterestChange, TableChange, TableCommand};
use arc_swap::ArcSwap;
use myelin_core::{Table, TableError, TableWriter};
use myelin_wire::{Code, Refusal};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// Changes that may wait for the writer; sessions with more wait.
pub const CHANGES_WAITING_MAX: usize = 4096;
/// Changes that go into one snapshot at most, so that an answer never waits long behind a storm.
const CHANGES_PER_SNAPSHOT: usize = 4096;
/// Snapshots are at least this far apart: each makes the workers' match caches start anew.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(1);

type Done = (oneshot::Sender<Result<(), Refusal>>, Result<(), Refusal>);

/// Applies changes until every sender is gone.
pub async fn write_table(
    published: Arc<ArcSwap<Table>>,
    mut writer: TableWriter,
    mut changes: mpsc::Receiver<TableCommand>,
    outward: Option<mpsc::Sender<InterestChange>>,
) {
    let mut told = Vec::new();
    let mut next_snapshot = Instant::now();
    let mut commands = Vec::new();
    let mut done: Vec<Done> = Vec::new();
    while changes.recv_many(&mut commands, CHANGES_PER_SNAPSHOT).await > 0 {
        sleep_until(next_snapshot).await;
        // What came in while waiting goes into the same snapshot.
        while commands.len() < CHANGES_PER_SNAPSHOT
            && let Ok(command) = changes.try_recv()
        {
            commands.push(command);
        }
        for command in commands.drain(..) {
            let result = apply(&mut writer, &command, &mut told).map_err(refusal);
            done.push((command.done, result));
        }
        published.store(Arc::new(writer.snapshot()));
        next_snapshot = Instant::now() + SNAPSHOT_INTERVAL;
        for change in told.drain(..) {
            if let Some(outward) = &outward {
                // Where the links have ended nobody wants to know.
                let _ = outward.send(change).await;
            }
        }
        // Every batch that begins from here on sees the snapshot: the changes are live.
        for (asker, result) in done.drain(..) {
            let _ = asker.send(result);
        }
    }
}

/// Makes the change; what other sites should know of it is appended to `told`.
fn apply(writer: &mut TableWriter, command: &TableCommand, told: &mut Vec<InterestChange>) -> Result<(), TableError> {
    let mut ended = |(pattern, group)| told.push(InterestChange { pattern, group, begins: false });
    match &command.change {
        TableChange::Subscribe { id, pattern, group } => {
            writer.subscribe(command.session, *id, pattern, group.clone())?;
            told.push(InterestChange { pattern: pattern.clone(), group: group.clone(), begins: true });
        }
        TableChange::Unsubscribe { id } => ended(writer.unsubscribe(command.session, *id)?),
        TableChange::DropSession => writer.drop_session(command.session).into_iter().for_each(ended),
    }
    Ok(())
}

fn refusal(error: TableError) -> Refusal {
    Refusal::new(Code::SubscriptionId, error.to_string())
}
