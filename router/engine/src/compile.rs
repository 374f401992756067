//! Compiles modules in a child process that limits itself: a compile bomb costs its author a refusal and the router
//! nothing.
//!
//! The child gets the component on its standard input and answers on its standard output with the engine's
//! compatibility (32 bytes) and the compiled code. It can open no network of its own accord and inherits no
//! environment.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use wasmtime::Engine;

use crate::limits::{CompilerConfig, CompilerLimits, RuntimeConfig};
use crate::runtime::{Compatibility, Runtime, engine_config};

/// Bytes of compiled code that are taken in; a component of 12 MB gives 46 MB.
const CODE_BYTES_MAX: u64 = 256 << 20;
/// Bytes of the child's complaint that are kept.
const COMPLAINT_BYTES_MAX: u64 = 4 << 10;
/// Open files of the child: its three standard streams and what a thread start needs.
const CHILD_FILES_MAX: u64 = 16;
/// Threads that compile functions; more cost address space and gain little on modules of usual size.
const CHILD_THREADS: &str = "2";
/// How often the parent looks whether the child has ended.
const POLL: Duration = Duration::from_millis(2);
/// The child's exit code for a module that does not compile.
const EXIT_REFUSED: u8 = 3;
/// The child's exit code for limits that could not be set.
const EXIT_LIMITS: u8 = 4;

/// Compiled code that is known to come from our own compiler. There is no way to make one from bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Artefact {
    compatibility: Compatibility,
    code: Vec<u8>,
}

impl Artefact {
    /// Only for bytes that were authenticated.
    pub(crate) fn authenticated(compatibility: Compatibility, code: Vec<u8>) -> Self {
        Self { compatibility, code }
    }

    /// Which runtimes can load it.
    pub fn compatibility(&self) -> Compatibility {
        self.compatibility
    }

    pub(crate) fn code(&self) -> &[u8] {
        &self.code
    }
}

impl std::fmt::Debug for Artefact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Artefact({} bytes)", self.code.len())
    }
}

/// Why a module was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler program could not be started, or its pipes broke.
    #[error("the compiler `{program}` does not run: {error}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// It could not limit itself.
    #[error("the compiler could not limit itself: {0}")]
    Limits(String),
    /// The module does not compile.
    #[error("the module does not compile: {0}")]
    Refused(String),
    /// It was killed at its wall time.
    #[error("compiling the module took over {0:?} and was stopped: make the module smaller, or raise `wasm.compile`")]
    WallTime(Duration),
    /// It used up its CPU time.
    #[error("compiling the module took over {0} s of CPU time and was stopped: make the module smaller")]
    CpuTime(u64),
    /// It ran out of address space.
    #[error("compiling the module needs over {0} bytes of address space: make the module smaller")]
    Memory(u64),
    /// It ended in another way.
    #[error("the compiler ended with {status}: {complaint}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it said.
        complaint: String,
    },
    /// Its answer is not what a compiler of ours answers.
    #[error("the compiler's answer is no compiled code: {0}")]
    BadAnswer(&'static str),
}

impl CompileError {
    /// The stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Start { .. } => "compiler-start",
            Self::Limits(_) => "compiler-limits",
            Self::Refused(_) => "module-does-not-compile",
            Self::WallTime(_) | Self::CpuTime(_) => "compile-time",
            Self::Memory(_) => "compile-memory",
            Self::Ended { .. } => "compiler-ended",
            Self::BadAnswer(_) => "compiler-answer",
        }
    }
}

/// Compiles `wasm` in a child process. Blocks for as long as that takes, at most `config.wall`.
///
/// # Errors
/// [`CompileError`] says whether the module, its size or the machine was at fault.
pub fn compile_in_child(config: &CompilerConfig, wasm: &[u8]) -> Result<Artefact, CompileError> {
    let broken = |error| CompileError::Start { program: config.program.display().to_string(), error };
    let begin = Instant::now();
    let mut child = Command::new(&config.program)
        .args(&config.args)
        .env_clear()
        .env("RAYON_NUM_THREADS", CHILD_THREADS)
        // Each arena of the allocator reserves 64 MiB of the child's address space.
        .env("MALLOC_ARENA_MAX", CHILD_THREADS)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(broken)?;
    let answer = talk(&mut child, wasm, config.wall.saturating_sub(begin.elapsed()));
    let Some((code, complaint)) = answer else {
        end(&mut child);
        return Err(CompileError::WallTime(config.wall));
    };
    let status = match wait(&mut child, config.wall.saturating_sub(begin.elapsed())) {
        Ok(Some(status)) => status,
        Ok(None) => {
            end(&mut child);
            return Err(CompileError::WallTime(config.wall));
        }
        Err(error) => {
            end(&mut child);
            return Err(broken(error));
        }
    };
    if !status.success() {
        return Err(failure(status, complaint, &config.limits));
    }
    artefact(code)
}

