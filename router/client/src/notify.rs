//! Waiting for a condition that another task makes true.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Waits until `check` has an answer, looking again at each notification. Cancel-safe: only `check` changes state.
pub(crate) async fn until<T>(notify: &Notify, mut check: impl FnMut() -> Option<T>) -> T {
    loop {
        let mut notified = pin!(notify.notified());
        // Listening before looking: no notification falls between the two.
        notified.as_mut().enable();
        if let Some(answer) = check() {
            return answer;
        }
        notified.await;
    }
}

/// Locks; what a panicking task left behind is as good as before, since no critical section here can panic half-way.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
