//! What sessions want, told to other sites: in batches, however often it changes.

use anyhow::Result;
use myelin_tests::churn::{Churned, churn_at_one_of_two_sites};
use std::time::Duration;

/// Changes wait so long for others.
const COALESCED: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_changes_go_to_others_in_batches_and_end_in_equal_hashes() -> Result<()> {
    let Churned { changes, took, batches, equal_after } = churn_at_one_of_two_sites().await?;
    println!("{changes} changes in {took:.1?}: {batches} batches, equal {equal_after:.1?} after the last");
    let ran = took + equal_after;
    let most = ran.as_millis() / COALESCED.as_millis() + 1;
    assert!(u128::from(batches) <= most, "{batches} batches in {ran:?}");
    assert!(batches > 0);
    Ok(())
}
