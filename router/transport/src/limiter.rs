//! Who may start a handshake now. Pure: the time is passed in, the table is bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::config::ConfigError;

/// Settings of a [`Limiter`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimiterConfig {
    /// With more handshakes of unproven addresses than this under way, clients must prove their address (Retry).
    pub unvalidated_max: u32,
    /// With more attempts a second than this, clients must prove their address (Retry).
    pub attempts_per_second_max: u32,
    /// Retry packets a second; beyond, unproven first packets are ignored. A Retry costs a seal and a send.
    pub retries_per_second_max: u32,
    /// Handshakes a second that one network (IPv4 /24, IPv6 /64) may start in the long run; 0 = no limit.
    pub network_per_second: u32,
    /// Handshakes that one network may start at once after a quiet time.
    pub network_burst: u32,
    /// Networks remembered at once; those beyond share one bucket.
    pub networks_max: u32,
}

impl Default for LimiterConfig {
    fn default() -> Self {
        Self {
            unvalidated_max: 200,
            attempts_per_second_max: 500,
            retries_per_second_max: 5_000,
            network_per_second: 200,
            network_burst: 1_000,
            networks_max: 4_096,
        }
    }
}

/// What to do with a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Start the handshake.
    Accept,
    /// Let the client prove its address first; costs no state.
    Retry,
    /// Say nothing: an answer would cost more than the question.
    Ignore,
}

/// Decides on first packets, from the load of this listener and from how often each network knocks.
#[derive(Debug)]
pub struct Limiter {
    config: LimiterConfig,
    attempts: Rate,
    retries: Rate,
    networks: HashMap<Network, Bucket>,
    /// Shared by the networks that the full table has no room for.
    others: Bucket,
    swept: Instant,
}

/// An IPv4 /24 or an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    V4([u8; 3]),
    V6([u16; 4]),
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// Events a second: this second's, and the last one's as far as it still counts.
#[derive(Debug, Clone, Copy)]
struct Rate {
    started: Instant,
    now: u32,
    before: u32,
}

