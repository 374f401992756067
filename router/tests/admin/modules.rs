//! Uploads: good ones, bad ones, and names that try to be paths.

use crate::guest::{component, core_module, other_component};
use crate::world::{MODULE_BYTES_MAX, Router};
use serde_json::json;

#[tokio::test]
async fn a_module_is_uploaded_shown_and_removed() {
    let router = Router::start().await;
    let bytes = component("1.0.0");
    let first = router.upload("quiet", "1.0.0", &bytes).await;
    assert_eq!(first.status, 201, "{first:?}");
    let module = first.json();
    assert_eq!(
        (&module["name"], &module["version"], &module["state"]),
        (&json!("quiet"), &json!("1.0.0"), &json!("unused"))
    );
    assert_eq!(module["size_bytes"], bytes.len());

    let again = router.upload("quiet", "1.0.0", &bytes).await;
    assert_eq!((again.status, again.json()), (200, module.clone()), "the same bytes change nothing");
    let other = router.upload("quiet", "1.0.0", &component("1.0.1")).await;
    assert_eq!(other.problem(), (409, "conflict".into()));
    assert_eq!(router.upload("quiet", "1.0.1", &component("1.0.1")).await.status, 201);

    let listed = router.show("/v1/modules").await;
    assert_eq!(listed["modules"].as_array().unwrap().len(), 2);
    assert_eq!(listed["modules"][0], module);
    let described = router.show("/v1/modules/quiet/versions/1.0.0").await;
    assert_eq!(described["digest"], module["digest"]);
    assert_eq!(described["bindings"], json!([]));

    assert_eq!(router.ask("DELETE", "/v1/modules/quiet/versions/1.0.0", &[], b"").await.status, 204);
    assert_eq!(router.get("/v1/modules/quiet/versions/1.0.0").await.problem(), (404, "not-found".into()));
    assert_eq!(router.ask("DELETE", "/v1/modules/quiet/versions/1.0.0", &[], b"").await.problem().0, 404);
    assert_eq!(router.ask("POST", "/v1/modules/quiet/versions/1.0.1/release", &[], b"").await.problem().0 / 100, 4);
    assert_eq!(router.get("/v1/modules/none/versions/1.0.0/logs").await.problem(), (404, "not-found".into()));
    router.stop().await;
}

#[tokio::test]
async fn where_a_module_comes_from_is_an_artifact_by_its_digest_or_nothing() {
    let router = Router::start().await;
    let bytes = component("1.0.0");
    let upload = async |origin: &str| {
        let headers = [("Content-Type", "application/wasm"), ("Myelin-Origin", origin)];
        router.ask("PUT", "/v1/modules/quiet/versions/1.0.0", &headers, &bytes).await
    };
    for bad in ["", "somewhere", "oci://r.example/quiet:1", "https://r.example/quiet", &"x".repeat(4_096)] {
        assert_eq!(upload(bad).await.problem(), (400, "invalid-origin".into()), "{bad:.40}");
    }
    let digest = "0".repeat(64);
    let good = upload(&format!("oci://r.example/team/quiet:1@sha256:{digest}")).await;
    assert_eq!(good.status, 201, "{good:?}");
    let audit = router.show("/v1/audit").await.to_string();
    assert!(audit.contains(&format!("artifact sha256:{digest} of oci://r.example/team/quiet:1")), "{audit}");
    router.stop().await;
}

#[tokio::test]
async fn what_is_no_filter_is_refused_and_nothing_is_kept() {
    let router = Router::start().await;
    let before = router.revision().await;
    let random: Vec<u8> = (0..4_096u32).map(|n| u8::try_from(n * n % 251).unwrap()).collect();
    let whole = component("1.0.0");
    let cut = &whole[..whole.len() - 7];
    for (what, bytes) in [
        ("text", &b"hello"[..]),
        ("bytes", &random),
        ("core", &core_module()),
        ("world", &other_component()),
        ("cut", cut),
    ] {
        let (status, code) = router.upload(what, "1.0.0", bytes).await.problem();
        assert_eq!(status, 422, "{what}: {code}");
    }
    assert_eq!(router.upload("empty", "1.0.0", b"").await.problem(), (400, "body-missing".into()));
    assert_eq!(router.show("/v1/modules").await["modules"], json!([]));
    assert_eq!(router.revision().await, before);
    assert_eq!(router.upload("quiet", "1.0.0", &whole).await.status, 201, "the router goes on");
    router.stop().await;
}

