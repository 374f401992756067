//! Reading a guest's memory by the canonical ABI, and writing into it.

use wasmtime::{AsContextMut, StoreContextMut};

use super::{Callee, malformed};
use crate::host::HostState;

/// Reads values out of a guest's memory; nothing in it is believed.
pub(super) struct Lift<'a> {
    memory: &'a [u8],
    /// Bytes of texts that may still be copied out.
    texts_left: usize,
}

impl<'a> Lift<'a> {
    /// A reader that copies out at most `texts_bytes_max` bytes of texts.
    pub(super) fn new(memory: &'a [u8], texts_bytes_max: usize) -> Self {
        Self { memory, texts_left: texts_bytes_max }
    }

    fn bytes(&self, at: u32, len: usize) -> wasmtime::Result<&'a [u8]> {
        let start = at as usize;
        let end = start.checked_add(len);
        let found = end.and_then(|end| self.memory.get(start..end));
        found.ok_or_else(|| malformed(format!("{len} bytes at {at} are not in the guest's memory")))
    }

    /// The number of 32 bits at `at`.
    pub(super) fn word(&self, at: u32) -> wasmtime::Result<u32> {
        if !at.is_multiple_of(4) {
            return Err(malformed(format!("the pointer {at} is not aligned to 4 bytes")));
        }
        let bytes = self.bytes(at, 4)?;
        Ok(bytes.try_into().map_or(0, u32::from_le_bytes))
    }

    /// The truth value at `at`.
    pub(super) fn flag(&self, at: u32) -> wasmtime::Result<bool> {
        Ok(self.bytes(at, 1)?[0] != 0)
    }

    /// Which of `cases` a variant at `at` is.
    pub(super) fn discriminant(&self, at: u32, cases: u8) -> wasmtime::Result<u8> {
        match self.bytes(at, 1)?[0] {
            case if case < cases => Ok(case),
            case => Err(malformed(format!("the variant at {at} has {cases} cases and is number {case}"))),
        }
    }

    /// The bytes of the list that `at` points to, whose elements have `element` bytes each.
    pub(super) fn list(&self, at: u32, element: usize, align: u32) -> wasmtime::Result<&'a [u8]> {
        let (start, count) = (self.word(at)?, self.word(at.saturating_add(4))?);
        if !start.is_multiple_of(align) {
            return Err(malformed(format!("the list at {start} is not aligned to {align} bytes")));
        }
        self.bytes(start, (count as usize).saturating_mul(element))
    }

    /// The text that `at` points to.
    pub(super) fn text(&mut self, at: u32) -> wasmtime::Result<String> {
        let bytes = self.list(at, 1, 1)?;
        self.texts_left = match self.texts_left.checked_sub(bytes.len()) {
            Some(left) => left,
            None => return Err(malformed("more bytes of text than a filter may put out")),
        };
        text(bytes).map(str::to_owned)
    }

    /// The texts that `at` points to.
    pub(super) fn texts(&mut self, at: u32) -> wasmtime::Result<Vec<String>> {
        let count = self.list(at, 8, 4)?.len() / 8;
        let first = self.word(at)?;
        self.texts_left = match self.texts_left.checked_sub(count * 8) {
            Some(left) => left,
            None => return Err(malformed(format!("{count} texts are more than a filter may put out"))),
        };
        // The whole list lies within the memory, so no address overflows.
        (0..count).map(|index| self.text(first + 8 * u32::try_from(index).unwrap_or(u32::MAX))).collect()
    }
}

/// The text that `bytes` are.
fn text(bytes: &[u8]) -> wasmtime::Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| malformed(format!("a text is not UTF-8: {error}")))
}

/// The text of an argument, which lies at `at` in `memory`.
pub(super) fn text_argument(memory: &[u8], at: u32, len: u32) -> wasmtime::Result<String> {
    text(Lift::new(memory, 0).bytes(at, len as usize)?).map(str::to_owned)
}

impl Callee {
    /// Copies `bytes` into memory that the guest allocates and owns from then on; where, and how many.
    pub(super) fn lend(
        &self,
        mut store: impl AsContextMut<Data = HostState>,
        bytes: &[u8],
    ) -> wasmtime::Result<(u32, u32)> {
        let mut store = store.as_context_mut();
        let len = u32::try_from(bytes.len()).map_err(|_| malformed("a list of over 4 GiB"))?;
        // While the host asks the guest for memory, the guest may not ask anything of the host.
        store.data_mut().may_leave = false;
        let at = self.realloc.call(&mut store, (0, 0, 1, len))?;
        store.data_mut().may_leave = true;
        self.write(&mut store, at, bytes)?;
        Ok((at, len))
    }

    /// Writes `bytes` to `at`.
    pub(super) fn write(
        &self,
        store: &mut StoreContextMut<'_, HostState>,
        at: u32,
        bytes: &[u8],
    ) -> wasmtime::Result<()> {
        let (start, memory) = (at as usize, self.memory.data_mut(store));
        let place = start.checked_add(bytes.len()).and_then(|end| memory.get_mut(start..end));
        let place = place.ok_or_else(|| malformed(format!("{} bytes do not fit at {at}", bytes.len())))?;
        place.copy_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Vec<u8> {
        let words: [u32; 8] = [16, 2, 0, 0xffff_fff0, 20, 3, 24, 2];
        let mut memory: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        memory.extend(b"abc\xff");
        memory
    }

    #[test]
    fn what_lies_within_is_read() {
        let memory = memory();
        let mut lift = Lift::new(&memory, 100);
        assert_eq!(lift.word(4).expect("there"), 2);
        assert_eq!(lift.list(0, 8, 4).expect("there"), &memory[16..32]);
        assert!(lift.flag(0).expect("there") && !lift.flag(1).expect("there"));
        assert_eq!(lift.discriminant(4, 3).expect("a case"), 2);
        assert_eq!(lift.text(0).expect("text"), "\u{14}\0");
        assert_eq!(lift.texts_left, 98);
        assert_eq!(text_argument(&memory, 32, 3).expect("text"), "abc");
    }

    #[test]
    fn what_lies_outside_or_makes_no_sense_is_refused() {
        let memory = memory();
        let mut lift = Lift::new(&memory, 100);
        let end = u32::try_from(memory.len()).expect("small");
        assert!(lift.word(end).is_err() && lift.word(end - 2).is_err(), "over the end");
        assert!(lift.word(u32::MAX - 3).is_err() && lift.list(u32::MAX - 3, 1, 1).is_err(), "at the end of addresses");
        assert!(lift.word(2).is_err(), "not aligned");
        assert!(lift.list(8, 1, 1).is_err() && lift.list(8, 8, 1).is_err(), "a length over all memory");
        assert!(lift.list(16, 8, 8).is_err(), "elements not aligned");
        assert!(lift.discriminant(4, 2).is_err(), "no such case");
        assert!(text_argument(&memory, 32, 4).is_err(), "not UTF-8");
        assert!(text_argument(&memory, u32::MAX, u32::MAX).is_err() && text_argument(&memory, 0, end + 1).is_err());
        assert!(lift.texts(24).is_err(), "texts over the end");
    }

    #[test]
    fn texts_are_bounded_before_they_are_copied() {
        let memory = memory();
        assert!(Lift::new(&memory, 1).text(0).is_err());
        assert!(Lift::new(&memory, 15).texts(0).is_err(), "the list itself");
    }
}
