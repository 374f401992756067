//! A router that is none: it holds the certificate of a member and says on its link whatever a test wants.

use crate::sites::Sites;
use anyhow::{Context, Result, ensure};
use myelin_catalog::Head;
use myelin_catalog::exchange::{Answer, Ask};
use myelin_client::TlsFiles;
use myelin_mesh::control::{ALPN_MESH, CatalogHead, FixedBytes, Hello, InterestHead, LinkState, Status};
use myelin_mesh::{
    AnnouncedName, BatchHead, Control, ControlDecoder, RouterNumber, SiteNumber, SiteSet, Stamp, ViolationCode, batch,
};
use myelin_transport::{CloseReason, Connection, DialConfig, Dialer, QuicConfig, RecvStream, SendStream, TlsIdentity};
use myelin_wire::EventBuilder;
use std::time::Duration;
use tokio::time::timeout;

/// How long a router may take for its word: a hello that never comes is waited for for 5 seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is added to a violation's number in the code of a closed connection.
const CLOSE_CODE: u32 = 0x100;
/// Bytes before a question between control planes.
const CALL_HEAD_BYTES: usize = 10;

/// Links that a question may cross, as an honest router asks it.
pub const HOPS_MAX: u8 = myelin_mesh::limits::HOPS_MAX;

/// Somebody with a router's certificate.
pub struct HostileRouter {
    dialer: Dialer,
    config: DialConfig,
    hello: Hello,
}

/// A link of theirs: both have said hello.
pub struct RawLink {
    /// The connection.
    pub connection: Connection,
    /// The control stream towards the router.
    pub control: SendStream,
    answers: RecvStream,
    decoder: ControlDecoder,
    /// Who it says that it is.
    pub hello: Hello,
}

impl HostileRouter {
    /// Router `r1` of the site `name`, which is member number `number`, with a certificate of its own;
    /// attacks the router of site `target`.
    ///
    /// # Errors
    /// When there is no certificate.
    pub fn new(sites: &Sites, name: &str, number: u32, target: usize) -> Result<Self> {
        let issued = sites.authority().issue_router(name, "r1", &["localhost".into()], 1)?;
        let (cert, key) = issued.save(sites.folder(), &format!("hostile-{name}"))?;
        let tls = TlsIdentity::load(&TlsFiles { cert, key, ca: sites.folder().join("ca.pem") })?;
        let alpn = String::from_utf8_lossy(ALPN_MESH).into_owned();
        let config = DialConfig { addr: sites.mesh_addr(target), server_name: "localhost".into(), alpn, tls };
        let quic =
            QuicConfig { keep_alive_ms: 1_000, uni_streams_max: 16, bidi_streams_max: 16, ..QuicConfig::default() };
        let dialer = Dialer::new(quic).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        let site = u16::try_from(number - 1).ok().and_then(SiteNumber::new).context("a site's number")?;
        let hello = Hello {
            min: 1,
            max: 1,
            site,
            router: RouterNumber(number),
            site_name: name.to_owned(),
            router_name: "r1".to_owned(),
            epoch: 1,
            catalog: CatalogHead::default(),
            features: 0,
        };
        Ok(Self { dialer, config, hello })
    }

    /// The hello of an honest router.
    pub fn hello(&self) -> Hello {
        self.hello.clone()
    }

    /// A connection on which nothing was said yet.
    ///
    /// # Errors
    /// When the router does not take it.
    pub async fn connect(&self) -> Result<Connection> {
        Ok(self.dialer.connect(&self.config).await?)
    }

    /// Begins a connection with these bytes, and waits for the router to end it; says how it did.
    ///
    /// # Errors
    /// When it does not.
    pub async fn begin(&self, bytes: &[u8]) -> Result<CloseReason> {
        let connection = self.connect().await?;
        let (mut control, mut answers) = connection.open_bi().await?;
        // The router may have ended it already.
        let _ = control.write_all(bytes).await;
        let ended = async {
            // It waits until its refusal is read.
            while let Ok(Some(_)) = answers.read_chunk().await {}
            connection.closed().await
        };
        timeout(PATIENCE, ended).await.context("still open")
    }

