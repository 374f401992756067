//! What a peer says of others.

use super::*;
use crate::control::InterestDelta;
use crate::limits::{ROUTERS_MAX, VERSION_JUMP_MAX, VERSION_MAX};

/// The link to the liar, router 2; that to router 1 is number 1.
const LIAR: LinkId = LinkId(2);

/// Two routers that know each other; the first has a link to a third, which lies.
fn pair_and_liar() -> Pair {
    let mut pair = Pair::new();
    up(&mut pair.0, 300, 2, &mesh(2, 1), false).unwrap();
    pair.0.receive(300, LIAR, Control::LinkState(state(2, 1, 1, &[(0, 9)]))).unwrap();
    pair.run(300, 500);
    outputs(&mut pair.0);
    pair
}

fn says(pair: &mut Pair, control: Control) -> Result<(), Violation> {
    pair.0.receive(600, LIAR, control)
}

fn sent_to(said: &[Output], link: LinkId) -> Vec<Control> {
    let sent = said.iter().filter_map(|output| match output {
        Output::Send { links, control } if links.contains(&link) => Some(control.clone()),
        _ => None,
    });
    sent.collect()
}

#[test]
fn a_neighbour_speaks_for_itself_and_hears_what_is_said_in_its_name() {
    let mut pair = pair_and_liar();
    let lie = state(1, 1, 1_000, &[]);
    says(&mut pair, Control::LinkState(lie.clone())).unwrap();
    pair.0.tick(800);
    assert!(pair.0.routes().reaches(RouterNumber(1)) && pair.0.link_state(RouterNumber(1)) != Some(&lie));
    // The neighbour outbids it, and so the lie is over wherever else it was told.
    let said = outputs(&mut pair.0);
    assert_eq!(sent_to(&said, LinkId(1)), [Control::LinkState(lie)]);
    deliver(800, &said, &mut pair.1);
    pair.run(800, 1_100);
    let told = pair.0.link_state(RouterNumber(1)).unwrap();
    assert!(told.version > 1_000 && told.links == [(RouterNumber(0), COST_UNKNOWN)], "{told:?}");

    // Somebody says that it has started anew, and it says that it has not.
    says(&mut pair, Control::LinkState(state(1, 2, 1, &[]))).unwrap();
    let said = outputs(&mut pair.0);
    let alarm = Alarm::IdentityInUse { router: RouterNumber(1), live: 1, refused: 2 };
    assert!(said.contains(&Output::Alarm(alarm)) && sent_to(&said, LinkId(1)).len() == 1);
    pair.1.set_catalog_head(6_200, CatalogHead { rev: 1, hash: FixedBytes([1; 32]) });
    pair.run(6_200, 6_400);
    pair.0.link_down(6_500, LinkId(1));
    assert_eq!(pair.0.link_state(RouterNumber(1)).unwrap().epoch, 1);
}

#[test]
fn what_others_said_of_a_neighbour_counts_once_its_link_has_ended() {
    let mut pair = pair_and_liar();
    // It has lost its link to here and found one to the other, and says so there.
    says(&mut pair, Control::LinkState(state(1, 1, 500, &[(2, 5)]))).unwrap();
    says(&mut pair, Control::LinkState(state(2, 1, 2, &[(0, 9), (1, 5)]))).unwrap();
    assert_ne!(pair.0.link_state(RouterNumber(1)).unwrap().version, 500);
    pair.0.link_down(4_000, LinkId(1));
    pair.0.tick(4_200);
    assert_eq!(pair.0.link_state(RouterNumber(1)).unwrap().version, 500);
    assert_eq!(pair.0.routes().hop(RouterNumber(1)).unwrap().link, LIAR);
}

#[test]
fn a_router_that_tells_less_than_is_said_in_its_name_is_told_that() {
    let mut here = mesh(0, 1);
    up(&mut here, 0, 2, &mesh(2, 1), false).unwrap();
    here.receive(1, LIAR, Control::LinkState(state(1, 1, 70, &[(2, 1)]))).unwrap();
    up(&mut here, 2, 1, &mesh(1, 1), false).unwrap();
    outputs(&mut here);
    here.receive(3, LinkId(1), Control::LinkState(state(1, 1, 3, &[(0, 1)]))).unwrap();
    assert_eq!(sent_to(&outputs(&mut here), LinkId(1)), [Control::LinkState(state(1, 1, 70, &[(2, 1)]))]);
}

#[test]
fn what_a_neighbour_wants_is_its_own_to_say() {
    let mut pair = pair_and_liar();
    pair.1.subscribe(500, &"a".parse().unwrap(), None).unwrap();
    pair.run(500, 590);
    let head = pair.0.interest_head(RouterNumber(1)).unwrap();
    let lie = |seq| {
        let head = InterestHead { seq, ..head };
        let removed = vec![Entry("a".parse().unwrap(), None)];
        Control::InterestDelta(InterestDelta { owner: RouterNumber(1), head, added: vec![], removed })
    };
    for seq in 1..5 {
        says(&mut pair, lie(seq)).unwrap();
    }
    assert_eq!((pair.0.interest_head(RouterNumber(1)), pair.0.sizes().behind), (Some(head), 0));
    assert_eq!(says(&mut pair, lie(VERSION_MAX)).unwrap_err().code, ViolationCode::Malformed);
}

#[test]
fn versions_that_leave_no_room_are_refused_and_not_outbid() {
    for version in [VERSION_JUMP_MAX + 100, VERSION_MAX - 1] {
        let mut pair = pair_and_liar();
        // Router 1 is known and fresh; what it could not say itself is not believed.
        let refused = says(&mut pair, Control::LinkState(state(1, 1, version, &[]))).unwrap_err();
        assert_eq!(refused.code, ViolationCode::Malformed);
        let before = pair.1.told.version;
        pair.1.receive(700, LinkId(1), Control::LinkState(state(1, 1, version, &[]))).unwrap();
        pair.1.tick(900);
        assert!(pair.1.told.version < before + 5, "{}", pair.1.told.version);
        assert_eq!(alarms(&mut pair.1), [Alarm::OwnIdentity { epoch: 1, version }]);
    }
}

#[test]
fn strangers_take_no_room_of_members() {
    let mut here = mesh(0, 1);
    up(&mut here, 0, 2, &mesh(2, 1), false).unwrap();
    for owner in 0..u32::try_from(ROUTERS_MAX).unwrap() {
        here.receive(1, LIAR, Control::LinkState(state(1_000 + owner, 1, 1, &[]))).unwrap();
    }
    assert_eq!(here.sizes().routers, ROUTERS_MAX);
    let delta = |owner| {
        let added = vec![Entry("a".parse().unwrap(), None)];
        let head = InterestHead { epoch: 1, seq: 1, ..InterestHead::default() };
        Control::InterestDelta(InterestDelta { owner: RouterNumber(owner), head, added, removed: vec![] })
    };
    here.receive(2, LIAR, delta(1_001)).unwrap();
    assert_eq!((here.sizes().interest_entries, here.stats().deltas_unknown), (0, 1));
    here.receive(3, LIAR, Control::LinkState(state(3, 1, 1, &[]))).unwrap();
    here.receive(3, LIAR, delta(3)).unwrap();
    assert!(here.link_state(RouterNumber(3)).is_some(), "a member");
    assert_eq!((here.sizes().routers, here.sizes().interest_entries), (ROUTERS_MAX, 1));
}
