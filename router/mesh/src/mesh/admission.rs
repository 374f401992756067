//! Who gets a link, and who loses it.

use std::sync::Arc;

use super::receive::Answers;
use super::{Alarm, Link, Mesh, Output};
use crate::control::{Control, Digest, Hello, Versions, negotiate};
use crate::directory::Directory;
use crate::ids::{LinkId, RouterNumber};
use crate::limits::LINKS_MAX;
use crate::topology::cost::Cost;
use crate::violation::{Violation, ViolationCode};

/// Who a peer is by its certificate: site and router of `spiffe://DOMAIN/site/SITE/router/ROUTER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity<'a> {
    /// Name of the site.
    pub site: &'a str,
    /// Name of the router.
    pub router: &'a str,
}

/// A connection on which hellos were exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkUp<'a> {
    /// The shell's number for it.
    pub link: LinkId,
    /// Who the peer is by its certificate.
    pub identity: PeerIdentity<'a>,
    /// Whether this router opened the connection.
    pub dialled: bool,
    /// What the peer said.
    pub hello: &'a Hello,
}

impl Mesh {
    /// A link is up; returns the version of the protocol that is spoken on it.
    ///
    /// Of two connections between the same two routers, one opened by each, the one that the router with the lower
    /// number opened stays: the other is refused, or closed by an [`Output::Close`], in the same way on both sides.
    ///
    /// # Errors
    /// The violation to answer with [`crate::control::HelloRefused`] before the connection is closed: `version`,
    /// `identity`, `own-identity`, `identity-in-use`, `duplicate-link`, `too-many-links`.
    pub fn link_up(&mut self, now: u64, up: LinkUp<'_>) -> Result<u16, Violation> {
        let hello = up.hello;
        let version = negotiate(self.config.versions, Versions { min: hello.min, max: hello.max })?;
        self.check_identity(&up)?;
        self.check_not_in_use(hello)?;
        self.check_only_link(now, &up)?;
        if self.links.len() >= LINKS_MAX || self.links.contains_key(&up.link) {
            let message = format!("this router has {} links; the limit is {LINKS_MAX}", self.links.len());
            return Err(Violation::new(ViolationCode::TooManyLinks, message));
        }
        let link = Link {
            peer: hello.router,
            epoch: hello.epoch,
            version,
            features: hello.features,
            dialled: up.dialled,
            cost: Cost::default(),
            draining: false,
            is_known: self.directory.router(hello.router).is_some(),
            answers: Answers::default(),
            hearsay: None,
        };
        let is_known = link.is_known;
        self.links.insert(up.link, link);
        self.peers.insert(hello.router, up.link);
        if is_known {
            self.join(now, up.link, false);
        }
        self.tick(now);
        Ok(version)
    }

    /// A link is gone: closed by either side, or silent for too long. Of a link that [`Output::Close`] named, or that
    /// was refused, nothing is known any more, and nothing happens.
    pub fn link_down(&mut self, now: u64, link: LinkId) {
        self.drop_link(now, link);
        self.tick(now);
    }

    /// Who belongs to the mesh has changed. Links to routers that belong to it now take part from here on; links to
    /// those that do not any more are closed.
    pub fn set_directory(&mut self, now: u64, directory: Arc<Directory>) {
        self.directory = directory.clone();
        self.remote.set_directory(directory.clone());
        let heads = self.states.iter().map(|state| (state.owner, state.interest)).collect::<Vec<_>>();
        for (owner, head) in heads.into_iter().filter(|(owner, _)| directory.router(*owner).is_some()) {
            self.remote.set_head(now, owner, head);
        }
        let links: Vec<(LinkId, RouterNumber, bool)> =
            self.links.iter().map(|(id, link)| (*id, link.peer, link.is_known)).collect();
        for (id, peer, was_known) in links {
            let is_known = self.directory.router(peer).is_some();
            if is_known && !was_known {
                if let Some(link) = self.links.get_mut(&id) {
                    link.is_known = true;
                }
                self.join(now, id, true);
            } else if was_known && !is_known {
                self.drop_link(now, id);
                let message = format!("router {peer} does not belong to the mesh any more; its catalog entry is gone");
                let violation = Violation::new(ViolationCode::Identity, message);
                self.outputs.push_back(Output::Close { link: id, violation });
            }
        }
        self.want_routes(now);
        self.tick(now);
    }

    /// The peer at `link` takes part from here on.
    fn join(&mut self, now: u64, link: LinkId, reply: bool) {
        if let Some(peer) = self.links.get(&link).map(|link| link.peer) {
            self.remote.link_up(now, peer);
        }
        self.want_publish(now, 0);
        self.want_routes(now);
        let digest = self.digest(reply);
        self.send(vec![link], Control::Digest(digest));
    }

