//! One link: the exchange of hellos, the control stream, and the streams of events both ways.

use super::arrive::{self, Arrivals};
use super::calls;
use super::queue::{Outgoing, Queue};
use super::state::{Links, RECEIPT};
use super::status::LinkStatus;
use crate::delivery::Outstanding;
use crate::fanout::split_expired;
use crate::ledger::{Exchanged, Term};
use crate::names::Announced;
use crate::outbox::Delivery;
use bytes::Bytes;
use myelin_mesh::control::{Hello, HelloRefused};
use myelin_mesh::limits::BATCH_EVENTS_BYTES;
use myelin_mesh::{
    AnnouncedName, BatchHead, Control, ControlDecoder, LinkId, LinkUp, PeerIdentity, RoundTrips, Stamp, Violation,
    ViolationCode, batch,
};
use myelin_transport::{Connection, IdentityKind, RecvStream, SendStream};
use myelin_wire::event::EventHead;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;

/// Control messages that may wait for one neighbour: some floods of a mesh of 1,000 sites. Those of one flood are one
/// buffer for all links.
const CONTROL_WAITING_MAX: usize = 8 * 1024;
/// Control messages of one neighbour that are taken before others have their turn: far fewer than may wait, as each may
/// go on to everybody.
const CONTROL_AT_ONCE: u32 = 64;
/// Bytes that are taken from the queue for one write.
const WRITE_BYTES: usize = 64 * 1024;
/// How long two routers may take to say hello.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// How often the round trip of a link is looked at.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a receipt may wait for further events that it covers as well.
const RECEIPT_DELAY: Duration = Duration::from_millis(20);
/// The control stream goes before all events.
const CONTROL_PRIORITY: i32 = 10;

/// A link that is up.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) connection: Connection,
    pub(super) control: mpsc::Sender<Bytes>,
    pub(super) queue: Queue,
    pub(super) outstanding: Outstanding,
    pub(super) shed: Cell<u64>,
    sent: Cell<u64>,
    received: Cell<u64>,
    /// Events came that no receipt covers yet.
    receipt_due: Notify,
    ended: Notify,
    /// Events that were on their way when the link ended.
    lost: Cell<u64>,
    site: String,
    router: String,
    epoch: u32,
    dialled: bool,
}

impl Link {
    /// Ends the link.
    pub(super) fn end(&self, why: &str) {
        self.connection.close(0, why);
        self.ended.notify_one();
    }

    pub(super) fn came(&self, events: u32) {
        self.received.set(self.received.get() + u64::from(events));
        self.receipt_due.notify_one();
    }

    /// Site of the neighbour, as its certificate names it.
    pub(super) fn site(&self) -> &str {
        &self.site
    }

    /// Name of the neighbour, as its certificate names it.
    pub(super) fn router(&self) -> &str {
        &self.router
    }

    /// What went to and came from the neighbour over this link.
    pub(super) fn exchanged(&self) -> Exchanged {
        let (sent, lost) = (self.sent.get(), self.lost.get());
        Exchanged {
            site: self.site.clone(),
            router: self.router.clone(),
            epoch: self.epoch,
            sent,
            acknowledged: sent - lost - self.outstanding.events(),
            lost,
            received: self.received.get(),
        }
    }

    pub(super) fn status(&self) -> LinkStatus {
        LinkStatus {
            site: self.site.clone(),
            router: self.router.clone(),
            address: self.connection.remote(),
            dialled: self.dialled,
            rtt_us: in_us(self.connection.stats().rtt),
            queued_bytes: self.queue.depth().0,
            sent: self.sent.get(),
            received: self.received.get(),
            shed: self.shed.get(),
        }
    }
}

/// Why a connection did not become a link, or is none any more.
pub(super) enum End {
    /// It was refused, here or there.
    Refused(Violation),
    /// It was up, and ended.
    Ended,
}

