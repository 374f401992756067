//! What one run of a client found.

use crate::progress::new_histogram;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// What one run of the client found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Length of the measured window.
    pub seconds: f64,
    /// When the window began, in milliseconds since 1970: marks of others find their place by it.
    pub begin_unix_ms: u64,
    /// Events that all subscribers together took in the window.
    pub delivered: u64,
    /// CPU time of the server in the window; 0 where its process is not known.
    pub server_cpu_seconds: f64,
    /// CPU time of the client in the window.
    pub client_cpu_seconds: f64,
    /// Memory of the server at the window's end; 0 where its process is not known.
    pub server_memory_mib: f64,
    /// Most memory of the server so far; 0 where its process is not known.
    pub server_memory_mib_max: f64,
    /// Events that never arrived at a subscriber, over the whole run.
    pub lost: u64,
    /// Events that arrived twice or out of order, over the whole run.
    pub doubled: u64,
    /// Events that the router refused, over the whole run.
    pub refused: u64,
    /// Latencies from an event's due time to its arrival; only with a rate.
    pub latency: Option<Distribution>,
    /// Throughput over time: milliseconds since the window's begin, and events delivered since then.
    pub timeline: Vec<(u64, u64)>,
}

/// Latencies, as the histogram's cells: nanoseconds and events. Kept whole so that runs can be added up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution(pub Vec<(u64, u64)>);

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many events.
    pub events: u64,
    /// Half of them took at most this.
    pub p50_us: f64,
    /// 90 % of them.
    pub p90_us: f64,
    /// 99 % of them.
    pub p99_us: f64,
    /// 99.9 % of them.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Measured {
    /// Events a second, of all subscribers together.
    pub fn delivered_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.delivered as f64 / self.seconds } else { 0.0 }
    }

    /// CPU time of the server for a million delivered events.
    pub fn server_cpu_seconds_per_million(&self) -> f64 {
        self.server_cpu_seconds * 1e6 / self.delivered.max(1) as f64
    }

    /// Whether every event arrived exactly once.
    pub fn is_exact(&self) -> bool {
        (self.lost, self.doubled, self.refused) == (0, 0, 0)
    }

    /// Its percentiles; zeros where there was no rate.
    pub fn percentiles(&self) -> Percentiles {
        self.latency.as_ref().map(Distribution::percentiles).unwrap_or_default()
    }
}

impl Distribution {
    /// The cells of a histogram.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self(histogram.iter_recorded().map(|cell| (cell.value_iterated_to(), cell.count_at_value())).collect())
    }

    /// The histogram again, of several runs together.
    pub fn merge<'a>(runs: impl IntoIterator<Item = &'a Self>) -> Histogram<u64> {
        let mut histogram = new_histogram();
        for (value, count) in runs.into_iter().flat_map(|run| &run.0) {
            // Values come from a histogram of the same bounds: none is out of range.
            let _ = histogram.record_n(*value, *count);
        }
        histogram
    }

    /// Its percentiles.
    pub fn percentiles(&self) -> Percentiles {
        let histogram = Self::merge([self]);
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles {
            events: histogram.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }
}

/// The median; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.get((values.len().max(1) - 1) / 2), values.get(values.len() / 2)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_the_histogram_again() {
        let mut histogram = new_histogram();
        for latency_us in 1..=1000 {
            histogram.record(latency_us * 1000).expect("within bounds");
        }
        let whole = Distribution::of(&histogram);
        let percentiles = whole.percentiles();
        assert_eq!(percentiles.events, 1000);
        assert!((percentiles.p50_us - 500.0).abs() < 2.0, "{percentiles:?}");
        assert!((percentiles.p99_us - 990.0).abs() < 2.0, "{percentiles:?}");
        assert_eq!(Distribution::merge([&whole, &whole]).len(), 2000);
    }

    #[test]
    fn the_median_of_none_is_nothing() {
        assert_eq!((median(vec![9.0, 1.0, 2.0]), median(vec![2.0, 1.0]), median(vec![])), (2.0, 1.5, 0.0));
    }
}
