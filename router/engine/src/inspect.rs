//! Looks a module over before anything is compiled: is it a filter at all, and is it of a reasonable size.

use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use wasmparser::{ComponentAlias, ComponentExternalKind, Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::limits::ModuleLimits;
use crate::vectors::{VECTORS_SECTION, parse_vectors};

/// The exports that make a component a filter, without their version, and the world of each.
const FILTER_EXPORTS: [(&str, World); 2] =
    [("myelin:filter/filter@", World::Fast), ("myelin:filter/easy-filter@", World::Easy)];
/// The imports that a filter may have, without their version.
const ALLOWED_IMPORTS: [&str; 2] = ["myelin:filter/host@", "myelin:filter/types@"];
/// The functions of the host, which are what a filter can do beside judging.
const HOST_FUNCTIONS: [&str; 6] = ["count", "log", "payload", "schema", "seen", "take"];
/// The minor version of the contract that this router runs.
const CONTRACT: &str = "0.1.";
/// Proposals that a module may use. No threads, no 64-bit memories, no garbage collection, no exceptions.
const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::COMPONENT_MODEL)
    .union(WasmFeatures::GC_TYPES);

/// Which of the contract's worlds a filter is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum World {
    /// Events travel as one flat arena.
    Fast,
    /// Events travel as typed records.
    Easy,
}

impl World {
    /// Its name in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Easy => "easy",
        }
    }

    /// The world of a component with these exports; the first that fits.
    pub(crate) fn of<'a>(mut exports: impl Iterator<Item = &'a str>) -> Option<Self> {
        exports
            .find_map(|export| FILTER_EXPORTS.iter().find(|(prefix, _)| export.starts_with(prefix)))
            .map(|(_, world)| *world)
    }
}

/// What is known of a module that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFacts {
    /// SHA-256 of its bytes: its name in the catalog.
    pub digest: [u8; 32],
    /// Bytes.
    pub bytes: usize,
    /// The world that it is built for.
    pub world: World,
    /// Functions defined in all its core modules.
    pub functions: u32,
    /// The component's imports.
    pub imports: Vec<String>,
    /// The functions of the host that it uses, sorted.
    pub capabilities: Vec<String>,
    /// The component's exports.
    pub exports: Vec<String>,
    /// The test vectors that it carries: the section `myelin:vectors`, JSON lines, known to be readable.
    pub vectors: Option<Vec<u8>>,
}

/// Why a module is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleRefusal {
    /// Too many bytes.
    #[error(
        "the module has {bytes} bytes, at most {limit} are allowed: build it with `myelin filter build`, which strips it"
    )]
    TooLarge {
        /// How many it has.
        bytes: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// Not WebAssembly.
    #[error("this is no WebAssembly: it does not begin with `\\0asm`; push the file that `myelin filter build` writes")]
    NotWasm,
    /// A module and no component.
    #[error("this is a core module, a filter is a component: run `myelin filter build`, which makes one of it")]
    CoreModule,
    /// WebAssembly that breaks the rules, or uses a proposal that filters may not use.
    #[error("the module is not valid at byte {offset}: {what}; threads, 64-bit memories, GC and exceptions are off")]
    Invalid {
        /// Where.
        offset: usize,
        /// What the validator says.
        what: String,
    },
    /// A component that exports no filter.
    #[error(
        "the component exports neither `myelin:filter/filter@0.1` nor `myelin:filter/easy-filter@0.1`, only {exports}: \
         build it against the world `myelin:filter/fast` or `myelin:filter/easy`"
    )]
    MissingExport {
        /// What it exports.
        exports: String,
    },
    /// A component that wants what filters do not get.
    #[error(
        "the component imports `{import}`; a filter may import `myelin:filter/host@0.1` and nothing else (no WASI)"
    )]
    UnknownImport {
        /// What it wants.
        import: String,
    },
    /// A filter of another version of the contract.
    #[error("the component speaks `{name}`, this router speaks 0.1: rebuild it with the SDK of this router's release")]
    WrongVersion {
        /// What it speaks.
        name: String,
    },
    /// More of something than is allowed.
    #[error("the module has {count} {what}, at most {limit} are allowed: split the filter or drop dependencies")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it has.
        count: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// The section with test vectors cannot be read.
    #[error("the section `myelin:vectors`: {0}; mend the file under `fixtures/` and build again")]
    Vectors(String),
}

impl ModuleRefusal {
    /// The stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "module-too-large",
            Self::NotWasm => "module-not-wasm",
            Self::CoreModule => "module-core",
            Self::Invalid { .. } => "module-invalid",
            Self::MissingExport { .. } => "module-wrong-world",
            Self::UnknownImport { .. } => "module-unknown-import",
            Self::WrongVersion { .. } => "module-wrong-version",
            Self::TooMany { .. } => "module-too-complex",
            Self::Vectors(_) => "module-vectors",
        }
    }
}

/// Looks a module over. Compiles nothing and needs no engine.
///
/// # Errors
/// The first [`ModuleRefusal`]; each says what is wrong and how to mend it.
pub fn inspect(bytes: &[u8], limits: &ModuleLimits) -> Result<ModuleFacts, ModuleRefusal> {
    if bytes.len() > limits.bytes_max {
        return Err(ModuleRefusal::TooLarge { bytes: bytes.len(), limit: limits.bytes_max });
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(ModuleRefusal::NotWasm);
    }
    if !Parser::is_component(bytes) && Parser::is_core_wasm(bytes) {
        return Err(ModuleRefusal::CoreModule);
    }
    let mut survey = Survey::new(limits);
    for payload in Parser::new(0).parse_all(bytes) {
        survey.take(&payload.map_err(invalid)?)?;
    }
    Validator::new_with_features(FEATURES).validate_all(bytes).map_err(invalid)?;
    let world = check_world(&survey.imports, &survey.exports)?;
    parse_vectors(survey.vectors.unwrap_or_default(), limits).map_err(ModuleRefusal::Vectors)?;
    Ok(ModuleFacts {
        digest: Sha256::digest(bytes).into(),
        bytes: bytes.len(),
        world,
        functions: survey.functions,
        imports: survey.imports,
        capabilities: survey.capabilities.into_iter().map(str::to_owned).collect(),
        exports: survey.exports,
        vectors: survey.vectors.map(<[u8]>::to_vec),
    })
}

