//! A large subscription table, and topics to look up in it.

use myelin_core::{SessionKey, Table, TableError, TableWriter};
use myelin_wire::Pattern;

/// Devices at each site; each has a subscriber of its own.
const DEVICES: usize = 100;

/// A table of `count` subscriptions: for each site one of everything there, and one for each device, exact or with a
/// `*`. A topic of it has two subscribers.
///
/// # Errors
/// None that these patterns can meet.
pub fn table(count: usize) -> Result<Table, TableError> {
    let mut writer = TableWriter::new();
    for number in 0..count {
        let (site, device) = (number / DEVICES, number % DEVICES);
        let pattern = match device {
            0 => format!("eu/site{site}/**"),
            _ if device % 10 == 1 => format!("eu/site{site}/device{device}/*"),
            _ => topic(number),
        };
        let slot = u32::try_from(number).unwrap_or(u32::MAX);
        let session = SessionKey { worker: 0, slot, generation: 0 };
        let pattern = Pattern::new(&pattern).unwrap_or_else(|error| unreachable!("the bench's own pattern: {error}"));
        writer.subscribe(session, 1, &pattern, None)?;
    }
    Ok(writer.snapshot())
}

/// The topic of subscriber `number`.
pub fn topic(number: usize) -> String {
    format!("eu/site{}/device{}/state", number / DEVICES, number % DEVICES)
}

/// Numbers below `count` in an order without order, the same each time.
pub fn shuffled(count: usize) -> impl Iterator<Item = usize> {
    // A linear congruential generator of full period over a power of two, cut to the range.
    let period = count.next_power_of_two();
    let step = move |state: usize| (state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695)) % period;
    std::iter::successors(Some(0), move |state| Some(step(*state))).take(period).filter(move |number| *number < count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_core::MatchSet;

    #[test]
    fn every_topic_has_its_subscribers() {
        let table = table(1_000).expect("no key twice");
        assert_eq!(table.len(), 1_000);
        let mut out = MatchSet::default();
        for (number, targets) in [(5, 2), (101, 2), (100, 1)] {
            table.matches(&topic(number), &mut out);
            assert_eq!(out.targets(), targets, "{}", topic(number));
        }
    }

    #[test]
    fn shuffling_meets_every_number_once() {
        let mut numbers: Vec<usize> = shuffled(1_000).collect();
        assert!(numbers.windows(2).any(|two| two[1] != two[0] + 1), "not in order");
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..1_000));
    }
}
