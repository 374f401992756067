//! Runs the commands of `README.md`, so that none of them goes stale.
//!
//! Every fenced block of the language `sh` says in its info string what becomes of it:
//!
//! - `sh test=NAME`: the blocks of one NAME are one bash script, in the order of the page;
//! - `sh test=NAME background`: runs beside the following blocks, as in a second terminal; `ready=PORT` waits until
//!   something listens on that TCP port of localhost;
//! - `sh skip=REASON`: is not run. REASON is one word, such as `installs-software`.
//!
//! A block with none of these is a failure. A line `cargo xtask COMMAND` is not run but COMMAND must exist: this very
//! check is part of one of them. A script starts in a scratch folder in which everything of the root is linked, so
//! paths of the repository work and new files stay out of it; `myelin` is the dev build.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::filters::{self, Profile};
use crate::repository::Repository;
use crate::shell;
use crate::{COMMANDS, setup};

/// The pages whose commands are run.
const PAGES: &[&str] = &["README.md"];
/// How long a background block may take until it listens.
const READY_SECONDS: u32 = 60;
/// How long a script may take in all.
const SCRIPT_SECONDS: u32 = 600;

/// One fenced block of shell commands.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// 1-based line of its fence.
    line: usize,
    commands: String,
    kind: Kind,
}

/// What becomes of a block.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Run { script: String, background: bool, ready_port: Option<u16> },
    Skip,
}

/// Runs the scripts of every page.
pub(crate) fn run(repository: &Repository) -> Result<()> {
    for page in PAGES {
        let text =
            std::fs::read_to_string(repository.root.join(page)).with_context(|| format!("cannot read {page}"))?;
        let blocks = parse(&text).with_context(|| format!("in {page}"))?;
        let mut names: Vec<&str> = Vec::new();
        for block in &blocks {
            if let Kind::Run { script, .. } = &block.kind
                && !names.contains(&script.as_str())
            {
                names.push(script);
            }
        }
        if names.is_empty() {
            bail!("{page} has no `sh test=NAME` block: nothing in it would be checked");
        }
        for name in names {
            let script = script(page, name, &blocks)?;
            run_script(repository, name, &script).with_context(|| format!("{page}, script '{name}'"))?;
        }
    }
    Ok(())
}

fn run_script(repository: &Repository, name: &str, script: &str) -> Result<()> {
    let scratch = repository.target.join("readme").join(name);
    prepare(repository, &scratch)?;
    let file = repository.target.join("readme").join(format!("{name}.sh"));
    std::fs::write(&file, script).with_context(|| format!("cannot write {}", file.display()))?;
    let router = filters::router(repository, Profile::Dev);
    let binaries = router.parent().context("the binary has a folder")?;
    let python = setup::python_interpreter(repository);
    let mut folders = vec![binaries.to_owned(), python.parent().map(Path::to_owned).unwrap_or_default()];
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut timeout = shell::command("timeout", &scratch);
    timeout.arg("--kill-after=10").arg(SCRIPT_SECONDS.to_string()).arg("bash").arg(&file);
    shell::run(timeout.env("PATH", std::env::join_paths(folders)?).env("CARGO_TARGET_DIR", repository.guest_target()))
}

