//! Records of sampled events, exported as OpenTelemetry spans (OTLP over HTTP).
//!
//! The rings of the workers are the queue: a task of the control plane remembers how far it has read each, asks for what
//! is new like anybody who asks for a trace, and sends it. A collector that is away or slow makes it read late; what
//! has made room in a ring meanwhile is counted and gone. So an export takes nothing from the workers but the asking,
//! which is for references, and no memory beyond the rings but one portion of each.

mod client;
mod conventions;
mod figures;
mod spans;
#[cfg(test)]
mod tests;

pub use client::Target;
pub use figures::{Figures, Lost, Trouble};
pub use spans::Place;

use crate::trace::{Portion, Record};
use crate::worker::Order;
use bytes::Bytes;
use client::{Client, Outcome};
use prost::Message;
use spans::request;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Records that are asked of one worker at once: half of what it makes in a second, referred to in some microseconds.
const PORTION_RECORDS: usize = 512;
/// Spans of one request, and bytes of their records: an answer to less than that comes soon, and collectors take far
/// more (20 MiB by default).
const REQUEST_SPANS_MAX: usize = 2_048;
const REQUEST_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long a collector may let us wait with `Retry-After`: no stranger stops the export for a day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Between two attempts at the end.
const FINISH_RETRY: Duration = Duration::from_millis(200);

/// How often something is exported, and how it is tried again.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Between two exports. A ring holds what a worker makes in four seconds at its full rate.
    every: Duration,
    /// Before the second attempt.
    retry_min: Duration,
    /// Between two attempts at most, however long the collector has been away.
    retry_max: Duration,
    /// Attempts for one request. Then newer records are worth more.
    attempts_max: u32,
    /// How long the end of the router waits for the last records to be taken.
    finish: Duration,
}

const PACE: Pace = Pace {
    every: Duration::from_secs(1),
    retry_min: Duration::from_secs(1),
    retry_max: Duration::from_secs(30),
    attempts_max: 5,
    finish: Duration::from_secs(3),
};

/// A running export. Ends without a last request when it is dropped.
#[derive(Debug)]
pub struct Exporter {
    figures: Arc<Figures>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Begins to export what these workers record. Needs a tokio runtime.
    pub fn start(target: Target, place: &Place, workers: Vec<mpsc::Sender<Order>>) -> Self {
        Self::start_at(PACE, target, place, workers)
    }

    fn start_at(pace: Pace, target: Target, place: &Place, workers: Vec<mpsc::Sender<Order>>) -> Self {
        let figures = Arc::<Figures>::default();
        let (stop, stopped) = oneshot::channel();
        tracing::info!(collector = ?target, "records of sampled events are exported");
        let export = Export {
            pace,
            resource: place.resource(),
            workers: workers.into_iter().map(|orders| Reader { orders, next: 0 }).collect(),
            waiting: VecDeque::new(),
            client: Client::new(target),
            retry: pace.retry_min,
            trouble: None,
            figures: figures.clone(),
        };
        Self { figures, stop, task: tokio::spawn(export.run(stopped)) }
    }

    /// What became of the records so far.
    pub fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    /// Sends what is left and ends, within a few seconds. The workers must still answer.
    pub async fn finish(self) {
        let Self { stop, task, .. } = self;
        if stop.send(()).is_ok() {
            // It ends by itself, and has told what went wrong.
            let _ = task.await;
        }
    }
}

/// How far a worker's ring has been read.
struct Reader {
    orders: mpsc::Sender<Order>,
    next: u64,
}

/// The task.
struct Export {
    pace: Pace,
    resource: opentelemetry_proto::tonic::resource::v1::Resource,
    workers: Vec<Reader>,
    /// Read and not exported yet: at most [`PORTION_RECORDS`] of each worker.
    waiting: VecDeque<Arc<Record>>,
    client: Client,
    /// How long to wait before the next attempt after one that failed.
    retry: Duration,
    /// Why the last attempt failed, where it did.
    trouble: Option<String>,
    figures: Arc<Figures>,
}

impl Export {
    async fn run(mut self, stopped: oneshot::Receiver<()>) {
        let stopped = tokio::select! {
            never = self.keep_exporting() => match never {},
            stopped = stopped => stopped,
        };
        if stopped.is_err() {
            // Whoever drops the handle wants no more of it.
            return;
        }
        let in_time = tokio::time::timeout(self.pace.finish, self.export_rest()).await.is_ok();
        let left = self.waiting.len();
        if !in_time || left > 0 {
            self.figures.lose(Lost::Stopped, left as u64);
            let why = self.trouble.as_deref().unwrap_or("the collector is slow");
            tracing::warn!(records_at_least = left, why, "the newest trace records are not exported");
        }
    }

