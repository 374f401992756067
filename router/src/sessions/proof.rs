//! What says who a client is, and for how long it does.

use crate::config::LEEWAY_S;
use crate::tokens::unix_s;
use myelin_wire::{Code, Refusal};
use std::time::Duration;

/// How often it is looked whether it is over, at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// What says who a client is, with its end in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// A certificate; one without an end has none that could be read.
    Certificate { ends_unix_s: Option<u64> },
    /// A token.
    Token { ends_unix_s: u64 },
}

impl Proof {
    /// A certificate that is valid until then. It counts as much longer as a token does, for clocks that differ: the
    /// handshake lets nobody in with one that is over, so that it can be renewed meanwhile.
    pub(super) fn certificate(not_after_unix_s: Option<i64>) -> Self {
        let ends = |not_after| u64::try_from(not_after).unwrap_or(0).saturating_add(LEEWAY_S);
        Self::Certificate { ends_unix_s: not_after_unix_s.map(ends) }
    }

    /// How long it still counts, in seconds; none for ever.
    fn left_s(self, now_unix_s: u64) -> Option<u64> {
        let ends_unix_s = match self {
            Self::Certificate { ends_unix_s } => ends_unix_s?,
            Self::Token { ends_unix_s } => ends_unix_s,
        };
        Some(ends_unix_s.saturating_sub(now_unix_s))
    }

    fn refusal(self) -> Refusal {
        match self {
            Self::Certificate { .. } => {
                let message = "the certificate of this session is over; connect again with a new one";
                Refusal::new(Code::CertificateExpired, message)
            }
            Self::Token { .. } => {
                Refusal::new(Code::TokenExpired, "the token of this session is over; connect again with a new one")
            }
        }
    }

    /// Waits until it is over.
    pub(super) async fn over(self) -> Refusal {
        // By the clock of the day, which may be set meanwhile: looked at now and then.
        loop {
            match self.left_s(unix_s()) {
                None => std::future::pending().await,
                Some(0) => return self.refusal(),
                Some(left_s) => tokio::time::sleep(Duration::from_secs(left_s).min(LOOK_INTERVAL)).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_a_minute_after_what_says_who_it_is() {
        let now = unix_s();
        let certificate = Proof::certificate(Some(i64::try_from(now).unwrap_or(0) + 15));
        assert_eq!(certificate.left_s(now), Some(75));
        assert_eq!((certificate.left_s(now + 74), certificate.left_s(now + 76)), (Some(1), Some(0)));
        assert_eq!(Proof::certificate(None).left_s(now), None);
        assert_eq!(
            Proof::certificate(Some(i64::MAX)).left_s(now),
            Some(u64::try_from(i64::MAX).unwrap_or(0) + 60 - now)
        );
        let over = Proof::certificate(Some(i64::try_from(now).unwrap_or(0) - 61));
        assert_eq!(over.over().await.code, Code::CertificateExpired);
        assert_eq!((Proof::Token { ends_unix_s: now }).over().await.code, Code::TokenExpired);
        let going_on = tokio::time::timeout(Duration::from_secs(3_600), Proof::certificate(None).over());
        assert!(going_on.await.is_err());
    }
}
