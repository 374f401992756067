//! Events on their way: what the router around the mesh does with its own and with other routers' batches.

use myelin_mesh::{
    BatchDecoder, BatchHead, LocalDelivery, Outgoing, SiteNumber, SiteSet, Source, Split, Stamp, batch, hand_on, plan,
    split,
};
use myelin_wire::EventBuilder;

use crate::network::Payload;
use crate::world::{EVENT_LEN_MAX, Published, World};

impl World {
    pub(crate) fn publish(&mut self, node: usize, topic: String, allowed: Option<SiteSet>) {
        if self.nodes[node].mesh.is_none()
            || allowed.as_ref().is_some_and(|allowed| !allowed.contains(self.nodes[node].site))
        {
            return;
        }
        let event = self.events.len();
        let mut published =
            Published { topic: topic.clone(), origin: node, allowed: allowed.clone(), ..Published::default() };
        let own_groups = self.nodes[node].groups(&topic);
        if self.nodes[node].wants_plain(&topic) {
            published.plain.insert(node, 1);
        }
        own_groups.iter().for_each(|group| *published.groups.entry(*group).or_default() += 1);
        let (matched, routes) = self.nodes[node].matched(&topic);
        let origin = &mut self.nodes[node];
        let plan =
            plan(&matched, &routes, &mut origin.residency, allowed.clone(), |group| own_groups.contains(&group.id));
        origin.seq += 1;
        let stamp = Stamp {
            origin: origin.router,
            epoch: origin.epoch,
            shard: u8::try_from(event % 3).unwrap(),
            hops: 0,
            here_only: false,
            seq: origin.seq,
            generation: 1,
            ttl_ms: 0,
            sites: plan.sites,
            allowed,
            grants: plan.grants,
        };
        self.events.push(published);
        self.forward(node, event, &stamp);
    }

    pub(crate) fn batch(&mut self, node: usize, bytes: &[u8]) {
        let mut decoder = BatchDecoder::new(EVENT_LEN_MAX);
        decoder.push(bytes);
        let batch = decoder.poll().unwrap().unwrap();
        let span = batch.spans().next().unwrap();
        let event = u64::from_le_bytes(span.payload(&batch.events).try_into().unwrap());
        let event = usize::try_from(event).unwrap();
        let stamp = batch.head.stamp;
        self.counters.most_hops = self.counters.most_hops.max(stamp.hops);
        let site = self.nodes[node].site;
        if stamp.allowed.as_ref().is_some_and(|allowed| !allowed.contains(site)) {
            self.faults.push(format!("event {event} came to site {site}, where it must not be"));
        }
        let source = Source { origin: stamp.origin, epoch: stamp.epoch, shard: stamp.shard };
        // What goes through a router may come again for another site of its set; what is for it comes once.
        if stamp.destinations().contains(site) {
            let tally = self.nodes[node].window.admit(source, stamp.seq, 1, &mut Vec::new());
            if tally.new != 1 {
                self.counters.duplicates += 1;
                self.faults.push(format!("event {event} came to router {node} twice"));
                return;
            }
        }
        self.forward(node, event, &stamp);
    }

    /// What a router does with a batch, its own or another's.
    fn forward(&mut self, node: usize, event: usize, stamp: &Stamp) {
        let (mut out, site) = (Split::default(), self.nodes[node].site);
        let routes = self.mesh(node).unwrap().routes();
        if let Err(violation) = split(stamp, &routes, &mut self.nodes[node].residency, &mut out) {
            self.faults.push(format!("event {event}: {violation}"));
            return;
        }
        self.events[event].over_hops |= &out.over_hops;
        if let Some(local) = &out.local {
            self.local(node, event, stamp, local, site);
        }
        for copy in out.copies {
            self.transmit(event, copy);
        }
    }

    fn local(&mut self, node: usize, event: usize, stamp: &Stamp, local: &LocalDelivery, site: SiteNumber) {
        let topic = self.events[event].topic.clone();
        let is_origin = stamp.hops == 0;
        if local.plain && !is_origin {
            if self.nodes[node].wants_plain(&topic) {
                *self.events[event].plain.entry(node).or_default() += 1;
            }
            if !local.here_only {
                *self.events[event].sites.entry(site.number()).or_default() += 1;
            }
        }
        let (matched, routes) = self.nodes[node].matched(&topic);
        let members = self.nodes[node].groups(&topic);
        let mut copies = Vec::new();
        let served = hand_on(stamp, local, &matched, &routes, |id| members.contains(&id), &mut copies);
        self.counters.missed += u64::from(served.missed);
        for group in served.groups {
            *self.events[event].groups.entry(group).or_default() += 1;
        }
        self.counters.sibling_copies += copies.len() as u64;
        copies.into_iter().for_each(|copy| self.transmit(event, copy));
    }

    fn transmit(&mut self, event: usize, copy: Outgoing) {
        let mut events = Vec::new();
        let payload = (event as u64).to_le_bytes();
        EventBuilder { topic_ref: 1, attrs: &[], payload: &payload, request: false }.write(&mut events).unwrap();
        let head = BatchHead { stamp: copy.stamp, count: 1, time_ns: 0, source_ref: 0 };
        let mut bytes = Vec::new();
        batch::write_head(&mut bytes, &head, &[], events.len()).unwrap();
        bytes.extend(events);
        self.counters.batches += 1;
        self.send(copy.link, Payload::Batch(bytes.into()));
    }
}
