//! `myelin audit ls|verify|export`

use super::admin::{Admin, Api};
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::http::query;
use super::listing::{Listing, items, shown, table, text, time};
use super::values::{print, read_text, say, unless_there};
use crate::audit::{self, Entry, Verified};
use crate::files::write_private;
use clap::{Args, Subcommand, ValueEnum};
use myelin_catalog::Digest;
use serde_json::Value;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

const AFTER_HELP: &str = "\
Examples:
  myelin audit ls --failed                      who was refused what
  myelin audit ls --kind catalog --limit 20     the last changes and steps of rollouts
  myelin audit verify                           this router's log, and the others' as this router has seen them
  myelin audit export audit.jsonl               the lines as they were written
  myelin audit verify --file audit.jsonl        without a router
  myelin audit verify --head 61:6f0c..          is the entry still there that the log was seen to end with?

Every router keeps a log of its own: each entry carries the hash of the one before, and other routers remember where the
log ended. docs/AUDIT.md tells what is in it.";

/// Bytes of a piece of the log that more follows: a mebibyte less the longest line.
const FULL_BYTES: usize = 1024 * 1024 - audit::LINE_BYTES_MAX;

/// Show and verify who did what
#[derive(Debug, Subcommand)]
#[command(after_help = AFTER_HELP)]
pub(super) enum Audit {
    /// Show entries, oldest first
    #[command(after_help = "Examples:\n  \
        myelin audit ls --failed                    who was refused what\n  \
        myelin audit ls --kind catalog --limit 20\n  \
        myelin audit ls --actor token -o json")]
    Ls(Ls),
    /// Check that the log is what was written; exit 1 where it is not
    #[command(after_help = "Examples:\n  \
        myelin audit verify\n  \
        myelin audit verify --file audit.jsonl       without a router\n  \
        myelin audit verify --head 61:6f0c2d..       a head that was noted before: nothing up to it is gone")]
    Verify(Verify),
    /// Write the log into a file
    #[command(after_help = "Examples:\n  \
        myelin audit export audit.jsonl\n  \
        myelin audit export --format csv audit.csv")]
    Export(Export),
}

/// Which entries
#[derive(Args, Debug)]
pub(super) struct Ls {
    /// After the entry of this number; the newest where none is given
    #[arg(long, value_name = "N")]
    after: Option<u64>,
    /// Most entries to show
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    limit: u16,
    /// Only these
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Only what this one did: an identity, `token`, `local`, `-`
    #[arg(long)]
    actor: Option<String>,
    /// Only what was refused or went wrong
    #[arg(long)]
    failed: bool,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Requests to the admin API
    Admin,
    /// Records of the catalog: changes, and steps of rollouts
    Catalog,
    /// What clients were refused
    Denial,
    /// What was seen of other routers' logs
    Witness,
    /// What should not be
    Alarm,
    /// Starts and stops
    Router,
}

/// Of which log
#[derive(Args, Debug)]
pub(super) struct Verify {
    /// A file of `myelin audit export`, or the folder `audit` of a data directory
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// A head that this command has shown before, noted elsewhere: HASH, or SEQ:HASH. Without one nothing tells whether the
    /// end of the log was cut off
    #[arg(long, value_name = "HASH")]
    head: Option<String>,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    admin: Admin,
}

/// Where to
#[derive(Args, Debug)]
pub(super) struct Export {
    /// The file, which only its owner may read then; without one, standard output
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Lines as they were written, which `verify` can read, or a table for other programs
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// After the entry of this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
    /// Overwrite what is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Jsonl,
    Csv,
}

/// A head that somebody noted
#[derive(Clone, Copy, Debug)]
struct Noted {
    seq: Option<u64>,
    hash: Digest,
}

impl FromStr for Noted {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (seq, hash) = match text.trim().split_once([':', ' ']) {
            Some((seq, hash)) => (Some(seq.parse().map_err(|_| format!("`{seq}` is no number of an entry"))?), hash),
            None => (None, text.trim()),
        };
        let hash = hash.trim().to_ascii_lowercase().parse();
        Ok(Self { seq, hash: hash.map_err(|_| "HASH is the 64 hexadecimal digits of a head, maybe after SEQ:")? })
    }
}

impl Audit {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Ls(ls) => block_on(ls.run()),
            Self::Verify(verify) => block_on(verify.run()),
            Self::Export(export) => block_on(export.run()),
        }
    }
}

