//! A schedule finer than the runtime's milliseconds.

use crate::progress::Progress;
use anyhow::ensure;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// How often an open loop looks which events are due, in nanoseconds.
const TICK_NS: i64 = 100_000;
/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;

/// Each event has its time, whatever the server does: an open loop.
#[derive(Debug)]
pub struct Schedule {
    timer: AsyncFd<OwnedFd>,
    start_ns: u64,
    rate: u64,
}

impl Schedule {
    /// `rate` events a second from now on. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// When the rate is no rate, or the kernel has no timer.
    pub fn new(progress: &Progress, rate: u64) -> anyhow::Result<Self> {
        ensure!((1..=SECOND_NS).contains(&rate), "a rate is 1 to 1,000,000,000 events a second");
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK_NS };
        let every = Itimerspec { it_interval: tick, it_value: tick };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe for types that lie about their descriptor; OwnedFd does not"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, start_ns: progress.now_ns(), rate })
    }

    /// When event `seq` is due, in nanoseconds since the run's origin.
    pub fn due_ns(&self, seq: u64) -> u64 {
        let since = u128::from(seq) * u128::from(SECOND_NS) / u128::from(self.rate);
        self.start_ns.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// Waits for the next tick.
    ///
    /// # Errors
    /// When the kernel's timer fails.
    pub async fn tick(&self) -> anyhow::Result<()> {
        loop {
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0; 8];
            if ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expirations)?)).is_ok_and(|read| read.is_ok()) {
                return Ok(());
            }
        }
    }
}
