//! A leg on its stream, before the relay begins: what is said goes out, what is heard comes in.

use super::stream::Stream;
use super::transport::error::Error as LegError;
use super::transport::host_key::HostKeyOffered;
use super::transport::leg::{Event, Incoming, Leg};
use custody_core::clock::Clock;
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// One read: four packets of OpenSSH's size. The buffer belongs to the worker thread, so that an idle session
/// holds none.
const READ_BYTES: usize = 128 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A leg and its stream.
pub struct LegSocket {
    /// The stream.
    pub stream: Stream,
    /// The leg.
    pub leg: Leg,
    clock: Arc<dyn Clock>,
}

/// What was heard, before the relay begins.
pub enum Heard {
    /// The target's host key; it waits for a verdict.
    HostKey(Box<HostKeyOffered>),
    /// The first key exchange is done.
    Ready,
    /// A message of user authentication.
    Message(Vec<u8>),
}

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The peer closed the connection, or the network did.
    #[error("the connection was closed")]
    Closed,
    /// The system.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The transport.
    #[error(transparent)]
    Leg(#[from] LegError),
}

impl LegSocket {
    /// Takes a connected stream.
    ///
    /// # Errors
    /// When the socket's options can't be set: it is closed already.
    pub fn new(stream: Stream, leg: Leg, clock: Arc<dyn Clock>) -> io::Result<Self> {
        stream.prepare()?;
        Ok(Self { stream, leg, clock })
    }

    /// Writes all that the leg has to say.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.leg.output().is_empty() {
            self.stream.writable().await?;
            self.write()?;
        }
        Ok(())
    }

    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// When the peer is gone.
    pub fn write(&mut self) -> io::Result<()> {
        while !self.leg.output().is_empty() {
            match self.stream.try_write(self.leg.output()) {
                Ok(written) => self.leg.wrote(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once and gives the bytes to `use_bytes`, if there are any.
    ///
    /// # Errors
    /// [`SocketError::Closed`] at the end of the stream.
    pub fn read<T>(
        &mut self,
        use_bytes: impl FnOnce(&mut Leg, Incoming<'_>) -> T,
    ) -> Result<Option<T>, SocketError> {
        let now = self.clock.monotonic();
        BUFFER.with_borrow_mut(|buffer| match self.stream.try_read(buffer) {
            Ok(0) => Err(SocketError::Closed),
            Ok(count) => {
                let bytes = buffer.get_mut(..count).unwrap_or_default();
                Ok(Some(use_bytes(&mut self.leg, Incoming::new(bytes, now))))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(SocketError::Closed),
            Err(error) => Err(error.into()),
        })
    }

    /// Now, as the leg's time goes.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Reads once and gives each message to `each`, which adds the payloads of its answers.
    ///
    /// # Errors
    /// Its own, and [`SocketError`].
    pub fn hear<E: From<SocketError>>(
        &mut self,
        mut each: impl FnMut(&[u8], &mut Vec<Vec<u8>>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.read(|leg, mut incoming| messages(leg, &mut incoming, &mut each)) {
            Ok(heard) => heard.unwrap_or(Ok(())),
            Err(error) => Err(error.into()),
        }
    }

    /// The same with what an earlier conversation left unread.
    ///
    /// # Errors
    /// As [`LegSocket::hear`].
    pub fn hear_kept<E: From<SocketError>>(
        &mut self,
        mut each: impl FnMut(&[u8], &mut Vec<Vec<u8>>) -> Result<(), E>,
    ) -> Result<(), E> {
        let now = self.now();
        messages(&mut self.leg, &mut Incoming::new(&mut [], now), &mut each)
    }

    /// Converses until `hear` has what it wants. What lies behind that in the stream is kept for later.
    ///
    /// # Errors
    /// `hear`'s own, and [`SocketError`]. What the leg still has to say was written as far as the socket took it.
    pub async fn converse<T, E: From<SocketError>>(
        &mut self,
        mut hear: impl FnMut(&mut Leg, Heard) -> Result<Option<T>, E>,
    ) -> Result<T, E> {
        // What an earlier conversation left unread comes first.
        let now = self.clock.monotonic();
        let mut found = listen(&mut self.leg, &mut Incoming::new(&mut [], now), &mut hear);
        loop {
            let flushed = self.flush().await;
            if let Some(found) = found? {
                return Ok(found);
            }
            flushed.map_err(SocketError::from)?;
            self.stream.readable().await.map_err(SocketError::from)?;
            // During login small packets go back and forth; without this each waits for a delayed ACK of 40 ms.
            self.stream.acknowledge_at_once();
            found = match self.read(|leg, mut incoming| listen(leg, &mut incoming, &mut hear)) {
                Ok(found) => found.unwrap_or(Ok(None)),
                Err(error) => Err(error.into()),
            };
        }
    }
}

fn messages<E: From<SocketError>>(
    leg: &mut Leg,
    incoming: &mut Incoming<'_>,
    each: &mut impl FnMut(&[u8], &mut Vec<Vec<u8>>) -> Result<(), E>,
) -> Result<(), E> {
    let mut answers = Vec::new();
    while let Some(event) = leg.next(incoming).map_err(SocketError::from)? {
        if let Event::Message(payload) = event {
            each(payload, &mut answers)?;
        }
        for answer in answers.drain(..) {
            leg.send(&answer).map_err(SocketError::from)?;
        }
    }
    Ok(())
}

fn listen<T, E: From<SocketError>>(
    leg: &mut Leg,
    incoming: &mut Incoming<'_>,
    hear: &mut impl FnMut(&mut Leg, Heard) -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    loop {
        let heard = match leg.next(incoming).map_err(SocketError::from)? {
            None => return Ok(None),
            Some(Event::HostKey(offered)) => Heard::HostKey(offered),
            Some(Event::Ready) => Heard::Ready,
            Some(Event::Message(payload)) => Heard::Message(payload.to_vec()),
        };
        if let Some(found) = hear(leg, heard)? {
            leg.keep(incoming).map_err(SocketError::from)?;
            return Ok(Some(found));
        }
    }
}
