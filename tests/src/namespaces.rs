//! Network namespaces: each site of a mesh gets an interface and an address of its own, and reaches nobody but the test.
//!
//! They are made below a network namespace that `cargo xtask test --only namespaces` has made for the test's own process,
//! with its own `/run`: whatever happens, nothing of them is left, and the machine's own network is never touched.

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Says that this process has a network namespace of its own.
pub const INSIDE: &str = "MYELIN_NAMESPACES";
/// Sites of one test program: networks of four addresses in 198.51.100.0/24, which is for documentation.
const SITES_MAX: u8 = 64;

/// The network namespace of one site, joined with the test's own by a pair of interfaces. It is gone when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    outside: String,
    number: u8,
    file: File,
}

impl Namespace {
    /// A namespace whose name ends so.
    ///
    /// # Errors
    /// Outside of `cargo xtask test --only namespaces`, and when `ip` fails.
    pub fn create(suffix: &str) -> Result<Arc<Self>> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        ensure!(
            std::env::var_os(INSIDE).is_some(),
            "run `cargo xtask test --only namespaces`: it makes the room for this"
        );
        let number = NEXT.fetch_add(1, Relaxed);
        ensure!(number < SITES_MAX, "{SITES_MAX} sites are the most in one run");
        let (name, outside) = (format!("myelin-{}-{number}-{suffix}", std::process::id()), format!("site{number}"));
        ip(&["netns", "add", &name])?;
        let file = File::open(format!("/run/netns/{name}")).with_context(|| format!("namespace {name}"))?;
        // From here on it is taken away again, whatever fails.
        let namespace = Self { name, outside, number, file };
        let (name, outside) = (namespace.name.as_str(), namespace.outside.as_str());
        ip(&["link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        ip(&["addr", "add", &format!("{}/30", namespace.gate()), "dev", outside])?;
        ip(&["link", "set", outside, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{}/30", namespace.addr()), "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(Arc::new(namespace))
    }

    /// The test's address on the site's network: all that the site reaches.
    pub fn gate(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, 4 * self.number + 1)
    }

    /// The site's own address.
    pub fn addr(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, 4 * self.number + 2)
    }

    /// Does some work inside, on a thread of its own; processes that it starts stay inside.
    ///
    /// # Errors
    /// When the thread cannot enter.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("entering namespace {}", self.name))?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Takes the site's interface down: what it sends is refused at once.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn unplug(&self) -> Result<()> {
        ip(&["-n", &self.name, "link", "set", "eth0", "down"])
    }

    /// Takes it up again.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn plug(&self) -> Result<()> {
        ip(&["-n", &self.name, "link", "set", "eth0", "up"])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The pair of interfaces goes with it.
        let _ = ip(&["netns", "del", &self.name]);
        let _ = Command::new("ip").args(["link", "del", &self.outside]).output();
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let line = arguments.join(" ");
    let output = Command::new("ip").args(arguments).output().with_context(|| format!("`ip {line}`"))?;
    ensure!(output.status.success(), "`ip {line}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
