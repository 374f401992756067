//! placeholder until the engine is here
use std::rc::Rc;
#[derive(Debug)]
pub struct Chain;
#[derive(Debug)]
pub struct Active {
    pub number: u64,
}
impl Active {
    pub fn empty() -> Self {
        Self { number: 0 }
    }
}
impl Active {
    pub fn ingress(&self, _topic: &str) -> Option<Rc<Chain>> {
        None
    }
    pub fn egress(&self, _topic: &str) -> Option<Rc<Chain>> {
        None
    }
}
