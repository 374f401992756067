//! JSON Web Tokens (RFC 7519), as far as a router believes them: keys, a token and the time in, claims or a coded refusal
//! out. No I/O, no clock.
//!
//! The form and the claims are read by `jsonwebtoken`, signatures are checked by `ring`. Around that stand our bounds:
//! what is longer than [`TOKEN_BYTES_MAX`] is not looked at, only asymmetric algorithms are known at all, a key is found in
//! a map by its id, and it fits one family of algorithms whatever the token says about itself.

mod crypto;
mod keys;
mod refusal;
#[cfg(test)]
mod tests;
mod verify;

pub use keys::{KEYS_BYTES_MAX, KEYS_MAX, Keys, KeysFault};
pub use refusal::Refusal;
pub use verify::{Algorithm, Claims, Rules, TEXTS_MAX, TOKEN_BYTES_MAX, issuer, verify};
