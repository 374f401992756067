//! Uploads: bombs, names that try to be paths, bodies that stop half-way, races, and files that are changed behind the
//! router's back.

use super::{assert_growth, eventually};
use anyhow::{Context, Result, ensure};
use myelin_attacks::modules;
use myelin_tests::admin::{read_to_end, request};
use myelin_tests::{Healthy, Router};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};

const WASM: (&str, &str) = ("Content-Type", "application/wasm");

/// Names that try to be paths, or to look like `quiet`, as they stand in the path of a URL.
pub(super) const NAMES: [&str; 31] = [
    "..",
    ".",
    "%2e%2e",
    "..%2f..%2fetc",
    "%2e%2e%2fpasswd",
    "..%5c..",
    "%2fetc%2fpasswd",
    "a%2fb",
    "a%00b",
    "%00",
    "a%0d%0aX-Y:z",
    "%ff%fe",
    "%c0%ae%c0%ae",
    "Quiet",
    "QUIET",
    "quiet.",
    "quiet%20",
    "%20quiet",
    "-quiet",
    "q_uiet",
    "q%d1%83iet",
    "qui%d0%b5t",
    "%ef%bd%91uiet",
    "quiet%e2%80%8b",
    "%e2%80%aequiet",
    "qu%c4%b1et",
    "quie%cc%81t",
    "~",
    "$HOME",
    "*",
    "quiet%40evil",
];

/// A gzip file of `mib` MiB of zeros: one literal, then copies of 258 bytes, 13 bits each.
fn gzip_bomb(mib: usize) -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let (mut held, mut count) = (0_u64, 0);
    let mut put = |bits: u64, len: u32| {
        held |= bits << count;
        count += len;
        while count >= 8 {
            bytes.push(held.to_le_bytes()[0]);
            held >>= 8;
            count -= 8;
        }
    };
    // The last block, with the fixed codes; codes come with their first bit first.
    put(0b011, 3);
    put(0b0000_1100, 8);
    for _ in 0..mib * (1 << 20) / 258 {
        put(0b1010_0011, 8);
        put(0, 5);
    }
    put(0, 7 + 8);
    // Check sum and length are wrong: nobody gets that far.
    bytes.extend([0; 8]);
    bytes
}

/// A zstd frame of `mib` MiB of zeros: blocks of 128 KiB that consist of one byte, repeated.
fn zstd_bomb(mib: u32) -> Vec<u8> {
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x58];
    let blocks = mib * 8;
    for block in 1..=blocks {
        let head = (128 * 1024) << 3 | 1 << 1 | u32::from(block == blocks);
        bytes.extend_from_slice(&head.to_le_bytes()[..3]);
        bytes.push(0);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_bodies_are_refused_unopened() -> Result<()> {
    let router = Router::start()?;
    let mut healthy = Healthy::start(&router, "calm").await?;
    let (gzip, zstd) = (gzip_bomb(256), zstd_bomb(1_024));
    ensure!(gzip.len() < 2 << 20 && zstd.len() < 64 * 1024, "{} and {} bytes", gzip.len(), zstd.len());
    let before = router.own_memory_kib()?;
    for bomb in [&gzip, &zstd] {
        for encoding in ["gzip", "zstd", "br", "deflate", "x-gzip", "gzip, gzip", "identity, gzip", "GZIP", "\t"] {
            for path in ["/v1/modules/bomb/versions/1.0.0", "/v1/bindings/bomb"] {
                let kind = if path.contains("modules") { WASM } else { ("Content-Type", "application/json") };
                let answer = router.ask("PUT", path, &[kind, ("Content-Encoding", encoding)], bomb)?;
                assert_eq!(answer.problem(), (415, "unsupported-encoding".into()), "{encoding}");
            }
        }
        // As what it is, it is no module.
        let plain = router.upload("bomb", "1.0.0", bomb)?;
        assert_eq!(plain.problem(), (422, "module-not-wasm".into()));
    }
    healthy.beat(20).await?;
    // A bomb that had gone off would be a gigabyte.
    assert_growth(&router, before, 32 * 1024)
}

/// Every file and folder below `folder`, but for compiled code and what the database writes.
pub(super) fn tree(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(tree(&path)?);
        }
        found.insert(path);
    }
    Ok(found)
}

