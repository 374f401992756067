//! Names that try to be paths or to look like others, of all things that have a name.

use super::uploads::{NAMES, tree};
use anyhow::{Context, Result, ensure};
use myelin_tests::Router;
use serde_json::{Value, json};
use std::path::Path;

/// The text of a name as it stands in the path of a URL, where it is text and can be on a command line.
fn decoded(name: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), name.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                u8::from_str_radix(&[rest.next()?, rest.next()?].map(char::from).iter().collect::<String>(), 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[test]
fn names_of_whatever_has_one_are_checked_at_the_api_and_before_a_command_asks() -> Result<()> {
    let router = Router::start()?;
    let long = "a".repeat(4_096);
    let rule = json!({ "pattern": "a/**", "residency": { "regions": ["eu"] } });
    let policy = json!({ "text": "permit(principal, action, resource);" });
    let revision = || -> Result<Value> { Ok(router.ask("GET", "/v1/status", &[], b"")?.json()["revision"].clone()) };
    let before = revision()?;
    for name in NAMES.into_iter().chain([&*long]) {
        for (kind, body) in [("topics", &rule), ("policies", &policy)] {
            let answer = router.send_json("PUT", &format!("/v1/{kind}/{name}"), body)?;
            assert_eq!(answer.problem(), (400, "invalid-name".into()), "{kind} {name}: {answer:?}");
        }
        // With the name in the body as well, which might be believed instead.
        let mut named = rule.clone();
        named["name"] = decoded(name).into();
        let answer = router.send_json("PUT", "/v1/topics/quiet", &named)?;
        ensure!(answer.status == 400, "{name}: {answer:?}");
    }
    ensure!(revision()? == before, "something of that was written down");

    // The command line asks nobody for them: no router is where this one says.
    std::fs::write(router.folder().join("p.cedar"), "permit(principal, action, resource);")?;
    std::fs::write(router.folder().join("f.wasm"), b"\0asm\x0d\0\x01\0")?;
    let file = router.folder().join("f.wasm").display().to_string();
    for name in NAMES.into_iter().filter_map(decoded) {
        let module = format!("{name}@1.0.0");
        let lines: [&[&str]; 6] = [
            &["topic", "apply", &name, "a/**", "--region", "eu"],
            &["bind", &name, "--module", "quiet@1.0.0", "--pattern", "a"],
            &["bind", "quiet", "--module", &module, "--pattern", "a"],
            &["filter", "push", &file, "--as", &module],
            &["filter", "describe", &module],
            &["policy", "rm", &name],
        ];
        for line in lines {
            let ran = router.myelin(&[line, &["--admin", "http://127.0.0.1:1"]].concat())?;
            ensure!(ran.code == Some(2), "{line:?}: {ran:?}");
            ensure!(!ran.err.contains('\u{1b}') && !ran.err.contains("panicked"), "{line:?}: {ran:?}");
        }
    }
    Ok(())
}

/// Subjects may be called anything; these would leave a folder if a file were called like them, or share one.
fn subjects() -> Vec<String> {
    let mut subjects: Vec<String> = [
        "../../escaped",
        "/tmp/escaped",
        "..",
        ".",
        "...",
        "~",
        "a/../../b",
        "..\\..\\escaped",
        ".hidden",
        "-rf",
        "a b",
        "a%2Fb",
        "a/b",
        "orders",
        "Orders",
        "ord\u{435}rs",
        "orders\u{200b}",
        "\u{202e}sredro",
        "orders.toml",
        "orders.json",
        "README.md",
        "con",
    ]
    .map(str::to_owned)
    .into();
    subjects.extend(["x".repeat(255), format!("{}y", "x".repeat(254)), "/".repeat(255), "\u{1f4a5}".repeat(63)]);
    subjects
}

#[test]
fn subjects_that_are_called_like_paths_are_exported_into_their_folder_and_nowhere_else() -> Result<()> {
    let router = Router::start()?;
    let schema = json!({ "schemaType": "JSON", "schema": "{\"type\": \"object\"}" });
    for subject in subjects() {
        let encoded: String = subject.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = router.send_json("POST", &format!("/registry/subjects/{encoded}/versions"), &schema)?;
        ensure!(answer.status == 200, "{subject:?}: {answer:?}");
    }
    for bad in ["", "a%00b", "a%0ab", "%1b%5b2J", &"x".repeat(256), &"x".repeat(4_096)] {
        let answer = router.send_json("POST", &format!("/registry/subjects/{bad}/versions"), &schema)?;
        ensure!((400..500).contains(&answer.status), "{bad:.40}: {answer:?}");
    }
    let (outside, folder) = (router.folder().join("out"), "mesh.d");
    std::fs::create_dir(&outside)?;
    let dir = outside.join(folder).display().to_string();
    router.myelin(&["export", &dir])?.good()?;
    let written = tree(&outside)?;
    let is_inside = |path: &Path| path.starts_with(&dir) && path.components().all(|part| part.as_os_str() != "..");
    ensure!(written.iter().all(|path| is_inside(path)), "{written:?}");
    let schemas = std::fs::read_dir(Path::new(&dir).join("schemas"))?.collect::<std::io::Result<Vec<_>>>()?;
    let files = schemas.iter().filter(|entry| entry.path().extension().is_some_and(|ending| ending == "json")).count();
    ensure!(files == subjects().len(), "{files} files of {} subjects", subjects().len());
    ensure!(!Path::new("/tmp/escaped.json").exists() && !router.folder().join("escaped.json").exists(), "escaped");
    let plan = router.myelin(&["apply", "-f", &dir, "--prune", "--dry-run", "-o", "json"])?.json()?;
    let changes = plan["changes"].as_array().context("changes")?;
    ensure!(changes.is_empty() && plan["unchanged"].as_u64() == Some(subjects().len() as u64), "{plan}");
    Ok(())
}