impl Ls {
    async fn run(self) -> Result<()> {
        let api = self.admin.api()?;
        let after = self.after.map(|after| after.to_string());
        let kind = self.kind.and_then(|kind| kind.to_possible_value());
        let limit = self.limit.to_string();
        let mut pairs = vec![("limit", &*limit)];
        pairs.extend(after.as_deref().map(|after| ("after", after)));
        pairs.extend(kind.as_ref().map(|kind| ("kind", kind.get_name())));
        pairs.extend(self.actor.as_deref().map(|actor| ("actor", actor)));
        pairs.extend(self.failed.then_some(("failed", "true")));
        let path = query("/v1/audit", pairs);
        self.listing.show(|| api.get(&path), entries).await
    }
}

const HEADER: [&str; 9] = ["seq", "time", "kind", "actor", "from", "action", "subject", "result", "count"];

fn entries(value: &Value) -> String {
    let rows = items(value, "entries").iter().map(|entry| {
        let mut row = vec![text(&entry["seq"]), time(&entry["at_unix_ms"])];
        row.extend(HEADER[2..].iter().map(|field| text(&entry[*field])));
        row
    });
    table(&HEADER, &["seq", "count"], rows)
}

impl Verify {
    async fn run(self) -> Result<()> {
        let noted = self.head.as_deref().map(str::parse::<Noted>).transpose();
        let noted = noted.map_err(|why| Failure::new(Exit::Usage, format!("--head: {why}")))?;
        let hash = noted.map(|noted| noted.hash);
        let (mut value, proven) = match &self.file {
            Some(file) => {
                let (own, proven) = verify_file(file, hash)?;
                (serde_json::json!({ "own": own }), proven)
            }
            None => {
                let api = self.admin.api()?;
                let value = api.get("/v1/audit/verify").await?;
                // The router is not asked about what was noted: the lines themselves are.
                let lines = if hash.is_some() { fetch(&api, 0).await? } else { String::new() };
                let (_, proven) = verify_text(&lines, hash);
                (value, proven)
            }
        };
        value["end"] = if proven.is_some() { END_NOTED } else { END_UNPROVEN }.into();
        value["proven_to"] = proven.into();
        let shown = value.clone();
        self.listing.show(|| std::future::ready(Ok(shown.clone())), verified).await?;
        if value["own"]["first"] == 0 && value["own"]["fault"].is_null() {
            let what =
                "the audit log has no entry: there is nothing to verify, and a router's own begins with its start";
            return Err(Failure::new(Exit::Failed, what).next("see who has emptied it, or name the right file"));
        }
        let others = items(&value, "others").iter().filter(|seen| !seen["fault"].is_null()).count();
        if value["own"]["fault"].is_null() && others == 0 {
            return match noted {
                Some(noted) if proven.is_none() => Err(noted.is_not_in(&value["own"])),
                _ => Ok(()),
            };
        }
        Err(Failure::new(Exit::Failed, "an audit log is not what was written")
            .next("keep a copy of the data directory's folder `audit`, and find out who could write there"))
    }
}

impl Noted {
    /// What it means that a log, which hangs together, has no such entry.
    fn is_not_in(self, own: &Value) -> Failure {
        let Self { seq, hash } = self;
        let (first, last) = (own["first"].as_u64().unwrap_or(0), own["head"]["seq"].as_u64().unwrap_or(0));
        let named = seq.map_or_else(String::new, |seq| format!(" {seq}"));
        let what = format!("the audit log has no entry{named} with the hash {hash}, which was noted as its end");
        let why = match seq {
            Some(seq) if seq > last => format!("what followed entry {last} is gone, or this is an export from before"),
            Some(seq) if seq + 1 < first => {
                format!("entry {seq} is not kept any more: give a head that was noted later")
            }
            Some(seq) => format!("entry {seq} is another than it was: the log was written anew"),
            None => "its end is gone, it was written anew, or it has been given up for its age up to a later entry"
                .to_owned(),
        };
        Failure::new(Exit::Failed, format!("{what}: {why}"))
            .next("compare with `myelin audit verify` at other routers, which remember where this log ended")
    }
}

/// What the result says of the end of the log: an entry was noted elsewhere and is there.
const END_NOTED: &str = "noted";
/// The same: nothing was noted that could tell whether more followed.
const END_UNPROVEN: &str = "unproven";

fn verify_text(text: &str, noted: Option<Digest>) -> (Verified, Option<u64>) {
    let Ok(verified) = audit::verify_noted(text.lines().map(|line| Ok::<_, Infallible>(line.to_owned())), noted);
    verified
}

