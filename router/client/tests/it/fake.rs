//! A router that does what a test tells it, on the other end of connections in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use myelin_client::{BoxFuture, Client, ClientConfig, ClientError, Connector, Limits, Stamp};
use myelin_transport::{CloseKind, CloseReason, Connection, Identity, RecvStream, SendStream, memory};
use myelin_wire::message::{
    Ack, Exception, GoAway, Hello, Message, MessageDecoder, Refused, Subscribe, SubscriptionId, Welcome,
};
use myelin_wire::stream::{DataDecoder, Item, write_deliver_head, write_name};
use myelin_wire::{Code, EventBuilder, FrameType, VERSION};
use tokio::sync::mpsc;

/// A test that waits longer than this hangs.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), future).await.expect("in time")
}

/// Gives the tasks of the client time to do what they can.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// The routers of a test, and the connections that a client made to them.
pub(crate) struct Fake {
    dialled: mpsc::Receiver<(usize, Connection)>,
    connector: Arc<MemoryConnector>,
}

pub(crate) struct MemoryConnector {
    dialled: mpsc::Sender<(usize, Connection)>,
    routers: usize,
    /// So many attempts fail before one succeeds again.
    failures: AtomicUsize,
    /// How they fail; without, nobody answers.
    failure: Mutex<Option<ClientError>>,
}

/// The router's end of one session.
pub(crate) struct FakeSession {
    pub(crate) index: usize,
    pub(crate) hello: Hello,
    pub(crate) connection: Connection,
    send: SendStream,
    recv: RecvStream,
    decoder: MessageDecoder,
    publish: Option<(RecvStream, DataDecoder)>,
    names: HashMap<u32, String>,
    delivery: Option<SendStream>,
    /// The newest receipt.
    pub(crate) receipted: u64,
}

/// An event that the client published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) topic_ref: u32,
    pub(crate) attrs: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) flags: u8,
}

impl Connector for MemoryConnector {
    fn routers(&self) -> usize {
        self.routers
    }

    fn connect(&self, index: usize) -> BoxFuture<'_, Result<Connection, ClientError>> {
        Box::pin(async move {
            let fails = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if fails.is_ok() {
                if let Some(error) = &*self.failure.lock().unwrap() {
                    return Err(error.clone());
                }
                let text = "no route".into();
                return Err(ClientError::Lost(CloseReason {
                    kind: CloseKind::TimedOut,
                    code: 0,
                    text,
                    by_peer: false,
                }));
            }
            let client = Identity::service("test.example", "shop").unwrap();
            let router = Identity::router("test.example", "lab", "r1").unwrap();
            let (ours, theirs) = memory::pair(client, router);
            self.dialled.send((index, theirs)).await.unwrap();
            Ok(ours)
        })
    }
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self::with_routers(1)
    }

    pub(crate) fn with_routers(routers: usize) -> Self {
        let (sender, dialled) = mpsc::channel(16);
        let connector =
            MemoryConnector { dialled: sender, routers, failures: AtomicUsize::new(0), failure: Mutex::default() };
        Self { dialled, connector: Arc::new(connector) }
    }

    /// A client of this router in its first session.
    pub(crate) async fn client(&mut self, config: ClientConfig) -> (Client, FakeSession) {
        let connector = self.connector.clone();
        let (client, session) = tokio::join!(Client::connect_with(config, connector), self.session());
        (client.unwrap(), session)
    }

    pub(crate) fn connector(&self) -> Arc<MemoryConnector> {
        self.connector.clone()
    }

    pub(crate) fn fail_next(&self, attempts: usize) {
        self.connector.failures.store(attempts, Ordering::SeqCst);
    }

    /// Lets each attempt from here on fail like this.
    pub(crate) fn fail_with(&self, error: ClientError) {
        *self.connector.failure.lock().unwrap() = Some(error);
        self.fail_next(usize::MAX);
    }

    /// The next connection, without a word to it.
    pub(crate) async fn dialled(&mut self) -> (usize, Connection) {
        in_time(self.dialled.recv()).await.unwrap()
    }

    /// The next connection, greeted.
    pub(crate) async fn session(&mut self) -> FakeSession {
        let (index, connection) = self.dialled().await;
        let (send, recv) = in_time(connection.accept_bi()).await.unwrap();
        let mut session = FakeSession {
            index,
            hello: Hello { min: 0, max: 0, client: String::new(), overflow: Default::default(), token: None },
            connection,
            send,
            recv,
            decoder: MessageDecoder::new(),
            publish: None,
            names: HashMap::new(),
            delivery: None,
            receipted: 0,
        };
        let Message::Hello(hello) = session.hear().await else { panic!("HELLO comes first") };
        session.hello = hello;
        let inbox = format!("$inbox/s{index}");
        let (site, router) = ("lab".to_owned(), format!("r{index}"));
        session
            .say(Message::Welcome(Welcome { version: VERSION, site, router, inbox, limits: Limits::default() }))
            .await;
        session
    }
}

impl FakeSession {
    pub(crate) async fn say(&mut self, message: Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        self.say_bytes(bytes).await;
    }

    pub(crate) async fn say_bytes(&mut self, bytes: Vec<u8>) {
        in_time(self.send.write_chunk(bytes.into())).await.unwrap();
    }

    /// The next control message; receipts are noted.
    pub(crate) async fn hear(&mut self) -> Message {
        in_time(async {
            loop {
                match self.decoder.poll().unwrap() {
                    Some(Message::Receipt(receipt)) => {
                        assert!(receipt.events > self.receipted, "receipts say something new");
                        self.receipted = receipt.events;
                    }
                    Some(message) => return message,
                    None => self.decoder.push(&self.recv.read_chunk().await.unwrap().expect("more to come")),
                }
            }
        })
        .await
    }