/// Serves a connection until it ends.
pub(super) async fn serve(links: Rc<Links>, connection: Connection, dialled: bool) -> End {
    if links.stops() {
        connection.close(0, "the router stops");
        return End::Ended;
    }
    // Before anything is heard: nobody else's bytes are read here.
    let IdentityKind::Router { site, name } = connection.identity().kind() else {
        let violation = Violation::new(ViolationCode::Identity, "by their identity, only routers link with routers");
        links.refuse(&connection, &violation);
        return End::Refused(violation);
    };
    let hello = tokio::time::timeout(HELLO_WAIT, hear_hello(&links, &connection, dialled)).await;
    let late = || Err(Violation::new(ViolationCode::OutOfOrder, "no hello came in time"));
    let (mut send, recv, decoder, hello) = match hello.unwrap_or_else(|_| late()) {
        Ok(ready) => ready,
        Err(violation) => {
            links.refuse(&connection, &violation);
            return End::Refused(violation);
        }
    };
    let (control, control_out) = mpsc::channel(CONTROL_WAITING_MAX);
    let link = Rc::new(Link {
        id: links.new_id(),
        control,
        queue: Queue::new(links.queue_bytes),
        outstanding: Outstanding::default(),
        shed: Cell::new(0),
        sent: Cell::new(0),
        received: Cell::new(0),
        receipt_due: Notify::new(),
        ended: Notify::new(),
        lost: Cell::new(0),
        site: site.to_owned(),
        router: name.to_owned(),
        epoch: hello.epoch,
        dialled,
        connection: connection.clone(),
    });
    // Known before the mesh speaks of it, which it does at once.
    links.insert(link.clone());
    let identity = PeerIdentity { site, router: name };
    let up = links.with_mesh(|mesh, now| mesh.link_up(now, LinkUp { link: link.id, identity, dialled, hello: &hello }));
    // Whoever was dialled answers only once the link is up here: what follows on the stream is then in order.
    let answered = match up {
        Ok(_) if dialled => Ok(()),
        Ok(_) => say_hello(&links, &mut send).await.inspect_err(|_| {
            links.with_mesh(|mesh, now| mesh.link_down(now, link.id));
        }),
        Err(violation) => Err(violation),
    };
    if let Err(violation) = answered {
        links.remove(link.id);
        forget(&links, &link);
        refuse(&links, &connection, send, &violation).await;
        return End::Refused(violation);
    }
    tracing::info!(site, router = name, address = connection.remote(), dialled, "link up");
    let ended = run(&links, &link, send, control_out, (recv, decoder)).await;
    links.with_mesh(|mesh, now| mesh.link_down(now, link.id));
    links.remove(link.id);
    connection.close(0, "the link has ended");
    forget(&links, &link);
    tracing::info!(site, router = name, why = ended, "link down");
    End::Ended
}

type Ready = (SendStream, RecvStream, ControlDecoder, Hello);

/// Says hello.
async fn say_hello(links: &Links, send: &mut SendStream) -> Result<(), Violation> {
    let mut frame = Vec::new();
    Control::Hello(links.read(myelin_mesh::Mesh::hello)).encode(&mut frame)?;
    send.write_all(&frame).await.map_err(|_| broken_off())
}

fn broken_off() -> Violation {
    Violation::new(ViolationCode::OutOfOrder, "the control stream ended before the hello")
}

/// Opens the control stream and says hello, or takes the one that was opened; then hears the other's hello.
async fn hear_hello(links: &Links, connection: &Connection, dialled: bool) -> Result<Ready, Violation> {
    let lost = |_| Violation::new(ViolationCode::OutOfOrder, "the connection ended before the hello");
    let streams = if dialled { connection.open_bi().await } else { connection.accept_bi().await };
    let (mut send, mut recv) = streams.map_err(lost)?;
    send.set_priority(CONTROL_PRIORITY);
    if dialled {
        say_hello(links, &mut send).await?;
    }
    let mut decoder = ControlDecoder::new();
    loop {
        match decoder.poll().inspect_err(|violation| links.count_violation(violation))? {
            Some(Control::Hello(hello)) => return Ok((send, recv, decoder, hello)),
            Some(Control::HelloRefused(HelloRefused { code, message })) => {
                return Err(Violation::new(code, message));
            }
            Some(_) => {
                let violation = Violation::new(ViolationCode::OutOfOrder, "the first control message is no hello");
                links.count_violation(&violation);
                return Err(violation);
            }
            None => {}
        }
        match recv.read_chunk().await {
            Ok(Some(bytes)) => decoder.push(&bytes),
            _ => return Err(broken_off()),
        }
    }
}

