//! The command line.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use nix::unistd::{Group, User};
use stdiobus::{Listen, LogLevel};

use crate::agents::AgentCommand;
use crate::bench::BenchArgs;
use crate::call::CallArgs;
use crate::check::CheckArgs;
use crate::run::RunArgs;
use crate::service::Inherited;
#[cfg(feature = "top")]
use crate::top::TopArgs;

const USAGE: &str = "stdio_bus (--config <PATH> | --config-fd <N>) [--stdio] \
                     [--unix <PATH>]... [--tcp <HOST:PORT>]... [OPTIONS]\n       \
                     stdio_bus <COMMAND> ...";

/// Runs pools of stdin/stdout workers and routes JSON-RPC messages to them.
///
/// Messages come from stdin, from Unix sockets or from TCP, one JSON object a
/// line; answers go back the same way. Logs go to stderr.
#[derive(Debug, Parser)]
#[command(
    name = "stdio_bus",
    version,
    override_usage = USAGE,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say whether a configuration can be used, and what it starts
    Check(CheckArgs),
    /// Send a request to a running bus, or lines of JSON from stdin
    Call(CallArgs),
    /// Serve an agent on stdin and stdout
    Run(RunArgs),
    /// Watch a running bus
    #[cfg(feature = "top")]
    Top(TopArgs),
    /// Measure how fast a bus answers: latency, rate, CPU time and memory
    Bench(Box<BenchArgs>),
    #[command(flatten)]
    Agents(AgentCommand),
    /// Print a script that completes this command line
    Completions {
        /// For this shell
        shell: Shell,
    },
}

/// How the bus is run.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Read the configuration from a file; SIGHUP reads it again
    #[arg(long, value_name = "PATH", required_unless_present = "config_fd")]
    pub(crate) config: Option<PathBuf>,

    /// Read the configuration from an open descriptor, to its end
    #[arg(long, value_name = "N", conflicts_with = "config", value_parser = clap::value_parser!(RawFd).range(0..))]
    pub(crate) config_fd: Option<RawFd>,

    /// Serve one client on stdin and stdout, and end with it [default where
    /// there is no listener]
    #[arg(long)]
    pub(crate) stdio: bool,

    /// Listen on a Unix socket; may be repeated. With ",pool=ID", its messages go
    /// there
    #[arg(long, value_name = "PATH[,pool=ID]")]
    unix: Vec<Place<PathBuf>>,

    /// Listen on TCP; port 0 lets the system choose; may be repeated
    #[arg(long, value_name = "HOST:PORT[,pool=ID]")]
    tcp: Vec<Place<TcpAddress>>,

    /// Ask the clients of all listeners for the token in this file first
    #[arg(long, value_name = "PATH")]
    pub(crate) token_file: Option<PathBuf>,

    /// Permissions of the Unix sockets' files [default: 600]
    #[arg(long, value_name = "OCTAL", requires = "unix")]
    unix_mode: Option<FileMode>,

    /// Group of the Unix sockets' files, by name or number
    #[arg(long, value_name = "GROUP", requires = "unix")]
    unix_group: Option<Gid>,

    /// Let one more user connect to the Unix sockets, by name or number, where
    /// the file's permissions do; may be repeated
    #[arg(long, value_name = "USER")]
    allow_uid: Vec<Uid>,

    /// Serve `stdio_bus top` on a Unix socket of its own; stderr of workers whose
    /// pool says nothing of it is then written line by line
    #[arg(long, value_name = "PATH")]
    pub(crate) admin: Option<PathBuf>,

    /// Serve metrics over HTTP, in the text format of Prometheus
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) metrics: Option<TcpAddress>,

    /// Log this and what is more important [default: info, or debug where the
    /// environment has DEBUG_STDIO=1]
    #[arg(long, value_name = "LEVEL", value_parser = levels())]
    log_level: Option<LogLevel>,

    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

impl ServeArgs {
    /// The listeners, those that this process was given included, with the options
    /// they share. The error is for the user.
    pub(crate) fn listeners(&self, inherited: Vec<Inherited>) -> Result<Vec<Listen>, String> {
        let has_unix = !self.unix.is_empty() || inherited.iter().any(|socket| socket.unix);
        if !has_unix && !self.allow_uid.is_empty() {
            return Err("--allow-uid is for Unix sockets, and there is none: add --unix".into());
        }
        let token = self.token_file.as_deref().map(read_token).transpose()?;
        let unix = self.unix.iter().map(|unix| {
            let mut listen = Listen::unix(&unix.at);
            if let Some(FileMode(mode)) = self.unix_mode {
                listen = listen.mode(mode);
            }
            if let Some(Gid(gid)) = self.unix_group {
                listen = listen.group(gid);
            }
            (self.with_users(listen), &unix.pool)
        });
        let inherited = inherited.into_iter().map(|socket| match socket.unix {
            true => self.with_users(socket.listen),
            false => socket.listen,
        });
        let tcp = self.tcp.iter().map(|tcp| {
            let listen = Listen::tcp(&tcp.at.host, tcp.at.port);
            (listen, &tcp.pool)
        });
        let to_pool = |(listen, pool): (Listen, &Option<String>)| match pool {
            Some(pool) => listen.pool(pool),
            None => listen,
        };
        let with_token = |listen: Listen| match &token {
            Some(token) => listen.token(token),
            None => listen,
        };
        let listeners = unix.chain(tcp).map(to_pool).chain(inherited);
        Ok(listeners.map(with_token).collect())
    }

