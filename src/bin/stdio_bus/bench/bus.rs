//! The bus that is measured, and the ways to it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use stdiobus::{
    BackendMode, LimitsConfig, Listen, PoolConfig, RemoteOptions, StdioBus, StdioBusBuilder,
    blocking,
};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::{self, JoinHandle};
use tokio::time::timeout;

use super::args::{BenchArgs, Client};
use super::connection::Connection;
use super::load::Load;
use super::work::Work;
use super::{WORKER, tasks, threads};
use crate::args::{TcpAddress, read_token};

/// How long the workers have to end.
const STOP: Duration = Duration::from_secs(2);

/// One that has been started, and how it is asked.
pub(super) struct Bus {
    /// `None` where it is known by its address only.
    bus: Option<StdioBus>,
    way: Way,
}

enum Way {
    Async,
    Blocking(blocking::StdioBus),
    Socket(Place),
}

enum Place {
    Unix(PathBuf),
    Tcp(TcpAddress),
}

impl Bus {
    /// The error is for the user.
    pub(super) async fn start(args: &BenchArgs, client: Client) -> Result<Self, String> {
        if let (Client::Unix | Client::Tcp, Some(place)) = (client, elsewhere(args)) {
            return Ok(Self {
                bus: None,
                way: Way::Socket(place),
            });
        }
        let builder = builder(args, client)?;
        let (bus, way) = match client {
            Client::Blocking => {
                let bus = builder.build_blocking().map_err(|e| e.to_string())?;
                (bus.clone().into_async(), Way::Blocking(bus))
            }
            _ => (builder.build().map_err(|e| e.to_string())?, Way::Async),
        };
        bus.start().await.map_err(|e| e.to_string())?;
        let way = match client {
            Client::Async | Client::Blocking => way,
            Client::Unix | Client::Tcp => Way::Socket(listener(&bus)?),
        };
        Ok(Self {
            bus: Some(bus),
            way,
        })
    }

    /// `None` where it isn't known.
    pub(super) fn workers(&self) -> Option<u32> {
        let workers = self.bus.as_ref()?.worker_count()?;
        u32::try_from(workers).ok()
    }

    /// Begins to ask; ends when the load has ended and everything is answered or
    /// given up. The error is for the user.
    pub(super) async fn ask(
        &self,
        args: &BenchArgs,
        load: &Arc<Load>,
    ) -> Result<JoinHandle<()>, String> {
        let load = Arc::clone(load);
        Ok(match (&self.way, &self.bus) {
            (Way::Blocking(bus), _) => {
                let bus = bus.clone();
                task::spawn_blocking(move || threads::run(&bus, &load))
            }
            (Way::Socket(place), _) => {
                let mut connection = connect(place, args).await?;
                tokio::spawn(async move { connection.run(&load).await })
            }
            (Way::Async, Some(bus)) => {
                let bus = bus.clone();
                // What keeps its tasks busy must not hold up the clock, which is here.
                task::spawn_blocking(move || tasks::run(&bus, &load))
            }
            (Way::Async, None) => return Err("there is no bus".into()),
        })
    }

    /// Sends so many requests that are never answered. They stay for as long as
    /// what is returned. The error is for the user.
    pub(super) async fn hold(&self, args: &BenchArgs, work: &Work) -> Result<Held, String> {
        let held = work.held();
        match (&self.way, &self.bus) {
            _ if args.hold == 0 => Ok(Held { _connection: None }),
            (Way::Async | Way::Blocking(_), Some(bus)) => {
                for n in 0..u64::from(args.hold) {
                    let options = held.options(n % held.sessions).timeout(None);
                    bus.request_with(&held.method, &held.params, options)
                        .detach()
                        .map_err(|e| format!("request {n} of --hold: {e}"))?;
                }
                Ok(Held { _connection: None })
            }
            (Way::Socket(place), _) => {
                let mut connection = connect(place, args).await?;
                let sent = connection.hold(&held, args.hold).await;
                sent.map_err(|e| format!("requests of --hold: {e}"))?;
                let _connection = Some(connection);
                Ok(Held { _connection })
            }
            (_, None) => Err("there is no bus".into()),
        }
    }

