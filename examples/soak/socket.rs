//! A plain connection to a bus: lines out, lines in.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Where a bus listens.
#[derive(Debug, Clone)]
pub struct Ways {
    pub unix: PathBuf,
    pub tcp: std::net::SocketAddr,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

pub struct Socket {
    stream: Stream,
    input: Vec<u8>,
}

impl Socket {
    pub async fn connect(ways: &Ways, over_tcp: bool) -> io::Result<Socket> {
        let stream = if over_tcp {
            Stream::Tcp(TcpStream::connect(ways.tcp).await?)
        } else {
            Stream::Unix(UnixStream::connect(&ways.unix).await?)
        };
        let input = Vec::new();
        Ok(Socket { stream, input })
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.write_all(bytes).await,
            Stream::Tcp(stream) => stream.write_all(bytes).await,
        }
    }

    /// The next line; `None` at the end of the input. Whatever has come stays where this is given up.
    pub async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let rest = self.input.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.input, rest)));
            }
            let count = match &mut self.stream {
                Stream::Unix(stream) => stream.read_buf(&mut self.input).await?,
                Stream::Tcp(stream) => stream.read_buf(&mut self.input).await?,
            };
            if count == 0 {
                return Ok(None);
            }
        }
    }

    /// Ends the sending side.
    pub async fn finish(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.shutdown().await,
            Stream::Tcp(stream) => stream.shutdown().await,
        }
    }

    /// As a client that is killed: TCP says so with a reset.
    pub fn reset(self) {
        if let Stream::Tcp(stream) = &self.stream {
            // Where that is refused it closes as any other.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}
