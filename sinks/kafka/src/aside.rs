//! Work that blocks, on a thread of its own: never on one of the runtime's, whose end would have to wait for it.

use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

/// Tells work whether anybody still waits for it.
pub struct Waiting(oneshot::Sender<()>);

impl Waiting {
    /// For work that nobody gives up.
    #[cfg(test)]
    pub fn forever() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Whether somebody does.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        !self.0.is_closed()
    }
}

/// Does it, and gives what came out. Whoever stops waiting ends it at its next look.
///
/// # Errors
/// That it broke, or couldn't begin, in one line.
pub async fn aside<T: Send + 'static>(
    work: impl FnOnce(&Waiting) -> T + Send + 'static,
) -> Result<T, String> {
    // Held until the answer is there: dropped with this future.
    let (waiting, _waits) = oneshot::channel();
    let (answer, answered) = oneshot::channel();
    let thread = std::thread::Builder::new().name("kafka".to_owned()).spawn(move || {
        let done = work(&Waiting(waiting));
        // If nobody waits any more there is nobody to tell.
        drop(answer.send(done));
    });
    thread.map_err(|error| format!("no thread could be started: {error}"))?;
    answered.await.map_err(|_| "a part of the Kafka sink broke".to_owned())
}

/// What is let go of, so that whoever lets go of it doesn't wait until it has ended: closing a client can take seconds
/// where brokers don't answer.
pub fn let_go<T: Send + 'static>(thing: T) {
    let (sender, receiver): (Sender<T>, Receiver<T>) = channel();
    // It is in the channel whether the thread begins or not, and dropped there or here.
    drop(sender.send(thing));
    drop(std::thread::Builder::new().name("kafka".to_owned()).spawn(move || drop(receiver)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_nobody_waits_for_ends_and_what_breaks_is_told() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        assert_eq!(runtime.block_on(aside(|waiting| (waiting.is_waited_for(), 7))), Ok((true, 7)));
        let (ended, end) = channel();
        let endless = aside(move |waiting| {
            while waiting.is_waited_for() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
        });
        let waited = async { tokio::time::timeout(Duration::from_millis(20), endless).await };
        assert!(runtime.block_on(waited).is_err());
        end.recv_timeout(Duration::from_secs(30)).unwrap();
        let broken = runtime.block_on(aside(|_| -> u8 { panic!("on purpose") }));
        assert!(broken.unwrap_err().contains("broke"));
    }
}
