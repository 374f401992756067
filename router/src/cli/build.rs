//! `myelin filter build`: from a cargo package to a component that a router takes.
//!
//! cargo compiles the package for Wasm, the filter's interface is read from what the SDK left in the module, and the
//! module is wrapped as a component. The lines of `fixtures/*.jsonl` travel along as its self-test.

mod place;
mod toolchain;

pub use toolchain::{MissingStep, TARGET, Toolchain, wasm_toolchain};

use super::expectation::split;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use place::Place;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use wasm_encoder::{ComponentExportKind, ComponentExportSection, ComponentSection as _, CustomSection};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, DecodedWasm};

/// Section with the self-test's lines.
pub const VECTORS_SECTION: &str = "myelin:vectors";
/// Largest self-test in bytes; a router takes no more.
pub const VECTORS_BYTES_MAX: usize = 1 << 20;
/// Most lines of a self-test; a router takes no more.
pub const VECTORS_MAX: usize = 1_000;
/// Section in which the SDK leaves the filter's name and version.
const LABEL_SECTION: &str = "myelin:label";
/// Sections in which the SDK leaves the filter's interface begin like this.
const INTERFACE_SECTION_PREFIX: &str = "component-type";
/// What a filter may import.
const IMPORTS: [&str; 2] = ["myelin:filter/host@0.1.0", "myelin:filter/types@0.1.0"];
/// What a filter must export.
const EXPORT: &str = "myelin:filter/filter@0.1.0";
/// The export by which a component offers its core module to routers.
const FLAT_EXPORT: &str = "flat-module";
/// By which function that module is known among those that the encoder adds.
const FLAT_FUNCTION: &str = "myelin:filter/filter@0.1.0#run";
/// Variables that are set for host builds, and would break a build for Wasm.
const HOST_VARIABLES: [&str; 4] =
    ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"];
/// The profile of every filter, whatever its package says: small, fast, one clear trap on a panic.
const PROFILE: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "true"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "true"),
];

/// What to build and where to put it.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Folder of the package.
    pub dir: PathBuf,
    /// Cargo features to turn on.
    pub features: Vec<String>,
    /// Folder for cargo's own files; several filters that share one compile the standard library once.
    pub target_dir: Option<PathBuf>,
    /// The component's file; `DIR/target/myelin/NAME-VERSION.wasm` where not given.
    pub out: Option<PathBuf>,
    /// No progress of cargo, only its errors.
    pub quiet: bool,
    /// The component gets no self-test: its fixtures are run by whoever builds it.
    pub without_fixtures: bool,
    /// What builds it, where that is known already; looking for it takes a part of a second.
    pub toolchain: Option<Toolchain>,
}

/// A component that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltFilter {
    /// Its file.
    pub path: PathBuf,
    /// Name of the module.
    pub name: String,
    /// Version of the module.
    pub version: String,
    /// sha256 of the file in hex.
    pub digest: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// Events of its self-test.
    pub vectors: usize,
}

/// Builds the filter of a package.
///
/// # Errors
/// A missing step of the toolchain, a package that makes no component, cargo's failure, a malformed fixture, or a
/// module that is no filter: each with a sentence that says how to mend it.
pub fn build_filter(options: &BuildOptions) -> Result<BuiltFilter> {
    let manifest = options.dir.join("Cargo.toml");
    ensure!(
        manifest.is_file() || !options.dir.join("package.json").is_file(),
        "{dir} is a package in JavaScript; build it with `node sdk-js/build.mjs {dir}` in a checkout of Myelin, and push \
         the component that it names",
        dir = options.dir.display()
    );
    ensure!(manifest.is_file(), "{} has no Cargo.toml; name the folder of a filter's package", options.dir.display());
    let manifest = manifest.canonicalize().with_context(|| format!("cannot read {}", manifest.display()))?;
    // Before the compiler runs: a slip in a fixture is told at once.
    let vectors = read_vectors(&options.dir.join("fixtures"))?.filter(|_| !options.without_fixtures);
    let toolchain = options.toolchain.map_or_else(wasm_toolchain, Ok)?;
    let package = package(&toolchain, &manifest)?;
    let module = compile(&toolchain, &manifest, &package, options)?;
    let component = componentize(&module, vectors.as_ref().map(|vectors| vectors.lines.as_slice()))?;
    let (name, version) = label(&module)?.unwrap_or((package.name, package.version));
    for part in [&name, &version] {
        let is_plain = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte));
        ensure!(is_plain && !part.starts_with('.'), "`{part}` cannot be a file's name; use letters, digits, - _ . +");
    }
    let default = || options.dir.join("target/myelin").join(format!("{name}-{version}.wasm"));
    let path = options.out.clone().unwrap_or_else(default);
    write_whole(&path, &component)?;
    let digest = hex::encode(Sha256::digest(&component));
    let size = component.len() as u64;
    Ok(BuiltFilter { path, name, version, digest, size, vectors: vectors.map_or(0, |vectors| vectors.events) })
}

