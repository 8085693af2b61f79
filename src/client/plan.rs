//! What a description of a bus comes to: the backend, with the one configuration
//! that it is given.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use super::StdioBusBuilder;
use crate::backend::{BackendMode, Launch, Native, NativeOptions, Plan, SubprocessOptions, Way};
use crate::config::{BusConfig, Framing};
use crate::driver::LogLevel;
use crate::error::{Error, Result};
use crate::native::{BusOptions, ConfigSource, Listen, c_string};
use crate::stats::BackendType;

impl StdioBusBuilder {
    /// What runs the bus, and how.
    pub(super) fn plan(
        self,
        listen: Vec<Listen>,
        native: &NativeOptions,
        subprocess: &SubprocessOptions,
    ) -> Result<(BackendType, Plan)> {
        let backend = match self.backend {
            BackendMode::Auto | BackendMode::Native => BackendType::Native,
            BackendMode::Subprocess => BackendType::Subprocess,
            BackendMode::Remote(_) => BackendType::Remote,
        };
        if !listen.is_empty() && backend != BackendType::Native {
            return Err(not_with("listen", backend));
        }
        self.check_options(backend)?;
        let log_level = self.effective_log_level();
        if let BackendMode::Remote(options) = self.backend {
            return Ok((backend, Plan::Linked(Way::Remote(options))));
        }
        let options = BusOptions {
            daemon: self.daemon,
            stderr_inherit: self.daemon && self.stderr.is_none(),
            parent_death_signal: native.parent_death_signal,
            log_level: log_level.to_c(),
            config: self.config_source()?,
        };
        if backend == BackendType::Native {
            return Ok((backend, Plan::Native { options, listen }));
        }
        Native::check(&options)?;
        let config = read_again(&options.config);
        if config.transport.framing != Framing::Ndjson {
            return Err(not_with("transport.framing \"length\"", backend));
        }
        let launch = Launch {
            options: subprocess.clone(),
            config: options.config,
            log_level,
            drain_limit: config
                .limits
                .drain_timeout_sec
                .map(|sec| Duration::from_secs(sec.into())),
        };
        Ok((backend, Plan::Linked(Way::Subprocess(launch))))
    }

    /// Looks at the configuration, and for its programs. Returns warnings.
    #[cfg(feature = "cli")]
    pub(crate) fn check(self) -> Result<Vec<String>> {
        let (log_level, parent_death_signal) = (LogLevel::Warn.to_c(), false);
        Native::check_programs(&BusOptions {
            daemon: self.daemon,
            stderr_inherit: self.daemon,
            parent_death_signal,
            log_level,
            config: self.config_source()?,
        })
    }

    /// Refuses what the backend would ignore.
    fn check_options(&self, backend: BackendType) -> Result<()> {
        let refuse = |what: &str| Err(not_with(what, backend));
        if self.native.is_some() && backend != BackendType::Native {
            return refuse("native options");
        }
        if self.subprocess.is_some() && backend != BackendType::Subprocess {
            return refuse("subprocess options");
        }
        if let BackendMode::Remote(options) = &self.backend {
            options
                .check()
                .map_err(|text| Error::invalid_argument(format!("remote: {text}")))?;
            let given = self.given();
            if !given.is_empty() {
                return refuse(&given.join(", "));
            }
        }
        Ok(())
    }

    /// Lines that nobody will see needn't be made.
    fn effective_log_level(&self) -> LogLevel {
        let heard = self.log.is_some() || cfg!(feature = "tracing");
        if heard {
            self.log_level.unwrap_or(LogLevel::Info)
        } else {
            LogLevel::Error
        }
    }

    fn config_source(self) -> Result<ConfigSource> {
        let given = self.given();
        match given[..] {
            [_] => {}
            [] => {
                return Err(Error::invalid_argument(
                    "no configuration: use config, config_path, config_json or pool",
                ));
            }
            _ => {
                return Err(Error::invalid_argument(format!(
                    "these exclude each other: {}",
                    given.join(", ")
                )));
            }
        }
        if let Some(path) = self.config_path {
            let path = c_string("config_path", path.into_os_string().into_vec())?;
            return Ok(ConfigSource::Path(path));
        }
        if let Some(json) = self.config_json {
            return Ok(ConfigSource::Json(c_string("config_json", json)?));
        }
        let mut config = self.config.unwrap_or_default();
        config.pools.extend(self.pools);
        if let Some(limits) = self.limits {
            config.limits = limits;
        }
        config.validate()?;
        Ok(ConfigSource::Json(c_string("config", config.to_json())?))
    }

    /// The names of the configurations that were given.
    fn given(&self) -> Vec<&'static str> {
        let parts = !self.pools.is_empty() || self.limits.is_some();
        [
            ("config", self.config.is_some()),
            ("config_path", self.config_path.is_some()),
            ("config_json", self.config_json.is_some()),
            // Parts add to `config`, so they clash with the other two only.
            ("pool or limits", parts && self.config.is_none()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}

/// A configuration that the bus has taken, for what the client has to know of it.
/// What these types don't take has the defaults.
fn read_again(config: &ConfigSource) -> BusConfig {
    let text = match config {
        ConfigSource::Json(json) => Some(json.to_bytes().to_vec()),
        ConfigSource::Path(path) => fs::read(OsStr::from_bytes(path.to_bytes())).ok(),
    };
    text.and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

fn not_with(what: &str, backend: BackendType) -> Error {
    Error::invalid_argument(format!("{what}: not with the {backend} backend"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BusConfig, PoolConfig};
    use crate::error::ErrorCode;

    fn refused(builder: StdioBusBuilder) -> String {
        let error = builder.config_source().expect_err("refused");
        assert_eq!(error.kind(), Some(ErrorCode::InvalidArgument));
        error.to_string()
    }

    #[test]
    fn there_is_exactly_one_configuration() {
        let pool = PoolConfig::new("a", "cat");
        assert!(refused(StdioBusBuilder::new()).contains("config_path"));
        let both = refused(
            StdioBusBuilder::new()
                .config(BusConfig::new())
                .config_json("{}"),
        );
        assert!(both.contains("config, config_json"), "{both}");
        let both = refused(StdioBusBuilder::new().config_path("x").pool(pool.clone()));
        assert!(both.contains("config_path, pool"), "{both}");
        let config = BusConfig::new().pool(pool);
        let more = PoolConfig::new("b", "cat");
        assert!(
            StdioBusBuilder::new()
                .config(config)
                .pool(more)
                .config_source()
                .is_ok()
        );
    }

    #[test]
    fn a_path_with_nul_is_refused() {
        assert!(refused(StdioBusBuilder::new().config_path("a\0b")).contains("NUL"));
    }
}
