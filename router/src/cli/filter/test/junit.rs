//! The results as JUnit XML, as CI systems read it: a suite for each file, one for the made-up events.

use super::report::Report;
use crate::cli::examine::Checked;
use crate::cli::trial::told;
use std::fmt::Write;

/// The report as XML.
pub(super) fn xml(report: &Report) -> String {
    let mut suites = String::new();
    let (mut tests, mut failures) = (0, 0);
    for of_file in report.checked.chunk_by(|a, b| a.file == b.file) {
        let bad = of_file.iter().filter(|checked| !report.is_good(checked)).count();
        let name = of_file.first().map(|checked| checked.path.display().to_string()).unwrap_or_default();
        let cases: String = of_file.iter().map(|checked| case(report, checked)).collect();
        suite(&mut suites, &name, of_file.len(), bad, &cases);
        (tests, failures) = (tests + of_file.len(), failures + bad);
    }
    if let Some(stress) = &report.stress {
        let failure = stress.failure.as_ref().map(|failure| (failure.what.as_str(), failure.event.as_str()));
        let name = format!("{} made-up events, seed {}", stress.events, stress.seed);
        let case = test_case("random", &name, failure);
        suite(&mut suites, "random", 1, usize::from(failure.is_some()), &case);
        (tests, failures) = (tests + 1, failures + usize::from(failure.is_some()));
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{}\" tests=\"{tests}\" failures=\"{failures}\">\n\
         {suites}</testsuites>\n",
        escaped(&report.module)
    )
}

fn suite(out: &mut String, name: &str, tests: usize, failures: usize, cases: &str) {
    let name = escaped(name);
    let _ =
        writeln!(out, "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\">\n{cases}  </testsuite>");
}

fn case(report: &Report, checked: &Checked) -> String {
    let path = checked.path.display().to_string();
    let name = format!("line {}: {}", checked.line, checked.topic);
    if report.is_good(checked) {
        return test_case(&path, &name, None);
    }
    match &checked.said {
        Err(error) => test_case(&path, &name, Some((error, "no verdict"))),
        Ok(decision) => {
            let unmet = checked.unmet.iter();
            let unmet: Vec<_> =
                unmet.map(|unmet| format!("expected {}, got {}", unmet.expected, unmet.found)).collect();
            test_case(&path, &name, Some((&unmet.join("; "), &format!("the filter says {}", told(decision)))))
        }
    }
}

fn test_case(class: &str, name: &str, failure: Option<(&str, &str)>) -> String {
    let (class, name) = (escaped(class), escaped(name));
    match failure {
        None => format!("    <testcase classname=\"{class}\" name=\"{name}\"/>\n"),
        Some((message, text)) => format!(
            "    <testcase classname=\"{class}\" name=\"{name}\">\n      \
             <failure message=\"{}\">{}</failure>\n    </testcase>\n",
            escaped(message),
            escaped(text)
        ),
    }
}

/// Text as XML allows it, in an attribute and between tags.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(' '),
            // XML 1.0 has no place for these, not even escaped.
            character if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn every_event_is_a_case_and_every_failure_is_counted() {
        let xml = xml(&report(true));
        assert!(xml.starts_with(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"m@1.0.0\" tests=\"3\" failures=\"2\">"
        ));
        assert_eq!((xml.matches("<testcase ").count(), xml.matches("<failure ").count()), (3, 2));
        assert!(xml.contains("line 2: orders/&lt;new&gt;") && xml.contains("message=\"expected deny, got allow\""));
        assert!(xml.contains("trap: &quot;x&quot; &amp; y"), "{xml}");
        assert_eq!(escaped("\u{1b}[31m\n"), "\u{fffd}[31m ");
    }
}
