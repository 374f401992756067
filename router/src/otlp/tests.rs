#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::client::read;
use super::spans::tests::{attributes, record, spans};
use super::*;
use crate::config::TelemetryConfig;
use crate::trace::{DeliveryRecord, HopRecord, RECORDS_MAX, Ring, SENT, Verdict};
use http_body_util::{BodyExt, Full};
use hyper::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use myelin_transport::ca::CertificateAuthority;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// How long anything may take that is to happen.
const PATIENCE: Duration = Duration::from_secs(60);
const QUICK: Pace = Pace {
    every: Duration::from_millis(5),
    retry_min: Duration::from_millis(5),
    retry_max: Duration::from_millis(20),
    attempts_max: 3,
    finish: Duration::from_millis(300),
};

#[test]
fn answers_mean_what_the_specification_says() {
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let of = |status: u16, retry: Option<&str>| {
        let retry = retry.map(|text| (RETRY_AFTER, HeaderValue::from_str(text).unwrap()));
        read(StatusCode::from_u16(status).unwrap(), &HeaderMap::from_iter(retry), b"", now)
    };
    for (status, retry, expected) in [
        (429, Some("7"), Some(7)),
        (502, None, None),
        (503, Some(" 0 "), Some(0)),
        (503, Some("Sun, 09 Sep 2001 01:46:50 GMT"), Some(10)),
        (503, Some("Sun, 09 Sep 2001 01:46:30 GMT"), Some(0)),
        (504, Some("soon"), None),
        (429, Some("-1"), None),
    ] {
        let Outcome::Later { trouble: Trouble::Busy, after, .. } = of(status, retry) else { panic!("{status}") };
        assert_eq!(after, expected.map(Duration::from_secs), "{status} {retry:?}");
    }
    for status in [301, 307, 400, 401, 403, 404, 413, 415, 500, 501] {
        assert!(matches!(of(status, Some("1")), Outcome::Never { .. }), "{status}");
    }
    let taken = |rejected, message: &str| Outcome::Taken { rejected, message: message.into() };
    assert_eq!(of(200, None), taken(0, ""));
    let answer = |rejected_spans, error_message: &str| {
        let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message: error_message.into() });
        read(StatusCode::OK, &HeaderMap::new(), &ExportTraceServiceResponse { partial_success }.encode_to_vec(), now)
    };
    assert_eq!(answer(3, "too\u{1b}old"), taken(3, "too?old"));
    assert_eq!(answer(-1, &"x".repeat(1_000)), taken(0, &"x".repeat(200)));
    assert_eq!(read(StatusCode::OK, &HeaderMap::new(), b"<html>", now), taken(0, ""), "what it has it has");
}

/// What the collector says next.
#[derive(Clone)]
enum Reply {
    Status(u16, Option<&'static str>),
    Reject(i64),
    /// Nothing at all.
    Silence,
}

/// A collector: it does as it is told, then takes everything.
#[derive(Default)]
struct Collector {
    replies: Mutex<VecDeque<Reply>>,
    /// Requests that came, with what was answered.
    came: Mutex<Vec<(HeaderMap, String, ExportTraceServiceRequest, u16)>>,
}

impl Collector {
    async fn start(replies: impl IntoIterator<Item = Reply>) -> (Arc<Self>, SocketAddr) {
        Self::start_at(TcpListener::bind("127.0.0.1:0").await.unwrap(), replies, None)
    }

