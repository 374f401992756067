//! The plots of a page, as SVG.

use anyhow::anyhow;
use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::prelude::*;

/// Size of a plot in pixels.
const SIZE: (u32, u32) = (860, 360);
/// Values between one halving of the distance to 100 % and the next.
const TICKS_PER_HALF: u32 = 10;
/// Room for labels in pixels: below, and at the left.
const LABELS: (u32, u32) = (42, 74);
/// The font of all texts; the browser's.
const FONT: (&str, u32) = ("sans-serif", 13);

/// Colours of rows, dark enough for a white ground.
const COLOURS: [RGBColor; 11] = [
    RGBColor(193, 18, 31),
    RGBColor(3, 83, 164),
    RGBColor(42, 140, 58),
    RGBColor(224, 122, 0),
    RGBColor(123, 44, 191),
    RGBColor(0, 139, 139),
    RGBColor(141, 85, 36),
    RGBColor(68, 68, 68),
    RGBColor(214, 51, 108),
    RGBColor(92, 148, 13),
    RGBColor(16, 152, 173),
];

/// Throughput of one row over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Throughput {
    /// What it is.
    pub label: String,
    /// Seconds since the begin, and events delivered since then.
    pub delivered: Vec<(f64, f64)>,
    /// Seconds since the begin at which something was done, such as a swap.
    pub marks: Vec<f64>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Latencies by percentile, each further nine the same width; the values' axis is logarithmic.
pub(crate) fn latencies(rows: &[(String, Histogram<u64>)]) -> anyhow::Result<String> {
    let nines = |quantile: f64| -(1.0 - quantile).log10();
    let curves: Vec<Vec<(f64, f64)>> = rows
        .iter()
        .map(|(_, latencies)| {
            let steps = latencies.iter_quantiles(TICKS_PER_HALF).filter(|step| step.quantile_iterated_to() < 1.0);
            steps.map(|step| (nines(step.quantile_iterated_to()), step.value_iterated_to() as f64 / 1e3)).collect()
        })
        .collect();
    let points = || curves.iter().flatten();
    let right = points().map(|point| point.0).fold(1.0, f64::max).ceil();
    let (low, high) = points().fold((f64::MAX, 1.0_f64), |(low, high), at| (low.min(at.1), high.max(at.1)));
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(36)
            .x_label_area_size(LABELS.0)
            .y_label_area_size(LABELS.1)
            .build_cartesian_2d(0.0..right, (low.clamp(1.0, high) * 0.8..high * 1.3).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(BLACK.mix(0.06))
            .x_labels(8)
            .x_label_formatter(&|nines| percentile(*nines))
            .y_label_formatter(&|latency| format!("{latency:.0}"))
            .x_desc("percentile")
            .y_desc("latency in microseconds")
            .label_style(FONT)
            .draw()?;
        for (at, ((label, _), curve)) in rows.iter().zip(curves.clone()).enumerate() {
            let colour = COLOURS[at % COLOURS.len()].to_rgba();
            chart.draw_series(LineSeries::new(curve, colour.stroke_width(2)))?.label(label).legend(sample(colour));
        }
        legend(&mut chart)
    })
}

/// Events a second over time; marks are vertical lines of their row's colour.
pub(crate) fn throughput(rows: &[Throughput]) -> anyhow::Result<String> {
    let curves: Vec<Vec<(f64, f64)>> = rows.iter().map(|row| rates(&row.delivered)).collect();
    let points = || curves.iter().flatten();
    let right = points().map(|point| point.0).fold(0.1, f64::max);
    let top = points().map(|point| point.1).fold(1.0, f64::max) * 1.15;
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(36)
            .x_label_area_size(LABELS.0)
            .y_label_area_size(LABELS.1)
            .build_cartesian_2d(0.0..right, 0.0..top)?;
        chart
            .configure_mesh()
            .light_line_style(BLACK.mix(0.06))
            .y_label_formatter(&|rate| format!("{:.0}", rate / 1e3))
            .x_desc("seconds")
            .y_desc("thousand events delivered a second")
            .label_style(FONT)
            .draw()?;
        for (at, (row, curve)) in rows.iter().zip(curves.clone()).enumerate() {
            let colour = COLOURS[at % COLOURS.len()].to_rgba();
            chart.draw_series(LineSeries::new(curve, colour.stroke_width(2)))?.label(&row.label).legend(sample(colour));
            let marks = row.marks.iter().filter(|mark| (0.0..=right).contains(*mark));
            chart.draw_series(
                marks.map(|mark| PathElement::new(vec![(*mark, 0.0), (*mark, top)], colour.mix(0.5).stroke_width(1))),
            )?;
        }
        legend(&mut chart)
    })
}

/// From sums to rates, each at the middle of its span.
fn rates(delivered: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let from = std::iter::once((0.0, 0.0)).chain(delivered.iter().copied());
    let spans = from.zip(delivered).filter(|(from, to)| to.0 > from.0);
    spans.map(|(from, to)| (f64::midpoint(from.0, to.0), (to.1 - from.1) / (to.0 - from.0))).collect()
}

/// `2.0` is 99 %: so many nines.
fn percentile(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10_f64.powf(-nines));
    // The digits that the nines need, and no more.
    let digits = (1..=6).take_while(|digits| nines > f64::from(*digits) + 1.0).count();
    format!("{percent:.digits$} %")
}

type Sample = fn((i32, i32), RGBAColor) -> PathElement<(i32, i32)>;

fn sample(colour: RGBAColor) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> {
    let line: Sample = |(x, y), colour| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2));
    move |at| line(at, colour)
}

fn legend<'a, X, Y>(chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>) -> Drawn
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(FONT)
        .draw()?;
    Ok(())
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(paint: impl FnOnce(&Area<'_>) -> Drawn) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(|error| anyhow!("a plot: {error}"))?;
        paint(&area).map_err(|error| anyhow!("a plot: {error}"))?;
        area.present().map_err(|error| anyhow!("a plot: {error}"))?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::new_histogram;

    #[test]
    fn nines_read_as_percentiles() {
        assert_eq!([0.0, 1.0, 2.0, 3.0, 5.0].map(percentile), ["0 %", "90 %", "99 %", "99.9 %", "99.999 %"]);
    }

    #[test]
    fn rates_are_differences() {
        assert_eq!(rates(&[(0.5, 100.0), (1.0, 100.0), (2.0, 400.0)]), [(0.25, 200.0), (0.75, 0.0), (1.5, 300.0)]);
    }

    #[test]
    fn plots_hold_their_rows_and_marks() {
        let mut histogram = new_histogram();
        for latency_us in 1..=5000 {
            histogram.record(latency_us * 1000).expect("within bounds");
        }
        let svg = latencies(&[("one filter".into(), histogram.clone()), ("none".into(), histogram)]).expect("a plot");
        assert!(svg.contains("one filter") && svg.contains("99.9 %") && svg.contains("<polyline"), "{svg}");
        let row = |marks| Throughput { label: "swaps".into(), delivered: vec![(1.0, 5e5), (2.0, 9e5)], marks };
        let lines = |marks| throughput(&[row(marks)]).expect("a plot").matches("<polyline").count();
        assert_eq!(lines(vec![0.5, 1.5, 99.0]), lines(vec![]) + 2, "the third is outside");
    }
}
