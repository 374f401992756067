//! A question to several other routers at once.

use super::propose::{Writer, unexpected};
use super::{View, World};
use bytes::Bytes;
use myelin_catalog::exchange::{Answer, Ask};
use myelin_catalog::fleet::Router;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use std::time::Duration;
use tokio::task::JoinSet;

/// Bytes of an answer: as much as the links pass on.
pub(super) const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How long a router may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

impl World {
    /// Whether this is the router itself.
    pub(super) fn is_own(&self, router: &Router) -> bool {
        *router.site.as_str() == *self.account.site && *router.name.as_str() == *self.account.router
    }

    /// Asks those other routers of the fleet that are meant, all at once: the answer of each by `SITE/ROUTER`, or why there
    /// is none. `read` takes the JSON out of the kind of answer that is expected.
    pub(super) async fn ask_others<T: DeserializeOwned + Send + 'static>(
        &self,
        ask: &Ask,
        is_meant: impl Fn(&Router) -> bool,
        read: fn(Answer) -> Result<ByteBuf, Answer>,
    ) -> Vec<(String, Result<T, String>)> {
        let Some(writer) = &self.progress else { return Vec::new() };
        let is_meant = |router: &Router| is_meant(router) && !self.is_own(router);
        ask_routers(writer, &self.view(), ask, is_meant, read).await
    }
}

/// The same for whoever has no [`World`].
pub(super) async fn ask_routers<T: DeserializeOwned + Send + 'static>(
    writer: &Writer,
    view: &View,
    ask: &Ask,
    is_meant: impl Fn(&Router) -> bool,
    read: fn(Answer) -> Result<ByteBuf, Answer>,
) -> Vec<(String, Result<T, String>)> {
    let ask = Bytes::from(ask.encode());
    let mut asking = JoinSet::new();
    for router in view.catalog.fleet().routers().filter(|router| is_meant(router)) {
        let title = format!("{}/{}", router.site, router.name);
        asking.spawn(ask_one(Writer { number: router.number, title, ..writer.clone() }, ask.clone(), read));
    }
    let mut answers = Vec::with_capacity(asking.len());
    while let Some(answered) = asking.join_next().await {
        // A task that broke off has told so.
        answers.extend(answered);
    }
    answers
}

async fn ask_one<T: DeserializeOwned>(
    to: Writer,
    ask: Bytes,
    read: fn(Answer) -> Result<ByteBuf, Answer>,
) -> (String, Result<T, String>) {
    let answered = async {
        let call = to.caller.call(to.number, ask, ANSWER_BYTES_MAX);
        let answer = tokio::time::timeout(ANSWER_WAIT, call).await;
        let answer =
            answer.map_err(|_| format!("no answer within {ANSWER_WAIT:?}"))?.map_err(|error| error.to_string())?;
        let answer = Answer::decode(&answer).map_err(|error| error.to_string())?;
        let json = read(answer).map_err(|other| unexpected(other).message)?;
        serde_json::from_slice(&json).map_err(|error| error.to_string())
    };
    let answered = answered.await;
    (to.title, answered)
}