fn verify_file(path: &Path, noted: Option<Digest>) -> Result<(Verified, Option<u64>)> {
    let told = |error: std::io::Error| Failure::of_file(path, error);
    if path.is_dir() {
        if !audit::is_log(path).map_err(told)? {
            return Err(Failure::of_file(path, "there is no audit log in this folder")
                .next("name the folder `audit` of a data directory, or a file of `myelin audit export`"));
        }
        return audit::lines(path, 0).and_then(|lines| audit::verify_noted(lines, noted)).map_err(told);
    }
    let text = read_text(path, usize::MAX - 1).map_err(|why| Failure::of_file(path, why))?;
    Ok(verify_text(&text, noted))
}

fn verified(value: &Value) -> String {
    let own = &value["own"];
    let head = &own["head"];
    let mut told = match &own["fault"] {
        Value::Null if own["first"] == 0 => "there is no entry\n".to_owned(),
        Value::Null => format!("entries {} to {} hang together\n", text(&own["first"]), text(&head["seq"])),
        fault => format!("broken at entry {}: {}\n", text(&fault["seq"]), shown(&text(&fault["what"]))),
    };
    if own["is_cut"] == true {
        let _ = writeln!(
            told,
            "what was before entry {} is not here, and no entry says that it was given up for its age (docs/AUDIT.md)",
            text(&own["first"])
        );
    }
    let _ = writeln!(told, "head {} {}", text(&head["seq"]), text(&head["hash"]));
    let _ = match value["proven_to"].as_u64() {
        Some(proven) => writeln!(told, "entry {proven} is the one that was noted: none up to it is gone or another"),
        None => writeln!(
            told,
            "the end is unproven: whether entries after {} were cut off shows only a head that was noted elsewhere (`--head`)",
            text(&head["seq"])
        ),
    };
    if let Some(lost) = value["figures"]["lost"].as_u64().filter(|lost| *lost > 0) {
        let _ =
            writeln!(told, "{lost} notes were not written since the start: too many at once, or no room on the disk");
    }
    let others = items(value, "others");
    if !others.is_empty() {
        let rows = others.iter().map(|seen| {
            let fault = if seen["fault"].is_null() { "ok".to_owned() } else { text(&seen["fault"]) };
            vec![text(&seen["router"]), text(&seen["head"]["seq"]), time(&seen["at_unix_ms"]), fault]
        });
        told.push_str(&format!("\n{}", table(&["router", "seq", "seen", "verdict"], &["seq"], rows)));
    }
    for (router, why) in value["missing"].as_object().into_iter().flatten() {
        let _ = writeln!(told, "{router} did not answer: {}", shown(&text(why)));
    }
    told
}

impl Export {
    async fn run(self) -> Result<()> {
        if let Some(file) = &self.file {
            unless_there(file, self.force)?;
        }
        let api = self.admin.api()?;
        let lines = fetch(&api, self.after).await?;
        let out = match self.format {
            Format::Jsonl => lines,
            Format::Csv => csv(&lines),
        };
        let count = out.lines().count();
        match &self.file {
            Some(file) => {
                write_private(file, &out).map_err(|error| Failure::of_file(file, error))?;
                say!("{count} lines in {}", file.display());
            }
            None => print(out),
        }
        Ok(())
    }
}

/// The whole log, piece by piece, until nothing new comes.
async fn fetch(api: &Api, mut after: u64) -> Result<String> {
    let mut all = String::new();
    loop {
        let piece = api.text(&format!("/v1/audit/file?after={after}")).await?;
        let Some(last) = piece.lines().last() else { return Ok(all) };
        // A line that cannot be read has a number all the same: the one that follows.
        let lines = piece.lines().count() as u64;
        let next = serde_json::from_str::<Entry>(last).map_or(after + lines, |entry| entry.seq);
        all.push_str(&piece);
        if next <= after {
            return Ok(all);
        }
        after = next;
        // A piece is a mebibyte, or the last. What this very command asks for is written, too: it would never end.
        if piece.len() < FULL_BYTES {
            return Ok(all);
        }
    }
}

const COLUMNS: [&str; 12] =
    ["seq", "at_unix_ms", "kind", "actor", "from", "action", "subject", "result", "digest", "rev", "count", "detail"];

