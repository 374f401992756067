//! The generated side of `wit/`: the world of fast filters, and the typed one.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from wit/0.1.0/filter.wit")]

wasmtime::component::bindgen!({
    path: "../../wit/0.1.0",
    world: "fast",
    imports: { default: trappable },
});

/// The world `easy`, with the imports and the types of `fast`.
pub(crate) mod easy {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1.0",
        world: "easy",
        imports: { default: trappable },
        with: {
            "myelin:filter/types": super::myelin::filter::types,
            "myelin:filter/host": super::myelin::filter::host,
        },
    });
}
