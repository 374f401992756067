//! Seeded dice: the same seed throws the same numbers on every machine and in every version.

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to choose what to break next.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that are thrown from `seed` on.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        // The modulo's bias is far below what a test could see.
        usize::try_from(self.word() % (end.max(1) as u64)).unwrap_or(0)
    }

    /// True once in `times` throws.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`, which are not empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.word().to_le_bytes()[0]
    }

    /// At most `len_max` bytes of noise.
    pub fn noise(&mut self, len_max: usize) -> Vec<u8> {
        let len = self.below(len_max + 1);
        (0..len).map(|_| self.byte()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Dice;

    #[test]
    fn the_first_numbers_are_those_of_the_algorithm() {
        let mut dice = Dice::new(1_234_567);
        assert_eq!([dice.word(), dice.word()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        assert_eq!(Dice::new(9).below(0), 0);
    }
}