    /// Reads control messages until `events` are receipted.
    pub(crate) async fn hear_receipt(&mut self, events: u64) {
        in_time(async {
            while self.receipted < events {
                match self.decoder.poll().unwrap() {
                    Some(Message::Receipt(receipt)) => self.receipted = receipt.events,
                    Some(other) => panic!("{other:?} instead of a receipt"),
                    None => self.decoder.push(&self.recv.read_chunk().await.unwrap().expect("more to come")),
                }
            }
        })
        .await;
        assert_eq!(self.receipted, events);
    }

    /// What the client asks for next, confirmed.
    pub(crate) async fn confirm_subscribe(&mut self) -> Subscribe {
        let Message::Subscribe(subscribe) = self.hear().await else { panic!("a SUBSCRIBE was to come") };
        self.say(Message::Subscribed(SubscriptionId { id: subscribe.id })).await;
        subscribe
    }

    pub(crate) async fn refuse_subscribe(&mut self, code: Code) -> Subscribe {
        let Message::Subscribe(subscribe) = self.hear().await else { panic!("a SUBSCRIBE was to come") };
        self.say(Message::Refused(Refused { id: subscribe.id, code, message: "no".to_owned() })).await;
        subscribe
    }

    pub(crate) async fn ack(&mut self, seq: u64, exceptions: &[(u64, Code, &str)]) {
        let exceptions = exceptions.iter().map(|(seq, code, detail)| Exception(*seq, *code, (*detail).to_owned()));
        self.say(Message::Ack(Ack { seq, exceptions: exceptions.collect() })).await;
    }

    pub(crate) async fn goaway(&mut self, drain_ms: u32) {
        self.say(Message::GoAway(GoAway { code: Code::Draining, message: "restart".to_owned(), drain_ms })).await;
    }

    /// The next `count` events of the publish stream.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<Published> {
        in_time(async {
            if self.publish.is_none() {
                let stream = self.connection.accept_uni().await.unwrap();
                let decoder = DataDecoder::new(FrameType::Events, Limits::default().event_len_max());
                self.publish = Some((stream, decoder));
            }
            let mut events = Vec::new();
            while events.len() < count {
                if let Some(event) = self.poll_event() {
                    events.push(event);
                } else {
                    let (stream, decoder) = self.publish.as_mut().unwrap();
                    decoder.push(&stream.read_chunk().await.unwrap().expect("more to come"));
                }
            }
            events
        })
        .await
    }

    /// Whether the client has not finished the publish stream. Nothing is to come on it.
    pub(crate) async fn publish_is_open(&mut self) -> bool {
        let (stream, _) = self.publish.as_mut().unwrap();
        tokio::time::timeout(Duration::from_millis(50), stream.read_chunk()).await.is_err()
    }

    /// Waits until the client has finished the publish stream between two frames.
    pub(crate) async fn publish_end(&mut self) {
        let (stream, decoder) = self.publish.as_mut().unwrap();
        assert_eq!(in_time(stream.read_chunk()).await, Ok(None));
        assert!(decoder.is_at_boundary());
    }

    fn poll_event(&mut self) -> Option<Published> {
        let (_, decoder) = self.publish.as_mut().unwrap();
        loop {
            match decoder.poll().unwrap()? {
                Item::Name { reference, name } => {
                    let text = String::from_utf8(decoder.buffer()[name].to_vec()).unwrap();
                    self.names.insert(reference, text);
                }
                Item::Event(span) => {
                    let (attrs, payload) = (span.attrs(decoder.buffer()), span.payload(decoder.buffer()));
                    return Some(Published {
                        topic: self.names[&span.head.topic_ref].clone(),
                        topic_ref: span.head.topic_ref,
                        attrs: attrs.to_vec(),
                        payload: payload.to_vec(),
                        flags: span.head.flags,
                    });
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends bytes of a delivery stream.
    pub(crate) async fn deliver_bytes(&mut self, bytes: impl Into<Bytes>) {
        if self.delivery.is_none() {
            self.delivery = Some(in_time(self.connection.open_uni()).await.unwrap());
        }
        in_time(self.delivery.as_mut().unwrap().write_chunk(bytes.into())).await.unwrap();
    }

    /// Sends `events` (topic-ref, attributes, payload) in one frame, with `names` before it.
    pub(crate) async fn deliver(&mut self, stamp: Stamp, names: &[(u32, &str)], events: &[(u32, &[u8], &[u8])]) {
        self.deliver_bytes(delivery(stamp, names, events)).await;
    }

    /// Why the client's side ended the connection.
    pub(crate) async fn closed(&self) -> CloseReason {
        in_time(self.connection.closed()).await
    }
}

/// The bytes of names and, where there are events, of one DELIVER frame.
pub(crate) fn delivery(stamp: Stamp, names: &[(u32, &str)], events: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
    let (mut body, mut out) = (Vec::new(), Vec::new());
    for (reference, name) in names {
        write_name(&mut out, *reference, name);
    }
    if events.is_empty() {
        return out;
    }
    for (topic_ref, attrs, payload) in events {
        EventBuilder { topic_ref: *topic_ref, attrs, payload, request: false }.write(&mut body).unwrap();
    }
    let stamp = Stamp { count: u32::try_from(events.len()).unwrap(), ..stamp };
    write_deliver_head(&mut out, &stamp, body.len());
    out.extend(body);
    out
}
