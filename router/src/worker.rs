//! A worker: one OS thread with its own runtime, socket, sessions and filter instances.

use crate::fanout;
use crate::generation::{Active, Handover, Prepared, Retired};
use crate::ledger::{Counts, Exchanged};
use crate::local::Local;
use crate::sessions;
use crate::shadow::Instances;
use crate::shared::{Parcel, Shared};
use crate::trace::{Portion, Record, TraceId};
use myelin_engine::thread_cpu_ns;
use myelin_transport::BoundListener;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};

/// Orders that may wait at a worker; they come from the control plane, one at a time.
const ORDERS_MAX: usize = 16;
/// Stack of a worker: the guests' own limit plus what the host needs, with room to spare.
const STACK_BYTES: usize = 4 * 1024 * 1024;

/// What the control plane asks of a worker.
#[derive(Debug)]
pub enum Order {
    /// A copy of the ledger's cells, taken between two batches.
    Ledger(oneshot::Sender<Vec<(u64, Counts)>>),
    /// Swap to the prepared generation, between two batches.
    Swap(Prepared, oneshot::Sender<Swapped>),
    /// Let these instances judge copies of events from here on, in the place of others; none: no more. What is not needed
    /// any more comes back.
    Shadow(Option<Instances>, oneshot::Sender<Retired>),
    /// Make the generation before judge again, under this number.
    SwapBack(u64, oneshot::Sender<Option<Swapped>>),
    /// The records of a trace.
    Traces(TraceId, oneshot::Sender<Vec<Arc<Record>>>),
    /// At most so many of the records of sampled events from this number on.
    Records(u64, usize, oneshot::Sender<Portion>),
    /// How many records were over the rate since the start.
    NotRecorded(oneshot::Sender<u64>),
    /// What was exchanged with each neighbour; only the links know.
    Exchanged(oneshot::Sender<Vec<Exchanged>>),
    /// The listener takes no new connections.
    StopAccepting,
    /// Every session has ended: close the listener and end the thread.
    Stop,
    /// The ledger forgets to count a term.
    #[cfg(feature = "sabotage")]
    Sabotage(Option<crate::ledger::Term>),
}

/// What a swap took.
#[derive(Debug)]
pub struct Swapped {
    /// How long the worker judged nothing, in microseconds.
    pub pause_us: u64,
    /// How much of that the worker's thread was running, in microseconds of its CPU time.
    pub pause_cpu_us: u64,
    /// What became of the states.
    pub handover: Handover,
    /// What the worker needs no more: whoever asked for the swap frees it.
    pub retired: Retired,
}

/// Both clocks at the beginning of a pause.
struct Pause {
    wall: Instant,
    cpu_ns: u64,
}

impl Pause {
    fn begin() -> Self {
        Self { wall: Instant::now(), cpu_ns: thread_cpu_ns() }
    }

    fn end(self, handover: Handover, retired: Retired) -> Swapped {
        let pause_cpu_us = thread_cpu_ns().saturating_sub(self.cpu_ns).div_ceil(1_000);
        Swapped { pause_us: micros(self.wall), pause_cpu_us, handover, retired }
    }
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    /// Where orders go.
    pub orders: mpsc::Sender<Order>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    /// Starts worker `id` on `listener`; `mailbox` is where other workers send it parcels.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(
        id: u8,
        shared: Arc<Shared>,
        listener: BoundListener,
        mailbox: mpsc::Receiver<Parcel>,
    ) -> std::io::Result<Self> {
        Self::spawn(id, format!("worker-{id}"), shared, |local, orders| run(local, listener, mailbox, orders))
    }

    /// Starts a thread that does `work` as worker number `id`.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn spawn<W: Future<Output = ()>>(
        id: u8,
        name: String,
        shared: Arc<Shared>,
        work: impl FnOnce(Rc<Local>, mpsc::Receiver<Order>) -> W + Send + 'static,
    ) -> std::io::Result<Self> {
        let (orders, orders_in) = mpsc::channel(ORDERS_MAX);
        let thread = thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return tracing::error!(%error, "worker {id} has no runtime"),
            };
            let local = Rc::new(Local::new(id, shared, Rc::new(Active::empty())));
            LocalSet::new().block_on(&runtime, async { work(local, orders_in).await });
        })?;
        Ok(Self { orders, thread: Some(thread) })
    }

    /// Waits for the thread's end.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker panicked: this is a defect of the router");
        }
    }
}

/// Reads the ledger of a running router.
#[derive(Clone, Debug)]
pub struct Ledgers(Vec<mpsc::Sender<Order>>);

impl Ledgers {
    /// Of these workers.
    pub fn new(workers: Vec<mpsc::Sender<Order>>) -> Self {
        Self(workers)
    }

