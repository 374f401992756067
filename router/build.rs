//! Puts the sources of the filter SDK into the program, so that `myelin filter new` works without a clone and offline.
//!
//! Writes `sdk_files.rs`: a list of relative path and text, for `src/cli/filter/new/sdk.rs`.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// What an author needs of the repository: files, and folders with everything below.
const PARTS: [&str; 8] = [
    "LICENSE",
    "Cargo.toml",
    "arena/Cargo.toml",
    "arena/src",
    "sdk-guest/Cargo.toml",
    "sdk-guest/src",
    "sdk-guest/macros",
    "wit/0.1.0",
];

fn main() -> io::Result<()> {
    // Asked when it runs: checkouts that share a target directory share this program, too.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| io::Error::other("run by cargo only"))?;
    let root = Path::new(&here).join("..").canonicalize()?;
    let mut files = Vec::new();
    for part in PARTS {
        let path = root.join(part);
        println!("cargo::rerun-if-changed={}", path.display());
        gather(&path, &mut files)?;
    }
    files.sort();
    let mut list = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(&root).map_err(io::Error::other)?;
        // Debug quotes and escapes as Rust does.
        writeln!(list, "    ({:?}, include_str!({:?})),", name.display().to_string(), file.display().to_string())
            .map_err(io::Error::other)?;
    }
    list.push_str("]\n");
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    std::fs::write(out.join("sdk_files.rs"), list)
}

/// Adds `path`, or every file below it.
fn gather(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        gather(&entry?.path(), files)?;
    }
    Ok(())
}
