//! The thread that has the shared log open: it appends what the keeper drafts, hands the keeper what others have appended,
//! keeps the lease of the controller, and opens the log again when it was away.

use super::super::log::{Shelf, follow_error, store_error};
use super::super::{Answer, Blame, Command, View, WorldError};
use super::{Lead, Me, SharedLog, State, moved};
use arc_swap::ArcSwap;
use myelin_catalog::{Catalog, Digest, Head, Module, Op, Record};
use myelin_store::{
    BlobStore, CatalogStore, ControlLog, Fence, JetstreamOptions, JetstreamStore, Recovered, StoreError, Watch,
};
use serde_bytes::ByteBuf;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Orders that may wait: the changes that may wait for the keeper, and hints.
const ORDERS_WAITING_MAX: usize = 128;
/// The lease under which a controller writes.
const LEASE: &str = "rollout";
/// How long it lasts: as long as rollouts stand still when their controller dies.
const LEASE_MS: u64 = 10_000;
/// How often its holder asks for it again, and others whether it is free.
const LEASE_POLL: Duration = Duration::from_secs(2);
/// How long the desk waits for an order before it looks around.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The same while the keeper takes a page.
const LOOK_SOON: Duration = Duration::from_millis(10);
/// How long a watch waits before it looks whether the log is closed.
const WATCH_WAIT: Duration = Duration::from_secs(5);
/// Records that are handed over at once, and bytes that a page of several may have: the first record may be as large as
/// records are.
const PAGE_RECORDS: usize = 32;
const PAGE_BYTES: usize = 1024 * 1024;
/// How long a log may seem to be shorter than this router's copy: a leader that has just lost its majority answers with an
/// old end for some seconds.
const SHORT_PATIENCE: Duration = Duration::from_secs(5);
/// The least and the most time before the log is opened again; doubled each time, with jitter.
const REOPEN_MIN: Duration = Duration::from_millis(500);
const REOPEN_MAX: Duration = Duration::from_secs(10);

/// What the desk is asked to do.
pub(in super::super) enum Order {
    /// Append a record; the answer is its revision.
    Append { record: Box<Record>, is_step: bool, answer: Answer<u64> },
    /// Where does the log end now?
    Newest { answer: Answer<u64> },
    /// The bytes of a module.
    Blob { digest: Digest, answer: Answer<Vec<u8>> },
    /// The log may have grown.
    Look,
    /// Give the lease back, and end.
    Stop(oneshot::Sender<()>),
}

/// Why an order is not carried out.
enum Trouble {
    /// The order is wrong, or too late.
    Order(WorldError),
    /// The log has to be opened anew.
    Log(WorldError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        use StoreError as E;
        match error {
            E::HeadMoved { .. } => Self::Order(moved()),
            E::LeaseHeld { .. }
            | E::LeaseLost { .. }
            | E::LeaseRefused { .. }
            | E::RecordTooLarge { .. }
            | E::BlobMissing { .. }
            | E::BlobDamaged { .. }
            | E::BlobRefused { .. } => Self::Order(store_error(error)),
            error => Self::Log(store_error(error)),
        }
    }
}

impl Trouble {
    /// What makes the desk open the log anew.
    fn lasting(self) -> Result<(), WorldError> {
        match self {
            Self::Order(_) => Ok(()),
            Self::Log(error) => Err(error),
        }
    }
}

/// The thread's state.
pub(in super::super) struct Desk {
    options: JetstreamOptions,
    me: Arc<Me>,
    /// This router's own bytes of modules and copy of the log.
    shelf: Shelf,
    view: Arc<ArcSwap<View>>,
    commands: mpsc::WeakSender<Command>,
    queue: Receiver<Order>,
    orders: SyncSender<Order>,
    state: watch::Sender<State>,
    started: Instant,
    /// What of the lease is known, and when it was asked for last.
    fence: Option<Fence>,
    lead: Lead,
    asked: Option<Instant>,
    /// The page that the keeper is taking.
    page: Option<oneshot::Receiver<Result<(), WorldError>>>,
    /// Since when the log seems to be shorter than the copy.
    short_since: Option<Instant>,
    /// The code of the alarm that was raised since the log was open last.
    told: Option<Cow<'static, str>>,
}