/// Tells the neighbour why there is no link.
async fn refuse(links: &Links, connection: &Connection, mut send: SendStream, violation: &Violation) {
    links.count_violation(violation);
    let mut frame = Vec::new();
    let refused = HelloRefused { code: violation.code, message: violation.message.to_string() };
    if Control::HelloRefused(refused).encode(&mut frame).is_ok() && send.write_all(&frame).await.is_ok() {
        let _ = send.finish();
        // Until it was read; closing at once would overtake it.
        let _ = tokio::time::timeout(HELLO_WAIT, send.stopped()).await;
    }
    links.refuse(connection, violation);
}

/// What waits or is on its way to a neighbour that is gone is lost.
fn forget(links: &Links, link: &Link) {
    let ledger = &links.local.ledger;
    for copy in link.queue.close() {
        links.gone(link, &copy, Term::Lost);
    }
    for (generation, events) in link.outstanding.drain() {
        link.lost.set(link.lost.get() + events);
        ledger.settle(generation, Term::Lost, events);
    }
    links.keep_exchanged(link.exchanged());
}

/// Runs a link until its first part ends; says why.
async fn run(
    links: &Rc<Links>,
    link: &Rc<Link>,
    send: SendStream,
    control: mpsc::Receiver<Bytes>,
    read: (RecvStream, ControlDecoder),
) -> &'static str {
    // A task of its own, which ends with the connection: a batch that has been begun is taken to its end and accounted for.
    let arrivals = spawn_local(take_events(links.clone(), link.clone()));
    tokio::select! {
        why = write_control(send, control) => why,
        why = read_control(links, link, read) => why,
        why = write_events(links, link) => why,
        why = calls::serve(links.clone(), link.clone()) => why,
        why = arrivals => why.unwrap_or("taking events failed"),
        () = send_receipts(links, link) => "the router stops",
        () = measure(links, link) => "the router stops",
        () = link.ended.notified() => "closed here",
        _ = link.connection.closed() => "the connection ended",
    }
}

async fn write_control(mut send: SendStream, mut control: mpsc::Receiver<Bytes>) -> &'static str {
    while let Some(frame) = control.recv().await {
        if send.write_chunk(frame).await.is_err() {
            break;
        }
    }
    "the control stream was stopped"
}

async fn read_control(
    links: &Links,
    link: &Link,
    (mut recv, mut decoder): (RecvStream, ControlDecoder),
) -> &'static str {
    let mut taken = 0u32;
    loop {
        let message = match decoder.poll() {
            Ok(Some(message)) => message,
            Ok(None) => match recv.read_chunk().await {
                Ok(Some(bytes)) => {
                    decoder.push(&bytes);
                    continue;
                }
                _ => return "the control stream ended",
            },
            Err(violation) => return broken(links, link, &violation),
        };
        if let Err(violation) = links.with_mesh(|mesh, now| mesh.receive(now, link.id, message)) {
            if violation.code.closes_link() {
                return broken(links, link, &violation);
            }
            links.count_violation(&violation);
        }
        taken = taken.wrapping_add(1);
        if taken.is_multiple_of(CONTROL_AT_ONCE) {
            links.room_for_control().await;
        }
    }
}

fn broken(links: &Links, link: &Link, violation: &Violation) -> &'static str {
    links.count_violation(violation);
    links.refuse(&link.connection, violation);
    "the neighbour broke the protocol"
}

fn in_us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

async fn measure(links: &Links, link: &Link) {
    loop {
        let path = link.connection.stats();
        let round_trips = RoundTrips { smoothed_us: in_us(path.rtt), least_us: in_us(path.min_rtt) };
        links.with_mesh(|mesh, now| mesh.measured(now, link.id, round_trips));
        tokio::time::sleep(MEASURE_INTERVAL).await;
    }
}

/// Tells the neighbour how many events came.
async fn send_receipts(links: &Links, link: &Link) {
    loop {
        link.receipt_due.notified().await;
        tokio::time::sleep(RECEIPT_DELAY).await;
        let body = Bytes::copy_from_slice(&link.received.get().to_le_bytes());
        links.with_mesh(|mesh, _| mesh.send_application(link.id, RECEIPT, body));
    }
}

