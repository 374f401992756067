//! Publishes events in the two ways there are: with a ticket for each, and many at once.

use std::time::Duration;

use clap::Parser;
use myelin_client::{Event, Outcome};
use myelin_examples::Connection;

#[derive(Parser)]
struct Arguments {
    /// Where to publish
    #[arg(default_value = "orders/eu")]
    topic: String,
    /// How many events to send after the first
    #[arg(long, default_value_t = 1000)]
    count: u32,
    #[command(flatten)]
    connection: Connection,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { topic, count, connection } = Arguments::parse();
    let client = connection.client("publish").await?;

    // With a ticket, when you want to know about this very event. `publish` waits only for room; the ticket waits for
    // the router. The key keeps events of one order in order; after five seconds the event is of no use to anybody.
    let event = Event::new(&topic, br#"{"order":1,"state":"placed"}"#)
        .content_type("application/json")
        .key("order-1")
        .header("x-tenant", "acme")
        .ttl(Duration::from_secs(5));
    match client.publish(event).await?.await {
        Outcome::Acked => println!("event 1: offered to all who subscribed"),
        Outcome::Refused { code, detail } => println!("event 1: refused, {code} {detail}"),
        // The connection was lost before the router said. It is not sent again: only you know whether that is right.
        Outcome::Unknown => println!("event 1: nobody knows"),
    }

    // Without, when there are many: `send` copies the event into the buffer that goes out next. Batches form by
    // themselves while the network is busy.
    for n in 0..count {
        client.send(Event::new(&topic, &format!(r#"{{"order":{n}}}"#)).key(n.to_string())).await?;
    }
    // Then once for all: what did the router decide?
    let summary = client.flush().await;
    println!("{} published, {} acked, {} refused", summary.published, summary.acked, summary.refused);

    // `close` sends what is left. A client that is just dropped does not.
    client.close().await;
    // The refused ones, by the number that `send` gave.
    while let Some(exception) = client.next_exception().await {
        println!("event {}: {} {}", exception.number, exception.code, exception.detail);
    }
    Ok(())
}