/// Wraps a core module as a component, adds the self-test's lines, and checks that the result is a filter.
///
/// # Errors
/// The bytes are no core module, hold no filter's interface, or import what no router offers.
pub fn componentize(core_module: &[u8], vectors: Option<&[u8]>) -> Result<Vec<u8>> {
    ensure!(Parser::is_core_wasm(core_module), "this is no core WebAssembly module; build it for {TARGET}");
    let sections = custom_sections(core_module)?;
    let has_interface = sections.iter().any(|(name, _)| name.starts_with(INTERFACE_SECTION_PREFIX));
    ensure!(has_interface, "the module holds no filter; put #[myelin_filter::filter] above one type of its crate");
    refuse_foreign_imports(core_module)?;
    let mut component = ComponentEncoder::default()
        .validate(true)
        .module(core_module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| anyhow!("the module cannot be made a component: {error:#}"))?;
    check_world(&component)?;
    offer_flat_module(&mut component)?;
    if let Some(vectors) = vectors.filter(|vectors| !vectors.is_empty()) {
        CustomSection { name: VECTORS_SECTION.into(), data: vectors.into() }.append_to_component(&mut component);
    }
    Ok(component)
}

/// Lets the component offer the filter's core module, so that a router may call it without the component's look-ups.
fn offer_flat_module(component: &mut Vec<u8>) -> Result<()> {
    let mut modules = 0;
    let mut filter = None;
    // The encoder nests no components: an export section belongs to the core module that began last.
    for payload in Parser::new(0).parse_all(component) {
        match payload.context("the component is malformed")? {
            Payload::ModuleSection { .. } => modules += 1u32,
            Payload::ExportSection(exports) => {
                let exports = exports.into_iter().filter_map(Result::ok);
                if exports.map(|export| export.name).any(|name| name == FLAT_FUNCTION) {
                    filter = modules.checked_sub(1);
                }
            }
            _ => {}
        }
    }
    let filter = filter.with_context(|| format!("no module of the component exports {FLAT_FUNCTION}"))?;
    let mut exports = ComponentExportSection::new();
    exports.export(FLAT_EXPORT, ComponentExportKind::Module, filter, None);
    exports.append_to_component(component);
    Ok(())
}

/// Says which import no router offers, before the encoder says it in its own words.
fn refuse_foreign_imports(core_module: &[u8]) -> Result<()> {
    for payload in Parser::new(0).parse_all(core_module) {
        let Payload::ImportSection(imports) = payload.context("the module is malformed")? else { continue };
        for import in imports.into_imports() {
            let import = import.context("the module is malformed")?;
            if !IMPORTS.contains(&import.module) {
                bail!(
                    "the module imports `{}` from `{}`; filters have no system, clock or browser: find the dependency \
                     that asks for it (`cargo tree`) and turn that feature off",
                    import.name,
                    import.module
                );
            }
        }
    }
    Ok(())
}

/// Checks what the finished component imports and exports.
fn check_world(component: &[u8]) -> Result<()> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else {
        bail!("the result is no component");
    };
    let world = &resolve.worlds[world];
    if let Some(import) =
        world.imports.keys().map(|key| resolve.name_world_key(key)).find(|name| !IMPORTS.contains(&name.as_str()))
    {
        bail!("the filter imports `{import}`; a router offers {}", IMPORTS.join(" and "));
    }
    let exports: Vec<_> = world.exports.keys().map(|key| resolve.name_world_key(key)).collect();
    ensure!(
        exports == [EXPORT],
        "the component exports {exports:?} in place of {EXPORT}; build it with the SDK of this version"
    );
    Ok(())
}

/// What cargo says of a package.
struct Package {
    name: String,
    version: String,
    /// Name of its library, as in the module's file.
    library: String,
    /// Where cargo builds it, where nothing else is said.
    target_dir: PathBuf,
}

