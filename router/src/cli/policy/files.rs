//! Policies in files: `orders.cedar` is the policy `orders`.

use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::values::inside;
use crate::policy::named;
use myelin_catalog::Name;
use myelin_policy::Policies;
use std::path::{Path, PathBuf};

/// What files of policies end in.
const EXTENSION: &str = "cedar";

/// A policy in a file.
#[derive(Debug)]
pub(in crate::cli) struct File {
    pub(in crate::cli) name: Name,
    pub(super) path: PathBuf,
    pub(in crate::cli) text: String,
}

/// Reads a file, or all policies of a folder, by name.
pub(in crate::cli) fn read(path: &Path) -> Result<Vec<File>> {
    if !path.is_dir() {
        return Ok(vec![one(path)?]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| Failure::of_file(path, error))?;
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Failure::of_file(path, error))?;
        if entry.path().extension().is_some_and(|extension| extension == EXTENSION) {
            inside(path, &entry.path()).map_err(|why| Failure::of_file(&entry.path(), why))?;
            paths.push(entry.path());
        }
    }
    if paths.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("{} has no file that ends in `.{EXTENSION}`", path.display()))
            .next("name the file itself, or give policies that ending"));
    }
    paths.sort();
    paths.iter().map(|path| one(path)).collect()
}

fn one(path: &Path) -> Result<File> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let name = stem.parse().map_err(|error: myelin_catalog::CatalogError| {
        Failure::new(Exit::Usage, format!("{}: its policy would be called so: {error}", path.display()))
            .next("rename the file")
    })?;
    let text = std::fs::read_to_string(path).map_err(|error| Failure::of_file(path, error))?;
    Ok(File { name, path: path.to_path_buf(), text })
}

/// Compiles files together, and tells faults with file, line and column.
pub(in crate::cli) fn compile(files: &[File]) -> Result<Policies> {
    let names: Vec<_> = files.iter().map(|file| file.path.display().to_string()).collect();
    let texts = names.iter().zip(files).map(|(name, file)| (&**name, &*file.text));
    let policies = Policies::compile(texts.clone()).map_err(|errors| {
        Failure::new(Exit::Usage, errors.to_string()).next("`myelin policy schema` prints what policies can speak of")
    })?;
    for (name, text) in texts {
        named::check_names(name, text).map_err(|why| Failure::new(Exit::Usage, why))?;
    }
    Ok(policies)
}
