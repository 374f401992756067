//! What the walks over binary payloads share: bytes that are left, numbers of seven bits a byte, faults with their path.

use crate::limits::FAULT_TEXT_MAX;

/// A fault whose path grows on the way back.
pub(crate) struct Bad {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Not an error type of its own weight: it is made once for a payload that is bad.
pub(crate) type Step<T = ()> = Result<T, Box<Bad>>;

pub(crate) fn bad<T>(text: &str) -> Step<T> {
    Err(Box::new(Bad { path: String::new(), text: text.to_owned() }))
}

/// The fault as seen from what is around its place.
pub(crate) fn below(mut bad: Box<Bad>, name: &str) -> Box<Bad> {
    // Beyond that it is cut off anyway.
    if bad.path.len() <= FAULT_TEXT_MAX {
        bad.path = if bad.path.is_empty() { name.to_owned() } else { format!("{name}.{}", bad.path) };
    }
    bad
}

/// The next `length` bytes of what is left.
pub(crate) fn take<'a>(rest: &mut &'a [u8], length: usize) -> Step<&'a [u8]> {
    rest.split_off(..length).map_or_else(|| bad("is cut off: the payload ends before its value does"), Ok)
}

/// A number of at most 64 bits, seven in each byte, the lowest first (LEB128).
pub(crate) fn varint(rest: &mut &[u8]) -> Step<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(rest, 1)? else { return bad("is cut off") };
        if shift == 63 && *byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bad("has a number of more than 64 bits")
}
