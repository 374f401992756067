//! A cell of the bench: how large the events are, and how many publish and subscribe.

use anyhow::{Context, bail, ensure};
use myelin_wire::AttrsBuilder;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Smallest payload in bytes: sequence number, scheduled time and the publisher's number.
pub const PAYLOAD_BYTES_MIN: usize = 20;
/// Most events that one publisher has on their way.
const IN_FLIGHT_EVENTS_MAX: u64 = 32_768;
/// Most bytes of payload that one publisher has on their way.
const IN_FLIGHT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Payload size and fan-out, written `128:1-8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Bytes of payload of each event.
    pub payload_bytes: usize,
    /// Connections that publish.
    pub publishers: usize,
    /// Connections that subscribe; each gets every event.
    pub subscribers: usize,
}

impl Cell {
    /// Events that one publisher may have on their way, so that nothing has to be lost.
    pub fn in_flight_max(&self) -> u64 {
        IN_FLIGHT_EVENTS_MAX.min(IN_FLIGHT_BYTES_MAX / self.payload_bytes as u64).max(1)
    }
}

impl FromStr for Cell {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = || {
            let (payload, rest) = text.split_once(':')?;
            let (publishers, subscribers) = rest.split_once('-')?;
            Some((payload.parse().ok()?, publishers.parse().ok()?, subscribers.parse().ok()?))
        };
        let Some((payload_bytes, publishers, subscribers)) = parts() else {
            bail!("`{text}` is no cell; write payload bytes, publishers and subscribers like `128:1-8`");
        };
        ensure!(payload_bytes >= PAYLOAD_BYTES_MIN, "a payload has at least {PAYLOAD_BYTES_MIN} bytes");
        ensure!(publishers > 0 && subscribers > 0, "a cell has at least one publisher and one subscriber");
        Ok(Self { payload_bytes, publishers, subscribers })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}-{}", self.payload_bytes, self.publishers, self.subscribers)
    }
}

/// The attribute block with one header, written `name=value`; empty for no header.
///
/// # Errors
/// When it is not written so.
pub fn attributes(header: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let Some(header) = header else { return Ok(Vec::new()) };
    let (name, value) = header.split_once('=').with_context(|| format!("`{header}` is no header; write name=value"))?;
    let mut block = AttrsBuilder::new();
    block.header(name, value);
    Ok(block.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_read_as_they_are_written() {
        let cell: Cell = "1024:4-8".parse().expect("a cell");
        assert_eq!(cell, Cell { payload_bytes: 1024, publishers: 4, subscribers: 8 });
        assert_eq!(cell.to_string(), "1024:4-8");
        for bad in ["", "128", "128:1", "8:1-1", "128:0-1", "128:1-0", "x:1-1"] {
            assert!(bad.parse::<Cell>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_in_flight_is_bounded_by_events_and_by_bytes() {
        let in_flight = |payload_bytes| Cell { payload_bytes, publishers: 1, subscribers: 1 }.in_flight_max();
        assert_eq!((in_flight(128), in_flight(1024), in_flight(64 * 1024 * 1024)), (32_768, 16_384, 1));
    }
}
