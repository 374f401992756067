//! Where plain bytes end: sixty-four are looked at together, and what was found in them is kept for the texts that follow.

use wide::u8x16;

/// Bytes of a register.
const LANES: usize = 16;
/// Bytes that are looked at together, for each of which a word has a bit.
const BLOCK: usize = 64;

/// Which bytes of a text are not plain - quotes, backslashes, control characters - as far as it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Block {
    start: usize,
    len: usize,
    /// A bit for each byte, the lowest for the first.
    special: u64,
}

impl Block {
    /// Where the first byte from `from` on is that is not plain, or the end. It is the same text each time.
    #[inline]
    pub(super) fn plain_end(&mut self, text: &[u8], from: usize) -> usize {
        let past = from.wrapping_sub(self.start);
        if past >= self.len {
            return self.look_on(text, from);
        }
        match self.special >> past {
            0 => self.look_on(text, self.start + self.len),
            special => from + special.trailing_zeros() as usize,
        }
    }

    /// The same, where nothing is known yet from `from` on.
    #[inline(never)]
    fn look_on(&mut self, text: &[u8], from: usize) -> usize {
        let Some(last) = text.last_chunk() else { return self.look_at_all(text, from) };
        let mut start = from;
        while start < text.len() {
            let rest = &text[start..];
            let (len, special) = match rest.first_chunk() {
                Some(block) => (BLOCK, special(block)),
                // The last ones, with some of those before them.
                None => (rest.len(), special(last) >> (BLOCK - rest.len())),
            };
            *self = Self { start, len, special };
            if special != 0 {
                return start + special.trailing_zeros() as usize;
            }
            start += len;
        }
        text.len()
    }

    /// The same for a text that is no longer than a block.
    #[inline(never)]
    fn look_at_all(&mut self, text: &[u8], from: usize) -> usize {
        if from >= text.len() {
            return text.len();
        }
        let mut block = [b' '; BLOCK];
        block[..text.len()].copy_from_slice(text);
        *self = Self { start: 0, len: text.len(), special: special(&block) };
        match self.special >> from {
            0 => text.len(),
            special => from + special.trailing_zeros() as usize,
        }
    }
}

#[inline]
fn special(block: &[u8; BLOCK]) -> u64 {
    let (registers, _) = block.as_chunks::<LANES>();
    registers.iter().rev().fold(0, |all, register| all << LANES | u64::from(special_of(register)))
}

#[inline]
fn special_of(register: &[u8; LANES]) -> u32 {
    let bytes = u8x16::new(*register);
    let control = bytes.min(u8x16::splat(b' ' - 1)).cmp_eq(bytes);
    (control | bytes.cmp_eq(u8x16::splat(b'"')) | bytes.cmp_eq(u8x16::splat(b'\\'))).move_mask().cast_unsigned()
}