impl Desk {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the operating system gives none.
    pub(in super::super) fn open(
        options: JetstreamOptions,
        me: Me,
        shelf: Shelf,
        view: Arc<ArcSwap<View>>,
        commands: mpsc::WeakSender<Command>,
    ) -> Result<SharedLog, WorldError> {
        let (orders, queue) = sync_channel(ORDERS_WAITING_MAX);
        let not_yet = "the shared log of the catalog is not opened yet; try again";
        let (state, watched) =
            watch::channel(State::Away(WorldError::new(Blame::Router, "store-unavailable", not_yet)));
        let me = Arc::new(me);
        let log = SharedLog { orders: orders.clone(), state: watched, me: me.clone() };
        let desk = Self {
            options,
            me,
            shelf,
            view,
            commands,
            queue,
            orders,
            state,
            started: Instant::now(),
            fence: None,
            lead: Lead::Unknown,
            asked: None,
            page: None,
            short_since: None,
            told: None,
        };
        let failed = |error| WorldError::new(Blame::Router, "internal", format!("the shared log's thread: {error}"));
        thread::Builder::new().name("shared-log".into()).spawn(move || desk.run()).map_err(failed)?;
        Ok(log)
    }

    fn run(mut self) {
        let mut pause = REOPEN_MIN;
        while self.has_world() {
            let served = match JetstreamStore::open(&self.options) {
                Ok((store, recovered)) => {
                    pause = REOPEN_MIN;
                    self.serve(store, &recovered)
                }
                Err(error) => Err(store_error(error)),
            };
            let Err(error) = served else { return };
            self.leave(&error);
            let jitter = Duration::from_millis(fastrand::u64(..=u64::try_from(pause.as_millis() / 2).unwrap_or(0)));
            if !self.rest(pause / 2 + jitter, &error) {
                return;
            }
            pause = (pause * 2).min(REOPEN_MAX);
        }
    }

    fn has_world(&self) -> bool {
        self.commands.strong_count() > 0
    }

    /// Everybody hears that the log is away; an alarm is raised when it begins to be.
    fn leave(&mut self, error: &WorldError) {
        (self.fence, self.lead, self.asked, self.page, self.short_since) = (None, Lead::Unknown, None, None, None);
        self.state.send_replace(State::Away(error.clone()));
        if self.told.as_ref() == Some(&error.code) {
            return;
        }
        self.told = Some(error.code.clone());
        tracing::error!(code = &*error.code, %error, "the shared log is away: routing goes on, changes are refused");
        if let Some(commands) = self.commands.upgrade() {
            // A full queue is a keeper that has more to do than to count.
            let _ = commands.try_send(Command::Alarm(error.code.to_string()));
        }
    }

    /// Refuses orders for a while; says whether to go on.
    fn rest(&self, pause: Duration, error: &WorldError) -> bool {
        let until = Instant::now() + pause;
        loop {
            match self.queue.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Order::Append { answer, .. } | Order::Newest { answer }) => drop(answer.send(Err(error.clone()))),
                Ok(Order::Blob { answer, .. }) => drop(answer.send(Err(error.clone()))),
                Ok(Order::Look) => {}
                Ok(Order::Stop(_)) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }

    /// Works on the open log until it is to end, which is no error, or has to be opened anew.
    fn serve(&mut self, mut store: JetstreamStore, recovered: &Recovered) -> Result<(), WorldError> {
        tracing::info!(place = store.place(), rev = store.head().rev, "the shared log is open");
        self.watch(store.watch())?;
        self.heal(&mut store, recovered)?;
        loop {
            self.look(&mut store)?;
            let pause = if self.page.is_some() { LOOK_SOON } else { LOOK_EVERY };
            match self.queue.recv_timeout(pause) {
                Ok(Order::Stop(done)) => {
                    if let Some(fence) = self.fence.take() {
                        store.release(&fence);
                    }
                    let _ = done.send(());
                    return Ok(());
                }
                Ok(order) => self.obey(&mut store, order)?,
                Err(RecvTimeoutError::Timeout) if self.has_world() => {}
                Err(_) => return Ok(()),
            }
        }
    }

