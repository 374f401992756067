//! Ways to spoil bytes that were well-formed.

use crate::Dice;

/// Numbers at which lengths and counts go wrong.
pub const EDGES: [u32; 12] = [0, 1, 2, 7, 0x7f, 0x80, 0xff, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX];
/// Bytes that are no UTF-8, by themselves or where they stand: stray, cut short, overlong, a surrogate, too large.
pub const NOT_UTF8: [&[u8]; 6] = [b"\x80", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff\xfe"];

/// One of [`NOT_UTF8`].
pub fn not_utf8(dice: &mut Dice) -> &'static [u8] {
    NOT_UTF8[dice.below(NOT_UTF8.len())]
}

/// Spoils `bytes` in one to four ways.
pub fn mangle(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..=dice.below(4) {
        once(dice, &mut bytes);
    }
    bytes
}

fn once(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let at = dice.below(bytes.len());
    match dice.below(10) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(..at)),
        2 => bytes.extend(dice.noise(40)),
        3 => insert(bytes, at, &dice.noise(12)),
        4 => {
            let copy: Vec<u8> = bytes[at..(at + dice.below(32)).min(bytes.len())].to_vec();
            insert(bytes, at, &copy);
        }
        5 => {
            let text = not_utf8(dice);
            overwrite(bytes, at, text);
        }
        6 => {
            let word = edge(dice).to_le_bytes();
            overwrite(bytes, at, &word);
        }
        7 => {
            let word = edge(dice).to_be_bytes();
            overwrite(bytes, at, &word[4 - (1 << dice.below(3))..]);
        }
        8 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = byte.wrapping_add(*dice.pick(&[1, u8::MAX]));
            }
        }
    }
}

/// One of [`EDGES`], or beside it.
fn edge(dice: &mut Dice) -> u32 {
    dice.pick(&EDGES).wrapping_add(*dice.pick(&[0, 0, 1, u32::MAX]))
}

fn insert(bytes: &mut Vec<u8>, at: usize, more: &[u8]) {
    drop(bytes.splice(at..at, more.iter().copied()));
}

fn overwrite(bytes: &mut Vec<u8>, at: usize, with: &[u8]) {
    let end = (at + with.len()).min(bytes.len());
    bytes.splice(at..end, with.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::mangle;
    use crate::Dice;

    #[test]
    fn anything_can_be_spoilt_and_the_same_seed_spoils_the_same() {
        for seed in 0..2_000 {
            for bytes in [&b""[..], b"a", b"a longer text that has room"] {
                let spoilt = mangle(&mut Dice::new(seed), bytes.to_vec());
                assert_eq!(spoilt, mangle(&mut Dice::new(seed), bytes.to_vec()));
                assert!(spoilt.len() < 400, "it does not grow without end");
            }
        }
    }
}
