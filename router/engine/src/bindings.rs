//! The generated side of `wit/`: the world of fast filters.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from wit/0.1.0/filter.wit")]

wasmtime::component::bindgen!({
    path: "../../wit/0.1.0",
    world: "fast",
    imports: { default: trappable },
});
