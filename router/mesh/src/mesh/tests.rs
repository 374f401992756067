#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::control::{Digest, FixedBytes, InterestPull};
use crate::directory::{Router, Site};
use crate::limits::{COST_UNKNOWN, OWNER_EXPIRY_MS};
use crate::topology::states::tests::state;
use crate::violation::{Violation, ViolationCode};

mod lies;

/// Routers 0 to 3, one at each of the sites 0 to 3.
fn directory(routers: u32) -> Arc<Directory> {
    let number = |n: u32| SiteNumber::new(u16::try_from(n).unwrap()).unwrap();
    let site = |n: u32| Site {
        number: number(n),
        name: format!("s{n}").into(),
        region: Arc::default(),
        cloud: Arc::default(),
    };
    let router = |n: u32| Router { number: RouterNumber(n), name: "r".into(), site: number(n) };
    Arc::new(Directory::new((0..routers).map(site), (0..routers).map(router)).unwrap())
}

fn config(number: u32, epoch: u32) -> Config {
    let site = SiteNumber::new(u16::try_from(number).unwrap()).unwrap();
    Config::new(site, &format!("s{number}"), RouterNumber(number), "r", epoch)
}

fn mesh(number: u32, epoch: u32) -> Mesh {
    Mesh::new(0, config(number, epoch), directory(4))
}

fn up(mesh: &mut Mesh, now: u64, link: u64, peer: &Mesh, dialled: bool) -> Result<u16, Violation> {
    let (hello, site) = (peer.hello(), peer.config.site_name.clone());
    let identity = PeerIdentity { site: &site, router: "r" };
    mesh.link_up(now, LinkUp { link: LinkId(link), identity, dialled, hello: &hello })
}

fn outputs(mesh: &mut Mesh) -> Vec<Output> {
    std::iter::from_fn(|| mesh.poll()).collect()
}

fn alarms(mesh: &mut Mesh) -> Vec<Alarm> {
    let alarm = |output| if let Output::Alarm(alarm) = output { Some(alarm) } else { None };
    outputs(mesh).into_iter().filter_map(alarm).collect()
}

/// Two routers with a link, 1 at both ends, which carry out what they say at once.
struct Pair(Mesh, Mesh);

impl Pair {
    fn new() -> Self {
        let (mut a, mut b) = (mesh(0, 1), mesh(1, 1));
        up(&mut a, 10, 1, &b, true).unwrap();
        up(&mut b, 10, 1, &a, false).unwrap();
        let mut pair = Self(a, b);
        pair.run(10, 300);
        pair
    }

    fn run(&mut self, from: u64, until: u64) -> (Vec<Output>, Vec<Output>) {
        let mut said = (Vec::new(), Vec::new());
        for now in from..=until {
            self.0.tick(now);
            self.1.tick(now);
            loop {
                let (from_a, from_b) = (outputs(&mut self.0), outputs(&mut self.1));
                if from_a.is_empty() && from_b.is_empty() {
                    break;
                }
                deliver(now, &from_a, &mut self.1);
                deliver(now, &from_b, &mut self.0);
                said.0.extend(from_a);
                said.1.extend(from_b);
            }
        }
        said
    }
}

fn deliver(now: u64, said: &[Output], to: &mut Mesh) {
    for output in said {
        if let Output::Send { control, .. } = output {
            to.receive(now, LinkId(1), control.clone()).unwrap();
        }
    }
}

#[test]
fn a_peer_must_be_who_its_certificate_and_the_directory_say() {
    let (mut here, there) = (mesh(0, 1), mesh(1, 1));
    let refused = |here: &mut Mesh, site: &str, hello: &Hello| {
        let identity = PeerIdentity { site, router: "r" };
        here.link_up(0, LinkUp { link: LinkId(1), identity, dialled: true, hello }).unwrap_err().code
    };
    let hello = there.hello();
    assert_eq!(refused(&mut here, "s2", &hello), ViolationCode::Identity, "another certificate");
    let number = Hello { router: RouterNumber(2), ..hello.clone() };
    assert_eq!(refused(&mut here, "s1", &number), ViolationCode::Identity, "another router's number");
    let unheard = Hello { router: RouterNumber(77), ..hello.clone() };
    assert_eq!(refused(&mut here, "s1", &unheard), ViolationCode::Identity, "a number that is not its own");
    let moved = Hello { site: SiteNumber::new(3).unwrap(), ..hello.clone() };
    assert_eq!(refused(&mut here, "s1", &moved), ViolationCode::Identity, "another site's number");
    let old = Hello { min: 7, max: 9, ..hello };
    assert_eq!(refused(&mut here, "s1", &old), ViolationCode::Version);
    assert!(alarms(&mut here).is_empty());
    let mirror = mesh(0, 2).hello();
    assert_eq!(refused(&mut here, "s0", &mirror), ViolationCode::OwnIdentity);
    assert_eq!(alarms(&mut here), [Alarm::OwnIdentity { epoch: 2, version: 0 }]);
    assert_eq!(here.sizes().links, 0);
}