    /// A link.
    ///
    /// # Errors
    /// When the router does not take it.
    pub async fn link(&self) -> Result<RawLink> {
        let connection = self.connect().await?;
        let (mut control, answers) = connection.open_bi().await?;
        control.write_all(&encoded(&Control::Hello(self.hello()))?).await?;
        let hello = self.hello();
        let mut link = RawLink { connection, control, answers, decoder: ControlDecoder::new(), hello };
        let answer = link.hear().await?;
        ensure!(matches!(answer, Control::Hello(_)), "no hello: {answer:?}");
        Ok(link)
    }
}

impl RawLink {
    /// The next message of the router.
    ///
    /// # Errors
    /// When there is none any more.
    pub async fn hear(&mut self) -> Result<Control> {
        loop {
            if let Some(message) = self.decoder.poll()? {
                return Ok(message);
            }
            let read = timeout(PATIENCE, self.answers.read_chunk()).await.context("nothing is said")?;
            self.decoder.push(&read?.context("the control stream ended")?);
        }
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn hear_until(&mut self, mut is_it: impl FnMut(&Control) -> bool) -> Result<Control> {
        loop {
            let message = self.hear().await?;
            if is_it(&message) {
                return Ok(message);
            }
        }
    }

    /// Says this.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn say(&mut self, message: &Control) -> Result<()> {
        self.say_raw(&encoded(message)?).await
    }

    /// Says these bytes.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn say_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.control.write_all(bytes).await?)
    }

    /// Its own link state, as an honest router with these links would tell it.
    pub fn state(&self, version: u64, links: &[(u32, u32)]) -> LinkState {
        state((self.hello.router.0, self.hello.epoch, version), links)
    }

    /// Asks router `to` in the name of router `from`, as a question that may cross so many links yet; none where the router
    /// at the other end gives no answer.
    ///
    /// # Errors
    /// When the link is gone, or the answer is none.
    pub async fn ask(&self, (hops_left, from, to): (u8, u32, u32), ask: &Ask) -> Result<Option<Answer>> {
        let (mut send, mut recv) = self.connection.open_bi().await?;
        // A version stands before them.
        send.write_all(&[&[1, hops_left][..], &from.to_le_bytes(), &to.to_le_bytes()].concat()).await?;
        send.write_all(&ask.encode()).await?;
        send.finish()?;
        let mut answer = Vec::new();
        loop {
            match timeout(PATIENCE, recv.read_chunk()).await.context("no answer")? {
                Ok(Some(chunk)) => answer.extend_from_slice(&chunk),
                Ok(None) => return Ok(Some(Answer::decode(&answer)?)),
                // The stream alone: it says that there is none.
                Err(_) if self.connection.close_reason().is_none() => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The log of the router of that number, which the link leads to, as it gives it to everybody.
    ///
    /// # Errors
    /// When it gives none.
    pub async fn records_of(&self, router: u32) -> Result<Vec<Vec<u8>>> {
        match self.ask((HOPS_MAX, self.hello.router.0, router), &Ask::Records { after: 0 }).await? {
            Some(Answer::Records { records, .. }) => Ok(records.iter().map(|record| record.to_vec()).collect()),
            other => anyhow::bail!("no records: {other:?}"),
        }
    }

    /// Says that its copy of the catalog ends with `head`, and answers whoever asks for records with these, until the link
    /// ends.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn offer_records(&mut self, neighbour: u32, head: Head, records: Vec<Vec<u8>>) -> Result<()> {
        let connection = self.connection.clone();
        tokio::spawn(async move {
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                let mut question = Vec::new();
                while let Ok(Some(chunk)) = recv.read_chunk().await {
                    question.extend_from_slice(&chunk);
                }
                if let Some(Ok(Ask::Records { .. })) = question.get(CALL_HEAD_BYTES..).map(Ask::decode) {
                    let records = records.iter().cloned().map(Into::into).collect();
                    // The router may have gone.
                    let _ = send.write_all(&Answer::Records { head, records }.encode()).await;
                }
                let _ = send.finish();
            }
        });
        let catalog = CatalogHead { rev: head.rev, hash: FixedBytes(*head.hash.as_bytes()) };
        let state = LinkState { catalog, ..self.state(2, &[(neighbour, 1)]) };
        self.say(&Control::LinkState(state)).await
    }

    /// Waits until the router has answered a question: what was said before was taken by then.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn is_answered(&mut self) -> Result<()> {
        let question = myelin_mesh::control::Digest { entries: Vec::new(), reply: true };
        self.say(&Control::Digest(question)).await?;
        self.hear_until(|message| matches!(message, Control::Digest(digest) if !digest.reply)).await?;
        Ok(())
    }

    /// Waits for the router to end the link; says with which violation.
    ///
    /// # Errors
    /// When it does not, or without one.
    pub async fn ended(mut self) -> Result<ViolationCode> {
        let connection = self.connection.clone();
        // Reads on, so that nothing waits for that.
        let ended = async move {
            while let Ok(Some(_)) = self.answers.read_chunk().await {}
            self.connection.closed().await
        };
        let reason =
            timeout(PATIENCE, ended).await.with_context(|| format!("still open: {:?}", connection.close_reason()))?;
        code_of(&reason)
    }
}