/// Writes the module, reads the answer and the complaint; `None` when the time is up.
fn talk(child: &mut Child, wasm: &[u8], wall: Duration) -> Option<(Vec<u8>, String)> {
    let (mut stdin, stdout, stderr) = (child.stdin.take()?, child.stdout.take()?, child.stderr.take()?);
    let (send, answers) = mpsc::sync_channel(2);
    let errors = send.clone();
    // The readers end when the child does: it is killed in every case where this function gives up.
    thread::spawn(move || send.send((true, read_all(stdout, CODE_BYTES_MAX))));
    thread::spawn(move || errors.send((false, read_all(stderr, COMPLAINT_BYTES_MAX))));
    thread::scope(|scope| {
        // A child that does not read is killed below, which breaks the pipe and ends the writer.
        scope.spawn(move || stdin.write_all(wasm));
        let end = Instant::now() + wall;
        let (mut code, mut complaint) = (None, None);
        while code.is_none() || complaint.is_none() {
            match answers.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((true, bytes)) => code = Some(bytes),
                Ok((false, bytes)) => complaint = Some(bytes),
                Err(_) => {
                    drop(child.kill());
                    return None;
                }
            }
        }
        Some((code?, String::from_utf8_lossy(&complaint?).trim().to_owned()))
    })
}

fn read_all(from: impl Read, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What could not be read is missing in the answer, and the answer is then refused.
    drop(from.take(bytes_max).read_to_end(&mut bytes));
    bytes
}

/// Waits for the end of a child that has closed its pipes.
fn wait(child: &mut Child, wall: Duration) -> std::io::Result<Option<ExitStatus>> {
    let end = Instant::now() + wall;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Kills the child and takes it off the process table.
fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

fn failure(status: ExitStatus, complaint: String, limits: &CompilerLimits) -> CompileError {
    use std::os::unix::process::ExitStatusExt;
    const SIGABRT: i32 = 6;
    const SIGKILL: i32 = 9;
    const SIGXCPU: i32 = 24;
    match (status.code(), status.signal()) {
        (Some(code), _) if code == i32::from(EXIT_REFUSED) => CompileError::Refused(complaint),
        (Some(code), _) if code == i32::from(EXIT_LIMITS) => CompileError::Limits(complaint),
        (_, Some(SIGXCPU | SIGKILL)) => CompileError::CpuTime(limits.cpu_seconds),
        (_, Some(SIGABRT)) if complaint.contains("memory allocation") => {
            CompileError::Memory(limits.address_space_bytes)
        }
        _ => CompileError::Ended { status, complaint },
    }
}

fn artefact(answer: Vec<u8>) -> Result<Artefact, CompileError> {
    let mut compatibility = [0; 32];
    let (head, code) = answer.split_at_checked(32).ok_or(CompileError::BadAnswer("it is too short"))?;
    compatibility.copy_from_slice(head);
    if Engine::detect_precompiled(code).is_none() {
        return Err(CompileError::BadAnswer("no engine knows it"));
    }
    Ok(Artefact { compatibility: Compatibility::from_bytes(compatibility), code: code.to_vec() })
}

/// The compiler child: limits itself, reads a component from standard input, writes compiled code to standard
/// output. The router calls it for its hidden subcommand; nothing else may be written to standard output before.
pub fn compiler_child_main(limits: &CompilerLimits) -> ExitCode {
    if let Err(error) = limit_self(limits) {
        eprintln!("{error}");
        return ExitCode::from(EXIT_LIMITS);
    }
    match compile_stdin(limits) {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => {
            eprintln!("{complaint}");
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

fn limit_self(limits: &CompilerLimits) -> std::io::Result<()> {
    let set = |resource, limit| setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) });
    set(Resource::As, limits.address_space_bytes)?;
    set(Resource::Cpu, limits.cpu_seconds)?;
    set(Resource::Nofile, CHILD_FILES_MAX)?;
    set(Resource::Core, 0)?;
    set(Resource::Fsize, 0)?;
    Ok(())
}

fn compile_stdin(limits: &CompilerLimits) -> Result<(), String> {
    let mut wasm = Vec::new();
    let bytes_max = limits.module_bytes_max as u64;
    std::io::stdin().take(bytes_max + 1).read_to_end(&mut wasm).map_err(|e| format!("reading the module: {e}"))?;
    if wasm.len() as u64 > bytes_max {
        return Err(format!("the module has over {bytes_max} bytes"));
    }
    // Nothing is instantiated here, so no pool is needed; the compatibility shows that the code fits one.
    let config = engine_config(&RuntimeConfig { pooling: false, ..RuntimeConfig::default() });
    let engine = Engine::new(&config).map_err(|e| format!("{e:#}"))?;
    let code = engine.precompile_component(&wasm).map_err(|e| format!("{e:#}"))?;
    let mut out = std::io::stdout().lock();
    let written = out.write_all(Compatibility::of(&engine).as_bytes()).and_then(|()| out.write_all(&code));
    written.and_then(|()| out.flush()).map_err(|e| format!("writing the code: {e}"))
}

impl Runtime {
    /// Compiles `wasm` in this very process, without limits: for tests and benches with modules of their own.
    ///
    /// # Errors
    /// [`CompileError::Refused`] when the module does not compile.
    #[cfg(any(test, feature = "testing"))]
    pub fn compile_here(&self, wasm: &[u8]) -> Result<Artefact, CompileError> {
        let code = self.engine().precompile_component(wasm).map_err(|e| CompileError::Refused(format!("{e:#}")))?;
        Ok(Artefact { compatibility: self.compatibility(), code })
    }
}
