//! A router that is down holds up whoever makes filters active, and they are told so.

use crate::attacks::eventually;
use anyhow::{Context, Result, ensure};
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::program;
use myelin_tests::relay::Path;
use myelin_tests::sites::Sites;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_binds_while_a_router_is_down_is_told_which_one_and_may_give_it_up() -> Result<()> {
    let sites = Sites::start_among(1, &[], 0, |_| Path::default(), &["s1/r1"], &[]).await?;
    let router = &sites.routers[0];
    ensure!(router.upload("gate", "1.0.0", &component(Behaviour::Allow)?)?.status == 201);
    let mut bind = Command::new(program())
        .args(["bind", "gate", "--module", "gate@1.0.0", "--pattern", "orders/**", "--timeout", "5s"])
        .env("MYELIN_ADMIN", format!("http://{}", router.admin_addr()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut told = BufReader::new(bind.stderr.take().context("its standard error")?);
    let mut line = String::new();
    told.read_line(&mut line)?;
    ensure!(line.contains("waiting for s1/r1 (not heard of)"), "{line}");

    // It waits on, longer than other calls may take, until somebody gives the rollout up.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    ensure!(bind.try_wait()?.is_none(), "it has ended");
    let aborted = router.myelin(&["rollout", "abort", "--reason", "s1 is down"])?.good()?;
    ensure!(aborted.out.contains("rolling-back") || aborted.out.contains("rolled-back"), "{}", aborted.out);
    let mut rest = String::new();
    told.read_to_string(&mut rest)?;
    ensure!(!bind.wait()?.success() && rest.contains("s1 is down"), "{rest}");
    eventually("the rollout's end", || {
        let rollouts = router.ask("GET", "/v1/rollouts", &[], b"")?.json();
        Ok(rollouts["mesh"][0]["running"] == false)
    })
    .await
}