#[test]
fn a_second_holder_of_an_identity_is_refused_while_the_first_is_live() {
    let mut here = mesh(0, 1);
    up(&mut here, 0, 1, &mesh(1, 5), true).unwrap();
    assert_eq!(up(&mut here, 1, 2, &mesh(1, 6), false).unwrap_err().code, ViolationCode::IdentityInUse);
    assert_eq!(up(&mut here, 1, 2, &mesh(1, 4), false).unwrap_err().code, ViolationCode::IdentityInUse);
    let live = |refused| Alarm::IdentityInUse { router: RouterNumber(1), live: 5, refused };
    assert_eq!(alarms(&mut here), [live(6), live(4)]);
    here.receive(2, LinkId(1), Control::LinkState(state(1, 5, 1, &[(0, 9)]))).unwrap();
    here.link_down(4_000, LinkId(1));
    assert_eq!(up(&mut here, 4_001, 3, &mesh(1, 4), false).unwrap_err().code, ViolationCode::IdentityInUse);
    here.tick(4_200);
    up(&mut here, 4_201, 4, &mesh(1, 6), false).unwrap();
}

#[test]
fn of_two_links_that_were_dialled_at_once_both_sides_keep_the_same() {
    for order in [[1, 2], [2, 1]] {
        for other_order in [[1, 2], [2, 1]] {
            // Router 0 dials link 1, router 1 link 2.
            let (mut low, mut high) = (mesh(0, 1), mesh(1, 1));
            let kept = |mesh: &mut Mesh, peer: &Mesh, own: u64, order: [u64; 2]| {
                let codes: Vec<_> = order
                    .into_iter()
                    .filter_map(|link| up(mesh, link, link, peer, link == own).err())
                    .map(|violation| violation.code)
                    .collect();
                assert!(codes.iter().all(|code| *code == ViolationCode::DuplicateLink));
                let closed = outputs(mesh).into_iter().filter(|output| matches!(output, Output::Close { .. })).count();
                assert_eq!(codes.len() + closed, 1, "one is refused or closed");
                mesh.peers().map(|peer| peer.link.0).collect::<Vec<_>>()
            };
            assert_eq!(kept(&mut low, &mesh(1, 1), 1, order), [1]);
            assert_eq!(kept(&mut high, &mesh(0, 1), 2, other_order), [1]);
        }
    }
}

#[test]
fn two_routers_come_to_know_each_other_and_each_others_interest() {
    let mut pair = Pair::new();
    assert!(pair.0.routes().reaches(RouterNumber(1)) && pair.1.routes().reaches(RouterNumber(0)));
    pair.1.subscribe(300, &"a/*".parse().unwrap(), GroupName::new("g").as_ref()).unwrap();
    let (from_a, _) = pair.run(300, 360);
    assert!(from_a.contains(&Output::InterestChanged));
    let mut matched = Default::default();
    pair.0.interest().matches("a/b", &mut matched);
    assert_eq!(matched.groups[0].sites.iter().map(SiteNumber::number).collect::<Vec<_>>(), [1]);
    assert_eq!(pair.0.interest_head(RouterNumber(1)), pair.1.interest_head(RouterNumber(1)));

    // What is told of the router follows, and what it costs when it was measured.
    let head = CatalogHead { rev: 4, hash: FixedBytes([1; 32]) };
    pair.1.set_catalog_head(400, head);
    assert_eq!(pair.0.peers().next().unwrap().cost, COST_UNKNOWN);
    pair.1.measured(400, LinkId(1), RoundTrips::one(30_000));
    pair.0.measured(400, LinkId(1), RoundTrips::one(31_500));
    let (from_a, _) = pair.run(400, 700);
    assert!(from_a.contains(&Output::StatusChanged(RouterNumber(1))));
    assert_eq!(pair.0.link_state(RouterNumber(1)).unwrap().catalog, head);
    assert_eq!(pair.1.routes().hop(RouterNumber(0)).unwrap().cost, 32);

    // The shell's own messages pass.
    pair.0.send_application(LinkId(1), 7, Bytes::from_static(b"hi"));
    let (_, from_b) = pair.run(700, 700);
    let message = Output::Application { link: LinkId(1), kind: 7, body: Bytes::from_static(b"hi") };
    assert!(from_b.contains(&message));

    pair.1.drain(800, 5_000);
    let (from_a, _) = pair.run(800, 1_000);
    assert!(from_a.contains(&Output::PeerDraining { link: LinkId(1), drain_ms: 5_000 }));
    assert!(pair.0.link_state(RouterNumber(1)).unwrap().draining && pair.0.peers().next().unwrap().draining);
    pair.0.link_down(1_000, LinkId(1));
    pair.0.tick(1_200);
    assert!(!pair.0.routes().reaches(RouterNumber(1)));
    pair.0.interest().matches("a/b", &mut matched);
    assert!(matched.is_empty(), "nothing is sent to whom nothing leads");
    pair.0.tick(1_200 + OWNER_EXPIRY_MS);
    assert!(outputs(&mut pair.0).contains(&Output::Forgotten(RouterNumber(1))));
    assert_eq!((pair.0.sizes().routers, pair.0.sizes().interest_entries), (0, 0));
}

