//! A report as one HTML file: tables, and plots as inline SVG. Nothing is fetched from anywhere.

use crate::plot;
use hdrhistogram::Histogram;
use std::fmt::Write as _;

pub use crate::plot::Throughput;

/// How the page looks, in both light and dark.
const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:74rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.5rem;border-top:1px solid #8884;padding-top:1rem}\
table{border-collapse:collapse;margin:.7rem 0;font-variant-numeric:tabular-nums;font-size:.86rem;display:block;\
overflow-x:auto}th,td{border-bottom:1px solid #8884;padding:.25rem .7rem;text-align:right;white-space:nowrap}\
th:first-child,td:first-child{text-align:left}figure{margin:1rem 0}figure svg{max-width:100%;height:auto;\
background:#fff;border-radius:4px}figcaption{font-size:.86rem;opacity:.75}p{max-width:48rem}";

/// A report.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Its heading.
    pub title: String,
    /// Paragraphs below it: the machine, the settings.
    pub intro: Vec<String>,
    /// What was measured.
    pub sections: Vec<Section>,
}

/// One table with its plots.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// The table: the first row is its head.
    pub table: Vec<Vec<String>>,
    /// Latencies of each row, in nanoseconds: plotted where there are any.
    pub latencies: Vec<(String, Histogram<u64>)>,
    /// Throughput of each row: plotted where there are any.
    pub throughput: Vec<Throughput>,
}

impl Page {
    /// The file.
    ///
    /// # Errors
    /// When a plot cannot be drawn.
    pub fn html(&self) -> anyhow::Result<String> {
        let title = escape(&self.title);
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
        );
        for paragraph in &self.intro {
            let _ = writeln!(html, "<p>{}</p>", escape(paragraph));
        }
        for section in &self.sections {
            let _ = writeln!(html, "<h2>{}</h2>", escape(&section.title));
            table(&section.table, &mut html);
            if !section.latencies.is_empty() {
                let caption = "Latency from an event's scheduled time to its arrival, by percentile.";
                figure(&plot::latencies(&section.latencies)?, caption, &mut html);
            }
            if !section.throughput.is_empty() {
                let caption = "Throughput over time; a vertical line is a swap of a filter in the row of its colour.";
                figure(&plot::throughput(&section.throughput)?, caption, &mut html);
            }
        }
        html.push_str("</body></html>\n");
        Ok(html)
    }
}

fn table(rows: &[Vec<String>], html: &mut String) {
    html.push_str("<table>\n");
    for (number, row) in rows.iter().enumerate() {
        let cell = if number == 0 { "th" } else { "td" };
        let cells: String = row.iter().map(|text| format!("<{cell}>{}</{cell}>", strong(text))).collect();
        let _ = writeln!(html, "<tr>{cells}</tr>");
    }
    html.push_str("</table>\n");
}

/// What Markdown has between `**`, in bold.
fn strong(text: &str) -> String {
    match text.strip_prefix("**").and_then(|text| text.strip_suffix("**")) {
        Some(text) => format!("<b>{}</b>", escape(text)),
        None => escape(text),
    }
}

fn figure(svg: &str, caption: &str, html: &mut String) {
    let _ = writeln!(html, "<figure>{svg}<figcaption>{}</figcaption></figure>", escape(caption));
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_stands_alone_and_shows_text_as_text() {
        let section = Section {
            title: "1 -> 8".into(),
            table: vec![vec!["row".into(), "a < b".into()], vec!["x & y".into(), "**behind**".into()]],
            throughput: vec![Throughput { label: "<none>".into(), delivered: vec![(1.0, 10.0)], marks: vec![] }],
            ..Section::default()
        };
        let page = Page { title: "T".into(), intro: vec!["<script>".into()], sections: vec![section] };
        let html = page.html().expect("it can be drawn");
        assert!(
            html.contains("<th>a &lt; b</th>") && html.contains("<td>x &amp; y</td><td><b>behind</b></td>"),
            "{html}"
        );
        assert!(html.contains("<svg") && !html.contains("<script") && !html.contains("<none>"), "{html}");
        let fetched = ["src=", "href=", "@import", "url("].iter().find(|word| html.contains(**word));
        assert_eq!(fetched, None, "nothing is fetched");
    }
}
