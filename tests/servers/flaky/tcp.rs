//! One connection of any protocol: piece by piece.

use super::{Fault, Shared};
use std::io::Result;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Passes bytes in both directions until a fault or one of the sides ends it.
pub async fn serve(client: TcpStream, shared: &Shared) -> Result<()> {
    if shared.plan().standing == Fault::Refuse {
        shared.count(|counts| &mut counts.refused);
        return Ok(());
    }
    let upstream = shared.connect().await?;
    let (from_client, to_client) = client.into_split();
    let (from_upstream, to_upstream) = upstream.into_split();
    tokio::select! {
        ended = requests(from_client, to_upstream, shared) => ended,
        ended = answers(from_upstream, to_client, shared) => ended,
    }
}

/// What the client sends is held back while the standing fault is [`Fault::Hang`], or [`Fault::Hold`] with none queued, and takes
/// its time while that is [`Fault::Slow`].
async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) -> Result<()> {
    let mut changed = shared.changed.subscribe();
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            to.shutdown().await?;
            // The answers may go on.
            return std::future::pending().await;
        }
        while shared.holds_back() {
            // The sender lives as long as the proxy.
            drop(changed.changed().await);
        }
        let standing = shared.plan().standing;
        if let Fault::Slow(rate) = standing {
            tokio::time::sleep(Duration::from_secs_f64(length as f64 / f64::from(rate))).await;
        }
        to.write_all(&piece[..length]).await?;
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) -> Result<()> {
    let mut changed = shared.changed.subscribe();
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let mut hung = false;
        let fault = loop {
            match shared.next("") {
                Fault::Hang | Fault::Hold => {
                    if !std::mem::replace(&mut hung, true) {
                        shared.count(|counts| &mut counts.hung);
                    }
                    drop(changed.changed().await);
                }
                fault => break fault,
            }
        };
        match fault {
            Fault::Cut => {
                to.write_all(&piece[..length / 2]).await?;
                shared.count(|counts| &mut counts.cut);
                return Ok(());
            }
            Fault::Swallow => {
                shared.count(|counts| &mut counts.swallowed);
                return Ok(());
            }
            Fault::Refuse => {
                shared.count(|counts| &mut counts.refused);
                return Ok(());
            }
            Fault::Delay(time) => tokio::time::sleep(time).await,
            _ => {}
        }
        to.write_all(&piece[..length]).await?;
        shared.count(|counts| &mut counts.passed);
    }
}