fn invalid(error: wasmparser::BinaryReaderError) -> ModuleRefusal {
    ModuleRefusal::Invalid { offset: error.offset(), what: error.message().into() }
}

/// Counts what a component is made of.
struct Survey<'a, 'l> {
    limits: &'l ModuleLimits,
    depth: u32,
    functions: u32,
    parts: u32,
    memories: u32,
    tables: u32,
    imports: Vec<String>,
    /// What is taken out of instances by the name of a function of the host, at any level: a component within may be
    /// handed the whole instance.
    capabilities: BTreeSet<&'static str>,
    exports: Vec<String>,
    vectors: Option<&'a [u8]>,
}

impl<'a, 'l> Survey<'a, 'l> {
    fn new(limits: &'l ModuleLimits) -> Self {
        Self {
            limits,
            depth: 0,
            functions: 0,
            parts: 0,
            memories: 0,
            tables: 0,
            imports: Vec::new(),
            capabilities: BTreeSet::new(),
            exports: Vec::new(),
            vectors: None,
        }
    }

    fn take(&mut self, payload: &Payload<'a>) -> Result<(), ModuleRefusal> {
        let limits = self.limits;
        match payload {
            Payload::Version { encoding, .. } => {
                self.depth += 1;
                debug_assert!(self.depth > 1 || *encoding == Encoding::Component);
                at_most("levels of nesting", self.depth, limits.nesting_max)?;
            }
            Payload::End(_) => self.depth = self.depth.saturating_sub(1),
            Payload::FunctionSection(section) => {
                self.functions = self.functions.saturating_add(section.count());
                at_most("functions", self.functions, limits.functions_max)?;
            }
            Payload::ImportSection(section) => self.parts(section.count())?,
            Payload::ExportSection(section) => self.parts(section.count())?,
            Payload::MemorySection(section) => {
                self.memories = self.memories.saturating_add(section.count());
                at_most("memories", self.memories, limits.memories_max)?;
            }
            Payload::TableSection(section) => {
                self.tables = self.tables.saturating_add(section.count());
                at_most("tables", self.tables, limits.tables_max)?;
                for table in section.clone() {
                    let elements = table.map_err(invalid)?.ty.initial;
                    let limit = limits.table_elements_max;
                    if elements > limit {
                        return Err(ModuleRefusal::TooMany { what: "elements in a table", count: elements, limit });
                    }
                }
            }
            Payload::ComponentImportSection(section) => {
                self.parts(section.count())?;
                if self.depth == 1 {
                    for import in section.clone() {
                        self.imports.push(import.map_err(invalid)?.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    let alias = alias.map_err(invalid)?;
                    if let ComponentAlias::InstanceExport { kind: ComponentExternalKind::Func, name, .. } = alias {
                        self.capabilities.extend(HOST_FUNCTIONS.iter().filter(|function| **function == name));
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                self.parts(section.count())?;
                if self.depth == 1 {
                    for export in section.clone() {
                        self.exports.push(export.map_err(invalid)?.name.name.to_owned());
                    }
                }
            }
            Payload::CustomSection(section) if self.depth == 1 && section.name() == VECTORS_SECTION => {
                self.vectors = Some(section.data());
            }
            _ => {}
        }
        Ok(())
    }

    fn parts(&mut self, count: u32) -> Result<(), ModuleRefusal> {
        self.parts = self.parts.saturating_add(count);
        at_most("imports and exports", self.parts, self.limits.imports_exports_max)
    }
}

fn at_most(what: &'static str, count: u32, limit: u32) -> Result<(), ModuleRefusal> {
    if count <= limit {
        return Ok(());
    }
    Err(ModuleRefusal::TooMany { what, count: u64::from(count), limit: u64::from(limit) })
}

fn check_world(imports: &[String], exports: &[String]) -> Result<World, ModuleRefusal> {
    for import in imports {
        match ALLOWED_IMPORTS.iter().find_map(|allowed| import.strip_prefix(allowed)) {
            Some(version) if version.starts_with(CONTRACT) => {}
            Some(_) => return Err(ModuleRefusal::WrongVersion { name: import.clone() }),
            None => return Err(ModuleRefusal::UnknownImport { import: import.clone() }),
        }
    }
    let world_of = |export: &String| {
        let known = FILTER_EXPORTS.iter().find_map(|(prefix, world)| Some((*world, export.strip_prefix(prefix)?)));
        known.map(|(world, version)| (export.clone(), world, version.starts_with(CONTRACT)))
    };
    match exports.iter().find_map(world_of) {
        Some((_, world, true)) => Ok(world),
        Some((name, _, false)) => Err(ModuleRefusal::WrongVersion { name }),
        None => {
            let listed = exports.iter().map(|export| format!("`{export}`")).collect::<Vec<_>>().join(", ");
            let exports = if listed.is_empty() { "nothing".into() } else { listed };
            Err(ModuleRefusal::MissingExport { exports })
        }
    }
}
