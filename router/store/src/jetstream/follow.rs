//! Notices what other routers append.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use futures_util::StreamExt as _;
use tokio::time::{MissedTickBehavior, interval};

use super::log::{Log, Trouble};

/// Looks at the stream's end without a hint that often: as long as an append can stay unseen when hints fail.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Follows the stream until the log is closed. Messages of a consumer are hints; what they hint at is read from the
/// leader and checked like everything else.
pub(super) async fn follow(log: Arc<Log>) {
    let (mut hints, mut is_warned) = (None, false);
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {
                if hints.is_none() {
                    hints = listen(&log).await;
                }
            }
            is_alive = hint(&mut hints) => {
                if !is_alive {
                    hints = None;
                    continue;
                }
            }
        }
        match log.try_catch_up().await {
            Ok(()) => is_warned = false,
            // Once for each time that it begins: the next operation says it again, to whoever waits for it.
            Err(Trouble::Passing(error) | Trouble::Lasting(error)) if !is_warned => {
                tracing::warn!(code = error.code(), "the catalog's log cannot be followed: {error}");
                is_warned = true;
            }
            Err(_) => {}
        }
    }
}

/// A consumer of what comes from now on; the servers forget it soon after we are gone.
async fn listen(log: &Log) -> Option<Ordered> {
    let config = OrderedConfig {
        deliver_subject: log.context.client().new_inbox(),
        deliver_policy: DeliverPolicy::New,
        headers_only: true,
        description: Some("Myelin router: the catalog grew".into()),
        ..OrderedConfig::default()
    };
    match log.stream.create_consumer(config).await {
        Ok(consumer) => consumer.messages().await.ok(),
        Err(error) => {
            tracing::debug!(%error, "no hints of the catalog's growth for now");
            None
        }
    }
}

/// Waits for the next hint, and says whether there may be more.
async fn hint(hints: &mut Option<Ordered>) -> bool {
    match hints {
        Some(hints) => matches!(hints.next().await, Some(Ok(_))),
        None => std::future::pending().await,
    }
}
