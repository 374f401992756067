//! One direction of a link: the schedule of its datagrams, with the time passed in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Chances are in parts of this.
const PER_MILLE: u64 = 1_000;

/// What one direction does to datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// How long each is on its way.
    pub delay: Duration,
    /// At most so much is added to that. Does not reorder: a datagram is due no sooner than the one before it.
    pub jitter: Duration,
    /// Of a thousand datagrams, so many are lost.
    pub loss_per_mille: u32,
    /// Of a thousand, so many arrive twice.
    pub duplicate_per_mille: u32,
    /// Of a thousand, so many are held back, so that later ones overtake them.
    pub reorder_per_mille: u32,
    /// Bytes a second that pass; 0 = as many as come.
    pub bytes_per_second: u64,
    /// Bytes that may be on their way or wait for their turn. What comes beyond is dropped, as at any router.
    pub queue_bytes: usize,
    /// Nothing passes, and what is on its way when this is set is gone.
    pub is_cut: bool,
}

impl Default for Path {
    /// A perfect wire.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            reorder_per_mille: 0,
            bytes_per_second: 0,
            // What a path of 200 ms at 200 Mbit/s holds.
            queue_bytes: 4 * 1024 * 1024,
            is_cut: false,
        }
    }
}

impl Path {
    /// Half of a round trip of `rtt`, with a tenth of it as jitter and `loss_per_mille` of loss.
    pub fn wide_area(rtt: Duration, loss_per_mille: u32) -> Self {
        Self { delay: rtt / 2, jitter: rtt / 20, loss_per_mille, ..Self::default() }
    }
}

/// What became of the datagrams of a direction:
/// `taken + duplicated = delivered + lost + cut + overflowed + held`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Came in.
    pub taken: u64,
    /// Made of others.
    pub duplicated: u64,
    /// Went out.
    pub delivered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost to a cut.
    pub cut: u64,
    /// Dropped because too much was on its way.
    pub overflowed: u64,
    /// On their way now.
    pub held: u64,
    /// Of the delivered, held back on purpose.
    pub reordered: u64,
}

/// One direction of a link. Holds at most [`Path::queue_bytes`].
#[derive(Debug)]
pub struct Direction<T> {
    path: Path,
    dice: fastrand::Rng,
    held: BinaryHeap<Reverse<Held<T>>>,
    held_bytes: usize,
    /// Tells datagrams of one moment apart, in the order in which they came.
    next_number: u64,
    /// When the wire is free again.
    free_at: Duration,
    /// When the last datagram that was not held back is due.
    last_due: Duration,
    counts: Counts,
}

#[derive(Debug)]
struct Held<T> {
    due: Duration,
    number: u64,
    bytes: usize,
    item: T,
}

impl<T> PartialEq for Held<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.number) == (other.due, other.number)
    }
}

impl<T> Eq for Held<T> {}

impl<T> PartialOrd for Held<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Held<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl<T: Clone> Direction<T> {
    /// A direction that throws its dice from `seed` on.
    pub fn new(seed: u64, path: Path) -> Self {
        Self {
            path,
            dice: fastrand::Rng::with_seed(seed),
            held: BinaryHeap::new(),
            held_bytes: 0,
            next_number: 0,
            free_at: Duration::ZERO,
            last_due: Duration::ZERO,
            counts: Counts::default(),
        }
    }

    /// What it does now.
    pub fn path(&self) -> Path {
        self.path
    }

    /// What it does from here on.
    pub fn set(&mut self, path: Path) {
        if path.is_cut {
            self.counts.cut += self.held.len() as u64;
            self.held.clear();
            self.held_bytes = 0;
        }
        self.path = path;
    }

    /// A datagram of `bytes` bytes comes in.
    pub fn push(&mut self, now: Duration, bytes: usize, item: T) {
        self.counts.taken += 1;
        // Thrown whatever comes of it: a change of the path does not move the chances of later datagrams.
        let (lost, doubled, held_back) = (self.throw(), self.throw(), self.throw());
        let jitter = self.path.jitter.mul_f64(self.dice.f64());
        if self.path.is_cut {
            self.counts.cut += 1;
            return;
        }
        if lost < u64::from(self.path.loss_per_mille) {
            self.counts.lost += 1;
            return;
        }
        if doubled < u64::from(self.path.duplicate_per_mille) {
            self.counts.duplicated += 1;
            self.hold(now, jitter, bytes, item.clone(), false);
        }
        let is_held_back = held_back < u64::from(self.path.reorder_per_mille);
        self.hold(now, jitter, bytes, item, is_held_back);
    }

    /// The next datagram that is due.
    pub fn pop(&mut self, now: Duration) -> Option<T> {
        if self.next_due().is_none_or(|due| due > now) {
            return None;
        }
        let Reverse(held) = self.held.pop()?;
        self.held_bytes -= held.bytes;
        self.counts.delivered += 1;
        Some(held.item)
    }

    /// When [`pop`](Self::pop) has something.
    pub fn next_due(&self) -> Option<Duration> {
        self.held.peek().map(|Reverse(held)| held.due)
    }

    /// What became of everything so far.
    pub fn counts(&self) -> Counts {
        Counts { held: self.held.len() as u64, ..self.counts }
    }

    fn throw(&mut self) -> u64 {
        self.dice.u64(0..PER_MILLE)
    }

