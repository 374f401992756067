//! Enough of Rust's lexer to tell code from comments and literals.

/// `source` with comments and the contents of string and character literals replaced by spaces. Line breaks stay, so
/// line numbers and widths are those of the source.
pub(super) fn blank(source: &str) -> String {
    let characters: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < characters.len() {
        let end = match characters[at] {
            '/' if next_is(&characters, at, '/') => end_of_line(&characters, at),
            '/' if next_is(&characters, at, '*') => end_of_block(&characters, at),
            '"' => end_of_string(&characters, at),
            '\'' => end_of_character(&characters, at),
            'r' if !in_word(&characters, at) => end_of_raw_string(&characters, at),
            _ => at,
        };
        if end == at {
            out.push(characters[at]);
            at += 1;
            continue;
        }
        for &character in &characters[at..end] {
            out.push(if character == '\n' { '\n' } else { ' ' });
        }
        at = end;
    }
    out
}

/// The 1-based line of the first attribute `#[cfg(test)]`, from where a file is its own tests.
pub(super) fn first_test_line(code: &str) -> Option<usize> {
    code.lines().position(|line| line.trim_start().starts_with("#[cfg(test)]")).map(|line| line + 1)
}

fn next_is(characters: &[char], at: usize, wanted: char) -> bool {
    characters.get(at + 1) == Some(&wanted)
}

/// Whether the character before continues an identifier: the `r` in `for` starts no raw string. `br` and `cr` do.
fn in_word(characters: &[char], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map(|place| characters[place]);
    match before(1) {
        Some('b' | 'c') => before(2).is_some_and(|c| c.is_alphanumeric() || c == '_'),
        Some(c) => c.is_alphanumeric() || c == '_',
        None => false,
    }
}

fn end_of_line(characters: &[char], start: usize) -> usize {
    characters[start..].iter().position(|&c| c == '\n').map_or(characters.len(), |length| start + length)
}

/// Block comments nest.
fn end_of_block(characters: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < characters.len() {
        match (characters[at], characters.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    characters.len()
}

fn end_of_string(characters: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < characters.len() {
        match characters[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    characters.len()
}

/// A character literal, or `start` itself for a lifetime.
fn end_of_character(characters: &[char], start: usize) -> usize {
    if next_is(characters, start, '\\') {
        // Past the escaped character, which may itself be a quote: '\'' and '\u{1F600}'.
        let rest = characters.get(start + 3..).unwrap_or_default();
        return rest.iter().position(|&c| c == '\'').map_or(start, |length| start + 3 + length + 1);
    }
    if characters.get(start + 2) == Some(&'\'') { start + 3 } else { start }
}

/// A raw string that starts with the `r` at `start`, or `start` itself for anything else.
fn end_of_raw_string(characters: &[char], start: usize) -> usize {
    let hashes = characters[start + 1..].iter().take_while(|&&c| c == '#').count();
    let open = start + 1 + hashes;
    if characters.get(open) != Some(&'"') {
        return start;
    }
    let mut at = open + 1;
    while at < characters.len() {
        let closing = characters[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count();
        if characters[at] == '"' && closing == hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    characters.len()
}

#[cfg(test)]
mod tests {
    use super::{blank, first_test_line};

    #[test]
    fn comments_and_literals_become_spaces() {
        assert_eq!(blank("a // b\nc"), "a     \nc");
        assert_eq!(blank("a /* b /* c */ d */ e"), "a                   e");
        assert_eq!(blank(r#"f("x\"y", 'z')"#), "f(      ,    )");
        assert_eq!(blank("r#\"a\"b\"# + br\"c\" + 1"), format!("{} + b{} + 1", " ".repeat(8), " ".repeat(4)));
        assert_eq!(blank("\"two\nlines\" x"), "    \n       x");
    }

    #[test]
    fn lifetimes_words_and_escapes_are_told_apart() {
        assert_eq!(blank("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
        assert_eq!(
            blank(r"['\'', '\\', '\u{e9}', 'x'] y"),
            format!("[{}, {}, {}, {}] y", " ".repeat(4), " ".repeat(4), " ".repeat(8), " ".repeat(3))
        );
        assert_eq!(blank("for r in result { r#type }"), "for r in result { r#type }");
        assert_eq!(blank("'outer: loop { break 'outer; }"), "'outer: loop { break 'outer; }");
    }

    #[test]
    fn what_is_not_closed_ends_with_the_file() {
        for source in ["/* a", "\"a", "r#\"a\"", "\"a\\"] {
            assert_eq!(blank(source).trim(), "", "{source}");
            assert_eq!(blank(source).len(), source.len(), "{source}");
        }
    }

    #[test]
    fn tests_begin_at_their_attribute() {
        assert_eq!(first_test_line("fn a() {}\n\n    #[cfg(test)]\nmod tests {}"), Some(3));
        assert_eq!(first_test_line("fn a() {}"), None);
    }
}
