//! `cargo xtask dist`: the release binary and its sha256, named by version and platform.

use anyhow::{Context as _, Result};

use crate::filters::{self, Profile};
use crate::repository::Repository;
use crate::shell;

/// Builds for release and writes `target/dist/myelin-<version>-<arch>-<os>` and `SHA256SUMS`.
pub(crate) fn run(repository: &Repository) -> Result<()> {
    filters::build_router(repository, Profile::Release)?;
    let folder = repository.target.join("dist");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let platform = (std::env::consts::ARCH, std::env::consts::OS);
    let name = format!("myelin-{}-{}-{}", env!("CARGO_PKG_VERSION"), platform.0, platform.1);
    let copy = folder.join(&name);
    std::fs::copy(filters::router(repository, Profile::Release), &copy)
        .with_context(|| format!("cannot write {}", copy.display()))?;
    let sum = shell::output(shell::command("sha256sum", &folder).arg(&name))?;
    std::fs::write(folder.join("SHA256SUMS"), format!("{sum}\n"))?;
    eprintln!("    {}\n    {sum}", copy.display());
    Ok(())
}