/// Which violation a connection ended with.
///
/// # Errors
/// When it ended in another way.
pub fn code_of(reason: &CloseReason) -> Result<ViolationCode> {
    let number = reason.code.checked_sub(CLOSE_CODE).and_then(|number| u16::try_from(number).ok());
    let code = number.filter(|_| reason.by_peer).and_then(ViolationCode::from_number);
    code.with_context(|| format!("ended without a violation: {reason:?}"))
}

/// The bytes of a control message.
///
/// # Errors
/// When it is too large.
pub fn encoded(message: &Control) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes)?;
    Ok(bytes)
}

/// A control frame by hand.
pub fn frame(len: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    [&len.to_le_bytes()[..], &[kind], body].concat()
}

/// A link state that anybody could have told.
pub fn state((owner, epoch, version): (u32, u32, u64), links: &[(u32, u32)]) -> LinkState {
    LinkState {
        owner: RouterNumber(owner),
        epoch,
        version,
        draining: false,
        links: links.iter().map(|(neighbour, cost)| (RouterNumber(*neighbour), *cost)).collect(),
        interest: InterestHead { epoch, ..InterestHead::default() },
        catalog: CatalogHead::default(),
        status: Status::default(),
    }
}

/// The stamp of events of an honest router for these sites.
pub fn stamp(origin: u32, seq: u64, sites: u64) -> Stamp {
    Stamp {
        origin: RouterNumber(origin),
        epoch: 1,
        shard: 0,
        hops: 1,
        here_only: false,
        seq,
        generation: 1,
        ttl_ms: 0,
        sites: SiteSet::from_bits(sites.into()),
        allowed: None,
        grants: Default::default(),
    }
}

/// The bytes of a batch of `payloads` on `topic`, which it announces as number 1.
///
/// # Errors
/// When the stamp cannot be written.
pub fn batch_of(stamp: Stamp, topic: &str, payloads: &[&[u8]]) -> Result<Vec<u8>> {
    let mut events = Vec::new();
    for payload in payloads {
        EventBuilder { topic_ref: 1, attrs: &[], payload, request: false }.write(&mut events)?;
    }
    raw_batch(stamp, &[(1, topic)], u32::try_from(payloads.len())?, &events)
}

/// The bytes of a batch with these names and whatever for its events.
///
/// # Errors
/// When the stamp or the names cannot be written.
pub fn raw_batch(stamp: Stamp, names: &[(u32, &str)], count: u32, events: &[u8]) -> Result<Vec<u8>> {
    let names: Vec<_> = names.iter().map(|&(reference, text)| AnnouncedName { reference, text }).collect();
    let head = BatchHead { stamp, count, time_ns: 0, source_ref: 0 };
    let mut bytes = Vec::new();
    // The length of the events is checked against their count, and written; the rest is the caller's.
    batch::write_head(&mut bytes, &head, &names, events.len())?;
    bytes.extend_from_slice(events);
    Ok(bytes)
}