#[test]
fn what_breaks_the_protocol_costs_the_link_and_nothing_else() {
    let bad = [
        (Control::Hello(mesh(1, 1).hello()), ViolationCode::OutOfOrder),
        (Control::LinkState(state(1, 1, 9, &[(2, 1), (0, 1)])), ViolationCode::Malformed),
        (Control::LinkState(state(3, 1, u64::MAX, &[])), ViolationCode::Malformed),
        (
            Control::Digest(Digest { entries: vec![(RouterNumber(3), 1, u64::MAX)], reply: false }),
            ViolationCode::Malformed,
        ),
    ];
    for (control, code) in bad {
        let mut pair = Pair::new();
        let refused = pair.0.receive(300, LinkId(1), control).unwrap_err();
        assert_eq!((refused.code, refused.closes_link()), (code, true));
        assert_eq!(pair.0.sizes().links, 0);
        pair.0.tick(500);
        assert!(!pair.0.routes().reaches(RouterNumber(1)));
        assert_eq!(pair.0.receive(500, LinkId(1), Control::Drain(Drain { drain_ms: 1 })), Ok(()), "late, and ignored");
    }
}

#[test]
fn whoever_speaks_in_this_routers_name_is_outdone_and_reported() {
    let mut pair = Pair::new();
    let forged = state(0, 1, 50, &[]);
    pair.0.receive(300, LinkId(1), Control::LinkState(forged)).unwrap();
    pair.0.tick(400);
    assert!(pair.0.told.version > 50 && !pair.0.told.links.is_empty());
    let said = outputs(&mut pair.0);
    assert!(said.contains(&Output::Alarm(Alarm::OwnIdentity { epoch: 1, version: 50 })));
    let later = Digest { entries: vec![(RouterNumber(0), 9, 1)], reply: false };
    pair.0.receive(500, LinkId(1), Control::Digest(later.clone())).unwrap();
    pair.0.receive(600, LinkId(1), Control::Digest(later)).unwrap();
    assert_eq!(alarms(&mut pair.0), [Alarm::OwnIdentity { epoch: 9, version: 1 }], "once");
}

#[test]
fn questions_are_answered_within_a_rate() {
    let mut pair = Pair::new();
    pair.0.subscribe(300, &"a".parse().unwrap(), None).unwrap();
    pair.run(300, 400);
    let pull = InterestPull { owner: RouterNumber(0), have: InterestHead::default() };
    for now in 400..1_400 {
        pair.0.receive(now, LinkId(1), Control::InterestPull(pull)).unwrap();
    }
    let given = pair.0.stats().snapshots_given;
    assert!((2..=3).contains(&given), "{given} answers in a second");
    assert_eq!(pair.0.stats().questions_refused, 1_000 - given);
}

#[test]
fn a_peer_that_the_directory_does_not_know_takes_part_once_it_does() {
    let mut early = Mesh::new(0, config(0, 1), directory(1));
    let mut late = Mesh::new(0, config(1, 1), directory(4));
    up(&mut late, 1, 1, &early, true).unwrap();
    up(&mut early, 1, 1, &late, false).unwrap();
    assert!(!early.peers().next().unwrap().is_known);
    let mut pair = Pair(early, late);
    pair.1.subscribe(2, &"a".parse().unwrap(), None).unwrap();
    pair.run(2, 2_000);
    assert!(!pair.0.routes().reaches(RouterNumber(1)) && !pair.1.routes().reaches(RouterNumber(0)));
    assert!(pair.0.stats().unread > 0);
    // The catalog came over the link meanwhile.
    pair.0.send_application(LinkId(1), 1, Bytes::new());
    pair.0.set_directory(2_000, directory(4));
    pair.run(2_000, 3_000);
    assert!(pair.0.routes().reaches(RouterNumber(1)) && pair.1.routes().reaches(RouterNumber(0)));
    assert_eq!(pair.0.interest_head(RouterNumber(1)), pair.1.interest_head(RouterNumber(1)));
    assert_eq!(pair.0.sizes().interest_entries, 1);
    // And a router that is taken out of the catalog is taken out of the mesh.
    pair.0.set_directory(3_000, directory(1));
    let said = outputs(&mut pair.0);
    let closed = said
        .iter()
        .find_map(|output| if let Output::Close { violation, .. } = output { Some(violation.code) } else { None });
    assert_eq!(closed, Some(ViolationCode::Identity));
    assert_eq!(pair.0.sizes().links, 0);
}
