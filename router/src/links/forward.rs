//! Events that this router's sessions published, on their way to other sites.

use super::queue::Outgoing;
use super::state::Links;
use crate::ledger::Term;
use crate::outbox::{Delivery, NameSet};
use crate::shared::Forward;
use myelin_mesh::{InterestMatch, LinkId, LocalDelivery, ResidencyCache, RouterNumber, Split, Stamp, hand_on, split};
use myelin_wire::event::EventHead;
use std::rc::Rc;
use tokio::sync::mpsc;

/// Runs that are taken from the workers at once.
const FORWARDS_AT_ONCE: usize = 64;

/// Scratch of whoever splits batches.
#[derive(Default)]
pub(super) struct Splitter {
    residency: ResidencyCache,
    pub(super) split: Split,
    matched: InterestMatch,
    siblings: Vec<myelin_mesh::Outgoing>,
}

/// Takes what the workers hand over.
pub(super) async fn take(links: Rc<Links>, mut forwards: mpsc::Receiver<Forward>) {
    let (mut taken, mut splitter) = (Vec::new(), Splitter::default());
    while forwards.recv_many(&mut taken, FORWARDS_AT_ONCE).await > 0 {
        for Forward { delivery, plan } in taken.drain(..) {
            let origin = &delivery.origin;
            let stamp = Stamp {
                origin: RouterNumber(links.local.shared.origin),
                epoch: links.local.shared.epoch,
                shard: origin.shard,
                hops: 0,
                here_only: false,
                seq: delivery.seq,
                generation: origin.generation,
                ttl_ms: 0,
                sites: plan.sites.clone(),
                allowed: plan.allowed.clone(),
                grants: plan.grants.clone(),
            };
            send_own(&links, &mut splitter, &stamp, &delivery);
        }
    }
}

/// Splits an own run and queues its copies. The workers counted one copy for all other sites.
fn send_own(links: &Links, splitter: &mut Splitter, stamp: &Stamp, delivery: &Delivery) {
    let (ledger, generation) = (&links.local.ledger, delivery.origin.generation);
    let count = u64::from(delivery.count);
    if let Err(violation) = splitter.split(links, stamp) {
        tracing::error!(%violation, "an own event does not split: a defect of the router");
        return ledger.settle(generation, Term::Lost, count);
    }
    let mut copies: Vec<(LinkId, Outgoing)> = Vec::with_capacity(splitter.split.copies.len());
    let own = |delivery: &Delivery, copy: myelin_mesh::Outgoing| {
        (copy.link, Outgoing { stamp: copy.stamp, delivery: delivery.clone() })
    };
    copies.extend(splitter.split.copies.drain(..).map(|copy| own(delivery, copy)));
    if let Some(local) = splitter.split.local.take() {
        for part in by_topic(delivery) {
            let stamp = Stamp { seq: part.seq, ..stamp.clone() };
            let (_, siblings) = splitter.hand_to_siblings(links, &stamp, &local, &part, |_| false);
            copies.extend(siblings.map(|copy| own(&part, copy)));
        }
    }
    let total: u64 = copies.iter().map(|(_, copy)| u64::from(copy.delivery.count)).sum();
    if let Some(more) = total.checked_sub(count) {
        add_copies(links, generation, more);
    } else {
        // No way there at the moment.
        links.counters.unreachable.set(links.counters.unreachable.get() + count - total);
        ledger.settle(generation, Term::Lost, count - total);
    }
    for (link, copy) in copies {
        links.offer(link, copy);
    }
}

/// Counts copies beside those that were counted before.
pub(super) fn add_copies(links: &Links, generation: u64, copies: u64) {
    links.local.ledger.add(generation, Term::Targets, copies);
    links.local.ledger.add(generation, Term::InQueue, copies);
}

impl Splitter {
    /// Splits `stamp` by next hop, by the routes as they are now.
    pub(super) fn split(&mut self, links: &Links, stamp: &Stamp) -> Result<(), myelin_mesh::Violation> {
        split(stamp, &links.routes(), &mut self.residency, &mut self.split)
    }

    /// The copies of events of one topic for the siblings at this site, and the groups that this router serves.
    pub(super) fn hand_to_siblings(
        &mut self,
        links: &Links,
        stamp: &Stamp,
        local: &LocalDelivery,
        part: &Delivery,
        has_member: impl FnMut(u32) -> bool,
    ) -> (myelin_mesh::Served, std::vec::Drain<'_, myelin_mesh::Outgoing>) {
        let topic = part.names.as_slice().first().map_or("", |name| &*name.text);
        links.with_interest(|interest| interest.matches(topic, &mut self.matched));
        let served = hand_on(stamp, local, &self.matched, &links.routes(), has_member, &mut self.siblings);
        (served, self.siblings.drain(..))
    }
}

/// Cuts a delivery into runs of one topic each.
fn by_topic(delivery: &Delivery) -> Vec<Delivery> {
    if let NameSet::One(_) = delivery.names {
        return vec![delivery.clone()];
    }
    let mut parts: Vec<Delivery> = Vec::new();
    let (mut at, mut seq, mut reference) = (0, delivery.seq, None);
    while let Ok(Some(event)) = EventHead::parse(&delivery.events[at..]) {
        let end = at + event.total_bytes();
        let name = delivery.names.as_slice().iter().find(|name| name.reference == event.topic_ref);
        match (parts.last_mut(), name) {
            (Some(part), _) if reference == Some(event.topic_ref) => {
                part.count += 1;
                let start = end - part.events.len() - event.total_bytes();
                part.events = delivery.events.slice(start..end);
            }
            (_, Some(name)) => {
                let (names, events) = (NameSet::One(name.clone()), delivery.events.slice(at..end));
                parts.push(Delivery { events, names, seq, count: 1, ..delivery.clone() });
            }
            (_, None) => {}
        }
        (at, seq, reference) = (end, seq + 1, Some(event.topic_ref));
    }
    parts
}
