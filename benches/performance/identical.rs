//! One question by 1,000 callers at once, over sockets, of a server that has just started: the work is done once. Again with the
//! first caller's connection reset while its search runs.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Ground, Served, check, eventually};
use crate::{Failure, http::search_path};

/// Callers.
const CALLERS: usize = 1_000;

/// When the first caller is gone.
const RESET_AFTER: Duration = Duration::from_millis(50);

pub async fn run(ground: &Ground<'_>) -> Result<(), Failure> {
    for reset in [false, true] {
        let served = Served::start(&ground.small, ground.small.search()).await?;
        let asked = ask(ground, &served, reset).await;
        served.stop().await;
        asked?;
    }
    Ok(())
}

async fn ask(ground: &Ground<'_>, served: &Served, reset: bool) -> Result<(), Failure> {
    let before = [ground.searches("vector"), ground.searches("keyword")];
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n",
        search_path("how do I wait for a task to end", "")
    );
    let mut callers = Vec::with_capacity(CALLERS);
    for _ in 0..CALLERS {
        callers.push(TcpStream::connect(served.address).await?);
    }
    let mut wanted = CALLERS;
    if reset {
        served.probe.hold();
        let mut first = callers.remove(0);
        first.write_all(request.as_bytes()).await?;
        eventually("the first caller's search has begun", async || Ok(served.probe.texts() == 1)).await?;
        send(&mut callers, &request).await?;
        tokio::time::sleep(RESET_AFTER).await;
        // Had nobody else come yet, its search would rightly end with it.
        eventually("all wait", async || Ok(served.search.waiting() == CALLERS)).await?;
        first.set_zero_linger()?;
        drop(first);
        eventually("the first has left", async || Ok(served.search.waiting() == CALLERS - 1)).await?;
        served.probe.release();
        wanted -= 1;
    } else {
        send(&mut callers, &request).await?;
    }
    let mut bodies = Vec::with_capacity(wanted);
    for mut caller in callers {
        let mut bytes = Vec::new();
        caller.read_to_end(&mut bytes).await?;
        let text = String::from_utf8(bytes)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
        check(head.starts_with("HTTP/1.1 200 "), || head.to_owned())?;
        bodies.push(body.to_owned());
    }
    let equal = bodies.iter().filter(|body| **body == bodies[0]).count();
    let embeddings = served.probe.texts();
    let [vector, keyword] = [ground.searches("vector") - before[0], ground.searches("keyword") - before[1]];
    let how = if reset { ", the first caller reset at 50 ms" } else { "" };
    println!(
        "identical: {CALLERS} cold callers{how} | {embeddings} embeddings, {vector} vector and {keyword} keyword searches, \
         {equal} equal answers (must 1, 1, 1, {wanted})"
    );
    check((embeddings, vector, keyword, equal) == (1, 1, 1, wanted), || "the work was not done just once".to_owned())
}

async fn send(callers: &mut [TcpStream], request: &str) -> Result<(), Failure> {
    for caller in callers {
        caller.write_all(request.as_bytes()).await?;
    }
    Ok(())
}