#[test]
fn names_that_try_to_be_paths_or_look_like_others_write_nothing() -> Result<()> {
    let router = Router::start()?;
    let quiet = modules::quiet();
    // The last file of a start: the router writes it once it has said that it serves.
    let (ready, begin) = (router.folder().join("data/dev/ready.json"), std::time::Instant::now());
    while !ready.exists() && begin.elapsed() < std::time::Duration::from_secs(20) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let before = tree(router.folder())?;
    let long = "a".repeat(4_096);
    for name in NAMES.into_iter().chain([&*long]) {
        let answer = router.upload(name, "1.0.0", &quiet)?;
        assert_eq!(answer.problem(), (400, "invalid-name".into()), "{name}: {answer:?}");
        let binding = json!({ "module": "quiet@1.0.0", "pattern": "a" });
        let answer = router.send_json("PUT", &format!("/v1/bindings/{name}"), &binding)?;
        assert_eq!(answer.problem(), (400, "invalid-name".into()), "{name}: {answer:?}");
    }
    for version in ["..", "1.0.0%2f..%2f..", "1.0.0%00", "1.0.0+a", "1", "v1.0.0", "%ef%bc%91.0.0", "1.0.0%20", &long] {
        let answer = router.upload("quiet", version, &quiet)?;
        assert_eq!(answer.problem(), (400, "invalid-version".into()), "{version}: {answer:?}");
    }
    // The router's own temporary files may have gone since.
    let written: Vec<_> = tree(router.folder())?.difference(&before).cloned().collect();
    ensure!(written.is_empty(), "{written:?} were written");
    assert_eq!(router.upload("quiet", "1.0.0", &quiet)?.status, 201);
    let new: Vec<_> = tree(router.folder())?.difference(&before).cloned().collect();
    let inside = |path: &PathBuf| path.starts_with(router.data_dir());
    ensure!(!new.is_empty() && new.iter().all(inside), "{new:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_stop_half_way_give_their_place_back() -> Result<()> {
    let router = Router::start()?;
    let mut healthy = Healthy::start(&router, "calm").await?;
    let (admin, quiet) = (router.admin_addr(), modules::quiet());
    let path = "/v1/modules/half/versions/1.0.0";
    let whole = request(admin, "PUT", path, &[WASM], &quiet);
    // Half-closed in the middle of the body: told what is wrong, or hung up on.
    for cut in [1, quiet.len() / 2, quiet.len() - 1] {
        let mut stream = TcpStream::connect(admin)?;
        stream.write_all(&whole[..whole.len() - cut])?;
        stream.shutdown(Shutdown::Write)?;
        if let Ok(answer) = read_to_end(stream) {
            assert_eq!(answer.problem(), (400, "body-incomplete".into()), "{answer:?}");
        }
    }
    // Slow ones that announce all the memory there is for bodies: others are told to come again, and reading goes on.
    let largest = (16 << 20).to_string();
    let slow = request(admin, "PUT", path, &[WASM, ("Content-Length", &largest)], b"\0asm");
    let held: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = TcpStream::connect(admin)?;
            stream.write_all(&slow)?;
            Ok(stream)
        })
        .collect::<Result<_>>()?;
    eventually(
        "the places are taken",
        || Ok(router.upload("half", "1.0.0", &quiet)?.problem() == (503, "busy".into())),
    )
    .await?;
    assert_eq!(router.ask("GET", "/readyz", &[], b"")?.status, 200);
    healthy.beat(20).await?;
    drop(held);
    eventually("the places are free", || Ok(router.upload("half", "1.0.0", &quiet)?.status / 100 == 2)).await?;
    let listed = router.ask("GET", "/v1/modules", &[], b"")?.json();
    assert_eq!(listed["modules"].as_array().context("modules")?.len(), 1, "{listed}");
    Ok(())
}

#[test]
fn of_different_uploads_of_one_version_one_wins_and_all_agree() -> Result<()> {
    let router = Router::start()?;
    let variants = [modules::quiet(), modules::two_faced()];
    let digests = std::thread::scope(|scope| -> Result<Vec<(u16, usize, String)>> {
        let upload = |number: usize| {
            let (router, bytes) = (&router, &variants[number % 2]);
            scope.spawn(move || router.upload("race", "1.0.0", bytes).map(|answer| (number % 2, answer)))
        };
        let uploads: Vec<_> = (0..8).map(upload).collect();
        uploads
            .into_iter()
            .map(|upload| {
                let (variant, answer) = upload.join().expect("no panic")?;
                Ok((answer.status, variant, answer.json()["digest"].as_str().unwrap_or_default().to_owned()))
            })
            .collect()
    })?;
    let kept = router.ask("GET", "/v1/modules/race/versions/1.0.0", &[], b"")?.json();
    let kept = kept["digest"].as_str().context("a digest")?.to_owned();
    let winner = digests.iter().find(|(status, ..)| *status / 100 == 2).context("somebody wins")?.1;
    for (status, variant, digest) in &digests {
        match *variant == winner {
            true => ensure!(matches!(status, 200 | 201) && *digest == kept, "{digests:?}"),
            false => ensure!(*status == 409, "{digests:?}"),
        }
    }
    Ok(())
}

/// Files below `folder` whose name ends so.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let all = tree(folder)?.into_iter();
    Ok(all.filter(|path| path.is_file() && path.to_string_lossy().ends_with(ending)).collect())
}

fn flip_a_bit(path: &Path) -> Result<()> {
    let mut bytes = std::fs::read(path)?;
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    Ok(std::fs::write(path, bytes)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_was_changed_on_disk_is_compiled_again_and_a_changed_module_is_never_run() -> Result<()> {
    let mut router = Router::start()?;
    let answer = router.upload("quiet", "1.0.0", &modules::quiet())?;
    let digest = answer.json()["digest"].as_str().context("a digest")?.to_owned();
    let binding = json!({ "module": "quiet@1.0.0", "pattern": "calm" });
    assert_eq!(router.send_json("PUT", "/v1/bindings/calm", &binding)?.status, 202);
    assert_eq!(router.send_json("POST", "/v1/rollouts", &json!({}))?.status / 100, 2);
    router.terminate()?;
    // Compiled code with another bit is not ours any more: the module is compiled again.
    let code = files(&router.data_dir(), ".cwasm")?;
    ensure!(!code.is_empty(), "compiled code is kept");
    code.iter().try_for_each(|path| flip_a_bit(path))?;
    router.restart()?;
    Healthy::start(&router, "calm").await?.beat(5).await?;
    router.terminate()?;
    // The module's own file with another bit has another digest: without it, the router does not serve.
    let blobs = files(&router.data_dir(), &digest)?;
    ensure!(blobs.len() == 1, "{blobs:?}");
    flip_a_bit(&blobs[0])?;
    for path in files(&router.data_dir(), ".cwasm")? {
        std::fs::remove_file(path)?;
    }
    let refused = router.restart().expect_err("it must not serve without a filter that it was told to run");
    ensure!(format!("{refused:#}").contains(&digest[..8]), "{refused:#}");
    flip_a_bit(&blobs[0])?;
    router.restart()?;
    Healthy::start(&router, "calm").await?.beat(5).await
}
