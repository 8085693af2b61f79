//! One scenario over every backend.

use stdiobus::{
    BackendMode, BusConfig, ListenMode, PoolConfig, RemoteOptions, StdioBus, StdioBusBuilder,
    SubprocessOptions, WorkerState,
};

use super::client::eventually;
use super::{TempDir, children, program};

/// Where the bus of a scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Native,
    Subprocess,
    /// A bus of this process, reached through its Unix socket.
    Unix,
    /// The same through TCP.
    Tcp,
}

/// A client, and the bus it is a client of where that is another one.
pub struct Setup {
    pub bus: StdioBus,
    pub host: Option<StdioBus>,
    /// Of its socket.
    pub dir: TempDir,
}

impl Over {
    pub fn is_native(self) -> bool {
        self == Self::Native
    }

    /// A bus with these pools, described further by `more`; started.
    pub async fn start_with(
        self,
        pools: &[PoolConfig],
        more: impl FnOnce(StdioBusBuilder) -> StdioBusBuilder,
    ) -> Setup {
        let setup = self.build_with(pools, more).await;
        setup.bus.start().await.expect("starts");
        setup
    }

    /// The same, not started; a bus of its own behind it is.
    pub async fn build_with(
        self,
        pools: &[PoolConfig],
        more: impl FnOnce(StdioBusBuilder) -> StdioBusBuilder,
    ) -> Setup {
        let config = pools
            .iter()
            .cloned()
            .fold(BusConfig::new(), BusConfig::pool);
        self.build(config, more).await
    }

    /// The same from a whole configuration.
    pub async fn build(
        self,
        config: BusConfig,
        more: impl FnOnce(StdioBusBuilder) -> StdioBusBuilder,
    ) -> Setup {
        let dir = TempDir::new();
        let with_config = StdioBus::builder().config(config);
        let (builder, host) = match self {
            Self::Native => (with_config, None),
            Self::Subprocess => {
                let options = SubprocessOptions::new().binary_path(program());
                let builder = with_config.backend(BackendMode::Subprocess);
                (builder.subprocess(options), None)
            }
            Self::Unix | Self::Tcp => {
                let listen = match self {
                    Self::Unix => ListenMode::unix(dir.path("bus.sock")),
                    _ => ListenMode::tcp("127.0.0.1", 0),
                };
                let host = with_config.listen(listen).build().expect("valid");
                host.start().await.expect("the host starts");
                let address = host.listen_addrs().remove(0);
                let remote = BackendMode::Remote(RemoteOptions::from(address));
                (StdioBus::builder().backend(remote), Some(host))
            }
        };
        Setup {
            bus: more(builder).build().expect("valid"),
            host,
            dir,
        }
    }

    pub async fn start(self, pools: &[PoolConfig]) -> Setup {
        self.start_with(pools, |builder| builder).await
    }
}

impl Setup {
    /// The bus that has the workers, where it is in this process.
    pub fn native(&self) -> Option<&StdioBus> {
        let over_a_wire = self.host.as_ref();
        over_a_wire.or_else(|| self.bus.worker_count().map(|_| &self.bus))
    }

    /// The workers that can be killed.
    pub async fn worker_pids(&self) -> Vec<u32> {
        let Some(native) = self.native() else {
            let program = children(std::process::id());
            return children(program[0]);
        };
        let workers = native.workers().await.expect("listed");
        let ready = workers.iter().filter(|w| w.state == WorkerState::Ready);
        ready.filter_map(|worker| worker.pid).collect()
    }

    /// Stops everything.
    pub async fn finish(self) {
        assert_eq!(self.bus.pending_count(), Some(0));
        self.bus.stop().await.expect("stops");
        if let Some(host) = &self.host {
            // It hears of a client's end on its own thread.
            eventually("the host lets go", || host.pending_count() == Some(0)).await;
            host.stop().await.expect("stops");
        }
    }
}

/// Makes a test of each of these functions for every backend. They take an [`Over`].
#[macro_export]
macro_rules! over_every_backend {
    ($($scenario:ident)*) => {
        over_every_backend!(@ native Native $($scenario)*);
        over_every_backend!(@ subprocess Subprocess $($scenario)*);
        over_every_backend!(@ unix Unix $($scenario)*);
        over_every_backend!(@ tcp Tcp $($scenario)*);
    };
    (@ $module:ident $over:ident $($scenario:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $scenario() {
                    $crate::common::alone_async(|| super::$scenario($crate::common::backends::Over::$over));
                }
            )*
        }
    };
}
