//! `myelin`: the router and everything around it.

fn main() {}
