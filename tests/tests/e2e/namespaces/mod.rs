//! Five router processes in network namespaces of their own, each with an interface and an address that nobody else has.
//! Between them are links 80 to 200 ms and 2 % of loss apart. What breaks, breaks while events flow and a rollout is under
//! way; when it is whole again, there is one set of filters everywhere and every event is accounted for.
//!
//! They need a network namespace around them: `cargo xtask test --only namespaces`.

mod scene;

use anyhow::Result;
use myelin_tests::sites::shapes;
use scene::{Fault, Scene, Shape};

async fn survives(shape: Shape) -> Result<()> {
    println!("seed {}", shape.seed);
    let mut scene = Scene::open(&shape).await?;
    for (fault, has_path) in &shape.faults {
        scene.survives(fault, *has_path).await?;
    }
    scene.ends().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a network namespace: cargo xtask test --only namespaces"]
async fn a_line_survives_faults_during_rollouts() -> Result<()> {
    let faults = vec![
        (Fault::Cut((2, 3)), false),
        (Fault::Flap((1, 2)), true),
        (Fault::Kill(1), true),
        (Fault::Freeze(1), true),
        (Fault::Rotate, true),
    ];
    survives(Shape { links: shapes::line(scene::SITES), rtts_ms: scene::FAR_MS, seed: 41, faults }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a network namespace: cargo xtask test --only namespaces"]
async fn a_ring_survives_faults_during_rollouts() -> Result<()> {
    let faults = vec![
        (Fault::Cut((2, 3)), true),
        (Fault::Flap((3, 4)), true),
        // The router that writes the catalog and controls the rollout.
        (Fault::Kill(0), true),
        (Fault::Freeze(0), true),
        (Fault::Unplug(1), true),
        (Fault::Rotate, true),
    ];
    survives(Shape { links: shapes::ring(scene::SITES), rtts_ms: scene::NEAR_MS, seed: 42, faults }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a network namespace: cargo xtask test --only namespaces"]
async fn a_star_survives_faults_during_rollouts() -> Result<()> {
    let faults = vec![
        (Fault::Cut((0, 1)), true),
        (Fault::Flap((0, 3)), false),
        // The middle, which writes the catalog, too.
        (Fault::Kill(0), false),
        (Fault::Freeze(0), false),
        (Fault::Rotate, true),
    ];
    survives(Shape { links: shapes::star(scene::SITES), rtts_ms: scene::FAR_MS, seed: 43, faults }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a network namespace: cargo xtask test --only namespaces"]
async fn a_mesh_survives_faults_during_rollouts() -> Result<()> {
    let faults = vec![
        (Fault::Cut((2, 3)), true),
        (Fault::Flap((2, 4)), true),
        (Fault::Kill(0), true),
        (Fault::Freeze(0), true),
        (Fault::Rotate, true),
    ];
    survives(Shape { links: shapes::mesh(scene::SITES), rtts_ms: scene::NEAR_MS, seed: 44, faults }).await
}
