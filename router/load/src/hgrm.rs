//! HdrHistogram's text form (`.hgrm`), which its plotter and other tools read.

use hdrhistogram::Histogram;
use std::fmt::Write as _;

/// Lines between one halving of the distance to 100 % and the next, as HdrHistogram's own tools have it.
const TICKS_PER_HALF: u32 = 5;
/// Nanoseconds in the unit of the values, a microsecond.
const UNIT_NS: f64 = 1_000.0;

/// The percentiles of `latencies` (in nanoseconds), in microseconds.
pub fn text(latencies: &Histogram<u64>) -> String {
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut total = 0;
    for step in latencies.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to() as f64 / UNIT_NS, step.quantile_iterated_to());
        let _ = match quantile < 1.0 {
            true => writeln!(text, "{value:12.3} {quantile:2.12} {total:10} {:14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(text, "{value:12.3} {quantile:2.12} {total:10}"),
        };
    }
    let (mean, deviation) = (latencies.mean() / UNIT_NS, latencies.stdev() / UNIT_NS);
    let (max, count) = (latencies.max() as f64 / UNIT_NS, latencies.len());
    let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let _ = writeln!(text, "#[Max     = {max:12.3}, Total count    = {count:12}]");
    let _ = writeln!(text, "#[Buckets = {:12}, SubBuckets     = {:12}]", latencies.buckets(), 2048);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::new_histogram;

    #[test]
    fn the_lines_are_those_that_plotters_read() {
        let mut latencies = new_histogram();
        for latency_us in 1..=10_000 {
            latencies.record(latency_us * 1_000).expect("within bounds");
        }
        let text = text(&latencies);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|field| field.parse().expect("a number")).collect())
            .collect();
        assert!(rows.len() > 20 && rows.windows(2).all(|two| two[0][0] <= two[1][0] && two[0][1] <= two[1][1]));
        let half = rows.iter().find(|row| row[1] >= 0.5).expect("it goes through the median");
        assert!((half[0] - 5_000.0).abs() < 10.0, "{half:?}");
        let last = rows.last().expect("there are rows");
        assert!((last[1] - 1.0).abs() < f64::EPSILON && (last[2] - 10_000.0).abs() < f64::EPSILON, "{last:?}");
        assert!(text.contains("#[Mean    =") && text.contains("Total count    =        10000]"), "{text}");
    }
}