/// Takes the streams of events that the neighbour opens.
async fn take_events(links: Rc<Links>, link: Rc<Link>) -> &'static str {
    let Ok(mut recv) = link.connection.accept_uni().await else { return "the connection ended" };
    let mut arrivals = Arrivals::new(&links.local);
    loop {
        match recv.read_chunk().await {
            Ok(Some(bytes)) => {
                if let Err(violation) = arrive::take(&links, &link, &mut arrivals, &bytes).await {
                    return broken(&links, &link, &violation);
                }
            }
            _ => return "the stream of events ended",
        }
    }
}

/// Sends what waits for the neighbour.
async fn write_events(links: &Links, link: &Link) -> &'static str {
    let Ok(stream) = link.connection.open_uni().await else { return "the connection ended" };
    let mut writer = Writer { stream, announced: Announced::default(), head: Vec::new(), chunks: Vec::new() };
    let mut copies = Vec::new();
    loop {
        link.queue.take(WRITE_BYTES, &mut copies).await;
        for copy in copies.drain(..) {
            writer.encode(links, link, &copy);
        }
        let written = writer.stream.write_chunks(&mut writer.chunks).await;
        writer.chunks.clear();
        if written.is_err() {
            return "the stream of events was stopped";
        }
    }
}

/// Encodes batches for one neighbour.
struct Writer {
    stream: SendStream,
    announced: Announced,
    head: Vec<u8>,
    chunks: Vec<Bytes>,
}

impl Writer {
    fn encode(&mut self, links: &Links, link: &Link, Outgoing { stamp, delivery }: &Outgoing) {
        if !delivery.expires {
            return self.pieces(links, link, stamp, delivery, delivery.events.clone(), delivery.count);
        }
        let waited_ms = links.now_ms().saturating_sub(delivery.origin.received_ms);
        let emit = |events, first, count| {
            let stamp = Stamp { seq: stamp.seq + u64::from(first), ..stamp.clone() };
            self.pieces(links, link, &stamp, delivery, events, count);
        };
        let expired = split_expired(delivery, waited_ms, emit, |event, index| {
            if delivery.origin.traced.is_some() {
                let stamp = Stamp { seq: stamp.seq + u64::from(index), ..stamp.clone() };
                links.tell(link, delivery, (&stamp, event), Term::CopiesExpired);
            }
        });
        links.local.ledger.settle(delivery.origin.generation, Term::CopiesExpired, u64::from(expired));
    }

    /// Writes events as batches of the size that a neighbour takes.
    fn pieces(&mut self, links: &Links, link: &Link, stamp: &Stamp, of: &Delivery, mut events: Bytes, count: u32) {
        if events.len() <= BATCH_EVENTS_BYTES {
            return self.batch(links, link, stamp, of, events, count);
        }
        let mut stamp = stamp.clone();
        while !events.is_empty() {
            let (mut end, mut count) = (0, 0);
            while end < BATCH_EVENTS_BYTES
                && let Ok(Some(event)) = EventHead::parse(&events[end..])
            {
                end += event.total_bytes();
                count += 1;
            }
            if count == 0 {
                return tracing::error!("a run of events does not parse: a defect of the router");
            }
            self.batch(links, link, &stamp, of, events.split_to(end), count);
            stamp.seq += u64::from(count);
        }
    }

    fn batch(&mut self, links: &Links, link: &Link, stamp: &Stamp, of: &Delivery, events: Bytes, count: u32) {
        let source = of.origin.source.as_ref();
        let named = of.names.as_slice().iter().chain(source);
        let news: Vec<_> = named
            .filter(|name| self.announced.is_news(name))
            .map(|name| AnnouncedName { reference: name.reference, text: &*name.text })
            .collect();
        let source_ref = source.map_or(0, |name| name.reference);
        let head = BatchHead { stamp: stamp.clone(), count, time_ns: of.origin.time_ns, source_ref };
        let generation = of.origin.generation;
        if let Err(violation) = batch::write_head(&mut self.head, &head, &news, events.len()) {
            tracing::error!(%violation, "a batch is over its limit: a defect of the router");
            return links.local.ledger.settle(generation, Term::Lost, u64::from(count));
        }
        if of.origin.traced.is_some() {
            links.tell(link, of, (stamp, &events), Term::Forwarded);
        }
        link.outstanding.sent(generation, u64::from(count), events.len());
        link.sent.set(link.sent.get() + u64::from(count));
        self.chunks.push(Bytes::from(std::mem::take(&mut self.head)));
        self.chunks.push(events);
    }
}