    /// Wakes the desk whenever the log grows, until it is closed.
    fn watch(&self, watch: Watch) -> Result<(), WorldError> {
        let orders = self.orders.clone();
        let watching = move || {
            let mut seen = watch.rev();
            while !watch.is_closed() {
                let rev = watch.wait_past(seen, WATCH_WAIT);
                if rev > seen {
                    seen = rev;
                    // A full queue wakes the desk all the same.
                    let _ = orders.try_send(Order::Look);
                }
            }
        };
        let failed = |error| WorldError::new(Blame::Router, "internal", format!("the shared log's watch: {error}"));
        thread::Builder::new().name("log-watch".into()).spawn(watching).map_err(failed)?;
        Ok(())
    }

    /// Gives the log the bytes of modules that it lacks and this router has.
    fn heal(&self, store: &mut JetstreamStore, recovered: &Recovered) -> Result<(), WorldError> {
        for module in recovered.missing.iter().filter_map(|module| recovered.catalog.module(module)) {
            match self.offer(store, module) {
                Ok(()) => {}
                Err(Trouble::Order(error)) => {
                    tracing::warn!(module = %module.name, %error, "the shared log lacks the bytes of a module");
                }
                Err(Trouble::Log(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts the bytes of a module into the log's store, unless they are there.
    fn offer(&self, store: &mut JetstreamStore, module: &Module) -> Result<(), Trouble> {
        if store.blob_size_bytes(&module.digest)? != Some(module.size_bytes) {
            let bytes = self.shelf.blob(&module.digest).map_err(Trouble::Order)?;
            store.put(&module.digest, &bytes)?;
        }
        Ok(())
    }

    fn obey(&mut self, store: &mut JetstreamStore, order: Order) -> Result<(), WorldError> {
        match order {
            Order::Append { record, is_step, answer } => tell(answer, self.append(store, &record, is_step)),
            Order::Newest { answer } => tell(answer, store.newest().map(|head| head.rev).map_err(Trouble::from)),
            Order::Blob { digest, answer } => tell(answer, store.blob(&digest).map_err(Trouble::from)),
            Order::Look | Order::Stop(_) => Ok(()),
        }
    }

    fn append(&self, store: &mut JetstreamStore, record: &Record, is_step: bool) -> Result<u64, Trouble> {
        // The bytes first: there is never a record whose module nobody has.
        if let Op::ModuleAdded { module } = &record.op {
            self.offer(store, module)?;
        }
        let head = match (is_step, &self.fence) {
            (false, _) => store.append(record)?,
            (true, Some(fence)) => store.append_under(fence, self.now_ms(), record)?,
            (true, None) => return Err(StoreError::LeaseLost { name: LEASE.into(), term: 0 }.into()),
        };
        Ok(head.rev)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Looks after the page under way, the lease, and the end of the log; tells everybody how it stands.
    fn look(&mut self, store: &mut JetstreamStore) -> Result<(), WorldError> {
        self.look_at_page()?;
        self.keep_lease(store)?;
        self.level(store)?;
        let (end, now) = (store.head().rev, self.lead.clone());
        let is_news = self.state.send_if_modified(|state| match state {
            State::Open { rev, lead } if *rev == end && *lead == now => false,
            state => {
                *state = State::Open { rev: end, lead: now };
                true
            }
        });
        self.told = None;
        if is_news && let Some(commands) = self.commands.upgrade() {
            // A keeper that is busy looks by itself.
            let _ = commands.try_send(Command::Look);
        }
        Ok(())
    }

    fn look_at_page(&mut self) -> Result<(), WorldError> {
        let Some(page) = &mut self.page else { return Ok(()) };
        let taken = match page.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => return Ok(()),
            Err(oneshot::error::TryRecvError::Closed) => Err(WorldError::stopped()),
            Ok(taken) => taken,
        };
        self.page = None;
        match taken {
            // A neighbour was faster.
            Err(error) if error.code == "catalog-stale" => Ok(()),
            taken => taken,
        }
    }

    /// Asks for the lease of the controller, or whether its holder still is one. Whoever cannot sign cannot control.
    fn keep_lease(&mut self, store: &mut JetstreamStore) -> Result<(), WorldError> {
        let is_due = self.asked.is_none_or(|asked| asked.elapsed() >= LEASE_POLL);
        if !is_due || !self.me.can_sign(&self.view.load().catalog) {
            return Ok(());
        }
        self.asked = Some(Instant::now());
        let (fence, lead) = match store.lease(LEASE, &self.me.title, LEASE_MS, self.now_ms()) {
            Ok(fence) => (Some(fence), Lead::Here),
            Err(StoreError::LeaseHeld { holder, .. }) => (None, Lead::There(holder.into())),
            Err(error) => {
                (self.fence, self.lead) = (None, Lead::Unknown);
                tracing::warn!(code = error.code(), %error, "who controls rollouts is not known");
                return Trouble::from(error).lasting();
            }
        };
        if lead != self.lead {
            tracing::info!(?lead, "the controller of rollouts");
        }
        (self.fence, self.lead) = (fence, lead);
        Ok(())
    }

    /// Hands the keeper what its copy lacks; fills up a log that lacks what the copy has.
    fn level(&mut self, store: &mut JetstreamStore) -> Result<(), WorldError> {
        let view = self.view.load_full();
        let (here, there) = (view.copy.head(), store.head());
        if here.rev < there.rev {
            self.short_since = None;
            return self.hand_over(store, here.rev);
        }
        view.copy.compare(&there).map_err(|fault| follow_error(&fault))?;
        if here.rev == there.rev {
            self.short_since = None;
            return Ok(());
        }
        let since = *self.short_since.get_or_insert_with(Instant::now);
        // What a neighbour brought may be in the log and not seen here yet.
        let newest = store.newest().map_err(store_error)?;
        if newest.rev < here.rev && since.elapsed() >= SHORT_PATIENCE {
            self.short_since = None;
            self.fill_up(store, &view.catalog, &here)?;
        }
        Ok(())
    }

    fn hand_over(&mut self, store: &JetstreamStore, after: u64) -> Result<(), WorldError> {
        let Some(commands) = self.commands.upgrade().filter(|_| self.page.is_none()) else { return Ok(()) };
        let read = store.read_after(after, PAGE_RECORDS).map_err(store_error)?;
        let mut bytes = 0;
        let fits = read.into_iter().enumerate().map_while(|(place, record)| {
            bytes += record.len();
            (place == 0 || bytes <= PAGE_BYTES).then(|| ByteBuf::from(record))
        });
        let (answer, answered) = oneshot::channel();
        // A full queue is asked again soon.
        if commands.try_send(Command::Page { records: fits.collect(), answer }).is_ok() {
            self.page = Some(answered);
        }
        Ok(())
    }

    /// Appends the end of this router's copy to a log that is the beginning of it: one that is new, or has lost its end.
    /// Every record is signed and says which one it follows, and so does the append: a log that goes another way takes
    /// none of them.
    fn fill_up(&self, store: &mut JetstreamStore, catalog: &Catalog, until: &Head) -> Result<(), WorldError> {
        let (before, to) = (store.head().rev, until.rev);
        tracing::warn!(before, to, "the shared log is shorter than this router's copy, and is filled up from it");
        for module in catalog.modules() {
            self.offer(store, module).or_else(Trouble::lasting)?;
        }
        while store.head().rev < until.rev {
            let (_, records) = self.shelf.page(store.head().rev)?;
            for record in &records {
                match store.append_encoded(record) {
                    Ok(_) => {}
                    // Another router fills it up as well.
                    Err(StoreError::HeadMoved { .. }) => return Ok(()),
                    Err(error) => return Err(store_error(error)),
                }
            }
        }
        Ok(())
    }
}

/// Answers an order; trouble with the log is the desk's as well.
fn tell<T>(answer: Answer<T>, done: Result<T, Trouble>) -> Result<(), WorldError> {
    // Whoever asked may have gone.
    match done {
        Ok(value) => drop(answer.send(Ok(value))),
        Err(Trouble::Order(error)) => drop(answer.send(Err(error))),
        Err(Trouble::Log(error)) => {
            drop(answer.send(Err(error.clone())));
            return Err(error);
        }
    }
    Ok(())
}
