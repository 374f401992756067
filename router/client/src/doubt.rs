//! Events whose fate a lost connection left open.

/// Runs of events that are remembered: one for each lost session, so that no client comes near it in a day.
const RUNS_MAX: usize = 1024;

/// How many there are, and which.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    events: u64,
    runs: Vec<(u64, u64)>,
}

impl Doubt {
    /// Takes in all from number `first` to `last`, which come after those that it has; none where `last` is before `first`.
    pub(crate) fn add(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        self.events += last + 1 - first;
        let is_full = self.runs.len() >= RUNS_MAX;
        match self.runs.last_mut() {
            Some((_, end)) if is_full || *end + 1 == first => *end = last,
            _ => self.runs.push((first, last)),
        }
    }

    /// How many.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// First and last of each run, in order.
    pub(crate) fn runs(&self) -> &[(u64, u64)] {
        &self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_joined_and_bounded() {
        let mut doubt = Doubt::default();
        for (first, last) in [(1, 0), (3, 5), (6, 6), (9, 9)] {
            doubt.add(first, last);
        }
        assert_eq!((doubt.events(), doubt.runs()), (5, &[(3, 6), (9, 9)][..]));
        (10..10 + 4 * RUNS_MAX as u64).step_by(2).for_each(|number| doubt.add(number + 1, number + 1));
        assert_eq!((doubt.events(), doubt.runs().len()), (5 + 2 * RUNS_MAX as u64, RUNS_MAX));
        assert_eq!(doubt.runs().last().map(|(_, last)| *last), Some(9 + 4 * RUNS_MAX as u64));
    }
}
