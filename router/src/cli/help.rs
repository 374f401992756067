//! What `--help` looks like: texts are written for an editor's width, and shown at the terminal's.

use clap::Command;
use std::io::IsTerminal;

/// Columns of help, at most; as many are taken where nobody knows how wide the reader's window is.
const COLUMNS_MAX: usize = 120;

/// The command with all its help as it is to be shown.
pub(super) fn laid_out(command: Command) -> Command {
    let command = command.max_term_width(COLUMNS_MAX);
    // Into a pipe clap would wrap at 100, though examples are longer.
    let is_known = std::io::stdout().is_terminal() || std::env::var_os("COLUMNS").is_some();
    flowing(if is_known { command } else { command.term_width(COLUMNS_MAX) })
}

/// Joins the lines of paragraphs, here and in all commands below: a line that was broken for an editor would be broken
/// once more for the terminal, and leave a word or two on a line of their own.
fn flowing(command: Command) -> Command {
    let (after, long) = (command.get_after_help(), command.get_after_long_help());
    let (after, long) = (after.map(|text| joined(&text.to_string())), long.map(|text| joined(&text.to_string())));
    let command = match after {
        Some(text) => command.after_help(text),
        None => command,
    };
    let command = match long {
        Some(text) => command.after_long_help(text),
        None => command,
    };
    command.mut_subcommands(flowing)
}

/// The text with each paragraph on one line. What is indented stands as it is, and so does what a colon announces.
fn joined(text: &str) -> String {
    let stands = |line: &str| line.is_empty() || line.starts_with(' ') || line.ends_with(':');
    let mut whole = String::with_capacity(text.len());
    let mut before = "";
    for line in text.lines() {
        if !whole.is_empty() {
            let goes_on = !stands(before) && !line.is_empty() && !line.starts_with(' ');
            whole.push(if goes_on { ' ' } else { '\n' });
        }
        whole += line;
        before = line;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::CommandFactory;

    /// Every command below, by its words.
    fn all(command: &Command, words: &str, found: &mut Vec<(String, Command)>) {
        let words = format!("{words}{} ", command.get_name());
        found.push((words.clone(), command.clone()));
        let below = command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
        below.for_each(|below| all(below, &words, found));
    }

    fn commands() -> Vec<(String, Command)> {
        let mut found = Vec::new();
        all(&Cli::command(), "", &mut found);
        found
    }

    fn texts(command: &Command) -> String {
        let texts = [command.get_after_help(), command.get_after_long_help()];
        texts.into_iter().flatten().map(|text| format!("{text}\n")).collect()
    }

    #[test]
    fn every_command_explains_itself_with_examples() {
        let leaves = commands().into_iter().filter(|(_, command)| !command.has_subcommands());
        let without = leaves.filter(|(_, command)| {
            !texts(command).lines().any(|line| line.starts_with("Examples:") || line.starts_with("Example:"))
        });
        let without: Vec<_> = without.map(|(words, _)| words).collect();
        assert!(without.is_empty(), "without examples: {without:#?}");
    }

    /// The words of an example's command line, up to what is the shell's, or a remark after two spaces.
    fn line(example: &str) -> Vec<String> {
        let (mut words, mut word, mut quote, mut is_open) = (Vec::new(), String::new(), None, false);
        let mut rest = example.chars().peekable();
        while let Some(next) = rest.next() {
            match (quote, next) {
                (Some(open), _) if next == open => quote = None,
                (Some('"'), '\\') => word.extend(rest.next()),
                (Some(_), _) => word.push(next),
                (None, '\'' | '"') => (quote, is_open) = (Some(next), true),
                (None, ' ' | '|' | '&' | '>' | '<') => {
                    if is_open {
                        words.push(std::mem::take(&mut word));
                        is_open = false;
                    }
                    if next != ' ' || rest.peek() == Some(&' ') {
                        return words;
                    }
                }
                (None, _) => (is_open, word) = (true, word + &next.to_string()),
            }
        }
        if is_open {
            words.push(word);
        }
        words
    }

    #[test]
    fn examples_are_command_lines_that_are_understood() {
        let (mut seen, mut wrong) = (0, Vec::new());
        for (words, command) in commands() {
            let text = texts(&command).replace(" \\\n", " ");
            for example in text.lines().filter_map(|line| line.strip_prefix("  ")).map(squeezed) {
                if !example.starts_with("myelin ") {
                    continue;
                }
                let parsed = Cli::command().try_get_matches_from(line(&example));
                if let Err(error) = parsed {
                    wrong.push(format!("{words}: {example}\n{error}"));
                }
                seen += 1;
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(seen > 150, "{seen}");
    }

    /// A line that was continued, without the spaces that it was continued with.
    fn squeezed(line: &str) -> String {
        match line.split_once("     --") {
            Some((begin, rest)) if !begin.ends_with(' ') => format!("{begin} --{rest}"),
            _ => line.to_owned(),
        }
    }

    #[test]
    fn paragraphs_are_one_line_and_examples_stay_as_they_are() {
        let text =
            "Examples:\n  myelin a   one\n  myelin b\n\nA text that\ngoes on.\n\nFormats:\n  %t topic\nAfter\nthem.";
        let told =
            "Examples:\n  myelin a   one\n  myelin b\n\nA text that goes on.\n\nFormats:\n  %t topic\nAfter them.";
        assert_eq!(joined(text), told);
    }

    #[test]
    fn no_line_of_help_is_a_stump() {
        for (words, command) in commands() {
            let help = flowing(command).term_width(100).render_long_help().to_string();
            let lines: Vec<&str> = help.lines().collect();
            for three in lines.windows(3) {
                // A word or two between two lines of the same paragraph.
                let indent = |line: &str| line.len() - line.trim_start().len();
                let is_inner = indent(three[0]) == 0 && indent(three[1]) == 0 && indent(three[2]) == 0;
                let is_stump = three[0].len() > 80 && (1..20).contains(&three[1].len()) && !three[2].is_empty();
                assert!(!is_inner || !is_stump, "{words}:\n{}", three.join("\n"));
            }
        }
    }
}