#[tokio::test]
async fn names_that_try_to_be_paths_are_no_names() {
    let router = Router::start().await;
    let long = "a".repeat(4_096);
    let names =
        ["..", ".", "%2e%2e", "..%2fetc", "a%2Fb", "a%00", "%00", "%ff", "A", "caf%C3%A9", "a_b", "-a", "%20", &long];
    for name in names {
        let path = format!("/v1/modules/{name}/versions/1.0.0");
        for method in ["GET", "PUT", "DELETE"] {
            let headers = [("Content-Type", "application/wasm")];
            let answer = router.ask(method, &path, &headers, if method == "PUT" { b"x" } else { b"" }).await;
            assert_eq!(answer.problem(), (400, "invalid-name".into()), "{method} {name}");
        }
        let answer = router.get(&format!("/v1/bindings/{name}")).await;
        assert_eq!(answer.problem(), (400, "invalid-name".into()), "{name}");
    }
    for version in ["1", "v1.0.0", "1.0.0+build", "..", "1.0.0%2f..", "01.0.0", &long] {
        let answer = router.get(&format!("/v1/modules/a/versions/{version}")).await;
        assert_eq!(answer.problem(), (400, "invalid-version".into()), "{version}");
    }
    // More or fewer slashes are other routes, which there are not.
    for path in [
        "/v1/modules/../../etc/passwd",
        "/v1/modules//versions/1.0.0",
        "/v1/modules/a/versions/1.0.0/",
        "//v1/modules",
        "/v1/modules/",
    ] {
        let (status, code) = router.get(path).await.problem();
        assert!(
            status == 404 && code == "unknown-route" || status == 400 && code == "invalid-name",
            "{path}: {status} {code}"
        );
    }
    router.stop().await;
}

#[tokio::test]
async fn a_body_is_bounded_and_of_its_type() {
    let router = Router::start().await;
    let path = "/v1/modules/big/versions/1.0.0";
    let wasm = ("Content-Type", "application/wasm");
    let too_long = (MODULE_BYTES_MAX + 1).to_string();
    // Announced too long: refused before a byte of it was sent.
    let answer = router.ask("PUT", path, &[wasm, ("Content-Length", &too_long)], b"").await;
    assert_eq!(answer.problem(), (413, "body-too-large".into()));
    // Not announced: refused once it is too long.
    let mut chunked = format!("{:x}\r\n", MODULE_BYTES_MAX + 1).into_bytes();
    chunked.resize(chunked.len() + MODULE_BYTES_MAX + 1, 0);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let answer = router.ask("PUT", path, &[wasm, ("Transfer-Encoding", "chunked")], &chunked).await;
    assert_eq!(answer.problem(), (413, "body-too-large".into()));

    let packed = router.ask("PUT", path, &[wasm, ("Content-Encoding", "gzip")], b"x").await;
    assert_eq!(packed.problem(), (415, "unsupported-encoding".into()));
    for content_type in ["application/json", "text/plain", "application/wasmx", ""] {
        let answer = router.ask("PUT", path, &[("Content-Type", content_type)], b"x").await;
        assert_eq!(answer.problem(), (415, "unsupported-media-type".into()), "{content_type}");
    }
    let spaced = router.ask("PUT", path, &[("Content-Type", "Application/WASM ; x=y")], b"x").await;
    assert_eq!(spaced.status, 422, "the type is right, the body is none: {spaced:?}");
    let broken = router.ask("PUT", path, &[wasm, ("Transfer-Encoding", "chunked")], b"zz\r\n").await;
    assert_eq!(broken.status, 400, "{broken:?}");
    router.stop().await;
}