    fn start_at(
        listener: TcpListener,
        replies: impl IntoIterator<Item = Reply>,
        tls: Option<rustls::ServerConfig>,
    ) -> (Arc<Self>, SocketAddr) {
        let replies = Mutex::new(replies.into_iter().collect());
        let (collector, addr) = (Arc::new(Self { replies, ..Self::default() }), listener.local_addr().unwrap());
        let (serving, tls) = (collector.clone(), tls.map(|tls| tokio_rustls::TlsAcceptor::from(Arc::new(tls))));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (collector, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => collector.serve(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                collector.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        (collector, addr)
    }

    async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request| self.clone().answer(request));
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = ExportTraceServiceRequest::decode(body.collect().await?.to_bytes()).unwrap();
        let reply = self.replies.lock().unwrap().pop_front().unwrap_or(Reply::Status(200, None));
        let mut answer = Response::new(Full::default());
        match reply {
            Reply::Status(status, retry) => {
                *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                answer.headers_mut().extend(retry.map(|retry| (RETRY_AFTER, HeaderValue::from_static(retry))));
            }
            Reply::Reject(rejected_spans) => {
                let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message: "old".into() });
                *answer.body_mut() = Full::new(ExportTraceServiceResponse { partial_success }.encode_to_vec().into());
            }
            Reply::Silence => std::future::pending().await,
        }
        let status = answer.status().as_u16();
        self.came.lock().unwrap().push((head.headers, head.uri.to_string(), body, status));
        Ok(answer)
    }

    /// Topics of the spans in the requests that were answered so.
    fn topics(&self, status: u16) -> Vec<String> {
        let came = self.came.lock().unwrap();
        let good = came.iter().filter(|(.., answered)| *answered == status);
        let spans = good.flat_map(|(_, _, request, _)| spans(request));
        let topic = |span: Span| {
            attributes(&span.attributes)
                .iter()
                .find_map(|one| one.strip_prefix("messaging.destination.name=").map(str::to_owned))
        };
        spans.filter(|span| span.name == "deliver").filter_map(topic).collect()
    }
}

type Shared = Arc<Mutex<Ring>>;

/// A worker: a ring, and who answers for it.
fn worker() -> (Shared, mpsc::Sender<Order>) {
    let (ring, (orders, mut taken)) = (Arc::new(Mutex::new(Ring::new(Instant::now()))), mpsc::channel(4));
    let answering = ring.clone();
    tokio::spawn(async move {
        while let Some(order) = taken.recv().await {
            let Order::Records(from, max, answer) = order else { panic!("{order:?}") };
            assert!(max <= PORTION_RECORDS);
            let _ = answer.send(answering.lock().unwrap().since(from, max));
        }
    });
    (ring, orders)
}

