//! Requests that were kept, sent once more by a loop that does nothing else: what a destination takes at most.

use super::message::{Framing, Reader, answer_framing, first_line, status};
use std::collections::VecDeque;
use std::future::Future as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// See [`super::Flaky::again`].
pub fn send(requests: &[Vec<u8>], connections: usize, port: u16) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let left: Mutex<VecDeque<&Vec<u8>>> = Mutex::new(requests.iter().collect());
    let begun = Instant::now();
    runtime.block_on(async {
        let one = || async {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
            stream.set_nodelay(true).expect("a socket can be so");
            let mut connection = Reader::new(stream);
            while let Some(request) = next(&left) {
                let answered = ask(&mut connection, request).await;
                assert!((200..300).contains(&answered), "answered {answered}");
            }
        };
        let mut all: Vec<_> = (0..connections).map(|_| Box::pin(one())).collect();
        // In turn, each as far as it comes.
        std::future::poll_fn(|context| {
            all.retain_mut(|one| one.as_mut().poll(context).is_pending());
            if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    });
    begun.elapsed()
}

fn next<'a>(left: &Mutex<VecDeque<&'a Vec<u8>>>) -> Option<&'a Vec<u8>> {
    left.lock().expect("nobody panics while holding it").pop_front()
}

async fn ask(connection: &mut Reader, request: &[u8]) -> u16 {
    connection.write(request).await.expect("it takes a request");
    let head = connection.head().await.expect("it answers").expect("an answer");
    let framing = answer_framing(&head, &first_line(request)).expect("an answer that says its length");
    assert_ne!(framing, Framing::End, "it keeps the connection");
    let (_, whole) = connection.body(framing, usize::MAX).await.expect("a body");
    assert!(whole);
    status(&head)
}