    pub(super) async fn stop(&self) {
        if let Some(bus) = &self.bus {
            // A stop has no errors to tell of.
            let _ = bus.stop_with_timeout(STOP).await;
        }
    }
}

/// The client of the requests that are never answered, where it has a connection:
/// the end of that would end them.
pub(super) struct Held {
    _connection: Option<Connection>,
}

fn builder(args: &BenchArgs, client: Client) -> Result<StdioBusBuilder, String> {
    let builder = StdioBus::builder().name("bench").timeout(args.timeout);
    if let Some(place) = elsewhere(args) {
        return Ok(builder.backend(BackendMode::Remote(remote(&place, args)?)));
    }
    let builder = match client {
        Client::Async | Client::Blocking => builder,
        Client::Unix => builder.listen(Listen::unix(socket())),
        Client::Tcp => builder.listen(Listen::tcp("127.0.0.1", 0)),
    };
    if let Some(path) = &args.config {
        return Ok(builder.config_path(path));
    }
    let builder = match args.big_limits {
        true => {
            let limits = LimitsConfig::new().max_input_buffer(16 << 20);
            builder.limits(limits.max_output_queue(64 << 20))
        }
        false => builder,
    };
    Ok(builder.pool(pool(args)?))
}

/// The workers where there is no configuration.
fn pool(args: &BenchArgs) -> Result<PoolConfig, String> {
    let id = args.pool.as_deref().unwrap_or("bench");
    let (command, arguments) = match &args.worker {
        Some(worker) => (worker.clone(), None),
        None => {
            let this = std::env::current_exe();
            let this = this.map_err(|e| format!("where this program is can't be found: {e}"))?;
            (this, Some(WORKER))
        }
    };
    let command = command.to_str().ok_or("--worker: the path isn't UTF-8")?;
    let pool = PoolConfig::new(id, command).args(arguments);
    Ok(pool.instances(args.workers))
}

/// Where a bus of this process listens.
fn socket() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(format!("stdio_bus-bench-{pid}-{n}.sock"))
}

fn listener(bus: &StdioBus) -> Result<Place, String> {
    let addresses = bus.listen_addrs();
    let address = addresses.first().ok_or("the bus doesn't listen")?;
    let unix = address.unix().map(|path| Place::Unix(path.to_owned()));
    let tcp = address.tcp().map(|address| {
        Place::Tcp(TcpAddress {
            host: address.ip().to_string(),
            port: address.port(),
        })
    });
    unix.or(tcp).ok_or_else(|| "the bus doesn't listen".into())
}

/// The bus that runs already, where one is named.
fn elsewhere(args: &BenchArgs) -> Option<Place> {
    let unix = args.unix.clone().map(Place::Unix);
    unix.or_else(|| args.tcp.clone().map(Place::Tcp))
}

fn remote(place: &Place, args: &BenchArgs) -> Result<RemoteOptions, String> {
    let options = match place {
        Place::Unix(path) => RemoteOptions::unix(path),
        Place::Tcp(TcpAddress { host, port }) => RemoteOptions::tcp(host, *port),
    };
    Ok(match &args.token_file {
        Some(path) => options.token(read_token(path)?),
        None => options,
    })
}

/// The error is for the user.
async fn connect(place: &Place, args: &BenchArgs) -> Result<Connection, String> {
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    match timeout(args.timeout, open(place, token.as_deref())).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(format!("no bus can be asked at {place}: {error}")),
        Err(_) => Err(format!("no bus answers at {place}")),
    }
}

async fn open(place: &Place, token: Option<&str>) -> io::Result<Connection> {
    let mut connection = match place {
        Place::Unix(path) => Connection::new(UnixStream::connect(path).await?),
        Place::Tcp(TcpAddress { host, port }) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Connection::new(stream)
        }
    };
    if let Some(token) = token {
        connection.show(token).await?;
    }
    Ok(connection)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}