    fn hold(&mut self, now: Duration, jitter: Duration, bytes: usize, item: T, is_held_back: bool) {
        if self.held_bytes + bytes > self.path.queue_bytes {
            self.counts.overflowed += 1;
            return;
        }
        if self.path.bytes_per_second > 0 {
            let takes = Duration::from_secs_f64(bytes as f64 / self.path.bytes_per_second as f64);
            self.free_at = self.free_at.max(now) + takes;
        } else {
            self.free_at = now;
        }
        let mut due = (self.free_at + self.path.delay + jitter).max(self.last_due);
        if is_held_back {
            self.counts.reordered += 1;
            due += self.path.delay / 4 + Duration::from_millis(2);
        } else {
            self.last_due = due;
        }
        self.held_bytes += bytes;
        self.held.push(Reverse(Held { due, number: self.next_number, bytes, item }));
        self.next_number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn drain(direction: &mut Direction<u32>, now: Duration) -> Vec<u32> {
        std::iter::from_fn(|| direction.pop(now)).collect()
    }

    #[test]
    fn a_datagram_comes_after_its_delay_and_not_before() {
        let mut direction = Direction::new(1, Path { delay: ms(50), ..Path::default() });
        direction.push(ms(10), 100, 1);
        assert_eq!(direction.next_due(), Some(ms(60)));
        assert_eq!(direction.pop(ms(59)), None);
        assert_eq!(direction.pop(ms(60)), Some(1));
        assert_eq!(direction.next_due(), None);
    }

    #[test]
    fn a_rate_spaces_datagrams_and_a_full_queue_drops_the_last() {
        let path = Path { bytes_per_second: 10_000, queue_bytes: 500, ..Path::default() };
        let mut direction = Direction::new(1, path);
        (0..8).for_each(|number| direction.push(ms(0), 100, number));
        assert_eq!(direction.counts().overflowed, 3);
        assert_eq!(drain(&mut direction, ms(20)), [0, 1], "100 bytes take 10 ms");
        assert_eq!(drain(&mut direction, ms(1_000)), [2, 3, 4]);
    }

    #[test]
    fn a_cut_takes_what_is_on_its_way_and_healing_brings_nothing_back() {
        let path = Path { delay: ms(50), ..Path::default() };
        let mut direction = Direction::new(1, path);
        direction.push(ms(0), 100, 1);
        direction.set(Path { is_cut: true, ..path });
        direction.push(ms(10), 100, 2);
        direction.set(path);
        direction.push(ms(20), 100, 3);
        assert_eq!(drain(&mut direction, ms(1_000)), [3]);
        assert_eq!(direction.counts().cut, 2);
    }

    #[test]
    fn chances_are_near_what_was_asked_for_and_repeat_with_the_seed() {
        let path = Path { loss_per_mille: 20, duplicate_per_mille: 10, reorder_per_mille: 10, ..Path::default() };
        let run = |seed| {
            let mut direction = Direction::new(seed, path);
            for number in 0..10_000 {
                direction.push(ms(u64::from(number)), 100, number);
            }
            let order = drain(&mut direction, ms(1_000_000));
            (order, direction.counts())
        };
        let (order, counts) = run(7);
        assert_eq!((&order, counts), (&run(7).0, run(7).1));
        assert_ne!(order, run(8).0);
        assert!((100..400).contains(&counts.lost), "{counts:?}");
        assert!((50..200).contains(&counts.duplicated), "{counts:?}");
        assert!(order.windows(2).filter(|pair| pair[0] > pair[1]).count() > 10, "some are overtaken");
    }

    proptest! {
        #[test]
        fn every_datagram_is_accounted_for_and_the_queue_is_bounded(
            seed in any::<u64>(),
            chances in (0u32..500, 0u32..500, 0u32..500),
            (delay, jitter, rate) in (0u64..100, 0u64..50, 0u64..100_000),
            steps in prop::collection::vec((0u64..20, 1usize..1_500, 0u8..20), 1..300),
        ) {
            let path = Path {
                delay: ms(delay),
                jitter: ms(jitter),
                loss_per_mille: chances.0,
                duplicate_per_mille: chances.1,
                reorder_per_mille: chances.2,
                bytes_per_second: rate,
                queue_bytes: 20_000,
                is_cut: false,
            };
            let (mut direction, mut now, mut out) = (Direction::new(seed, path), Duration::ZERO, 0);
            for (wait, bytes, what) in steps {
                now += ms(wait);
                match what {
                    0 => direction.set(Path { is_cut: !direction.path().is_cut, ..path }),
                    _ => direction.push(now, bytes, 0u32),
                }
                out += drain(&mut direction, now).len() as u64;
                prop_assert!(direction.held_bytes <= 20_000);
                prop_assert!(direction.next_due().is_none_or(|due| due > now));
                let c = direction.counts();
                prop_assert_eq!(c.taken + c.duplicated, c.delivered + c.lost + c.cut + c.overflowed + c.held);
                prop_assert_eq!(c.delivered, out);
            }
        }

        #[test]
        fn without_reordering_the_order_is_kept_whatever_the_jitter(
            seed in any::<u64>(),
            jitter in 0u64..100,
            waits in prop::collection::vec(0u64..10, 1..200),
        ) {
            let path = Path { delay: ms(20), jitter: ms(jitter), loss_per_mille: 100, ..Path::default() };
            let (mut direction, mut now) = (Direction::new(seed, path), Duration::ZERO);
            for (number, wait) in (0u32..).zip(waits) {
                now += ms(wait);
                direction.push(now, 100, number);
            }
            let order = drain(&mut direction, ms(1_000_000));
            prop_assert!(order.is_sorted());
        }
    }
}
