//! The settings of QUIC connections and listeners, with the reasons for their defaults.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::limiter::LimiterConfig;
use crate::reset::ResetKey;

/// The client protocol's ALPN.
pub const ALPN_CLIENT: &str = "myelin-client/1";
/// Packets that a peer may take before it acknowledges them, in place of QUIC's two, where it knows the extension
/// (draft-ietf-quic-ack-frequency); a gap or 25 ms make it acknowledge sooner. As many as are sent at once: 2 to 6 % less
/// CPU for an event, and less latency (docs/PERFORMANCE.md).
const ACK_AFTER_PACKETS: quinn::VarInt = quinn::VarInt::from_u32(10);
/// Largest allowed [`QuicConfig::mtu_bytes_max`]: quinn sends 10 segments at once, and 10 x 6,550 is all that one UDP
/// send takes. Beyond, every full batch fails and the connection falls back to 1,200 bytes.
pub const MTU_BYTES_LIMIT: u16 = 6500;

const MIB: u64 = 1024 * 1024;

/// Settings of every QUIC connection of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuicConfig {
    /// Bidirectional streams the peer may have open at once.
    pub bidi_streams_max: u32,
    /// Unidirectional streams the peer may have open at once.
    pub uni_streams_max: u32,
    /// Unread bytes per stream that the peer may send. 1 MiB is as fast as more on loopback and bounds a slow reader.
    pub stream_window_bytes: u32,
    /// Unread bytes over all streams of one connection; quinn's own default is unlimited.
    pub connection_window_bytes: u32,
    /// Bytes written but not acknowledged that one connection may hold before writes wait.
    pub send_window_bytes: u64,
    /// A connection that hears nothing for so long is dead. Milliseconds.
    pub idle_timeout_ms: u32,
    /// A quiet connection pings so often, so that a silent but living client stays. Milliseconds; 0 = never.
    pub keep_alive_ms: u32,
    /// A handshake must be through in so long. Milliseconds.
    pub handshake_timeout_ms: u32,
    /// Upper bound of path MTU discovery in bytes of UDP payload, 1,200 to [`MTU_BYTES_LIMIT`]. 1,452 suits the
    /// internet; 4,096 to 6,500 give 1.8 to 2.4 times the throughput where the path (or loopback) has it.
    pub mtu_bytes_max: u16,
    /// `SO_RCVBUF` and `SO_SNDBUF` of the UDP socket: the kernel's 208 KiB lose thousands of packets a second.
    pub socket_buffer_bytes: u32,
    /// Whether the kernel may be handed several packets at once (GSO).
    pub segmentation_offload: bool,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            bidi_streams_max: 64,
            uni_streams_max: 64,
            stream_window_bytes: 1024 * 1024,
            connection_window_bytes: 8 * 1024 * 1024,
            send_window_bytes: 8 * MIB,
            idle_timeout_ms: 30_000,
            keep_alive_ms: 10_000,
            handshake_timeout_ms: 5_000,
            mtu_bytes_max: 1452,
            socket_buffer_bytes: 4 * 1024 * 1024,
            segmentation_offload: true,
        }
    }
}

/// Settings of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerConfig {
    /// The UDP address to listen on; port 0 takes any free port.
    pub addr: SocketAddr,
    /// This worker's number: the first byte of its connection ids. A group counts up from here.
    pub worker: u8,
    /// The protocols spoken here; a client must offer one of them.
    pub alpn: Vec<String>,
    /// Settings of each connection.
    pub quic: QuicConfig,
    /// First packets that may wait for a decision.
    pub incoming_max: u32,
    /// Bytes that waiting first packets may hold, over all of them.
    pub incoming_bytes_max: u64,
    /// Handshakes under way at once; beyond, clients are refused as `busy`.
    pub handshakes_max: u32,
    /// Connections through the handshake that wait for [`accept`](crate::Listener::accept).
    pub accepted_max: u32,
    /// Whether a client may change its address. It is validated again; one whose packets reach another worker then is
    /// reset and reconnects.
    pub migration: bool,
    /// When clients must prove their address, and how often one network may knock.
    pub limiter: LimiterConfig,
    /// Whether a client may come without a certificate; its identity is nobody then, and whoever takes the connection has
    /// another way to know it. A certificate that is shown must be good all the same.
    #[serde(skip)]
    pub certificate_optional: bool,
    /// The key of stateless resets; without one a new key is made, and clients of a router that was killed notice its
    /// restart only after their idle timeout.
    #[serde(skip)]
    pub reset_key: Option<ResetKey>,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 7400)),
            worker: 0,
            alpn: vec![ALPN_CLIENT.to_owned()],
            quic: QuicConfig::default(),
            incoming_max: 4096,
            incoming_bytes_max: 16 * MIB,
            handshakes_max: 1024,
            accepted_max: 256,
            migration: true,
            limiter: LimiterConfig::default(),
            certificate_optional: false,
            reset_key: None,
        }
    }
}

