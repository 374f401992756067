//! Families of series, as `prometheus_client` wants them written.

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;

/// One series: its labels and its value.
pub(super) type Series = (Vec<(&'static str, String)>, Value);

#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Count(u64),
    Level(i64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Count(value)
    }
}

/// A family of series in the making.
pub(super) struct Family<'a, 'b> {
    pub(super) encoder: &'a mut DescriptorEncoder<'b>,
}

impl Family<'_, '_> {
    pub(super) fn counter(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = Series>) -> fmt::Result {
        self.write(MetricType::Counter, name, help, None, series)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = Series>) -> fmt::Result {
        self.write(MetricType::Gauge, name, help, None, series)
    }

    pub(super) fn write(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = Series>,
    ) -> fmt::Result {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let mut metric = self.encoder.encode_descriptor(name, help, unit, kind)?;
        for (labels, value) in series {
            match labels.is_empty() {
                true => one(kind, &mut metric, value)?,
                false => one(kind, &mut metric.encode_family(&labels)?, value)?,
            }
        }
        Ok(())
    }
}

fn one(kind: MetricType, metric: &mut MetricEncoder<'_>, value: Value) -> fmt::Result {
    match (kind, value) {
        (MetricType::Counter, Value::Count(count)) => metric.encode_counter::<NoLabelSet, u64, f64>(&count, None),
        (MetricType::Counter, Value::Real(real)) => metric.encode_counter::<NoLabelSet, f64, f64>(&real, None),
        (_, Value::Count(count)) => metric.encode_gauge(&count),
        (_, Value::Level(level)) => metric.encode_gauge(&level),
        (_, Value::Real(real)) => metric.encode_gauge(&real),
    }
}

pub(super) fn single(value: impl Into<Value>) -> [Series; 1] {
    [(Vec::new(), value.into())]
}

pub(super) fn label(name: &'static str, value: impl Into<String>) -> Vec<(&'static str, String)> {
    vec![(name, value.into())]
}

pub(super) fn by(name: &'static str, values: &[(&'static str, u64)]) -> Vec<Series> {
    values.iter().map(|(key, count)| (label(name, *key), Value::Count(*count))).collect()
}