    pub(super) fn digest(&self, reply: bool) -> Digest {
        let others = self.states.iter().map(|state| (state.owner, state.epoch, state.version));
        // The own link state is flooded in a new version at once, or as soon as it may be.
        Digest { entries: others.collect(), reply }
    }

    pub(super) fn drop_link(&mut self, now: u64, link: LinkId) {
        let Some(gone) = self.links.remove(&link) else { return };
        if self.peers.get(&gone.peer) == Some(&link) {
            self.peers.remove(&gone.peer);
        }
        self.wanted.link_down(now, link);
        self.remote.link_down(now, link);
        for links in self.askers.values_mut() {
            links.remove(&link);
        }
        self.askers.retain(|_, links| !links.is_empty());
        if let Some((_, hearsay)) = gone.hearsay {
            self.take_link_state(now, None, hearsay);
        }
        self.want_publish(now, 0);
        self.want_routes(now);
    }

    /// The hello, the certificate and the directory must say the same.
    fn check_identity(&mut self, up: &LinkUp<'_>) -> Result<(), Violation> {
        let LinkUp { identity, hello, .. } = up;
        let refuse = |message: String| Err(Violation::new(ViolationCode::Identity, message));
        if (identity.site, identity.router) != (&*hello.site_name, &*hello.router_name) {
            return refuse(format!(
                "the certificate is that of router {} at site {}, the hello that of {} at {}",
                identity.router, identity.site, hello.router_name, hello.site_name
            ));
        }
        let own = (&*self.config.site_name, &*self.config.router_name);
        if hello.router == self.config.router || own == (identity.site, identity.router) {
            let alarm = Alarm::OwnIdentity { epoch: hello.epoch, version: 0 };
            self.outputs.push_back(Output::Alarm(alarm));
            let message = format!("router {} at {} is this very router", hello.router, hello.site_name);
            return Err(Violation::new(ViolationCode::OwnIdentity, message));
        }
        let by_name = self.directory.by_name(identity.site, identity.router);
        if by_name.is_some_and(|number| number != hello.router) {
            return refuse(format!(
                "router {} at {} has another number than {}; give it the [mesh] members of `myelin site ls`",
                identity.router, identity.site, hello.router
            ));
        }
        let Some(router) = self.directory.router(hello.router) else { return Ok(()) };
        if by_name.is_none() || router.site != hello.site {
            return refuse(format!(
                "number {} is router {} at site number {}, not {} at {}, number {}; give it the [mesh] members of `myelin \
                 site ls`",
                hello.router, router.name, router.site, identity.router, identity.site, hello.site
            ));
        }
        Ok(())
    }

    /// An identity has one holder: while one boot epoch of a router is live, no other gets a link.
    fn check_not_in_use(&mut self, hello: &Hello) -> Result<(), Violation> {
        let router = hello.router;
        let linked = self.peers.get(&router).and_then(|link| self.links.get(link)).map(|link| link.epoch);
        let told = self.states.get(router).map(|state| state.epoch);
        let is_live = self.routes.reaches(router);
        // An older one than is known of is a copy from before, or has lost its memory: never let in.
        let live = linked.or(told.filter(|told| is_live || *told > hello.epoch));
        let Some(live) = live.filter(|live| *live != hello.epoch) else { return Ok(()) };
        let refused = hello.epoch;
        self.outputs.push_back(Output::Alarm(Alarm::IdentityInUse { router, live, refused }));
        let message = format!(
            "router {router} is live in boot epoch {live}, so that its epoch {refused} is refused; after a restart try \
             again in some seconds, otherwise find the copy of its disk or key"
        );
        Err(Violation::new(ViolationCode::IdentityInUse, message))
    }

    /// Two routers have one link.
    fn check_only_link(&mut self, now: u64, up: &LinkUp<'_>) -> Result<(), Violation> {
        let Some((id, link)) = self.peers.get(&up.hello.router).and_then(|id| Some((*id, self.links.get(id)?))) else {
            return Ok(());
        };
        let lower_is_here = self.config.router < up.hello.router;
        let message = format!("routers {} and {} have a link already", self.config.router, up.hello.router);
        let violation = Violation::new(ViolationCode::DuplicateLink, message);
        if link.dialled == up.dialled || up.dialled != lower_is_here {
            return Err(violation);
        }
        self.drop_link(now, id);
        self.outputs.push_back(Output::Close { link: id, violation });
        Ok(())
    }
}