/// As RFC 4180 says. Texts that a spreadsheet would take for formulas begin with an apostrophe.
fn csv(lines: &str) -> String {
    let mut out = COLUMNS.join(",") + "\r\n";
    for line in lines.lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_default();
        let row = COLUMNS.map(|column| {
            let mut field = text(&entry[column]);
            if field.starts_with(['=', '+', '@']) || (field.starts_with('-') && field.len() > 1) {
                field.insert(0, '\'');
            }
            if field.contains([',', '"', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
        });
        out.push_str(&row.join(","));
        out.push_str("\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use serde_json::json;

    #[test]
    fn a_verification_tells_where_it_broke_and_who_contradicts_himself() {
        let head = json!({"seq": 9, "hash": "ab"});
        let good = json!({"own": {"first": 1, "head": head}, "figures": {"written": 9, "lost": 0}, "others": [], "missing": {}});
        let told = verified(&good);
        assert!(told.starts_with("entries 1 to 9 hang together\nhead 9 ab\nthe end is unproven"), "{told}");
        let noted = json!({"own": {"first": 1, "head": head}, "proven_to": 8});
        assert!(
            verified(&noted).contains("entry 8 is the one that was noted") && !verified(&noted).contains("unproven")
        );
        let cut = json!({"own": {"first": 5, "head": head, "is_cut": true}});
        assert!(verified(&cut).contains("what was before entry 5 is not here"));
        let bad = json!({"own": {"first": 1, "head": head, "fault": {"seq": 4, "what": "line 3 is not the one"}},
            "figures": {"lost": 2}, "missing": {"us/r1": "no path"},
            "others": [{"router": "eu/r1", "head": head, "at_unix_ms": 0, "fault": "entry 5 is another than it was"}]});
        let told = verified(&bad);
        for expected in ["broken at entry 4: line 3", "2 notes", "entry 5 is another", "us/r1 did not answer: no path"]
        {
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn what_is_no_log_does_not_verify_and_an_empty_one_neither() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            verify: Verify,
        }
        let run = |path: &Path, more: &[&str]| {
            let line = ["verify", "--file", path.to_str().unwrap()].into_iter().chain(more.iter().copied());
            let line = <Line as clap::Parser>::try_parse_from(line).unwrap();
            block_on(line.verify.run())
        };
        let exit = |path: &Path| run(path, &[]).map_err(|failure| failure.exit);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(exit(folder.path()), Err(Exit::Usage), "no log");
        assert_eq!(exit(Path::new("/etc")), Err(Exit::Usage), "no log either");
        assert_eq!(exit(&at("nope")), Err(Exit::Usage), "no file");
        std::fs::write(at("empty.jsonl"), "").unwrap();
        assert_eq!(exit(&at("empty.jsonl")), Err(Exit::Failed), "a log without an entry");
        std::fs::write(at("00000000000000000001.jsonl"), "").unwrap();
        assert_eq!(exit(folder.path()), Err(Exit::Failed), "a log that was wiped");
        let note = audit::Note::new(audit::Kind::Router, "-", "start", "ok");
        let (first, line) = audit::Head::default().next(note.clone(), 1);
        let (second, more) = first.next(note, 2);
        std::fs::write(at("00000000000000000001.jsonl"), line + "\n").unwrap();
        assert_eq!(exit(folder.path()), Ok(()));
        let noted = |head: &str| run(folder.path(), &["--head", head]).map_err(|failure| failure.to_string());
        assert_eq!(noted(&first.hash.to_string().to_uppercase()), Ok(()));
        assert!(noted(&second.hash.to_string()).unwrap_err().contains("its end is gone"));
        let later = format!("2:{}", second.hash);
        assert!(noted(&later).unwrap_err().contains("what followed entry 1 is gone"));
        assert!(noted(&format!("1:{}", second.hash)).unwrap_err().contains("entry 1 is another"));
        std::fs::OpenOptions::new()
            .append(true)
            .open(at("00000000000000000001.jsonl"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, (more + "\n").as_bytes()))
            .unwrap();
        assert_eq!([noted(&later), noted(&format!("1 {}", first.hash))], [Ok(()), Ok(())]);
        assert!("x:ab".parse::<Noted>().is_err() && "ab".parse::<Noted>().is_err());
        assert!(verified(&json!({"own": Verified::default()})).starts_with("there is no entry"));
    }

    #[test]
    fn a_table_for_spreadsheets_quotes_what_would_break_it_or_run() {
        let line = json!({"seq": 1, "actor": "a,\"b\"", "action": "=1+1", "kind": "admin"}).to_string();
        let told = csv(&line);
        assert_eq!(told.lines().nth(1).unwrap(), "1,,admin,\"a,\"\"b\"\"\",,'=1+1,,,,,,");
    }
}