/// Asks cargo about the package, having checked that it makes a module at all.
fn package(toolchain: &Toolchain, manifest: &Path) -> Result<Package> {
    let mut command = toolchain.cargo();
    command.current_dir(folder_of(manifest)?);
    command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest);
    let output = command.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo cannot read the package:\n{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).context("`cargo metadata` is not JSON")?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_this = |package: &&Value| package["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest);
    let package = packages.iter().find(is_this).with_context(|| {
        format!("{} is no package, perhaps only a workspace; name the folder of one filter", manifest.display())
    })?;
    let name = package["name"].as_str().unwrap_or_default();
    let targets = package["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let library = targets.iter().find(|target| is_module(target)).with_context(|| {
        format!("package `{name}` makes no module; add to its Cargo.toml:\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]")
    })?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Package {
        name: name.to_owned(),
        version: text(&package["version"]),
        library: text(&library["name"]).replace('-', "_"),
        target_dir: PathBuf::from(text(&metadata["target_directory"])),
    })
}

fn folder_of(manifest: &Path) -> Result<&Path> {
    manifest.parent().context("a manifest lies in a folder")
}

/// Whether a target of cargo's is a library that becomes a module.
fn is_module(target: &Value) -> bool {
    target["crate_types"].as_array().is_some_and(|types| types.iter().any(|it| it == "cdylib"))
}

