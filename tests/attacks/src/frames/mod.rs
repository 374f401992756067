//! Generated bad input, surface by surface. Most of what a function gives is bad; whoever uses it counts what was
//! refused, because now and then a spoilt frame is a good one by chance.

mod control;
mod data;
mod text;

pub use control::{control, valid_messages};
pub use data::{deliver, event, publish, valid_publish};
pub use text::{body, config, pattern, topic};

use crate::Dice;
use crate::mangle::EDGES;

/// A frame as it stands on the wire, whatever its parts are.
fn frame(kind: u8, flags: u8, zero: u16, len: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(zero.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A frame of `kind` whose header tells the truth.
fn honest(kind: u8, body: &[u8]) -> Vec<u8> {
    frame(kind, 0, 0, length(body), body)
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// A length that is not `true_len`, often by one.
fn lie(dice: &mut Dice, true_len: u32) -> u32 {
    match dice.below(4) {
        0 => true_len.wrapping_add(1),
        1 => true_len.wrapping_sub(1),
        2 => true_len.wrapping_mul(2).wrapping_add(3),
        _ => *dice.pick(&EDGES),
    }
}
