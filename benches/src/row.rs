//! The rows of a cell: what does the work.

use clap::ValueEnum;
use myelin_load::Form;
use serde::Serialize;

/// The rows of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Row {
    /// The bare relay.
    Relay,
    /// The router without filters.
    Router,
    /// The same, with the header on each event that the filter reads.
    RouterHeader,
    /// The router with one filter.
    Filter,
    /// The same, and the filter is swapped every second.
    FilterSwaps,
    /// The router with a chain of three filters.
    Chain,
    /// The same, and the first of them is swapped every second.
    ChainSwaps,
    /// The router with policies, tenants and schemas, none of them for the topic.
    Governed,
    /// The same, and payloads are judged by a JSON schema.
    SchemaJson,
    /// The same by an Avro schema.
    SchemaAvro,
    /// The same by a Protobuf schema.
    SchemaProtobuf,
    /// NATS over TLS 1.3, its own client.
    NatsTls,
    /// NATS over TLS 1.3, a minimal client that writes 32 KiB at a time.
    NatsTlsBatching,
    /// Zenoh over QUIC, its own client.
    ZenohQuic,
    /// Zenoh over TLS 1.3, its own client.
    ZenohTls,
}

/// Who serves a row, and what is bound there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Relay,
    Router { filters: usize, swaps: bool },
    Governed,
    Nats,
    Zenoh { scheme: &'static str },
}

impl Row {
    /// What each row costs beside the relay, without and with filters.
    pub(crate) const HOT_PATH: [Self; 5] = [Self::Relay, Self::Router, Self::RouterHeader, Self::Filter, Self::Chain];
    /// With a swap each second, too.
    pub(crate) const SCENARIOS: [Self; 6] =
        [Self::Relay, Self::RouterHeader, Self::Filter, Self::FilterSwaps, Self::Chain, Self::ChainSwaps];
    /// What enforcement costs.
    pub(crate) const GOVERNANCE: [Self; 5] =
        [Self::Router, Self::Governed, Self::SchemaJson, Self::SchemaAvro, Self::SchemaProtobuf];
    /// Other brokers.
    pub(crate) const PEERS: [Self; 4] = [Self::NatsTls, Self::NatsTlsBatching, Self::ZenohQuic, Self::ZenohTls];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Relay => "bare relay",
            Self::Router => "router, no filter",
            Self::RouterHeader => "router, no filter, header",
            Self::Filter => "router, one filter, header",
            Self::FilterSwaps => "router, one filter, a swap a second",
            Self::Chain => "router, chain of three, header",
            Self::ChainSwaps => "router, chain of three, a swap a second",
            Self::Governed => "router, all enforced, topic without schema",
            Self::SchemaJson => "router, all enforced, JSON schema",
            Self::SchemaAvro => "router, all enforced, Avro schema",
            Self::SchemaProtobuf => "router, all enforced, Protobuf schema",
            Self::NatsTls => "NATS over TLS, async-nats",
            Self::NatsTlsBatching => "NATS over TLS, batching client",
            Self::ZenohQuic => "Zenoh over QUIC",
            Self::ZenohTls => "Zenoh over TLS",
        }
    }

    pub(crate) fn server(self) -> Server {
        match self {
            Self::Relay => Server::Relay,
            Self::Router | Self::RouterHeader => Server::Router { filters: 0, swaps: false },
            Self::Filter => Server::Router { filters: 1, swaps: false },
            Self::FilterSwaps => Server::Router { filters: 1, swaps: true },
            Self::Chain => Server::Router { filters: 3, swaps: false },
            Self::ChainSwaps => Server::Router { filters: 3, swaps: true },
            Self::Governed | Self::SchemaJson | Self::SchemaAvro | Self::SchemaProtobuf => Server::Governed,
            Self::NatsTls | Self::NatsTlsBatching => Server::Nats,
            Self::ZenohQuic => Server::Zenoh { scheme: "quic" },
            Self::ZenohTls => Server::Zenoh { scheme: "tls" },
        }
    }

    /// In which form its payloads are, and so by which schema they are judged, if any.
    pub(crate) fn form(self) -> Form {
        match self {
            Self::SchemaJson => Form::Json,
            Self::SchemaAvro => Form::Avro,
            Self::SchemaProtobuf => Form::Protobuf,
            _ => Form::Raw,
        }
    }

    /// Whether its events carry the header that the filter reads.
    pub(crate) fn has_header(self) -> bool {
        self == Self::RouterHeader || self.needs_filter()
    }

    /// Whether it is another broker's.
    pub(crate) fn is_peer(self) -> bool {
        Self::PEERS.contains(&self)
    }

    /// Whether it is measured across two servers as well.
    pub(crate) fn has_pair(self) -> bool {
        self.is_peer() || self == Self::Router
    }

    /// Whether a filter is bound.
    pub(crate) fn needs_filter(self) -> bool {
        matches!(self.server(), Server::Router { filters: 1.., .. })
    }

    /// The name on the command line, in files and of a peer's client.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