/// An empty folder with a link to everything in the root.
fn prepare(repository: &Repository, scratch: &PathBuf) -> Result<()> {
    if scratch.exists() {
        std::fs::remove_dir_all(scratch).with_context(|| format!("cannot empty {}", scratch.display()))?;
    }
    std::fs::create_dir_all(scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    for entry in std::fs::read_dir(&repository.root)? {
        let entry = entry?;
        if entry.file_name() != ".git" {
            std::os::unix::fs::symlink(entry.path(), scratch.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The `sh` blocks of a page; an error for one that does not say what becomes of it.
fn parse(text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((line, fence)) = lines.next() {
        let Some(info) = fence.trim_start().strip_prefix("```") else { continue };
        let body: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| !line.trim_start().starts_with("```")).collect();
        let mut words = info.split_whitespace();
        match words.next() {
            Some("sh") => {}
            Some("bash" | "shell" | "console") => {
                bail!("line {line}: write shell commands as `sh`, so that they are run")
            }
            _ => continue,
        }
        let kind = parse_kind(words).with_context(|| format!("line {line}"))?;
        blocks.push(Block { line, commands: body.join("\n"), kind });
    }
    Ok(blocks)
}

fn parse_kind<'a>(words: impl Iterator<Item = &'a str>) -> Result<Kind> {
    let (mut script, mut skip, mut background, mut ready_port) = (None, false, false, None);
    for word in words {
        match word.split_once('=') {
            Some(("test", name)) if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') => {
                script = Some(name.to_owned());
            }
            Some(("skip", reason)) if !reason.is_empty() => skip = true,
            Some(("ready", port)) => ready_port = Some(port.parse().context("ready= takes a TCP port")?),
            None if word == "background" => background = true,
            _ => bail!("'{word}' is unknown; known are test=NAME, background, ready=PORT, skip=REASON"),
        }
    }
    match script {
        Some(script) if !skip => Ok(Kind::Run { script, background, ready_port }),
        None if skip => Ok(Kind::Skip),
        _ => bail!("a `sh` block says either test=NAME or skip=REASON"),
    }
}

/// The bash script of one name.
fn script(page: &str, name: &str, blocks: &[Block]) -> Result<String> {
    // Job control gives each background block a process group, which is ended with all that it started.
    let mut text = String::from(
        "set -euo pipefail\nset -m\n\
         finish() { code=$?; for job in $(jobs -p); do kill -TERM -- \"-$job\" 2>/dev/null || true; done; wait || true; exit $code; }\n\
         trap finish EXIT\n",
    );
    for block in blocks {
        let Kind::Run { script, background, ready_port } = &block.kind else { continue };
        if script != name {
            continue;
        }
        let commands = without_xtask(&block.commands).with_context(|| format!("{page}:{}", block.line))?;
        text.push_str(&format!("echo '    {page}:{}' >&2\n", block.line));
        if *background {
            text.push_str(&format!("{{\nset -euo pipefail\n{commands}\n}} &\n"));
        } else {
            text.push_str(&format!("{commands}\n"));
        }
        if let Some(port) = ready_port {
            text.push_str(&format!(
                "for second in $(seq {READY_SECONDS}); do (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && break; \
                 [ \"$second\" -lt {READY_SECONDS} ] || {{ echo 'port {port} never opened' >&2; exit 1; }}; sleep 1; done\n"
            ));
        } else if *background {
            text.push_str("sleep 2\n");
        }
    }
    Ok(text)
}

/// The commands with every `cargo xtask` line taken out, after a look whether its command exists.
fn without_xtask(commands: &str) -> Result<String> {
    let mut kept = Vec::new();
    for line in commands.lines() {
        match line.trim_start().strip_prefix("cargo xtask") {
            None => kept.push(line.to_owned()),
            Some(rest) => {
                let command = rest.split_whitespace().next().unwrap_or_default();
                if !COMMANDS.iter().any(|(name, _)| *name == command) {
                    bail!("there is no `cargo xtask {command}`");
                }
            }
        }
    }
    Ok(kept.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Kind, parse, script, without_xtask};
    use crate::shell;

    const PAGE: &str = "# x\n```sh test=tour\necho one > file\n```\ntext\n```rust\nfn x() {}\n```\n\
        ```sh test=tour background\nsleep 600\n```\n```sh skip=needs-root\nrm x\n```\n```sh test=other\nfalse\n```\n\
        ```sh test=tour\ngrep one file\n```\n";

    #[test]
    fn blocks_say_what_becomes_of_them() {
        let blocks = parse(PAGE).expect("every block says it");
        assert_eq!(blocks.iter().map(|block| block.line).collect::<Vec<_>>(), [2, 9, 12, 15, 18]);
        assert_eq!(blocks[2].kind, Kind::Skip);
        let background = Kind::Run { script: "tour".into(), background: true, ready_port: None };
        assert_eq!(blocks[1].kind, background);
        let served = parse("```sh test=a background ready=9090\nx\n```").expect("valid");
        assert_eq!(served[0].kind, Kind::Run { script: "a".into(), background: true, ready_port: Some(9090) });
        for bad in
            ["sh", "sh test=a skip=b", "sh test=a quick", "sh ready=x test=a", "bash", "sh skip=", "sh test=../a"]
        {
            assert!(parse(&format!("```{bad}\nx\n```")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_script_runs_in_order_fails_with_its_commands_and_ends_its_background() {
        let blocks = parse(PAGE).expect("valid");
        let folder = std::env::temp_dir().join(format!("xtask-readme-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a scratch folder");
        let run = |name: &str| {
            let text = script("page", name, &blocks).expect("no xtask lines");
            shell::run(shell::command("timeout", &folder).args(["60", "bash", "-c", &text]))
        };
        let started = std::time::Instant::now();
        run("tour").expect("grep finds the line of the first block");
        assert!(started.elapsed().as_secs() < 50, "the background block was not ended");
        run("other").expect_err("false fails");
        std::fs::remove_dir_all(&folder).expect("the scratch folder goes");
    }

    #[test]
    fn a_port_that_never_opens_would_fail() {
        let blocks = parse("```sh test=a background ready=1\ntrue\n```").expect("valid");
        let text = script("page", "a", &blocks).expect("valid").replace("seq 60", "seq 1").replace("-lt 60", "-lt 1");
        shell::run(shell::command("bash", Path::new("/")).args(["-c", &text])).expect_err("nothing listens on port 1");
    }

    #[test]
    fn xtask_commands_must_exist_and_are_not_run() {
        assert_eq!(without_xtask("cargo xtask demo\necho a").expect("demo exists"), "echo a");
        assert!(without_xtask("cargo xtask tests").is_err());
    }
}