/// A setting out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}; {remedy}")]
pub struct ConfigError {
    /// The setting's name.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub remedy: &'static str,
}

impl ConfigError {
    /// Stable code for metrics, logs and documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "invalid-setting"
    }
}

impl QuicConfig {
    /// Checks every bound.
    ///
    /// # Errors
    /// All settings that are out of range.
    pub fn validate(&self) -> Result<(), Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut check = |fine: bool, key: &'static str, value: u64, remedy: &'static str| {
            if !fine {
                errors.push(ConfigError { key, value: value.to_string(), remedy });
            }
        };
        let mtu = self.mtu_bytes_max;
        check((1200..=MTU_BYTES_LIMIT).contains(&mtu), "mtu_bytes_max", mtu.into(), "give 1200 to 6500");
        let idle = self.idle_timeout_ms;
        check((1_000..=3_600_000).contains(&idle), "idle_timeout_ms", idle.into(), "give 1000 to 3600000");
        let alive = self.keep_alive_ms;
        check(alive < idle, "keep_alive_ms", alive.into(), "give less than idle_timeout_ms, or 0 for never");
        let handshake = self.handshake_timeout_ms;
        check((100..=60_000).contains(&handshake), "handshake_timeout_ms", handshake.into(), "give 100 to 60000");
        let stream = self.stream_window_bytes;
        check((4096..1 << 30).contains(&stream), "stream_window_bytes", stream.into(), "give 4096 to 1073741823");
        let whole = self.connection_window_bytes;
        check(
            whole >= stream && whole < 1 << 30,
            "connection_window_bytes",
            whole.into(),
            "give at least stream_window_bytes and less than 1 GiB",
        );
        let send = self.send_window_bytes;
        check((4096..1 << 30).contains(&send), "send_window_bytes", send, "give 4096 to 1073741823");
        for (key, streams) in [("bidi_streams_max", self.bidi_streams_max), ("uni_streams_max", self.uni_streams_max)] {
            check((1..=65_536).contains(&streams), key, streams.into(), "give 1 to 65536");
        }
        let buffer = self.socket_buffer_bytes;
        check((65_536..1 << 30).contains(&buffer), "socket_buffer_bytes", buffer.into(), "give 65536 to 1073741823");
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms.into())
    }

    pub(crate) fn transport(&self) -> Arc<quinn::TransportConfig> {
        let mut transport = quinn::TransportConfig::default();
        let mut discovery = quinn::MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu_bytes_max);
        let idle = quinn::VarInt::from_u32(self.idle_timeout_ms);
        let mut acks = quinn::AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(ACK_AFTER_PACKETS);
        transport
            .max_concurrent_bidi_streams(self.bidi_streams_max.into())
            .max_concurrent_uni_streams(self.uni_streams_max.into())
            .stream_receive_window(self.stream_window_bytes.into())
            .receive_window(self.connection_window_bytes.into())
            .send_window(self.send_window_bytes)
            .max_idle_timeout(Some(idle.into()))
            .keep_alive_interval((self.keep_alive_ms > 0).then(|| Duration::from_millis(self.keep_alive_ms.into())))
            .mtu_discovery_config(Some(discovery))
            .ack_frequency_config(Some(acks))
            .enable_segmentation_offload(self.segmentation_offload)
            // Events travel on streams only: a datagram queue would be memory nobody reads.
            .datagram_receive_buffer_size(None);
        Arc::new(transport)
    }
}

impl ListenerConfig {
    /// Checks every bound.
    ///
    /// # Errors
    /// All settings that are out of range.
    pub fn validate(&self) -> Result<(), Vec<ConfigError>> {
        let mut errors = self.quic.validate().err().unwrap_or_default();
        let mut check = |fine: bool, key: &'static str, value: String, remedy: &'static str| {
            if !fine {
                errors.push(ConfigError { key, value, remedy });
            }
        };
        let alpn_fine = !self.alpn.is_empty() && self.alpn.iter().all(|name| (1..=255).contains(&name.len()));
        check(alpn_fine, "alpn", format!("{:?}", self.alpn), "give at least one name of 1 to 255 bytes");
        for (key, count) in [
            ("incoming_max", self.incoming_max),
            ("handshakes_max", self.handshakes_max),
            ("accepted_max", self.accepted_max),
        ] {
            check((1..=65_536).contains(&count), key, count.to_string(), "give 1 to 65536");
        }
        let bytes = self.incoming_bytes_max;
        check((65_536..1 << 30).contains(&bytes), "incoming_bytes_max", bytes.to_string(), "give 65536 to 1073741823");
        errors.extend(self.limiter.validate().err().unwrap_or_default());
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}
