//! Tests with real routers in network namespaces of their own.
//!
//! Everything runs below one namespace that is made for it, with its own `/run` and its own process numbers: when its
//! first process ends, all others and every interface are gone, even after SIGKILL. It needs root, or a kernel that lets
//! everybody have a user namespace.

use anyhow::Result;
use std::process::Command;

use crate::repository::Repository;
use crate::shell;

/// Tells the tests that they are inside.
const INSIDE: &str = "MYELIN_NAMESPACES";
/// Makes room for the names of namespaces, and gives the outermost one its loopback.
const PREPARE: &str = "mount -t tmpfs tmpfs /run && mkdir /run/netns && ip link set lo up && exec \"$@\"";
/// What must be possible inside: a namespace in the namespace, and a pair of interfaces between them.
const TRIAL: &str = "ip netns add trial && ip link add trial type veth peer name eth0 netns trial";
/// Meshes that run at the same time: each is five routers, which mostly wait. One after the other would take ten minutes.
const THREADS: &str = "--test-threads=4";

/// How namespaces are to be had on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As root.
    Root,
    /// As root of a user namespace.
    User,
}

/// Finds a way that works here, by trying it.
///
/// # Errors
/// Why there is none.
pub(crate) fn find(repository: &Repository) -> Result<Way, String> {
    let mut why = Vec::new();
    for way in [Way::Root, Way::User] {
        match way.command(repository).args(["sh", "-c", TRIAL]).output() {
            Ok(tried) if tried.status.success() => return Ok(way),
            Ok(tried) => {
                why.push(format!("{way:?}: {}", String::from_utf8_lossy(&tried.stderr).trim().replace('\n', "; ")))
            }
            Err(error) => return Err(format!("`unshare` of util-linux does not start: {error}")),
        }
    }
    Err(format!(
        "this machine makes no network namespaces ({}); run it as root, or allow user namespaces",
        why.join("; ")
    ))
}

impl Way {
    /// A command that runs what follows inside.
    fn command(self, repository: &Repository) -> Command {
        let mut command = repository.command("unshare");
        if self == Self::User {
            command.args(["--user", "--map-root-user"]);
        }
        command.args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            PREPARE,
            "sh",
        ]);
        command
    }
}

/// Runs the tests, whose program is built; `prepare` tells them where the router is.
pub(crate) fn run(repository: &Repository, way: Way, prepare: impl FnOnce(&mut Command)) -> Result<()> {
    let mut command = way.command(repository);
    // Cargo knows which program it is; there is nothing left to build, for which it would want the network.
    command.arg(repository.cargo().get_program()).args(["test", "--offline", "--workspace", "--test", "e2e", "--"]);
    command.env(INSIDE, "1").args(["namespaces::", "--ignored", "--nocapture", THREADS]);
    prepare(&mut command);
    shell::run(&mut command)
}
