//! A bus that runs already, over a socket.

use std::io;
use std::time::Duration;

use serde::Deserialize;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::mode::{Address, RemoteOptions};
use super::wire::{Reader, Wire, Writer};
use crate::error::{Error, ErrorCode, Result, RpcError};

/// After this time without a word TCP asks whether the other end is there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The answer to a token is short.
const MAX_ANSWER: usize = 4096;

pub(super) async fn connect(options: &RemoteOptions) -> Result<Wire> {
    let (reader, writer) = dial(options).await?;
    Ok(Wire::new(reader, writer))
}

/// A connection on which the token has been shown.
pub(crate) async fn dial(options: &RemoteOptions) -> Result<(Reader, Writer)> {
    let (limit, address) = (options.connect_timeout, &options.address);
    match timeout(limit, reach(options)).await {
        Ok(Ok(ends)) => Ok(ends),
        Ok(Err(Failed::Io(error))) => {
            Err(unavailable(format!("{address}: {error}")).with_source(error))
        }
        Ok(Err(Failed::Refused(text))) => Err(Error::new(
            ErrorCode::PolicyDenied,
            format!("{address}: {text}"),
        )),
        Err(_) => Err(unavailable(format!(
            "{address}: no connection within {limit:?}"
        ))),
    }
}

fn unavailable(text: String) -> Error {
    Error::new(ErrorCode::Unavailable, text)
}

enum Failed {
    Io(io::Error),
    /// The bus doesn't want us.
    Refused(String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

async fn reach(options: &RemoteOptions) -> std::result::Result<(Reader, Writer), Failed> {
    match &options.address {
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            let (reader, writer) = stream.into_split();
            greet(options, reader, writer).await
        }
        Address::Unix(path) => {
            let (reader, writer) = UnixStream::connect(path).await?.into_split();
            greet(options, reader, writer).await
        }
    }
}

/// Shows the token, where there is one.
async fn greet(
    options: &RemoteOptions,
    mut reader: impl AsyncRead + Unpin + Send + 'static,
    mut writer: impl AsyncWrite + Unpin + Send + 'static,
) -> std::result::Result<(Reader, Writer), Failed> {
    if let Some(token) = &options.token {
        let token = serde_json::Value::from(token.0.as_str());
        let frame = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"stdio_bus/auth","params":{{"token":{token}}}}}"#
        );
        writer.write_all(frame.as_bytes()).await?;
        writer.write_all(b"\n").await?;
        check_greeting(&read_line(&mut reader).await?)?;
    }
    Ok((Box::new(reader), Box::new(writer)))
}

/// Byte by byte, so that nothing behind the line is taken.
async fn read_line(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    while line.len() < MAX_ANSWER {
        match reader.read_u8().await? {
            b'\n' => return Ok(line),
            byte => line.push(byte),
        }
    }
    Err(io::Error::other("the answer to the token is too long"))
}

fn check_greeting(answer: &[u8]) -> std::result::Result<(), Failed> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<RpcError>,
    }
    match serde_json::from_slice::<Answer>(answer) {
        Ok(Answer { error: None }) => Ok(()),
        Ok(Answer { error: Some(error) }) => Err(Failed::Refused(error.message)),
        Err(error) => Err(Failed::Io(io::Error::other(error))),
    }
}
