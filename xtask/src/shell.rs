//! Running other programs: printed before they run, with an error that repeats the line.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often a program with a time limit is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A command in `directory`, free of what cargo adds for its own children.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>, directory: &Path) -> Command {
    let mut command = Command::new(program);
    // cargo puts its toolchain's libraries first; another toolchain or Python must not load them.
    command.current_dir(directory).env_remove("LD_LIBRARY_PATH");
    // What cargo says about this program is nobody else's: a build script that watches it (ring's does) would run again,
    // and everything above it be compiled again, after each change between `cargo xtask` and cargo by hand.
    let of_xtask = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_xtask)) {
        command.env_remove(name);
    }
    command
}

/// Prints the command line, runs it with our own input and output, and fails unless it exits with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line_of(command);
    eprintln!("    $ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if status.success() { Ok(()) } else { bail!("`{line}` failed ({status})") }
}

/// As [`run`], but stops the program after `limit`: for what may wait for a network that does not answer.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    let line = line_of(command);
    eprintln!("    $ {line}");
    let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return if status.success() { Ok(()) } else { Err(anyhow::anyhow!("`{line}` failed ({status})")) };
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("`{line}` did not end within {} s and was stopped", limit.as_secs());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Standard output of a quiet command, trimmed; an error when it cannot start or fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = line_of(command);
    let output = command.stderr(Stdio::piped()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed text that is not UTF-8"))?;
    Ok(text.trim_end().to_owned())
}

/// Whether the command can be started and exits with 0; says nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn line_of(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            line.push_str(&format!("{}={} ", name.to_string_lossy(), value.to_string_lossy()));
        }
    }
    line.push_str(&command.get_program().to_string_lossy());
    for argument in command.get_args() {
        let text = argument.to_string_lossy();
        let quote = if text.is_empty() || text.contains([' ', '"', '*']) { "'" } else { "" };
        line.push_str(&format!(" {quote}{text}{quote}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::{command, line_of, output, run, run_within, succeeds};

    #[test]
    fn a_failure_names_the_line_and_the_status() {
        let error = run(command("sh", Path::new("/")).args(["-c", "exit 3"])).expect_err("exit 3 is a failure");
        assert_eq!(error.to_string(), "`sh -c 'exit 3'` failed (exit status: 3)");
        let error = run(&mut command("no-such-program-here", Path::new("/"))).expect_err("it does not exist");
        assert_eq!(error.to_string(), "cannot start `no-such-program-here`");
    }

    #[test]
    fn a_program_that_hangs_is_stopped_at_its_limit() {
        let started = Instant::now();
        let error = run_within(command("sleep", Path::new("/")).arg("60"), Duration::from_millis(300))
            .expect_err("60 s is longer than the limit");
        assert!(error.to_string().contains("was stopped"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30));
        run_within(&mut command("true", Path::new("/")), Duration::from_secs(30)).expect("true ends at once");
    }

    #[test]
    fn output_is_trimmed_and_the_environment_is_in_the_line() {
        assert_eq!(output(command("echo", Path::new("/")).arg("a b")).expect("echo works"), "a b");
        assert!(succeeds(&mut command("true", Path::new("/"))));
        assert!(!succeeds(&mut command("false", Path::new("/"))));
        assert_eq!(line_of(command("x", Path::new("/")).env("A", "1").arg("b")), "A=1 x b");
    }
}