    /// Where orders go.
    pub fn workers(&self) -> &[mpsc::Sender<Order>] {
        &self.0
    }

    /// The ledger: each generation summed over the workers. Each worker answers between two batches, so that the sums
    /// balance under load, too.
    pub async fn read(&self) -> BTreeMap<u64, Counts> {
        let mut sum: BTreeMap<u64, Counts> = BTreeMap::new();
        for worker in &self.0 {
            let (answer, cells) = oneshot::channel();
            if worker.send(Order::Ledger(answer)).await.is_ok()
                && let Ok(cells) = cells.await
            {
                for (generation, counts) in cells {
                    sum.entry(generation).or_default().add(&counts);
                }
            }
        }
        sum
    }

    /// Records of sampled events that were over the rate since the start, at all workers.
    pub async fn not_recorded(&self) -> u64 {
        let mut sum = 0;
        for worker in &self.0 {
            let (answer, answered) = oneshot::channel();
            if worker.send(Order::NotRecorded(answer)).await.is_ok() {
                sum += answered.await.unwrap_or_default();
            }
        }
        sum
    }
}

/// The worker's loop.
async fn run(
    local: Rc<Local>,
    listener: BoundListener,
    mailbox: mpsc::Receiver<Parcel>,
    mut orders: mpsc::Receiver<Order>,
) {
    let mut listener = match listener.start() {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, worker = local.id, "the listener does not start"),
    };
    spawn_local(sort_mail(local.clone(), mailbox));
    // Nobody is served before the catalog's generation judges: a filter that was told to run never misses an event.
    let mut judges = false;
    loop {
        tokio::select! {
            Some(connection) = listener.accept(), if judges => drop(spawn_local(sessions::serve(local.clone(), connection))),
            order = orders.recv() => match order {
                Some(order) if !is_stop(&order) => {
                    judges |= matches!(order, Order::Swap(..));
                    match order {
                        Order::StopAccepting => listener.stop_accepting(),
                        order => obey(&local, order),
                    }
                }
                _ => break,
            },
        }
    }
    listener.close(u32::from(myelin_wire::Code::Draining.number()), "draining: the router has stopped");
    listener.wait_idle().await;
}

fn is_stop(order: &Order) -> bool {
    matches!(order, Order::Stop)
}

/// Carries out an order that has nothing to do with a listener.
pub fn obey(local: &Rc<Local>, order: Order) {
    match order {
        // Whoever asked may have gone: then nobody wants the answer.
        Order::Ledger(answer) => drop(answer.send(local.ledger.snapshot())),
        Order::Swap(prepared, answer) => {
            let pause = Pause::begin();
            let before = local.active();
            let mut retired = Retired::default();
            // It compares with what judged until now.
            local.shade.end(&mut retired);
            let (next, handover) = Active::succeed(&before, prepared, local.id, &mut retired);
            if let Some(earlier) = local.keep_previous(Some(local.activate(Rc::new(next)))) {
                retired.take(earlier, [&local.active(), &before]);
            }
            // The other workers may have swapped or not.
            myelin_failpoint::reach("worker-swapped");
            let _ = answer.send(pause.end(handover, retired));
        }
        Order::Shadow(instances, answer) => {
            let mut retired = Retired::default();
            match instances {
                Some(instances) => local.shade.begin(instances, &mut retired),
                None => local.shade.end(&mut retired),
            }
            let _ = answer.send(retired);
        }
        Order::SwapBack(number, answer) => {
            let pause = Pause::begin();
            let mut retired = Retired::default();
            local.shade.end(&mut retired);
            let swapped = local.keep_previous(None).map(|earlier| {
                let next = Active::renumbered(&earlier, number, local.id);
                local.keep_previous(Some(local.activate(Rc::new(next))));
                myelin_failpoint::reach("worker-swapped-back");
                pause.end(Handover::default(), retired)
            });
            let _ = answer.send(swapped);
        }
        Order::Traces(trace, answer) => drop(answer.send(local.traces.borrow().find(trace))),
        Order::Records(from, max, answer) => drop(answer.send(local.traces.borrow().since(from, max))),
        Order::NotRecorded(answer) => drop(answer.send(local.traces.borrow().not_recorded())),
        // Whoever has a listener sees to these itself.
        Order::StopAccepting | Order::Stop | Order::Exchanged(_) => {}
        #[cfg(feature = "sabotage")]
        Order::Sabotage(term) => local.ledger.sabotage(term),
    }
}

fn micros(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Hands the parcels of other workers to this worker's sessions.
async fn sort_mail(local: Rc<Local>, mut mailbox: mpsc::Receiver<Parcel>) {
    while let Some(parcel) = mailbox.recv().await {
        for session in &parcel.to {
            fanout::offer(&local, *session, parcel.delivery.clone());
        }
    }
}
