//! Sizes, words, machine paths and links.

use super::{Findings, Source, lexer};

/// Above this a file says more than one thing.
const FILE_LINES_WARN: usize = 500;
/// Above this it must be split.
const FILE_LINES_MAX: usize = 800;
/// Above this a function deserves a second look.
const FUNCTION_LINES_WARN: usize = 70;
/// Files that may be longer, with their ceiling. The list shrinks: a ceiling that is no longer needed is a failure.
const LONG_FILES: &[(&str, usize)] = &[];
/// What counts as written by hand.
const CODE_EXTENSIONS: &[&str] = &["rs", "py", "sh", "js", "mjs"];

/// Words of unfinished work. Put together here, so that this file does not find itself.
const UNFINISHED: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("unimplemented", "!(")];
/// Folders of one machine: a path that begins with one works nowhere else.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/home", "/")];
/// A queue without a bound.
const UNBOUNDED: &str = concat!("unbounded", "_channel");

/// Checks one file; `files` is every path of the repository, for links.
pub(super) fn check(source: &Source, files: &[String], findings: &mut Findings) {
    let extension = source.path.rsplit('.').next().unwrap_or_default();
    if CODE_EXTENSIONS.contains(&extension) {
        check_length(source, LONG_FILES, findings);
    }
    if !source.path.ends_with(".jsonl") && !source.path.ends_with(".lock") {
        check_words(source, findings);
    }
    if let Some(code) = &source.code {
        for (number, line) in (1..).zip(code.lines()) {
            if has_word(line, UNBOUNDED) {
                findings.fail(format!("{}:{number}: every queue has a named bound", source.path));
            }
        }
        check_functions(&source.path, code, findings);
    }
    if extension == "md" {
        check_links(source, files, findings);
    }
}

fn check_length(source: &Source, long_files: &[(&str, usize)], findings: &mut Findings) {
    let lines = source.text.lines().count();
    let path = &source.path;
    let exception = long_files.iter().find(|(known, _)| known == path).map(|(_, ceiling)| *ceiling);
    match exception {
        Some(_) if lines <= FILE_LINES_MAX => {
            findings.fail(format!("{path}: {lines} lines need no exception; take it out of LONG_FILES"));
        }
        Some(ceiling) if lines <= ceiling => {}
        _ if lines > FILE_LINES_MAX => {
            findings.fail(format!("{path}: {lines} lines, at most {}", exception.unwrap_or(FILE_LINES_MAX)));
        }
        _ if lines > FILE_LINES_WARN => findings.warn(format!("{path}: {lines} lines, more than {FILE_LINES_WARN}")),
        _ => {}
    }
}

fn check_words(source: &Source, findings: &mut Findings) {
    for (number, line) in (1..).zip(source.text.lines()) {
        for word in UNFINISHED.iter().filter(|word| has_word(line, word)) {
            findings.fail(format!("{}:{number}: {word}: finish it or write an issue", source.path));
        }
        for folder in MACHINE_PATHS.iter().filter(|folder| has_path(line, folder)) {
            findings.fail(format!("{}:{number}: {folder} exists on one machine only", source.path));
        }
    }
}

/// Functions by their braces; a test may be longer.
fn check_functions(path: &str, code: &str, findings: &mut Findings) {
    let end = lexer::first_test_line(code).unwrap_or(usize::MAX);
    for (number, name, lines) in functions(code) {
        if number < end && lines > FUNCTION_LINES_WARN {
            findings.warn(format!("{path}:{number}: fn {name} has {lines} lines, more than {FUNCTION_LINES_WARN}"));
        }
    }
}

/// Line, name and length of every function with a body.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        let before = &code[..start];
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[start + "fn ".len()..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if let Some(length) = body_end(rest).filter(|_| !name.is_empty()) {
            let lines = rest[..length].matches('\n').count() + 1;
            found.push((before.matches('\n').count() + 1, name, lines));
        }
    }
    found
}

/// Where the body that begins in `text` ends; `None` when a `;` comes first (`[u8; 4]` in a signature does not count).
fn body_end(text: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (at, character) in text.char_indices() {
        match character {
            ';' if braces == 0 && brackets == 0 => return None,
            '[' | '(' => brackets += 1,
            ']' | ')' => brackets = brackets.saturating_sub(1),
            '{' => braces += 1,
            '}' if braces <= 1 => return Some(at),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}

/// Relative links in Markdown lead to a file or folder of the repository.
fn check_links(source: &Source, files: &[String], findings: &mut Findings) {
    let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    for (number, line) in (1..).zip(source.text.lines()) {
        for target in links(line) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            let known = resolve(folder, file).is_some_and(|path| {
                path.is_empty() || files.iter().any(|f| *f == path || f.starts_with(&format!("{path}/")))
            });
            if !known {
                findings.fail(format!("{}:{number}: the link to {file} leads nowhere", source.path));
            }
        }
    }
}

/// Targets of `[text](target)`, outside `code`.
fn links(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (place, part) in line.split('`').enumerate() {
        if place % 2 == 0 {
            let targets = part.split("](").skip(1);
            found.extend(targets.filter_map(|rest| rest.split([')', ' ']).next()));
        }
    }
    // A link whose text is code is cut by the backticks: `](` then begins a part, which the loop above sees as well.
    found
}

/// `file` as seen from `folder`, without `.` and `..`; `None` when it leaves the repository.
fn resolve(folder: &str, file: &str) -> Option<String> {
    let mut path: Vec<&str> = folder.split('/').filter(|level| !level.is_empty()).collect();
    for level in file.split('/') {
        match level {
            "" | "." => {}
            ".." => {
                path.pop()?;
            }
            name => path.push(name),
        }
    }
    Some(path.join("/"))
}

/// Whether `line` holds `word` and not merely as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let after = &line[start + word.len()..];
        !line[..start].ends_with(part_of_word) && !after.starts_with(part_of_word)
    })
}