/// Records a copy for each number.
fn make(ring: &Shared, numbers: std::ops::Range<usize>) {
    let mut ring = ring.lock().unwrap();
    for number in numbers {
        let delivery = Some(DeliveryRecord { session: "s".into(), subscription: 0, outcome: SENT.into() });
        ring.push(Record { delivery, ..record("00000000000000b1", "00000000000000a1", &number.to_string()) });
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn config(addr: impl std::fmt::Display) -> TelemetryConfig {
    TelemetryConfig { otlp: Some(format!("http://{addr}")), ..TelemetryConfig::default() }
}

fn export(pace: Pace, config: &TelemetryConfig, workers: Vec<mpsc::Sender<Order>>) -> Exporter {
    Exporter::start_at(pace, Target::load(config).unwrap().unwrap(), &Place::default(), workers)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn count(of: &[(&'static str, u64)], code: &str) -> u64 {
    of.iter().find(|(name, _)| *name == code).unwrap().1
}

fn lost(figures: &Figures) -> u64 {
    figures.lost().iter().map(|(_, count)| count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_exported_once_in_order_and_within_bounds() {
    let (collector, addr) = Collector::start([]).await;
    let ((one, orders), (other, more)) = (worker(), worker());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    std::fs::write(&file, "# a comment\n\nauthorization=Bearer a=b\n").unwrap();
    let url = Some(format!("http://{addr}/tenant/"));
    let config = TelemetryConfig { otlp: url, headers: vec!["x-a=1".into()], headers_file: Some(file), ..config(addr) };
    make(&one, 0..RECORDS_MAX);
    make(&other, RECORDS_MAX..RECORDS_MAX + 10);
    let exporter = export(QUICK, &config, vec![orders, more]);
    let figures = exporter.figures().clone();
    until("all come", || figures.records() == RECORDS_MAX as u64 + 10).await;
    make(&other, RECORDS_MAX + 10..RECORDS_MAX + 20);
    exporter.finish().await;
    let (all, expected) = (RECORDS_MAX + 20, |range| numbers(range));
    assert_eq!((figures.records(), figures.spans(), lost(&figures)), (all as u64, all as u64, 0));
    let topics = collector.topics(200);
    let of = |small: bool| -> Vec<String> {
        topics.iter().filter(|topic| (topic.parse::<usize>().unwrap() < RECORDS_MAX) == small).cloned().collect()
    };
    assert_eq!((of(true), of(false)), (expected(0..RECORDS_MAX), expected(RECORDS_MAX..all)));
    let came = collector.came.lock().unwrap();
    for (headers, path, request, _) in came.iter() {
        let [kind, own, token] = ["content-type", "x-a", "authorization"].map(|name| headers[name].to_str().unwrap());
        assert_eq!((&**path, kind), ("/tenant/v1/traces", "application/x-protobuf"));
        assert_eq!((own, token), ("1", "Bearer a=b"));
        assert!(spans(request).len() <= REQUEST_SPANS_MAX.min(2 * PORTION_RECORDS));
    }
    assert!(came.len() >= all.div_ceil(2 * PORTION_RECORDS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_cut_at_its_bounds() {
    let verdicts = |count| vec![Verdict { reason: "r".repeat(200), ..Verdict::default() }; count];
    let mut waiting = VecDeque::new();
    let mut wait = |count: usize, bytes: usize| {
        let hop = HopRecord { verdicts: verdicts(count), detail: "d".repeat(bytes), ..HopRecord::default() };
        waiting.push_back(Arc::new(Record { hop: Some(hop), ..record("00000000000000b1", "00000000000000a1", "t") }));
    };
    [(1_000, 0), (1_000, 0), (1_000, 0), (0, REQUEST_BYTES_MAX), (0, 0)].into_iter().for_each(|(a, b)| wait(a, b));
    let target = Target::load(&config("127.0.0.1:1")).unwrap().unwrap();
    let mut export = Export {
        pace: QUICK,
        resource: Place::default().resource(),
        workers: Vec::new(),
        waiting,
        client: Client::new(target),
        retry: QUICK.retry_min,
        trouble: None,
        figures: Arc::default(),
    };
    let mut cut = Vec::new();
    while !export.waiting.is_empty() {
        let (records, _) = export.next_request();
        cut.push(records);
        export.waiting.drain(..records);
    }
    assert_eq!(cut, [2, 1, 1, 1], "two by their spans, one too large for any other, and the rest");
    assert_eq!(export.next_request().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_collector_gets_the_same_again() {
    let busy = [Reply::Status(503, None), Reply::Status(429, Some("0"))];
    let (collector, addr) = Collector::start(busy).await;
    let (ring, orders) = worker();
    make(&ring, 0..3);
    let exporter = export(QUICK, &config(addr), vec![orders]);
    let figures = exporter.figures().clone();
    until("they are taken", || figures.records() == 3).await;
    exporter.finish().await;
    for status in [503, 429, 200] {
        assert_eq!(collector.topics(status), numbers(0..3), "{status}");
    }
    assert_eq!((count(&figures.failed(), "busy"), lost(&figures)), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_is_not_asked_twice_and_one_that_rejects_is_believed() {
    let (collector, addr) = Collector::start([Reply::Status(400, Some("0")), Reply::Reject(2)]).await;
    let (ring, orders) = worker();
    make(&ring, 0..3);
    let exporter = export(QUICK, &config(addr), vec![orders]);
    let figures = exporter.figures().clone();
    until("they are refused", || count(&figures.lost(), "refused") == 3).await;
    make(&ring, 3..8);
    until("the others are taken", || figures.records() == 5).await;
    exporter.finish().await;
    assert_eq!(collector.topics(400), numbers(0..3));
    assert_eq!(collector.topics(200), numbers(3..8), "nothing is sent again");
    assert_eq!((figures.spans(), figures.spans_rejected(), lost(&figures)), (3, 2, 3));
    assert_eq!(count(&figures.failed(), "refused"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_records_and_they_are_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    // Nobody takes the connection, and the port is nobody else's.
    let (ring, orders) = worker();
    make(&ring, 0..10);
    let timeout_ms = 100;
    let exporter = export(QUICK, &TelemetryConfig { timeout_ms, ..config(addr) }, vec![orders]);
    let figures = exporter.figures().clone();
    until("they are given up", || count(&figures.lost(), "unavailable") >= 10).await;
    assert!(count(&figures.failed(), "timeout") >= u64::from(QUICK.attempts_max));
    // More than the ring holds, while nobody can read it: those before have made room.
    let made = 10 + 2 * RECORDS_MAX;
    make(&ring, 10..made);
    let (collector, _) = Collector::start_at(listener, [], None);
    until("the rest is taken", || figures.records() + lost(&figures) == made as u64).await;
    exporter.finish().await;
    assert_eq!(figures.records() + lost(&figures), made as u64, "{figures:?}");
    assert!(count(&figures.lost(), "overwritten") >= RECORDS_MAX as u64, "{figures:?}");
    let topics = collector.topics(200);
    assert_eq!(topics.last().unwrap(), &(made - 1).to_string(), "the newest come");
    assert!(topics.len() as u64 >= figures.records());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_the_last_records_and_for_no_silent_collector() {
    let (collector, addr) = Collector::start([]).await;
    let (ring, orders) = worker();
    let slow = Pace { every: Duration::from_secs(3_600), ..QUICK };
    let exporter = export(slow, &config(addr), vec![orders.clone()]);
    let figures = exporter.figures().clone();
    make(&ring, 0..PORTION_RECORDS + 5);
    exporter.finish().await;
    assert_eq!((figures.records(), lost(&figures)), (PORTION_RECORDS as u64 + 5, 0));
    assert_eq!(collector.topics(200), numbers(0..PORTION_RECORDS + 5));

    let (_, addr) = Collector::start([Reply::Silence]).await;
    let exporter = export(slow, &config(addr), vec![orders.clone()]);
    let figures = exporter.figures().clone();
    exporter.finish().await;
    assert_eq!((figures.records(), count(&figures.lost(), "stopped")), (0, PORTION_RECORDS as u64));

    // And one that is dropped takes nothing with it.
    let (collector, addr) = Collector::start([]).await;
    drop(export(slow, &config(addr), vec![orders]));
    assert_eq!(collector.topics(200), numbers(0..0));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_collector_that_the_authorities_vouch_for_is_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let authority = CertificateAuthority::create(name, 2).unwrap();
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        authority.save(&folder).unwrap();
        (authority, folder.join("ca.pem"))
    };
    let ((own, good), (_, other)) = (authority("own"), authority("other"));
    let issued = own.issue_router("s", "r", &["localhost".into()], 1).unwrap();
    let (certificate, key) = issued.save(folder.path(), "collector").unwrap();
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).unwrap().collect();
    let tls = rustls::ServerConfig::builder_with_provider(myelin_transport::crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.unwrap(), PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (collector, addr) = Collector::start_at(listener, [], Some(tls));
    for (ca, host, is_good) in [(&good, "localhost", true), (&other, "localhost", false), (&good, "127.0.0.1", false)] {
        let (ring, orders) = worker();
        make(&ring, 0..2);
        let url = Some(format!("https://{host}:{}", addr.port()));
        let config = TelemetryConfig { otlp: url, ca: Some(ca.clone()), ..TelemetryConfig::default() };
        let exporter = export(QUICK, &config, vec![orders]);
        let figures = exporter.figures().clone();
        until("it is decided", || figures.records() + lost(&figures) == 2).await;
        exporter.finish().await;
        assert_eq!(figures.records() == 2, is_good, "{host} {}: {figures:?}", ca.display());
        assert_eq!(count(&figures.failed(), "connection") > 0, !is_good);
    }
    assert_eq!(collector.came.lock().unwrap().len(), 1);
}

#[test]
fn what_the_files_hold_is_told_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        Some(folder.path().join(name))
    };
    let told = |config: TelemetryConfig| format!("{:#}", Target::load(&config).unwrap_err());
    let secure = TelemetryConfig { otlp: Some("https://c".into()), ..TelemetryConfig::default() };
    let headers_file = file("headers", "a=1\nsecret\n");
    let text = told(TelemetryConfig { headers_file, ..config("c") });
    assert!(text.contains("[telemetry] headers_file: ") && text.contains("headers:2: a header has no `=`"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    let headers_file = file("large", &"x".repeat(70_000));
    assert!(told(TelemetryConfig { headers_file, ..config("c") }).contains("has more than 65536 bytes"));
    let missing = Some(folder.path().join("missing"));
    assert!(told(TelemetryConfig { headers_file: missing.clone(), ..config("c") }).contains("missing"));
    assert!(told(TelemetryConfig { ca: missing, ..secure.clone() }).starts_with("[telemetry] ca: "));
    let text = told(TelemetryConfig { ca: file("ca.pem", ""), ..secure });
    assert!(text.contains("no authority is trusted"), "{text}");
    assert!(Target::load(&TelemetryConfig::default()).unwrap().is_none());
}
