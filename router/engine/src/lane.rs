//! The thread of a binding that has faulted: its sessions wait for it, its worker does not.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot};

use crate::batch::{FilterBatch, Payloads};
use crate::deadline::thread_cpu_ns;
use crate::fault::FilterFault;
use crate::filter::Filter;
use crate::isolate::{Piece, run_or_isolate};
use crate::judge::Contract;
use crate::limits::FaultPolicy;

/// Batches that wait in the lane; further sessions wait for a place.
const QUEUE_MAX: usize = 64;
/// Stack of the thread: a filter's own 256 KiB and ample room for the host.
const STACK_BYTES: usize = 4 << 20;

/// A batch on its way to the lane, everything owned.
pub(crate) struct Job {
    pub(crate) arena: Vec<u8>,
    pub(crate) count: u32,
    pub(crate) now_unix_ns: u64,
    pub(crate) now_ms: u64,
    pub(crate) payloads: Option<Arc<Payloads>>,
    pub(crate) record_calls: bool,
    /// The fault of the whole batch, where it has already run.
    pub(crate) after: Option<FilterFault>,
    pub(crate) reply: oneshot::Sender<Reply>,
}

/// What the lane found out.
pub(crate) struct Reply {
    pub(crate) pieces: Vec<Piece>,
    /// Every call that faulted here.
    pub(crate) faults: Vec<FilterFault>,
    /// CPU time of the batch.
    pub(crate) cpu_ns: u64,
}

/// A filter on a thread of its own. Dropping it ends the thread after the batches that wait.
pub(crate) struct Lane {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<Box<dyn Filter>>,
}

impl Lane {
    pub(crate) fn start(
        name: &str,
        mut filter: Box<dyn Filter>,
        contract: Arc<Contract>,
        policy: FaultPolicy,
    ) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_MAX);
        // The system shows 15 bytes of it.
        let thread = thread::Builder::new().name(format!("apart {name}")).stack_size(STACK_BYTES).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                serve(filter.as_mut(), &contract, policy, job);
            }
            filter
        })?;
        Ok(Self { jobs, thread })
    }

    pub(crate) fn jobs(&self) -> mpsc::Sender<Job> {
        self.jobs.clone()
    }

    /// Ends the thread and gives the filter back, unless it has panicked.
    pub(crate) fn stop(self) -> Option<Box<dyn Filter>> {
        drop(self.jobs);
        self.thread.join().ok()
    }
}

fn serve(filter: &mut dyn Filter, contract: &Contract, policy: FaultPolicy, job: Job) {
    let start_ns = thread_cpu_ns();
    let batch = FilterBatch {
        arena: &job.arena,
        count: job.count,
        now_unix_ns: job.now_unix_ns,
        now_ms: job.now_ms,
        payloads: job.payloads.as_ref(),
        cpu_start_ns: Some(start_ns),
        record_calls: job.record_calls,
    };
    let (pieces, faults) = run_or_isolate(filter, contract, &batch, job.after, policy.deadlines_max);
    let cpu_ns = thread_cpu_ns().saturating_sub(start_ns);
    // Whoever waited may have gone: the session has ended.
    drop(job.reply.send(Reply { pieces, faults, cpu_ns }));
}
