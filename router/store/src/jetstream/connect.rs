//! From the options to an open log: connects, finds or makes the streams, and refuses what would lose a catalog.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{ContextBuilder, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{Client, ConnectOptions, ServerAddr};

use super::blobs::Blobs;
use super::fit;
use super::fsync;
use super::log::{Log, Trouble};
use super::options::JetstreamOptions;
use super::state::State;
use super::tail::Tail;
use crate::control::Announcer;
use crate::error::StoreError;

/// Messages of one subscription that wait for us. Hints are all that comes that way: one that is dropped is made up for.
const SUBSCRIPTION_MESSAGES_MAX: usize = 256;
/// Orders that wait for the connection; each waits for its own answer.
const ORDERS_MAX: usize = 64;
/// Acknowledgements that are outstanding; we wait for each before the next but for those of a module's chunks.
const ACKS_MAX: usize = 64;
/// Pings in the time of one call: a server that hangs is left for another after three that it did not answer.
const PINGS_PER_CALL: u32 = 4;
/// Between two tries to make the streams.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// An open log with its buckets, caught up.
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) state: State,
    pub(super) blobs: Blobs,
}

/// Connects and checks all there is to check before a record is read, then reads the log.
pub(super) async fn open(options: &JetstreamOptions) -> Result<Opened, StoreError> {
    options.check()?;
    if !options.system_urls.is_empty() {
        let system = connect(options, &options.system_urls, options.system_credentials.as_ref()).await?;
        fsync::check(&system, options).await?;
    }
    let client = connect(options, &options.urls, options.credentials.as_ref()).await?;
    let context = ContextBuilder::new()
        .timeout(options.call_timeout())
        .ack_timeout(options.call_timeout())
        .max_ack_inflight(ACKS_MAX)
        .build(client);
    let [log, _, blobs] = streams(&context, options).await?;
    let failed = |e: &dyn ToString| unavailable(options, "open", e.to_string());
    let state = context.get_key_value(options.state_bucket()).await.map_err(|e| failed(&e))?;
    let bucket = context.get_object_store(options.blob_bucket()).await.map_err(|e| failed(&e))?;
    let log = Log {
        context,
        stream: log,
        name: options.stream.clone(),
        place: options.place(),
        record_subject: fit::record_subject(options),
        lease_subject: fit::lease_subject(options),
        patience: options.patience(),
        announcer: Announcer::new(0),
        tail: Mutex::new(Tail::default()),
    };
    let state = State(state);
    let name = options.blob_bucket();
    let blobs = Blobs { bucket, stream: blobs, name, orphan_age_min: options.orphan_age_min() };
    // In this order: what is noted before the log is read is in it.
    let noted = state.witness(&log).await?;
    log.catch_up_to(&noted).await?;
    Ok(Opened { log, state, blobs })
}

/// A client of the servers, with its bounds.
pub(super) async fn connect(
    options: &JetstreamOptions,
    urls: &[String],
    credentials: Option<&PathBuf>,
) -> Result<Client, StoreError> {
    let failed = |e: &dyn ToString| unavailable(options, "connect to", e.to_string());
    let addresses = urls.iter().map(|url| url.parse::<ServerAddr>()).collect::<Result<Vec<_>, _>>();
    let addresses = addresses.map_err(|e| failed(&e))?;
    let mut connect = ConnectOptions::new()
        .name("myelin catalog")
        .connection_timeout(options.call_timeout())
        .request_timeout(Some(options.call_timeout()))
        .ping_interval(options.call_timeout() / PINGS_PER_CALL)
        .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
        .client_capacity(ORDERS_MAX)
        // Also of servers that these name later.
        .require_tls(addresses.iter().all(ServerAddr::tls_required));
    // The client itself passes over what a URL says of users.
    let named = addresses.iter().find_map(|url| Some((url.username()?.to_owned(), url.password()?.to_owned())));
    if let Some((user, password)) = named {
        connect = connect.user_and_password(user, password);
    }
    if let Some(ca) = &options.ca {
        connect = connect.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let (Some(certificate), Some(key)) = (&options.certificate, &options.key) {
        connect = connect.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
    }
    if let Some(path) = credentials {
        connect = connect.credentials_file(path).await.map_err(StoreError::io("read", path))?;
    }
    connect.connect(addresses).await.map_err(|e| failed(&e))
}

/// The streams of log, leases and modules; made where they are not.
async fn streams(context: &Context, options: &JetstreamOptions) -> Result<[Stream; 3], StoreError> {
    let wanted = [fit::log_config(options), fit::state_config(options), fit::blob_config(options)];
    let [log, state, blobs] = &wanted;
    let found = [
        find_or_make(context, options, log).await?,
        find_or_make(context, options, state).await?,
        find_or_make(context, options, blobs).await?,
    ];
    let problems = found.iter().zip(&wanted).flat_map(|(stream, wanted)| {
        let found = stream.cached_info();
        fit::problems(found, wanted, options)
    });
    let problems: Vec<String> = problems.collect();
    if problems.is_empty() { Ok(found) } else { Err(StoreError::Unfit { place: options.place(), problems }) }
}

async fn find_or_make(context: &Context, options: &JetstreamOptions, wanted: &Config) -> Result<Stream, StoreError> {
    let began = Instant::now();
    loop {
        match try_find_or_make(context, options, wanted).await {
            Ok(stream) => return Ok(stream),
            Err(Trouble::Passing(_)) if began.elapsed() < options.patience() => tokio::time::sleep(RETRY_PAUSE).await,
            Err(Trouble::Passing(error) | Trouble::Lasting(error)) => return Err(error),
        }
    }
}

async fn try_find_or_make(context: &Context, options: &JetstreamOptions, wanted: &Config) -> Result<Stream, Trouble> {
    let passing = |e: &dyn ToString| Trouble::Passing(unavailable(options, "open", e.to_string()));
    match context.get_stream(&wanted.name).await {
        Ok(stream) => return Ok(stream),
        Err(e) => match e.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                let problems = vec!["JetStream is off for this account; enable it".to_owned()];
                return Err(Trouble::Lasting(StoreError::Unfit { place: options.place(), problems }));
            }
            _ => return Err(passing(&e)),
        },
    }
    // Another router may make it at the same time: the same is made once, and another is found on the next try.
    context.create_stream(wanted.clone()).await.map_err(|e| passing(&e))
}

pub(super) fn unavailable(options: &JetstreamOptions, action: &'static str, why: String) -> StoreError {
    StoreError::Unavailable { action, place: options.place(), why }
}
