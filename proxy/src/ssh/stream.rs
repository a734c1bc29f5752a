//! What a leg lies on: a TCP connection, or one within this process (the far end of a TLS connection or of another
//! SSH connection's channel).

use rustix::net::{RecvFlags, recv, sockopt};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// A connected stream of bytes.
#[derive(Debug)]
pub enum Stream {
    /// From another machine.
    Tcp(TcpStream),
    /// From within this process.
    Local(UnixStream),
}

impl Stream {
    /// Two ends of a connection within this process: one for a leg, the other for whoever feeds it.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn pair() -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self::Local(ours), theirs))
    }

    /// Makes a TCP connection fit for keystrokes, and notice a peer that is gone.
    ///
    /// # Errors
    /// When it is closed already.
    pub fn prepare(&self) -> io::Result<()> {
        let Self::Tcp(stream) = self else { return Ok(()) };
        // A keystroke is a small packet that must not wait for others.
        stream.set_nodelay(true)?;
        // A peer that vanished without a word is noticed after some minutes.
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
        Ok(())
    }

    /// Acknowledges what comes next without delay.
    pub fn acknowledge_at_once(&self) {
        if let Self::Tcp(stream) = self {
            // A socket that can't do it is slower, no more.
            let _slower = sockopt::set_tcp_quickack(stream, true);
        }
    }

    /// Waits until there is something to read.
    ///
    /// # Errors
    /// The system's.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Local(stream) => stream.readable().await,
        }
    }

    /// Waits until something can be written.
    ///
    /// # Errors
    /// The system's.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Local(stream) => stream.writable().await,
        }
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is, else the system's.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Local(stream) => stream.try_read(buffer),
        }
    }

    /// Writes what is taken now.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is, else the system's.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Local(stream) => stream.try_write(bytes),
        }
    }

    /// Waits for bytes and looks at them without taking them; 0 at the end of the stream.
    ///
    /// # Errors
    /// The system's.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.readable().await?;
            let mut peek = || Ok(recv(self, &mut *buffer, RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0);
            let seen = match self {
                Self::Tcp(stream) => stream.try_io(Interest::READABLE, &mut peek),
                Self::Local(stream) => stream.try_io(Interest::READABLE, &mut peek),
            };
            match seen {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                seen => return seen,
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Local(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn what_was_looked_at_is_still_there() {
        let (stream, mut feed) = Stream::pair().unwrap();
        stream.prepare().unwrap();
        stream.acknowledge_at_once();
        feed.write_all(b"hello").await.unwrap();
        let mut seen = [0; 3];
        assert_eq!(stream.peek(&mut seen).await.unwrap(), 3);
        let mut read = [0; 9];
        assert_eq!(stream.try_read(&mut read).unwrap(), 5);
        assert_eq!((&seen, &read[..5]), (b"hel", b"hello".as_slice()));
        drop(feed);
        assert_eq!(stream.peek(&mut seen).await.unwrap(), 0);
    }
}