    async fn keep_exporting(&mut self) -> Infallible {
        loop {
            tokio::time::sleep(self.pace.every).await;
            loop {
                let is_more = self.read().await;
                while !self.waiting.is_empty() {
                    self.export_some().await;
                }
                if !is_more {
                    break;
                }
            }
        }
    }

    /// Reads a portion of each ring; whether there may be more.
    async fn read(&mut self) -> bool {
        let mut is_more = false;
        for reader in &mut self.workers {
            let (answer, answered) = oneshot::channel();
            if reader.orders.send(Order::Records(reader.next, PORTION_RECORDS, answer)).await.is_err() {
                continue;
            }
            let Ok(Portion { records, next, overwritten }) = answered.await else { continue };
            is_more |= records.len() == PORTION_RECORDS;
            reader.next = next;
            self.figures.lose(Lost::Overwritten, overwritten);
            self.waiting.extend(records);
        }
        is_more
    }

    /// Sends one request, again and again within bounds; then its records wait no more.
    async fn export_some(&mut self) {
        let (records, body) = self.next_request();
        for attempt in 1.. {
            let wait = match self.client.send(body.clone()).await {
                Outcome::Later { trouble, why, after } => self.put_off(trouble, why, after),
                outcome => return self.settle(records, outcome),
            };
            let is_last = attempt >= self.pace.attempts_max;
            if is_last {
                self.drop_waiting(records, Lost::Unavailable);
            }
            tokio::time::sleep(wait).await;
            if is_last {
                return;
            }
        }
    }

    /// Sends what is there at the end of the router.
    async fn export_rest(&mut self) {
        loop {
            let is_more = self.read().await;
            while !self.waiting.is_empty() {
                let (records, body) = self.next_request();
                match self.client.send(body).await {
                    Outcome::Later { trouble, why, after } => {
                        self.put_off(trouble, why, after);
                        tokio::time::sleep(FINISH_RETRY).await;
                    }
                    outcome => self.settle(records, outcome),
                }
            }
            if !is_more {
                return;
            }
        }
    }

    /// The oldest records that wait, as many as make one request, and that request.
    fn next_request(&self) -> (usize, Bytes) {
        let (mut records, mut spans, mut bytes) = (0, 0, 0);
        for record in &self.waiting {
            spans += spans::count(record);
            bytes += record.bytes();
            if records > 0 && (spans > REQUEST_SPANS_MAX || bytes > REQUEST_BYTES_MAX) {
                break;
            }
            records += 1;
        }
        let chosen = self.waiting.range(..records).map(AsRef::as_ref);
        (records, Bytes::from(request(&self.resource, chosen).encode_to_vec()))
    }

    /// Counts what became of a request that is not sent again.
    fn settle(&mut self, records: usize, outcome: Outcome) {
        match outcome {
            Outcome::Taken { rejected, message } => {
                let spans: usize = self.waiting.range(..records).map(|record| spans::count(record)).sum();
                self.figures.export(records as u64, (spans as u64).saturating_sub(rejected), rejected);
                self.waiting.drain(..records);
                self.retry = self.pace.retry_min;
                let trouble = (rejected > 0).then(|| format!("the collector has rejected spans: {message}"));
                self.tell(trouble);
            }
            Outcome::Never { why } => {
                self.figures.fail(Trouble::Refused);
                self.drop_waiting(records, Lost::Refused);
                self.tell(Some(why));
            }
            // Whoever calls has put it off.
            Outcome::Later { .. } => {}
        }
    }

    fn drop_waiting(&mut self, records: usize, lost: Lost) {
        self.waiting.drain(..records);
        self.figures.lose(lost, records as u64);
    }

    /// An attempt has failed; how long to wait before the next one.
    fn put_off(&mut self, trouble: Trouble, why: String, after: Option<Duration>) -> Duration {
        self.figures.fail(trouble);
        self.tell(Some(why));
        let wait = self.retry;
        self.retry = (wait * 2).min(self.pace.retry_max);
        // Between half of it and all: many routers of one collector do not come back at the same moment.
        let wait = wait / 2 + wait.mul_f64(fastrand::f64() / 2.0);
        after.map_or(wait, |after| after.min(RETRY_AFTER_MAX).max(wait))
    }

    /// Logs what has changed: a collector that is away for a day is a line and not ten thousand.
    fn tell(&mut self, trouble: Option<String>) {
        if trouble == self.trouble {
            return;
        }
        match &trouble {
            Some(why) => tracing::warn!(why, collector = self.client.url(), "trace records are not exported"),
            None => tracing::info!(collector = self.client.url(), "trace records are exported again"),
        }
        self.trouble = trouble;
    }
}
