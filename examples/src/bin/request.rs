//! Asks for the time, and with `--serve` answers. Start several that serve: each request goes to one of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use myelin_client::{Client, RequestError, SubscribeOptions};
use myelin_examples::Connection;

const TOPIC: &str = "ask/time";

#[derive(Parser)]
struct Arguments {
    /// Answer requests instead of making one
    #[arg(long)]
    serve: bool,
    #[command(flatten)]
    connection: Connection,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { serve, connection } = Arguments::parse();
    let client = connection.client("request").await?;
    if serve {
        answer(&client).await?
    } else {
        ask(&client).await?
    }
    client.close().await;
    Ok(())
}

async fn ask(client: &Client) -> anyhow::Result<()> {
    match client.request(TOPIC, "what time is it?", Duration::from_secs(2)).await {
        Ok(answer) => println!("{}", String::from_utf8_lossy(answer.payload())),
        // The router knows at once that nobody subscribes: there is no waiting for a time-out.
        Err(RequestError::NoResponder) => println!("nobody is there; start one with --serve"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

async fn answer(client: &Client) -> anyhow::Result<()> {
    // A responder is a subscriber; the group makes each request go to one of them.
    let mut requests = client.subscribe(TOPIC, SubscribeOptions::group("clock")).await?;
    println!("answering; end with Ctrl-C");
    loop {
        let request = tokio::select! {
            request = requests.next() => request,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(request) = request else { return Ok(()) };
        // An ordinary event to this topic wants no answer.
        if request.reply_to().is_some() {
            let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            client.reply(&request, &format!("{now_s} s since 1970")).await?;
        }
    }
}
