//! One connection of HTTP/1.1: request by request.

use super::message::{Framing, Message, Reader, answer_framing, first_line, header, request_framing, status};
use super::{Fault, Shared};
use std::io::{ErrorKind, Result};
use tokio::net::TcpStream;

/// Passes requests on until one of the three of us ends the connection.
pub async fn serve(client: TcpStream, shared: &Shared) -> Result<()> {
    let mut client = Reader::new(client);
    let mut changed = shared.changed.subscribe();
    let mut upstream: Option<Reader> = None;
    while let Some(head) = client.head().await? {
        let line = first_line(&head);
        let mut fault = shared.next(&line);
        let max = if let Fault::HangUpAfter(max) = fault { max } else { usize::MAX };
        let came = body(&mut client, &head, max).await;
        let (body, whole) = came.inspect_err(|_| shared.give_back(fault))?;
        if !whole {
            shared.count(|counts| &mut counts.too_large);
            return Ok(());
        }
        let request = Message { head: without_expect(&head), body };
        while fault == Fault::Hold {
            tokio::select! {
                biased;
                ended = client.until_end() => return ended,
                // The sender lives as long as the proxy.
                _ = changed.changed() => fault = shared.next(&line),
            }
        }
        match fault {
            Fault::Answer(status, retry_after) => {
                shared.count(|counts| &mut counts.answered);
                client.write(&own_answer(status, retry_after)).await?;
                continue;
            }
            Fault::BodyMax(max) if request.body.len() > max => {
                shared.count(|counts| &mut counts.too_large);
                client.write(&own_answer(413, None)).await?;
                continue;
            }
            Fault::Refuse => {
                shared.count(|counts| &mut counts.refused);
                return Ok(());
            }
            Fault::Hang => {
                shared.count(|counts| &mut counts.hung);
                return client.until_end().await;
            }
            Fault::Delay(time) => tokio::time::sleep(time).await,
            Fault::Pass
            | Fault::Hold
            | Fault::Cut
            | Fault::Swallow
            | Fault::Slow(_)
            | Fault::BodyMax(_)
            | Fault::HangUpAfter(_) => {}
        }
        shared.keep(&request, &line);
        let mut connection = match upstream.take() {
            Some(connection) => connection,
            None => Reader::new(shared.connect().await?),
        };
        let (answer, lasts) = ask(&mut connection, &line, &request).await?;
        match fault {
            Fault::Cut => {
                let bytes = [answer.head, answer.body].concat();
                client.write(&bytes[..bytes.len() / 2]).await?;
                shared.count(|counts| &mut counts.cut);
                return Ok(());
            }
            Fault::Swallow => {
                shared.count(|counts| &mut counts.swallowed);
                return Ok(());
            }
            _ => {
                client.write(&[answer.head, answer.body].concat()).await?;
                shared.count(|counts| &mut counts.passed);
            }
        }
        if !lasts {
            return Ok(());
        }
        upstream = Some(connection);
    }
    Ok(())
}

/// The body of a request, or its first `max` bytes and `false`.
async fn body(client: &mut Reader, head: &[u8], max: usize) -> Result<(Vec<u8>, bool)> {
    let framing = request_framing(head)?;
    if header(head, "expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        client.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    client.body(framing, max).await
}

/// The destination's whole answer, and whether its connection takes another request.
async fn ask(upstream: &mut Reader, line: &str, request: &Message) -> Result<(Message, bool)> {
    upstream.write(&request.head).await?;
    upstream.write(&request.body).await?;
    loop {
        let head = upstream.head().await?.ok_or(ErrorKind::UnexpectedEof)?;
        if (100..200).contains(&status(&head)) {
            continue;
        }
        let framing = answer_framing(&head, line)?;
        let (body, _) = upstream.body(framing, usize::MAX).await?;
        let closes = header(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        return Ok((Message { head, body }, framing != Framing::End && !closes));
    }
}

/// What the proxy itself has answered needs no second answer from the destination.
fn without_expect(head: &[u8]) -> Vec<u8> {
    head.split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !line.to_ascii_lowercase().starts_with(b"expect:"))
        .flatten()
        .copied()
        .collect()
}

fn own_answer(status: u16, retry_after: Option<u32>) -> Vec<u8> {
    let body = "{\"error\":\"the flaky proxy's\"}";
    let retry = retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
    format!(
        "HTTP/1.1 {status} Flaky\r\n{retry}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
