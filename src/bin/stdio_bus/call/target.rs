//! The bus that is called, and what to do where it can't be.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;

use stdiobus::{Error, ErrorCode, RemoteOptions};

use super::CallArgs;
use super::failed::{Failed, LATE, REJECTED, UNREACHABLE};
use crate::args::{TcpAddress, read_token};

#[derive(Debug)]
pub(super) struct Target {
    pub(super) options: RemoteOptions,
    place: Place,
    token_file: Option<PathBuf>,
}

#[derive(Debug)]
enum Place {
    Unix(PathBuf),
    Tcp(TcpAddress),
}

impl Target {
    pub(super) fn new(args: &CallArgs) -> Result<Self, Failed> {
        let place = match (&args.unix, &args.tcp) {
            (Some(path), _) => Place::Unix(path.clone()),
            (None, Some(address)) => Place::Tcp(address.clone()),
            // The command line doesn't let this happen.
            (None, None) => return Err(Failed::new(REJECTED, "--unix or --tcp is needed")),
        };
        let mut options = match &place {
            Place::Unix(path) => RemoteOptions::unix(path),
            Place::Tcp(TcpAddress { host, port }) => RemoteOptions::tcp(host, *port),
        };
        if let Some(path) = &args.token_file {
            let token = read_token(path).map_err(|text| Failed::new(REJECTED, text))?;
            options = options.token(token);
        }
        if let Some(limit) = args.timeout.and_then(|timeout| timeout.0) {
            options.connect_timeout = options.connect_timeout.min(limit);
        }
        Ok(Self {
            options,
            place,
            token_file: args.token_file.clone(),
        })
    }

    /// What an error comes to.
    pub(super) fn failed(&self, error: &Error) -> Failed {
        use ErrorCode::{InvalidArgument, InvalidState, PolicyDenied, Timeout, Unavailable};

        match (error.kind(), error.rpc_code()) {
            (Some(PolicyDenied), _) => self.refused(),
            (_, Some(code)) => Failed::answer(code, error),
            (Some(Timeout), None) => Failed::new(
                LATE,
                format!("{error}: it is given up; --timeout SECONDS gives it more time"),
            ),
            (Some(Unavailable), None) => Failed::new(UNREACHABLE, self.unreachable(error)),
            (Some(InvalidArgument | InvalidState), None) => {
                Failed::new(REJECTED, error.to_string())
            }
            _ => self.lost(&error.to_string()),
        }
    }

    /// The connection broke.
    pub(super) fn lost(&self, what: &str) -> Failed {
        Failed::new(UNREACHABLE, format!("{what}; the log of the bus says why"))
    }

    /// The token isn't what the bus wants to see.
    pub(super) fn refused(&self) -> Failed {
        let place = &self.place;
        let text = match &self.token_file {
            Some(path) => format!(
                "the bus at {place} refuses the token in {}: give the file that it was started with",
                path.display()
            ),
            None => format!(
                "the bus at {place} wants a token: give the file that it was started with, by --token-file"
            ),
        };
        Failed::new(UNREACHABLE, text)
    }

    fn unreachable(&self, error: &Error) -> String {
        use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};

        let kind = io_kind(error);
        match (&self.place, kind) {
            (Place::Unix(_), Some(NotFound)) | (_, Some(ConnectionRefused)) => {
                let option = match self.place {
                    Place::Unix(_) => "--unix",
                    Place::Tcp(_) => "--tcp",
                };
                let place = &self.place;
                format!(
                    "no bus listens at {place}: start one with stdio_bus --config CONFIG {option} {place}"
                )
            }
            (Place::Unix(_), Some(PermissionDenied)) => format!(
                "{error}: run this as the user of the bus, or start the bus with --unix-mode and --allow-uid"
            ),
            (_, Some(_)) => format!("{error}: check the address"),
            (_, None) => format!("{error}: see whether it is a bus that listens there"),
        }
    }
}

/// The system's reason, where there is one.
fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        source = error.source();
    }
    None
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}
