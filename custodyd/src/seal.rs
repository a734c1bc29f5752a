//! Puts time into the tree: `log.sealed`, once in each second in which something else was appended.

use custody_core::event::{Actor, Draft, log};
use custody_core::log::Producer;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Seals until the log stops.
pub async fn seal_each_second(producer: Arc<Producer>) {
    let mut size = producer.log().follow();
    loop {
        if size.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(SECOND).await;
        let sealed = log::Sealed { size: *size.borrow_and_update() };
        match producer.append(Draft::new(Actor::system("custodyd"), sealed)).await {
            // The seal itself is nothing new to be sealed.
            Ok(durable) => {
                if *size.borrow() == durable.index() + 1 {
                    size.mark_unchanged();
                }
            }
            Err(error) => {
                tracing::error!("the log could not be sealed: {error}");
                tokio::time::sleep(SECOND).await;
            }
        }
    }
}
