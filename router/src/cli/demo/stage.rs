//! The demo's router: a process of its own, its commands and its ledger.

use super::START_TIMEOUT;
use anyhow::{Context, bail, ensure};
use myelin_client::{Client, ClientConfig, Overflow, TlsFiles};
use serde::Deserialize;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The demo's router process.
pub(super) struct Stage {
    folder: PathBuf,
    router: Child,
    client_addr: String,
    admin: String,
}

#[derive(Deserialize)]
pub(super) struct Ready {
    pub(super) client_addr: String,
    pub(super) admin_addr: String,
}

impl Stage {
    pub(super) fn start() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("myelin-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let log = std::fs::File::create(folder.join("log"))?;
        let ready_file = folder.join("ready.json");
        let router = Command::new(std::env::current_exe()?)
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
            .arg(folder.join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting the router")?;
        let mut stage = Self { folder, router, client_addr: String::new(), admin: String::new() };
        let begin = Instant::now();
        while !ready_file.exists() {
            if stage.router.try_wait()?.is_some() || begin.elapsed() > START_TIMEOUT {
                bail!("the router did not start: {}", std::fs::read_to_string(stage.folder.join("log"))?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let ready: Ready = serde_json::from_slice(&std::fs::read(&ready_file)?)?;
        stage.client_addr = ready.client_addr;
        stage.admin = format!("http://{}", ready.admin_addr);
        Ok(stage)
    }

    pub(super) async fn client(&self, overflow: Overflow) -> anyhow::Result<Client> {
        let dev = self.folder.join("data/dev");
        let file = |name: &str| dev.join(name);
        let files = TlsFiles { cert: file("client.pem"), key: file("client-key.pem"), ca: file("ca.pem") };
        let config = ClientConfig::new(&self.client_addr, files).with_server_name("localhost").with_name("myelin-demo");
        Ok(Client::connect(config.with_overflow(overflow)).await?)
    }

    /// Runs a command of `myelin` against the router; shows it and the first line of what it says.
    pub(super) fn command(&self, args: &[&str], print: bool) -> anyhow::Result<()> {
        let output = Command::new(std::env::current_exe()?)
            .args(args)
            .env("MYELIN_ADMIN", &self.admin)
            .env("MYELIN_NODE__DATA_DIR", self.folder.join("data"))
            .stdin(Stdio::null())
            .output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "`myelin {}`: {}", args.join(" "), err.trim());
        if print {
            let words = args.iter().map(|arg| if arg.len() > 60 { "{..}" } else { arg });
            println!("  $ myelin {}", words.collect::<Vec<_>>().join(" "));
            let said = out.lines().chain(err.lines()).find(|line| !line.trim().is_empty());
            println!("    {}", said.unwrap_or_default().trim());
        }
        Ok(())
    }

    /// What `myelin ledger` says, and whether it balances.
    pub(super) fn ledger(&self) -> anyhow::Result<(String, serde_json::Value)> {
        let ask = |args: &[&str]| -> anyhow::Result<String> {
            let mut command = Command::new(std::env::current_exe()?);
            let output = command.arg("ledger").args(args).env("MYELIN_ADMIN", &self.admin).output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        Ok((ask(&[])?, serde_json::from_str(&ask(&["-o", "json"])?)?))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The account is closed; what is left is the demo's own process and folder.
        let _ = self.router.kill();
        let _ = self.router.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
