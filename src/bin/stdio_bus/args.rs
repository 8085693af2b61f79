//! The command line.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use stdiobus::{ListenMode, LogLevel};

const USAGE: &str = "stdio_bus (--config <PATH> | --config-fd <N>) [--stdio] \
                     [--unix <PATH>]... [--tcp <HOST:PORT>]... [--log-level <LEVEL>]";

/// Runs pools of stdin/stdout workers and routes JSON-RPC messages to them.
///
/// Messages come from stdin, from Unix sockets or from TCP, one JSON object a
/// line; answers go back the same way. Logs go to stderr.
#[derive(Debug, Parser)]
#[command(name = "stdio_bus", version, override_usage = USAGE)]
pub(crate) struct Args {
    /// Read the configuration from a file
    #[arg(long, value_name = "PATH", required_unless_present = "config_fd")]
    pub(crate) config: Option<PathBuf>,

    /// Read the configuration from an open descriptor, to its end
    #[arg(long, value_name = "N", conflicts_with = "config", value_parser = clap::value_parser!(RawFd).range(0..))]
    pub(crate) config_fd: Option<RawFd>,

    /// Serve one client on stdin and stdout, and end with it [default unless
    /// --unix or --tcp is given]
    #[arg(long)]
    stdio: bool,

    /// Listen on a Unix socket; may be repeated
    #[arg(long, value_name = "PATH")]
    unix: Vec<PathBuf>,

    /// Listen on TCP; port 0 lets the system choose; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Vec<TcpAddress>,

    /// Log this and what is more important [default: info, or debug where the
    /// environment has DEBUG_STDIO=1]
    #[arg(long, value_name = "LEVEL", value_parser = levels())]
    log_level: Option<LogLevel>,
}

impl Args {
    pub(crate) fn listeners(&self) -> impl Iterator<Item = ListenMode> {
        let unix = self.unix.iter().map(ListenMode::unix);
        unix.chain(
            self.tcp
                .iter()
                .map(|tcp| ListenMode::tcp(&tcp.host, tcp.port)),
        )
    }

    pub(crate) fn stdio(&self) -> bool {
        self.stdio || (self.unix.is_empty() && self.tcp.is_empty())
    }

    pub(crate) fn log_level(&self) -> LogLevel {
        match self.log_level {
            Some(level) => level,
            None if std::env::var_os("DEBUG_STDIO").is_some_and(|v| v == "1") => LogLevel::Debug,
            None => LogLevel::Info,
        }
    }
}

/// A list, so that the help and the errors name what there is.
fn levels() -> impl TypedValueParser<Value = LogLevel> {
    PossibleValuesParser::new(["debug", "info", "warn", "error"])
        .try_map(|level| level.parse::<LogLevel>())
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct TcpAddress {
    host: String,
    port: u16,
}

impl FromStr for TcpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or("HOST:PORT is needed")?;
        let port = port
            .parse()
            .map_err(|_| format!("{port:?} is not a port"))?;
        let host = match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(address) => address,
            None if host.contains(':') => return Err("an IPv6 address needs brackets".into()),
            None => host,
        };
        if host.is_empty() {
            return Err("the host is missing".into());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["stdio_bus"].iter().chain(args))
    }

    #[test]
    fn stdio_is_the_default_mode() {
        assert!(parse(&["--config", "c"]).expect("valid").stdio());
        assert!(!parse(&["--config=c", "--unix=s"]).expect("valid").stdio());
        assert!(
            parse(&["--config=c", "--unix=s", "--stdio"])
                .expect("valid")
                .stdio()
        );
    }

    #[test]
    fn listeners_may_be_repeated_and_combined() {
        let args = parse(&[
            "--config",
            "c",
            "--tcp",
            "a:1",
            "--unix",
            "s",
            "--tcp=[::1]:0",
        ]);
        let listeners: Vec<_> = args.expect("valid").listeners().collect();
        assert_eq!(
            listeners,
            [
                ListenMode::unix("s"),
                ListenMode::tcp("a", 1),
                ListenMode::tcp("::1", 0)
            ]
        );
    }

    #[test]
    fn a_log_level_is_one_of_those_the_library_has() {
        for level in ["debug", "info", "warn", "error"] {
            let args = parse(&["--config=c", "--log-level", level]).expect("valid");
            assert_eq!(args.log_level().to_string(), level);
        }
        let error = parse(&["--config=c", "--log-level=loud"]).expect_err("no level");
        assert!(error.to_string().contains("warn"), "{error}");
    }

    #[test]
    fn there_is_exactly_one_configuration() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--config", "c", "--config-fd", "3"]).is_err());
        assert!(parse(&["--config-fd", "-1"]).is_err());
        assert_eq!(parse(&["--config-fd=3"]).expect("valid").config_fd, Some(3));
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for bad in ["", "a", ":1", "a:", "a:65536", "::1:1", "[]:1"] {
            assert!(bad.parse::<TcpAddress>().is_err(), "{bad}");
        }
    }
}