/// Compiles the package; its module.
fn compile(toolchain: &Toolchain, manifest: &Path, package: &Package, options: &BuildOptions) -> Result<Vec<u8>> {
    let mut command = toolchain.cargo();
    // In the package's folder, so that its own `.cargo/config.toml` holds.
    command.current_dir(folder_of(manifest)?);
    command.args(["build", "--lib", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    command.args(toolchain.build_arguments()).arg("--manifest-path").arg(manifest).envs(PROFILE);
    HOST_VARIABLES.iter().for_each(|variable| {
        command.env_remove(variable);
    });
    if !options.features.is_empty() {
        command.arg("--features").arg(options.features.join(","));
    }
    let target_dir = match &options.target_dir {
        Some(target_dir) => std::path::absolute(target_dir)?,
        None => package.target_dir.clone(),
    };
    command.arg("--target-dir").arg(&target_dir);
    // Until the module was read.
    let _held = Place::hold(&target_dir, TARGET, &package.library, manifest)?;
    if options.quiet {
        command.arg("--quiet");
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo could not build {} (its errors stand above)", manifest.display());
    let messages = output.stdout.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let module = messages.filter_map(|message: Value| artifact(&message, manifest)).next_back();
    let module = module.context("cargo built the package, but told of no module")?;
    std::fs::read(&module).with_context(|| format!("cannot read {}", module.display()))
}

/// The module's path, where the message tells of one.
fn artifact(message: &Value, manifest: &Path) -> Option<PathBuf> {
    let is_this = message["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest);
    if message["reason"] != "compiler-artifact" || !is_this || !is_module(&message["target"]) {
        return None;
    }
    let files = message["filenames"].as_array()?.iter().filter_map(Value::as_str).map(Path::new);
    files.filter(|path| path.extension().is_some_and(|it| it == "wasm")).map(Path::to_owned).next()
}

/// The name and the version that the SDK left in the module.
pub(super) fn label(core_module: &[u8]) -> Result<Option<(String, String)>> {
    let sections = custom_sections(core_module)?;
    let Some((_, label)) = sections.iter().find(|(name, _)| *name == LABEL_SECTION) else { return Ok(None) };
    let text = std::str::from_utf8(label).ok().and_then(|label| label.split_once('\0'));
    let (name, version) = text.with_context(|| format!("section {LABEL_SECTION} is malformed"))?;
    Ok(Some((name.to_owned(), version.to_owned())))
}

/// The lines of the self-test that a component carries.
pub(super) fn vectors(component: &[u8]) -> Result<Option<Vec<u8>>> {
    let sections = custom_sections(component)?;
    Ok(sections.iter().find(|(name, _)| *name == VECTORS_SECTION).map(|(_, lines)| lines.to_vec()))
}

/// The module's own sections, by name.
fn custom_sections(core_module: &[u8]) -> Result<Vec<(&str, &[u8])>> {
    let mut sections = Vec::new();
    for payload in Parser::new(0).parse_all(core_module) {
        if let Payload::CustomSection(section) = payload.context("the module is malformed")? {
            sections.push((section.name(), section.data()));
        }
    }
    Ok(sections)
}

/// The lines of a self-test.
#[derive(Debug, PartialEq, Eq)]
struct Vectors {
    lines: Vec<u8>,
    events: usize,
}

/// Reads `fixtures/*.jsonl` in the order of their names; `None` where there are none.
fn read_vectors(directory: &Path) -> Result<Option<Vectors>> {
    if !directory.is_dir() {
        return Ok(None);
    }
    let listing = std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths = listing.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|it| it == "jsonl"));
    paths.sort();
    let mut vectors = Vectors { lines: Vec::new(), events: 0 };
    let mut count = 0;
    for path in &paths {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut is_first = true;
        for (number, line) in (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty()) {
            let is_event = check_vector(line).with_context(|| format!("{}:{number}", path.display()))?;
            // Each file begins with an instance of its own, without a configuration.
            if is_first && is_event && count > 0 {
                vectors.lines.extend_from_slice(b"{\"config\":null}\n");
                count += 1;
            }
            is_first = false;
            vectors.events += usize::from(is_event);
            // What routers do not look at is for whoever builds and tests the filter.
            let (line, _) = split(line).with_context(|| format!("{}:{number}", path.display()))?;
            vectors.lines.extend_from_slice(line.as_bytes());
            vectors.lines.push(b'\n');
            count += 1;
        }
    }
    ensure!(count <= VECTORS_MAX, "{} has {count} lines; a self-test has at most {VECTORS_MAX}", directory.display());
    let bytes = vectors.lines.len();
    ensure!(bytes <= VECTORS_BYTES_MAX, "{} has {bytes} bytes; at most {VECTORS_BYTES_MAX} fit", directory.display());
    Ok((vectors.events > 0).then_some(vectors))
}

/// Checks the shape of one line; whether it is an event, not a configuration.
fn check_vector(line: &str) -> Result<bool> {
    let Value::Object(line) = serde_json::from_str(line).context("the line is not JSON")? else {
        bail!("the line is not an object; write {{\"topic\": .., \"payload\": .., \"expect\": {{..}}}}");
    };
    if line.contains_key("config") {
        ensure!(line.len() == 1, "a line with `config` has no other key");
        return Ok(false);
    }
    const KEYS: [&str; 7] = ["topic", "headers", "type", "key", "identity", "payload", "expect"];
    refuse_unknown(&line, &KEYS)?;
    ensure!(line.get("topic").is_some_and(Value::is_string), "`topic` is missing, or not a text");
    for key in ["type", "key", "identity"] {
        ensure!(line.get(key).is_none_or(Value::is_string), "`{key}` is not a text");
    }
    let is_texts = |headers: &Value| headers.as_object().is_some_and(|headers| headers.values().all(Value::is_string));
    ensure!(line.get("headers").is_none_or(is_texts), "`headers` is not an object of texts");
    if let Some(expect) = line.get("expect") {
        check_expectation(expect.as_object().context("`expect` is not an object")?)?;
    }
    Ok(true)
}

/// Checks what a line expects.
fn check_expectation(expect: &Map<String, Value>) -> Result<()> {
    const VERDICTS: [&str; 6] = ["allow", "deny", "dead-letter", "drop", "redirect", "add"];
    refuse_unknown(expect, &["verdict", "reason", "routes", "payload", "headers", "detail", "emitted"])?;
    let is_known = expect.get("verdict").and_then(Value::as_str).is_some_and(|verdict| VERDICTS.contains(&verdict));
    ensure!(is_known, "`expect.verdict` is none of {}", VERDICTS.join(", "));
    ensure!(expect.get("reason").is_none_or(Value::is_string), "`expect.reason` is not a text");
    let is_texts = |routes: &Value| routes.as_array().is_some_and(|routes| routes.iter().all(Value::is_string));
    ensure!(expect.get("routes").is_none_or(is_texts), "`expect.routes` is not a list of texts");
    Ok(())
}

/// A router refuses a self-test with other keys, so they are refused here already.
fn refuse_unknown(object: &Map<String, Value>, keys: &[&str]) -> Result<()> {
    match object.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(unknown) => bail!("`{unknown}` is not known here; known are {}", keys.join(", ")),
        None => Ok(()),
    }
}

/// Writes a file so that nobody ever sees half of it.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let aside = path.with_extension(format!("wasm.{}", std::process::id()));
    std::fs::write(&aside, bytes)
        .and_then(|()| std::fs::rename(&aside, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests;
