//! The Rust client of Myelin: publish, subscribe, request and reply over `myelin-client/1`.
//!
//! ```no_run
//! use myelin_client::{Client, ClientConfig, Event, SubscribeOptions, TlsFiles};
//!
//! # async fn example() -> Result<(), myelin_client::ClientError> {
//! let tls = TlsFiles { cert: "client.pem".into(), key: "client-key.pem".into(), ca: "ca.pem".into() };
//! let client = Client::connect(ClientConfig::new("localhost:7400", tls)).await?;
//! let mut orders = client.subscribe("orders/**", SubscribeOptions::default()).await?;
//!
//! let ticket = client.publish(Event::new("orders/eu", b"{\"n\":2}").key("k7").header("x-tenant", "acme")).await?;
//! println!("the router decided: {:?}", ticket.await);
//! if let Some(order) = orders.next().await {
//!     println!("{}: {} bytes from {:?}", order.topic(), order.payload().len(), order.publisher());
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! **Publishing.** [`Client::publish`] gives a [`PublishTicket`] that resolves to what the router decided.
//! [`Client::send`] gives none and is the fast way: an event is encoded straight into the buffer that goes out next,
//! and what piled up while the stream was busy goes in one frame. [`Client::flush`] then waits until everything is
//! decided, and [`Client::next_exception`] tells which events were refused.
//!
//! **When the connection is lost**, a task in the background dials again with growing, jittered pauses and subscribes
//! again. Events that were not acknowledged by then resolve as [`Outcome::Unknown`] and are never sent twice.
//!
//! **A subscriber that does not read** fills its bounded queue; then nothing more is read from the router, for any
//! subscription of this client, until there is room. What the router does about it is the [`Overflow`] policy.
//!
//! Everything runs on the tokio runtime that [`Client::connect`] is called on.
#![forbid(unsafe_code)]

mod chunks;
mod client;
mod config;
mod connector;
mod delivered;
mod dispatch;
mod doubt;
mod driver;
mod error;
mod event;
mod notify;
mod publisher;
mod queue;
mod receipts;
mod refs;
mod registry;
mod request;
mod session;
mod shared;
mod stats;
mod subscription;

pub use client::Client;
pub use config::ClientConfig;
pub use connector::{BoxFuture, Connector, QuicConnector};
pub use delivered::Delivered;
pub use error::{ClientError, RequestError};
pub use event::Event;
pub use publisher::{Outcome, PublishException, PublishTicket, Summary};
pub use shared::{Loss, SessionInfo, Status};
pub use stats::Stats;
pub use subscription::{SubscribeOptions, Subscription};

pub use myelin_transport::{QuicConfig, TlsFiles, TlsIdentity};
pub use myelin_wire::message::Overflow;
pub use myelin_wire::{Attr, Attrs, Code, Limits, Refusal, Stamp};