/// Looking through the full table takes microseconds: once a second at most, whatever knocks.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl LimiterConfig {
    pub(crate) fn validate(&self) -> Result<(), Vec<ConfigError>> {
        let mut errors = Vec::new();
        for (key, value, most) in
            [("network_burst", self.network_burst, 1_000_000), ("networks_max", self.networks_max, 1_000_000)]
        {
            if value == 0 || value > most {
                errors.push(ConfigError { key, value: value.to_string(), remedy: "give 1 to 1000000" });
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

impl Limiter {
    /// A limiter that has seen nothing yet.
    #[must_use]
    pub fn new(config: LimiterConfig, now: Instant) -> Self {
        let others = Bucket { tokens: f64::from(config.network_burst), filled: now };
        let rate = Rate { started: now, now: 0, before: 0 };
        Self { config, attempts: rate, retries: rate, networks: HashMap::new(), others, swept: now }
    }

    /// Decides on a first packet from `address`. `validated` says that the address is proven, `unvalidated` how many
    /// handshakes of unproven addresses are under way. `now` must not go back.
    ///
    /// A Retry takes nothing from the network's bucket: a forger of addresses cannot use up what others have there.
    pub fn decide(&mut self, now: Instant, address: IpAddr, validated: bool, unvalidated: usize) -> Decision {
        let attempts = self.attempts.count(now);
        if !validated {
            let crowded = unvalidated > self.config.unvalidated_max as usize;
            if crowded || attempts > f64::from(self.config.attempts_per_second_max) {
                let retries = self.retries.count(now);
                let spare = retries <= f64::from(self.config.retries_per_second_max);
                return if spare { Decision::Retry } else { Decision::Ignore };
            }
        }
        if self.config.network_per_second == 0 || self.take(now, Network::of(address)) {
            Decision::Accept
        } else {
            Decision::Ignore
        }
    }

    /// Networks remembered now.
    #[must_use]
    pub fn networks(&self) -> usize {
        self.networks.len()
    }

    fn take(&mut self, now: Instant, network: Network) -> bool {
        let (rate, burst) = (f64::from(self.config.network_per_second), f64::from(self.config.network_burst));
        if let Some(bucket) = self.networks.get_mut(&network) {
            return bucket.take(now, rate, burst);
        }
        if self.networks.len() >= self.config.networks_max as usize && now - self.swept >= SWEEP_INTERVAL {
            self.swept = now;
            // A full bucket remembers nothing: such a network is the same as one never seen.
            self.networks.retain(|_, bucket| bucket.tokens_at(now, rate, burst) < burst);
        }
        if self.networks.len() >= self.config.networks_max as usize {
            return self.others.take(now, rate, burst);
        }
        let mut bucket = Bucket { tokens: burst, filled: now };
        let taken = bucket.take(now, rate, burst);
        self.networks.insert(network, bucket);
        taken
    }
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

impl Bucket {
    fn tokens_at(&self, now: Instant, rate: f64, burst: f64) -> f64 {
        let since_s = now.saturating_duration_since(self.filled).as_secs_f64();
        since_s.mul_add(rate, self.tokens).min(burst)
    }

    fn take(&mut self, now: Instant, rate: f64, burst: f64) -> bool {
        self.tokens = self.tokens_at(now, rate, burst);
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

impl Rate {
    /// Counts one event and returns the events of the last second, this one included.
    fn count(&mut self, now: Instant) -> f64 {
        let since_s = now.saturating_duration_since(self.started).as_secs_f64();
        if since_s >= 1.0 {
            self.before = if since_s < 2.0 { self.now } else { 0 };
            self.now = 0;
            self.started = if since_s < 2.0 { self.started + Duration::from_secs(1) } else { now };
        }
        self.now = self.now.saturating_add(1);
        let into_s = now.saturating_duration_since(self.started).as_secs_f64();
        f64::from(self.before).mul_add(1.0 - into_s.min(1.0), f64::from(self.now))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn v4(network: u16, host: u8) -> IpAddr {
        let [high, low] = network.to_be_bytes();
        Ipv4Addr::new(10, high, low, host).into()
    }

    fn quiet() -> LimiterConfig {
        // Attempts are not what these tests look at.
        LimiterConfig { attempts_per_second_max: u32::MAX, ..LimiterConfig::default() }
    }

    #[test]
    fn a_calm_listener_accepts_and_a_crowded_one_asks_for_proof() {
        let now = Instant::now();
        let mut limiter = Limiter::new(LimiterConfig::default(), now);
        assert_eq!(limiter.decide(now, v4(1, 1), false, 200), Decision::Accept);
        assert_eq!(limiter.decide(now, v4(1, 1), false, 201), Decision::Retry);
        assert_eq!(limiter.decide(now, v4(1, 1), true, 201), Decision::Accept, "a proven address is asked no more");
    }

    #[test]
    fn too_many_attempts_a_second_ask_for_proof_until_it_is_calm_again() {
        let start = Instant::now();
        let mut limiter = Limiter::new(LimiterConfig::default(), start);
        let decisions: Vec<_> = (0..600).map(|host| limiter.decide(start, v4(host, 1), false, 0)).collect();
        assert!(decisions[..500].iter().all(|decision| *decision == Decision::Accept));
        assert!(decisions[500..].iter().all(|decision| *decision == Decision::Retry));
        assert_eq!(limiter.decide(start + Duration::from_secs(3), v4(1, 1), false, 0), Decision::Accept);
    }

    #[test]
    fn retries_have_a_bound_too() {
        let now = Instant::now();
        let mut limiter = Limiter::new(LimiterConfig { retries_per_second_max: 10, ..quiet() }, now);
        let decisions: Vec<_> = (0..20).map(|_| limiter.decide(now, v4(1, 1), false, 1000)).collect();
        assert_eq!(decisions.iter().filter(|decision| **decision == Decision::Retry).count(), 10);
        assert_eq!(decisions[19], Decision::Ignore);
    }

    #[test]
    fn hosts_of_one_network_share_and_mapped_addresses_are_their_network() {
        let now = Instant::now();
        let mut limiter = Limiter::new(LimiterConfig { network_burst: 2, network_per_second: 1, ..quiet() }, now);
        let mapped = IpAddr::V6(Ipv4Addr::new(10, 0, 1, 3).to_ipv6_mapped());
        assert_eq!(limiter.decide(now, v4(1, 1), true, 0), Decision::Accept);
        assert_eq!(limiter.decide(now, v4(1, 2), true, 0), Decision::Accept);
        assert_eq!(limiter.decide(now, mapped, true, 0), Decision::Ignore);
        assert_eq!(limiter.decide(now, v4(2, 1), true, 0), Decision::Accept);
        let (one, two) = (Ipv6Addr::new(1, 2, 3, 4, 5, 6, 7, 8), Ipv6Addr::new(1, 2, 3, 4, 9, 9, 9, 9));
        assert_eq!(limiter.decide(now, one.into(), true, 0), Decision::Accept);
        assert_eq!(limiter.decide(now, two.into(), true, 0), Decision::Accept);
        assert_eq!(limiter.decide(now, one.into(), true, 0), Decision::Ignore);
    }

    proptest! {
        /// Never more from one network than its burst and its rate, whatever the others do and however time jumps on.
        #[test]
        fn no_network_gets_more_than_its_share(
            steps in prop::collection::vec((0u16..40, 0u64..50), 1..600),
            burst in 1u32..20,
            rate in 1u32..50,
            networks_max in 1u32..30,
        ) {
            let start = Instant::now();
            let config = LimiterConfig { network_burst: burst, network_per_second: rate, networks_max, ..quiet() };
            let mut limiter = Limiter::new(config, start);
            let mut now = start;
            let mut accepted = [0u32; 40];
            for (network, wait_ms) in steps {
                now += Duration::from_millis(wait_ms);
                if limiter.decide(now, v4(network, 1), true, 0) == Decision::Accept {
                    accepted[usize::from(network)] += 1;
                }
                prop_assert!(limiter.networks() <= networks_max as usize, "the table outgrew its bound");
            }
            // A network may be served by its own bucket and, while the table was full, by the shared one.
            let share = 2.0 * (f64::from(burst) + f64::from(rate) * (now - start).as_secs_f64()) + 1.0;
            for count in accepted {
                prop_assert!(f64::from(count) <= share, "{count} accepted, {share} allowed");
            }
        }

        /// A network that keeps to its rate is never refused while the table has room, whatever a loud one does.
        #[test]
        fn a_loud_network_does_not_starve_a_calm_one(loud_per_step in 0u32..200) {
            let start = Instant::now();
            let config = LimiterConfig { network_burst: 5, network_per_second: 10, ..quiet() };
            let mut limiter = Limiter::new(config, start);
            for step in 0..50u32 {
                let now = start + Duration::from_millis(100) * step;
                for _ in 0..loud_per_step {
                    limiter.decide(now, v4(1, 1), true, 0);
                }
                prop_assert_eq!(limiter.decide(now, v4(2, 1), true, 0), Decision::Accept);
            }
        }

        /// However many forged networks have passed, a full table is free again once they are quiet.
        #[test]
        fn a_full_table_empties(networks in 30u16..400) {
            let start = Instant::now();
            let config = LimiterConfig { network_burst: 4, network_per_second: 4, networks_max: 30, ..quiet() };
            let mut limiter = Limiter::new(config, start);
            for network in 0..networks {
                limiter.decide(start, v4(network, 1), true, 0);
            }
            let later = start + Duration::from_secs(2);
            prop_assert_eq!(limiter.decide(later, v4(9_999, 1), true, 0), Decision::Accept);
            prop_assert_eq!(limiter.networks(), 1);
        }
    }
}
