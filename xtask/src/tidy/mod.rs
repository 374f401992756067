//! `cargo xtask tidy`: what neither the compiler nor clippy checks. Runs as a unit test as well.
//!
//! - [`layers`]: which package may see which, and who may name wasmtime;
//! - [`modules`]: the order of the modules inside `router/src`;
//! - [`text`]: sizes, words, machine paths and links.
//!
//! The tables to edit are at the top of those files.

mod layers;
mod lexer;
mod modules;
mod text;

use anyhow::{Context as _, Result, bail};

use crate::repository::Repository;

/// What was found: failures stop the build, warnings only tell.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    failures: Vec<String>,
    warnings: Vec<String>,
}

impl Findings {
    fn fail(&mut self, finding: impl Into<String>) {
        self.failures.push(finding.into());
    }

    fn warn(&mut self, finding: impl Into<String>) {
        self.warnings.push(finding.into());
    }
}

/// One text file of the repository.
#[derive(Debug)]
struct Source {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
    /// For Rust: the text with comments and the contents of literals blanked. Lines stay where they are.
    code: Option<String>,
}

impl Source {
    fn new(path: &str, text: String) -> Self {
        let code = path.ends_with(".rs").then(|| lexer::blank(&text));
        Self { path: path.to_owned(), text, code }
    }
}

/// Prints all findings; an error when one of them is a failure.
pub(crate) fn run(repository: &Repository) -> Result<()> {
    let findings = check(repository)?;
    for warning in &findings.warnings {
        eprintln!("    warning: {warning}");
    }
    if findings.failures.is_empty() {
        eprintln!("    tidy ({} warnings)", findings.warnings.len());
        return Ok(());
    }
    bail!("{} findings:\n    {}", findings.failures.len(), findings.failures.join("\n    "))
}

fn check(repository: &Repository) -> Result<Findings> {
    let mut findings = Findings::default();
    for manifest in repository.workspaces()? {
        layers::check_packages(&repository.packages(&manifest)?, &mut findings);
    }
    let files = repository.files()?;
    let mut sources = Vec::new();
    for path in &files {
        let bytes = std::fs::read(repository.root.join(path)).with_context(|| format!("cannot read {path}"))?;
        // What is not UTF-8 is not text: images and test vectors have no words to check.
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source::new(path, text));
        }
    }
    for source in &sources {
        layers::check_pure(source, &mut findings);
        layers::check_reviewed(source, &mut findings);
        text::check(source, &files, &mut findings);
    }
    modules::check(&sources, &mut findings);
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::repository::Repository;

    #[test]
    fn the_repository_is_tidy() {
        let repository = Repository::find().expect("the test runs inside the repository");
        let findings = check(&repository).expect("git and cargo metadata work");
        assert!(findings.failures.is_empty(), "\n{}\n", findings.failures.join("\n"));
    }
}
