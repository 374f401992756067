//! Values on the command line.

use super::failure::{Exit, Failure};
use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// A duration: `250ms`, `5s`, `2m`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let told = || format!("`{text}` is no duration; write 250ms, 5s, 2m or a number of seconds");
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| told()),
        Err(_) => humantime::parse_duration(text).map_err(|_| told()),
    }
}

/// A text as one word of a shell's line.
pub(super) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `NAME=VALUE`, as `-H` takes it.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is no header; write NAME=VALUE")),
    }
}

/// Bytes: `65536`, `64KiB`, `16MiB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let told = || format!("`{text}` is no size; write 65536, 64KiB or 16MiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err(told()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)).ok_or_else(told)
}

/// Refuses to write over a file, unless that is wished.
pub(super) fn unless_there(file: &Path, is_forced: bool) -> Result<(), Failure> {
    if is_forced || !file.exists() {
        return Ok(());
    }
    Err(Failure::new(Exit::Conflict, format!("{} exists", file.display()))
        .next("name another file, or overwrite it with --force"))
}

/// Refuses what is in a folder as a link to somewhere outside: whoever may write the folder must not have other files of
/// this machine read, and shown in errors.
pub(super) fn inside(root: &Path, path: &Path) -> Result<(), String> {
    if !path.is_symlink() {
        return Ok(());
    }
    let [root, target] = [root, path].map(|path| path.canonicalize().map_err(|error| error.to_string()));
    match target?.starts_with(root?) {
        true => Ok(()),
        false => Err("it is a link to somewhere outside the folder; put the file itself there".to_owned()),
    }
}

/// The text of a file of at most `max` bytes; of the standard input for `-`.
pub(super) fn read_text(path: &Path, max: usize) -> Result<String, String> {
    let file: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(std::fs::File::open(path).map_err(|error| error.to_string())?),
    };
    let mut text = String::new();
    // One byte more than there may be shows that there is more.
    file.take(max as u64 + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() > max { Err(format!("it has more than {max} bytes")) } else { Ok(text) }
}

/// Prints a line to stdout, as `println!` does, without a panic when nobody reads: `| head` closes the pipe.
macro_rules! say {
    ($($argument:tt)*) => { $crate::cli::values::print(format_args!("{}\n", format_args!($($argument)*))) };
}
pub(super) use crate::files::write_atomically;
pub(super) use say;

/// Why something could not be printed, the first time.
static UNPRINTED: OnceLock<io::Error> = OnceLock::new();

/// Prints text to stdout. Whether somebody still reads makes no difference; what else prevents it is told by [`printed`].
pub(super) fn print(text: impl fmt::Display) {
    let mut out = io::stdout().lock();
    if let Err(error) = write!(out, "{text}").and_then(|()| out.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = UNPRINTED.set(error);
    }
}

/// Whether all that was printed has been written: a full disk is no success.
///
/// # Errors
/// That it has not.
pub(super) fn printed() -> Result<(), Failure> {
    match UNPRINTED.get() {
        None => Ok(()),
        Some(error) => Err(Failure::new(Exit::Failed, format!("standard output: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_unless_they_say_otherwise() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "x", "-1", "nan", "inf", "5 parsecs"] {
            assert!(duration(bad).is_err_and(|told| told.contains("no duration")), "{bad}");
        }
    }

    #[test]
    fn headers_are_pairs() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }

    #[test]
    fn sizes_take_binary_units() {
        assert_eq!([bytes("65536"), bytes("64KiB"), bytes("1m")], [Ok(65_536), Ok(65_536), Ok(1 << 20)]);
        for bad in ["", "KiB", "5 apples", "99999999999999999999", "99999999999GiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
