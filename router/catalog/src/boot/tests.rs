#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::*;

/// Starts a router that keeps its marker as bytes, and says what it ran.
fn boot(kept: &mut Vec<u8>, wanted: u64, earlier: &[u64]) -> BootDecision {
    let (decision, marker) = BootMarker::decode(kept).unwrap().boot(wanted, earlier);
    *kept = marker.encode();
    decision
}

fn healthy(kept: &mut Vec<u8>) {
    *kept = BootMarker::decode(kept).unwrap().healthy().encode();
}

fn retreat(decision: &BootDecision) -> Option<(u64, u64)> {
    match decision {
        BootDecision::Retreat(retreat) => Some((retreat.from, retreat.to)),
        _ => None,
    }
}

#[test]
fn two_failed_boots_and_the_previous_generation_runs() {
    let mut kept = BootMarker::default().encode();
    for _ in 0..BOOTS_MAX {
        assert_eq!(boot(&mut kept, 7, &[4, 2]), BootDecision::Run { generation: 7 });
    }
    let decision = boot(&mut kept, 7, &[4, 2]);
    assert_eq!(retreat(&decision), Some((7, 4)));
    let BootDecision::Retreat(kept_retreat) = decision else { unreachable!() };
    assert!(kept_retreat.holds(7) && !kept_retreat.holds(9), "the log's next word ends it");
    healthy(&mut kept);
    assert_eq!(retreat(&boot(&mut kept, 7, &[4, 2])), Some((7, 4)), "7 stays out");
    healthy(&mut kept);
    assert_eq!(boot(&mut kept, 9, &[7, 4]), BootDecision::Run { generation: 9 }, "a newer one is tried");
    let released = BootMarker::decode(&kept).unwrap().released(7);
    assert_eq!(released.boot(7, &[4]).0, BootDecision::Run { generation: 7 });
}

#[test]
fn a_healthy_boot_clears_the_count() {
    let mut kept = BootMarker::default().encode();
    for _ in 0..10 {
        assert_eq!(boot(&mut kept, 7, &[4]), BootDecision::Run { generation: 7 });
        healthy(&mut kept);
    }
}

#[test]
fn an_activation_counts_as_the_first_try() {
    let mut kept = BootMarker::default().activating(7).encode();
    assert_eq!(boot(&mut kept, 7, &[4]), BootDecision::Run { generation: 7 });
    assert_eq!(retreat(&boot(&mut kept, 7, &[4])), Some((7, 4)), "it died when it was activated, and once more");
}

#[test]
fn a_router_that_nothing_runs_on_serves_nothing() {
    let mut kept = BootMarker::default().encode();
    let mut ran = Vec::new();
    for _ in 0..8 {
        ran.push(match boot(&mut kept, 7, &[4]) {
            BootDecision::Run { generation } => generation,
            BootDecision::Retreat(retreat) => retreat.to,
            BootDecision::Halt { .. } => 0,
        });
    }
    assert_eq!(ran, [7, 7, 4, 4, 0, 0, 0, 0]);
    assert_eq!(BootMarker::decode(&kept).unwrap().quarantined(), [7, 4]);
}

#[test]
fn the_marker_is_the_one_that_is_on_disks() {
    let marker = BootMarker::default().activating(7).boot(7, &[]).1;
    let marker = marker.boot(9, &[]).1;
    let text = r#"{"format":1,"trying":{"generation":9,"boots":1},"quarantined":[7]}"#;
    assert_eq!(std::str::from_utf8(&marker.encode()).unwrap(), text);
    assert_eq!(BootMarker::decode(text.as_bytes()).unwrap(), marker);
    for bad in ["", "{}", &text.replace(":1,\"t", ":2,\"t"), &text.replace("boots", "boot"), &text[..text.len() - 1]] {
        assert_eq!(BootMarker::decode(bad.as_bytes()).unwrap_err().code(), "invalid-record", "{bad}");
    }
    assert!(BootMarker::decode(&vec![b' '; MARKER_LEN_MAX_BYTES + 1]).is_err());
}

proptest! {
    /// A router that crashes at its start again and again: no generation is started more than `BOOTS_MAX` times in a
    /// row without being healthy, and never one that is quarantined.
    #[test]
    fn no_generation_is_tried_a_third_time(
        steps in prop::collection::vec((1u64..50, any::<bool>()), 1..200),
    ) {
        let mut marker = BootMarker::default();
        let mut failed: std::collections::BTreeMap<u64, u8> = std::collections::BTreeMap::new();
        let mut wanted = 1;
        for (step, is_healthy) in steps {
            if step < 5 {
                wanted += step;
            }
            let earlier: Vec<u64> = (1..wanted).rev().take(3).collect();
            let (decision, next) = marker.boot(wanted, &earlier);
            marker = BootMarker::decode(&next.encode()).unwrap();
            let ran = match decision {
                BootDecision::Run { generation } => { prop_assert_eq!(generation, wanted); generation }
                BootDecision::Retreat(retreat) => {
                    prop_assert!(marker.is_quarantined(wanted) && retreat.from == wanted && retreat.to < wanted);
                    retreat.to
                }
                BootDecision::Halt { .. } => {
                    prop_assert!(earlier.iter().all(|generation| marker.is_quarantined(*generation)));
                    continue;
                }
            };
            prop_assert!(!marker.is_quarantined(ran));
            if is_healthy {
                marker = marker.healthy();
                failed.clear();
            } else {
                let count = failed.entry(ran).or_default();
                *count += 1;
                prop_assert!(*count <= BOOTS_MAX);
                // A try of another generation begins its own count.
                failed.retain(|generation, _| *generation == ran);
            }
        }
    }
}
