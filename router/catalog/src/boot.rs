//! The boot guard: a generation that kills its router twice is not tried a third time.
//!
//! Before a router runs a generation it writes down that it tries to; when it has been healthy for
//! [`HEALTHY_AFTER_MS`] it writes down that it is. A router that finds, at its start, that it tried a generation
//! [`BOOTS_MAX`] times and never got so far has that generation *quarantined* and runs an earlier one. That needs no
//! log and nobody's leave: retreat never does. The log's next word ends it: a [`Retreat`] is from one generation, and a
//! newer one is tried again.
//!
//! Pure: the shell reads and writes the marker (aside, synced, renamed), and it stops the router where no generation is
//! left.

use serde::{Deserialize, Serialize};

use crate::error::CatalogError;

#[cfg(test)]
mod tests;

/// Starts of one generation that may fail.
pub const BOOTS_MAX: u8 = 2;
/// How long a router runs a generation until its start has not failed.
pub const HEALTHY_AFTER_MS: u64 = 30_000;
/// Generations that stay quarantined at a router; the oldest are forgotten, and old ones are not started any more.
const QUARANTINED_MAX: usize = 32;
/// Bytes of a marker; a longer file is none.
const MARKER_LEN_MAX_BYTES: usize = 4_096;
/// The format of the marker.
const FORMAT: u32 = 1;

/// What outlives the process: a small JSON file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootMarker {
    format: u32,
    /// The generation that was started last, until it is healthy.
    trying: Option<Trying>,
    /// The generations that are not started here, oldest first.
    quarantined: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trying {
    generation: u64,
    boots: u8,
}

/// That a router runs another generation than the log says, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retreat {
    /// The generation that the log says and that is not run.
    pub from: u64,
    /// The earlier one that is.
    pub to: u64,
    /// Why.
    pub reason: String,
}

/// What a router does at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootDecision {
    /// Run this generation, which is the one that the log says.
    Run {
        /// Which.
        generation: u64,
    },
    /// Run an earlier one, and report it.
    Retreat(Retreat),
    /// Serve nothing: no generation is left that did not kill this router. A router without its filters would let pass
    /// what they hold back.
    Halt {
        /// The generation that the log says.
        generation: u64,
    },
}

impl Retreat {
    /// Whether it still holds: the log says the generation that was left. Any other word of the log ends it.
    pub fn holds(&self, generation: u64) -> bool {
        self.from == generation
    }
}

impl Default for BootMarker {
    fn default() -> Self {
        Self { format: FORMAT, trying: None, quarantined: Vec::new() }
    }
}

impl BootMarker {
    /// What is to be run, and the marker to be kept *before* it is. `wanted` is what the log says, `earlier` what could
    /// be run instead, the newest first.
    pub fn boot(&self, wanted: u64, earlier: &[u64]) -> (BootDecision, Self) {
        let mut marker = self.clone();
        if let Some(failed) = marker.trying.filter(|trying| trying.boots >= BOOTS_MAX) {
            marker.quarantine(failed.generation);
            marker.trying = None;
        }
        let mut choices = [wanted].into_iter().chain(earlier.iter().copied());
        let Some(generation) = choices.find(|choice| !marker.is_quarantined(*choice)) else {
            return (BootDecision::Halt { generation: wanted }, marker);
        };
        let boots = marker.trying.filter(|trying| trying.generation == generation).map_or(0, |trying| trying.boots);
        marker.trying = Some(Trying { generation, boots: boots + 1 });
        if generation == wanted {
            return (BootDecision::Run { generation }, marker);
        }
        let reason = format!("this router failed to start {BOOTS_MAX} times with generation {wanted}");
        (BootDecision::Retreat(Retreat { from: wanted, to: generation, reason }), marker)
    }

    /// The marker when a running router is about to activate `generation`.
    pub fn activating(&self, generation: u64) -> Self {
        Self { trying: Some(Trying { generation, boots: 1 }), ..self.clone() }
    }

    /// The marker when the generation that was tried has been healthy for long enough, or the router ends in good
    /// order.
    pub fn healthy(&self) -> Self {
        Self { trying: None, ..self.clone() }
    }

    /// The marker when somebody wants a quarantined generation tried again.
    pub fn released(&self, generation: u64) -> Self {
        let mut marker = self.clone();
        marker.quarantined.retain(|quarantined| *quarantined != generation);
        marker
    }

    /// Whether a generation is not started here.
    pub fn is_quarantined(&self, generation: u64) -> bool {
        self.quarantined.contains(&generation)
    }

    /// The generations that are not started here, oldest first.
    pub fn quarantined(&self) -> &[u64] {
        &self.quarantined
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a marker is numbers only")
    }

    /// Reads the file. A marker that cannot be read says nothing of any generation: begin with the default one, and
    /// tell people.
    ///
    /// # Errors
    /// `invalid-record`.
    pub fn decode(bytes: &[u8]) -> Result<Self, CatalogError> {
        let refuse = |why: String| CatalogError::InvalidRecord { field: "boot marker", why };
        if bytes.len() > MARKER_LEN_MAX_BYTES {
            return Err(refuse(format!("it has {} bytes; {MARKER_LEN_MAX_BYTES} are the most", bytes.len())));
        }
        let marker: Self = serde_json::from_slice(bytes).map_err(|e| refuse(e.to_string()))?;
        if marker.format != FORMAT {
            return Err(refuse(format!("it has format {} and this router knows {FORMAT}", marker.format)));
        }
        if marker.quarantined.len() > QUARANTINED_MAX {
            return Err(refuse(format!("it names more than {QUARANTINED_MAX} generations")));
        }
        Ok(marker)
    }

    fn quarantine(&mut self, generation: u64) {
        if self.is_quarantined(generation) {
            return;
        }
        if self.quarantined.len() == QUARANTINED_MAX {
            self.quarantined.remove(0);
        }
        self.quarantined.push(generation);
    }
}