/// Whether an absolute path below `folder` begins in `line`: `site/x` in a topic is none.
fn has_path(line: &str, folder: &str) -> bool {
    let inside_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '*' | '}' | '>');
    line.match_indices(folder).any(|(start, _)| !line[..start].ends_with(inside_path))
}

#[cfg(test)]
mod tests {
    use super::{
        MACHINE_PATHS, UNBOUNDED, UNFINISHED, check, check_length, functions, has_path, has_word, links, resolve,
    };
    use crate::tidy::{Findings, Source};

    fn findings(path: &str, text: &str) -> Findings {
        let mut findings = Findings::default();
        let files = ["docs/PROTOCOL.md".to_owned(), "README.md".to_owned()];
        check(&Source::new(path, text.to_owned()), &files, &mut findings);
        findings
    }

    #[test]
    fn long_files_are_found() {
        assert!(findings("a.rs", &"x\n".repeat(500)).warnings.is_empty());
        assert_eq!(findings("a.rs", &"x\n".repeat(501)).warnings, ["a.rs: 501 lines, more than 500"]);
        assert!(findings("a.rs", &"x\n".repeat(800)).failures.is_empty());
        assert_eq!(findings("a.rs", &"x\n".repeat(801)).failures, ["a.rs: 801 lines, at most 800"]);
        assert!(findings("a.jsonl", &"{}\n".repeat(5000)).failures.is_empty());
    }

    #[test]
    fn exceptions_are_a_ratchet() {
        let check_at = |lines: usize| {
            let mut findings = Findings::default();
            check_length(&Source::new("a.rs", "x\n".repeat(lines)), &[("a.rs", 900)], &mut findings);
            findings.failures
        };
        assert!(check_at(900).is_empty());
        assert_eq!(check_at(901), ["a.rs: 901 lines, at most 900"]);
        assert_eq!(check_at(700), ["a.rs: 700 lines need no exception; take it out of LONG_FILES"]);
    }

    #[test]
    fn unfinished_work_and_machine_paths_are_found_in_comments_too() {
        for word in UNFINISHED {
            assert_eq!(findings("a.rs", &format!("// {word} later")).failures.len(), 1, "{word}");
            assert_eq!(findings("a.md", &format!("{word}: x")).failures.len(), 1, "{word}");
        }
        for folder in MACHINE_PATHS {
            assert_eq!(findings("a.toml", &format!("path = \"{folder}x\"")).failures.len(), 1, "{folder}");
            assert!(!has_path(&format!("orders{folder}x"), folder));
        }
        assert!(!has_word("MASTODON METHODOLOGY", UNFINISHED[0]));
    }

    #[test]
    fn unbounded_queues_are_found_in_code_only() {
        assert_eq!(findings("a.rs", &format!("use tokio::sync::mpsc::{UNBOUNDED};")).failures.len(), 1);
        assert!(
            findings("a.rs", &format!("// {UNBOUNDED} is banned\nconst A: &str = \"{UNBOUNDED}\";"))
                .failures
                .is_empty()
        );
    }

    #[test]
    fn functions_are_measured_by_their_braces() {
        let code = "trait T { fn a(&self); }\nfn b(x: [u8; 4]) -> u8 {\n  if c { 1 } else { 2 }\n}\nfn d() {}\n";
        assert_eq!(functions(code), [(2, "b".to_owned(), 3), (5, "d".to_owned(), 1)]);
        let long = format!("fn long() {{\n{}}}\n", "x;\n".repeat(70));
        assert_eq!(findings("a.rs", &long).warnings, ["a.rs:1: fn long has 72 lines, more than 70"]);
        assert!(findings("a.rs", &format!("#[cfg(test)]\n{long}")).warnings.is_empty());
    }

    #[test]
    fn dead_links_are_found() {
        assert_eq!(links("a [b](c.md#d) `[x](y)` and [e](f)"), ["c.md#d", "f"]);
        assert_eq!(resolve("docs", "../README.md").as_deref(), Some("README.md"));
        assert_eq!(resolve("", "../secret"), None);
        let good = "[a](PROTOCOL.md) [b](../README.md#x) [c](https://example.com) [d](#here) [e](../docs)";
        assert!(findings("docs/a.md", good).failures.is_empty());
        assert_eq!(findings("docs/a.md", "[a](gone.md)").failures, ["docs/a.md:1: the link to gone.md leads nowhere"]);
    }
}
