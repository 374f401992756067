//! Subscribes to a pattern and prints what comes. Several of these with the same `--group` share the events.

use clap::Parser;
use myelin_client::SubscribeOptions;
use myelin_examples::Connection;

#[derive(Parser)]
struct Arguments {
    /// Which topics: `*` is one level, `**` at the end is all that follows
    #[arg(default_value = "orders/**")]
    pattern: String,
    /// Share the events with the other members of this group
    #[arg(long)]
    group: Option<String>,
    /// Leave after so many events
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { pattern, group, count, connection } = Arguments::parse();
    let client = connection.client("subscribe").await?;

    // When this returns, the subscription is live: no event that is acknowledged from now on is missed.
    let mut subscription = client.subscribe(&pattern, SubscribeOptions { group }).await?;
    println!("subscribed to {pattern}; end with Ctrl-C");
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        // `next` is cancel-safe: an event that is not returned is returned by the next call.
        let event = tokio::select! {
            event = subscription.next() => event,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Some(event) = event else { break };
        let text = String::from_utf8_lossy(event.payload());
        println!("{} from {}: {text}", event.topic(), event.publisher().unwrap_or("the router"));
        for (name, value) in event.headers() {
            println!("    {name}: {value}");
        }
        left -= 1;
    }
    // A subscription that ended by itself says why.
    if let Some(error) = subscription.error() {
        return Err(error.into());
    }
    client.close().await;
    Ok(())
}
