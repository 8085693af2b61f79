//! The configurations of both buses, and where their files are.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use stdiobus::{BusConfig, LimitsConfig, PoolConfig, Protocol, StderrMode};

use crate::plan::{Bus, FRAME_MAX, Pool};

#[derive(Debug, Clone)]
pub struct Setup {
    dir: PathBuf,
    /// This program, which is its own worker.
    soak: PathBuf,
}

impl Setup {
    pub fn new(dir: &Path) -> io::Result<Self> {
        let (dir, soak) = (dir.to_owned(), env::current_exe()?);
        Ok(Self { dir, soak })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where workers tell what they read; its path in their arguments is what they are known by.
    pub fn witness(&self) -> PathBuf {
        self.path("witness")
    }

    /// The program `stdio_bus` of the same build.
    pub fn stdio_bus(&self) -> Result<PathBuf, String> {
        let profile = self.soak.parent().and_then(Path::parent);
        let path = profile.map(|dir| dir.join("stdio_bus")).unwrap_or_default();
        if path.exists() {
            return Ok(path);
        }
        let profile = if cfg!(debug_assertions) {
            ""
        } else {
            " --release"
        };
        let hint = format!("cargo build --locked{profile} --bin stdio_bus");
        Err(format!("{} is missing: `{hint}` makes it", path.display()))
    }

    /// What the bus runs; with each mark the pool that moves is another one.
    pub fn config(&self, bus: Bus, mark: u64) -> BusConfig {
        let limits = LimitsConfig::new()
            .max_input_buffer(FRAME_MAX as u64)
            .max_output_queue(4 << 20)
            // As many as the plan kills.
            .max_restarts(1_000_000)
            // Longer than an interval: no session is forgotten while it is used.
            .session_idle_sec(60)
            .drain_timeout_sec(10);
        let config = BusConfig::new().limits(limits);
        Pool::ALL.into_iter().fold(config, |config, pool| {
            config.pool(self.pool(bus, pool, mark))
        })
    }

    fn pool(&self, bus: Bus, pool: Pool, mark: u64) -> PoolConfig {
        let witness = self.witness();
        let config = PoolConfig::new(pool.name(), &self.soak)
            .arg("worker")
            .arg(&witness)
            .arg(bus.name())
            .arg(pool.name())
            .instances(pool.instances())
            .stderr(StderrMode::Log);
        match pool {
            Pool::Lines => config.protocol(Protocol::Ndjson),
            Pool::Moving => config
                .protocol(Protocol::Ndjson)
                .env("MARK", mark.to_string()),
            Pool::Mcp => config.protocol(Protocol::Mcp).initialize(json!({
                "protocolVersion": "2025-06-18", "capabilities": {},
                "clientInfo": {"name": "soak", "version": "1"},
            })),
            Pool::Acp => config
                .protocol(Protocol::Acp)
                .initialize(json!({"protocolVersion": 1, "clientCapabilities": {}})),
        }
    }
}
