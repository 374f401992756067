//! Who holds which lease. Decides only: the engine keeps the newest term.

use std::collections::BTreeMap;

use crate::control::Fence;
use crate::error::StoreError;

#[cfg(test)]
mod tests;

/// Names of leases: a controller of rollouts and a few collectors.
pub(crate) const LEASES_MAX: usize = 16;
/// Bytes of the name of a lease or of its holder.
const NAME_LEN_MAX_BYTES: usize = 128;
/// Longest time of a lease: the longest that a mesh is without a controller when one dies.
pub(crate) const LEASE_TTL_MAX_MS: u64 = 10 * 60 * 1_000;

/// The leases of one open store. They end with it: a clock that began anew says nothing of what was before.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: BTreeMap<String, Lease>,
}

#[derive(Debug)]
struct Lease {
    holder: String,
    term: u64,
    expires_ms: u64,
}

impl Leases {
    /// What asking for a lease comes to; `newest_term` is the newest that was ever given. A grant with a term above it
    /// must be kept before [`Leases::hold`].
    pub(crate) fn ask(
        &self,
        name: &str,
        holder: &str,
        ttl_ms: u64,
        now_ms: u64,
        newest_term: u64,
    ) -> Result<Fence, StoreError> {
        check_request(name, holder, ttl_ms)?;
        let refuse = |why| Err(refused(name, why));
        let fence = |term| Fence { name: name.to_owned(), term };
        match self.held.get(name).filter(|lease| now_ms < lease.expires_ms) {
            Some(lease) if lease.holder == holder => Ok(fence(lease.term)),
            Some(lease) => Err(StoreError::LeaseHeld {
                name: name.to_owned(),
                holder: lease.holder.clone(),
                left_ms: lease.expires_ms - now_ms,
            }),
            None if self.held.len() >= LEASES_MAX && !self.held.contains_key(name) => {
                refuse("there are 16 leases, which is the most; give one back first")
            }
            None => match newest_term.checked_add(1) {
                Some(term) => Ok(fence(term)),
                None => refuse("there are no more terms"),
            },
        }
    }

    /// Notes what was granted.
    pub(crate) fn hold(&mut self, fence: &Fence, holder: &str, ttl_ms: u64, now_ms: u64) {
        let expires_ms = now_ms.saturating_add(ttl_ms);
        self.held.insert(fence.name.clone(), Lease { holder: holder.to_owned(), term: fence.term, expires_ms });
    }

    /// Whether the lease is held under that term.
    pub(crate) fn check(&self, fence: &Fence, now_ms: u64) -> Result<(), StoreError> {
        match self.held.get(&fence.name) {
            Some(lease) if lease.term == fence.term && now_ms < lease.expires_ms => Ok(()),
            _ => Err(StoreError::LeaseLost { name: fence.name.clone(), term: fence.term }),
        }
    }

    pub(crate) fn release(&mut self, fence: &Fence) {
        if self.held.get(&fence.name).is_some_and(|lease| lease.term == fence.term) {
            self.held.remove(&fence.name);
        }
    }
}

/// Checks what a lease is asked with.
pub(crate) fn check_request(name: &str, holder: &str, ttl_ms: u64) -> Result<(), StoreError> {
    if [name, holder].iter().any(|text| text.is_empty() || text.len() > NAME_LEN_MAX_BYTES) {
        return Err(refused(name, "it and its holder have names of 1 to 128 bytes"));
    }
    if !(1..=LEASE_TTL_MAX_MS).contains(&ttl_ms) {
        return Err(refused(name, "a lease lasts 1 ms to 10 minutes"));
    }
    Ok(())
}

pub(crate) fn refused(name: &str, why: &'static str) -> StoreError {
    StoreError::LeaseRefused { name: name.chars().take(40).collect(), why }
}
