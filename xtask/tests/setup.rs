//! `cargo xtask setup` on machines in different states, with stubs in place of rustup, apt-get and Python. The stubs
//! note each call that would change the machine and then behave as if it had been changed.
#![allow(clippy::expect_used, reason = "a broken test environment should stop the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A machine: a folder of stubs that go before everything else in PATH.
struct Machine {
    folder: PathBuf,
}

impl Machine {
    /// A fresh one, with rustup and a C compiler, and nothing else. `user` is the answer of `id -u`.
    fn fresh(name: &str, user: u32, rustup_reaches_its_server: bool) -> Self {
        let folder = std::env::temp_dir().join(format!("xtask-setup-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(folder.join("bin")).expect("a folder for stubs");
        let machine = Self { folder };
        let root = machine.folder.display();
        let added = if rustup_reaches_its_server { "0" } else { "1" };
        machine.stub("cc", "exit 0");
        machine.stub("id", &format!("echo {user}"));
        machine.stub("cargo", "exit 0");
        machine.stub("wasm-ld", &format!("test -e {root}/debian"));
        machine.stub("rustc", &format!("echo {root}/libdir"));
        machine.stub(
            "rustup",
            &format!(
                "case \"$1\" in\n\
                 target) echo \"$0 $*\" | sed 's|.*/||' >> {root}/log; [ {added} = 0 ] || exit 1; mkdir -p {root}/libdir; touch {root}/libdir/libcore-1.rlib;;\n\
                 toolchain) echo \"rustup $*\" >> {root}/log; touch {root}/linked;;\n\
                 run) test -e {root}/linked || exit 1; echo {root}/sysroot;;\n\
                 esac"
            ),
        );
        machine.stub(
            "apt-get",
            &format!(
                "case \"$*\" in\n\
                 *--version*) ;;\n\
                 *rustc-web*) echo \"apt-get $*\" >> {root}/log; touch {root}/debian; mkdir -p {root}/sysroot/lib/rustlib/src/rust/library/std; touch {root}/sysroot/lib/rustlib/src/rust/library/std/Cargo.toml;;\n\
                 *) echo \"apt-get $*\" >> {root}/log;;\n\
                 esac"
            ),
        );
        // Makes an environment whose interpreter accepts everything.
        machine.stub(
            "python3",
            &format!(
                "[ \"$2\" = venv ] || exit 0\necho venv >> {root}/log\nmkdir -p \"$4/bin\"\n\
                 printf '#!/bin/sh\\n[ \"$2\" != pip ] || echo pip >> {root}/log\\n' > \"$4/bin/python\"\nchmod +x \"$4/bin/python\""
            ),
        );
        machine
    }

    fn stub(&self, name: &str, script: &str) {
        let path = self.folder.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a stub");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable stub");
    }

    fn setup(&self) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.folder.join("bin").display());
        Command::new(env!("CARGO_BIN_EXE_xtask"))
            .arg("setup")
            .env("PATH", path)
            .env("CARGO", self.folder.join("bin/cargo"))
            .env("CARGO_TARGET_DIR", self.folder.join("target"))
            .output()
            .expect("xtask starts")
    }

    /// The calls that changed the machine so far, forgotten afterwards.
    fn take_log(&self) -> Vec<String> {
        let path = self.folder.join("log");
        let text = fs::read_to_string(&path).unwrap_or_default();
        drop(fs::remove_file(path));
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(Path::new(&self.folder)));
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn rustup_adds_the_target_and_a_second_run_changes_nothing() {
    let machine = Machine::fresh("rustup", 1000, true);
    let first = machine.setup();
    assert!(first.status.success(), "{}", text(&first));
    assert_eq!(machine.take_log(), ["rustup target add wasm32-unknown-unknown", "venv", "pip"]);
    let second = machine.setup();
    assert!(second.status.success(), "{}", text(&second));
    assert_eq!(machine.take_log(), Vec::<String>::new());
    assert!(text(&second).contains("Wasm target: there (rustup)"), "{}", text(&second));
}

#[test]
fn without_rustups_server_root_gets_debians_toolchain() {
    let machine = Machine::fresh("debian", 0, false);
    let first = machine.setup();
    assert!(first.status.success(), "{}", text(&first));
    let expected = [
        "rustup target add wasm32-unknown-unknown",
        "apt-get update -qq",
        "apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 rustc-web rust-web-src cargo-web lld",
        "rustup toolchain link debian /usr",
        "venv",
        "pip",
    ];
    assert_eq!(machine.take_log(), expected);
    let second = machine.setup();
    assert!(second.status.success(), "{}", text(&second));
    assert_eq!(machine.take_log(), Vec::<String>::new());
}

#[test]
fn anyone_but_root_is_told_the_command_and_nothing_is_installed() {
    let machine = Machine::fresh("user", 1000, false);
    let output = machine.setup();
    assert!(!output.status.success());
    let line =
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends rustc-web rust-web-src cargo-web lld";
    assert!(text(&output).contains(line), "{}", text(&output));
    assert_eq!(machine.take_log(), ["rustup target add wasm32-unknown-unknown"]);
}