    fn with_users(&self, listen: Listen) -> Listen {
        let users = self.allow_uid.iter();
        users.fold(listen, |listen, user| listen.allow_uid(user.0))
    }

    /// Whether the command line has listeners.
    pub(crate) fn unix_or_tcp(&self) -> bool {
        !self.unix.is_empty() || !self.tcp.is_empty()
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

/// The longest token there can be: a client has 4 KiB to show it in.
const MAX_TOKEN: u64 = 3072;

/// What a file holds but for the end of its last line. Its content is never shown.
pub(crate) fn read_token(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_TOKEN + 1).read_to_string(&mut text))
        .map_err(|e| format!("--token-file {shown}: {e}"))?;
    let token = text.strip_suffix('\n').unwrap_or(&text);
    let token = token.strip_suffix('\r').unwrap_or(token);
    match token {
        "" => Err(format!(
            "--token-file {shown}: the file is empty; write the token into it"
        )),
        _ if text.len() as u64 > MAX_TOKEN => Err(format!(
            "--token-file {shown}: a token has at most {MAX_TOKEN} bytes"
        )),
        token => Ok(token.to_owned()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    #[value(help = "[time] [LEVEL] message")]
    Text,
    /// One object a line, with time, level and message
    Json,
}

/// Where to listen, and for which pool.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place<T> {
    at: T,
    pool: Option<String>,
}

impl<T: FromStr> FromStr for Place<T>
where
    T::Err: ToString,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (at, pool) = match text.rsplit_once(",pool=") {
            Some((_, "")) => return Err("the pool is missing".into()),
            Some((at, pool)) => (at, Some(pool.to_owned())),
            None => (text, None),
        };
        let at = at.parse().map_err(|e: T::Err| e.to_string())?;
        Ok(Self { at, pool })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TcpAddress {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for TcpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            host if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl FromStr for TcpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text
            .rsplit_once(':')
            .ok_or("HOST:PORT is needed, as in 127.0.0.1:8765")?;
        let port = port.parse().map_err(|_| {
            format!("{port:?} is not a port: a number from 0 to 65535, 0 to let the system choose")
        })?;
        let host = match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(address) => address,
            None if host.contains(':') => {
                return Err("an IPv6 address needs brackets, as in [::1]:8765".into());
            }
            None => host,
        };
        if host.is_empty() {
            return Err("the host is missing; 127.0.0.1 is this machine only, 0.0.0.0 and [::] are every address".into());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Permissions, as chmod takes them.
#[derive(Debug, Clone, Copy)]
struct FileMode(u32);

impl FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match u32::from_str_radix(text, 8) {
            Ok(mode @ 1..=0o777) => Ok(Self(mode)),
            _ => Err("permissions are an octal number from 1 to 777".into()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Gid(u32);

impl FromStr for Gid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self(number));
        }
        match Group::from_name(text) {
            Ok(Some(group)) => Ok(Self(group.gid.as_raw())),
            Ok(None) => Err("there is no such group".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Uid(u32);

impl FromStr for Uid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self(number));
        }
        match User::from_name(text) {
            Ok(Some(user)) => Ok(Self(user.uid.as_raw())),
            Ok(None) => Err("there is no such user".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<ServeArgs, clap::Error> {
        let cli = Cli::try_parse_from(["stdio_bus"].iter().chain(args))?;
        Ok(cli.serve)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn listeners_may_be_repeated_and_combined_and_have_pools() {
        let args = parse(&[
            "--config",
            "c",
            "--tcp",
            "a:1,pool=p",
            "--unix",
            "s,t",
            "--tcp=[::1]:0",
            "--unix=u,pool=q",
        ])
        .expect("valid");
        let place = |host: &str, port, pool: Option<&str>| Place {
            at: TcpAddress {
                host: host.into(),
                port,
            },
            pool: pool.map(str::to_owned),
        };
        assert_eq!(args.tcp, [place("a", 1, Some("p")), place("::1", 0, None)]);
        let unix = args.unix.iter().map(|u| (u.at.to_str(), u.pool.as_deref()));
        let unix: Vec<_> = unix.collect();
        assert_eq!(unix, [(Some("s,t"), None), (Some("u"), Some("q"))]);
        assert_eq!(args.listeners(Vec::new()).expect("valid").len(), 4);
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
        assert!("a:1,pool=".parse::<Place<TcpAddress>>().is_err());
    }

    #[test]
    fn users_groups_and_permissions_are_names_or_numbers() {
        assert_eq!("root".parse::<Uid>().expect("there is one").0, 0);
        assert_eq!("7".parse::<Gid>().expect("a number").0, 7);
        assert!("no such user".parse::<Uid>().is_err());
        assert!("no such group".parse::<Gid>().is_err());
        assert_eq!("660".parse::<FileMode>().expect("octal").0, 0o660);
        for bad in ["", "0", "888", "1000", "u+r"] {
            assert!(bad.parse::<FileMode>().is_err(), "{bad}");
        }
        // They are for sockets that have a file.
        assert!(parse(&["--config=c", "--unix-mode", "660"]).is_err());
    }
}
