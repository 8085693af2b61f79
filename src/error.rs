//! What can go wrong, and whether trying again makes sense.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The result of everything that can fail in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
///
/// A JSON-RPC error answer of a worker is [`Error::Rpc`], whatever its number;
/// everything else, the errors the bus itself answers with included, is
/// [`Error::Bus`] and has an [`ErrorCode`].
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The worker answered with a JSON-RPC error. All three members are as it
    /// sent them.
    #[error("the worker answered with error {code}: {message}{}", shown(data.as_ref()))]
    #[non_exhaustive]
    Rpc {
        /// The error's number.
        code: i64,
        /// The error's text.
        message: String,
        /// The error's `data`, where it had one.
        data: Option<Value>,
    },
    /// The client or the bus failed.
    #[error("{0}")]
    Bus(#[from] BusError),
}

impl Error {
    /// The kind of failure; `None` for the JSON-RPC error of a worker.
    #[doc(alias = "code")]
    pub fn kind(&self) -> Option<ErrorCode> {
        match self {
            Error::Rpc { .. } => None,
            Error::Bus(error) => Some(error.details.kind),
        }
    }

    /// Whether the failure is of this kind. Never true for the JSON-RPC error of a
    /// worker.
    ///
    /// ```
    /// # use stdiobus::{Error, ErrorCode};
    /// fn is_too_slow(error: &Error) -> bool {
    ///     error.is(ErrorCode::Timeout)
    /// }
    /// ```
    pub fn is(&self, kind: ErrorCode) -> bool {
        self.kind() == Some(kind)
    }

    /// Whether the same call may succeed later. Never true for the JSON-RPC
    /// error of a worker.
    ///
    /// A request that is tried again may be executed twice; where the bus knows
    /// whether the worker had seen it, [`exit`](Self::exit) says so.
    pub fn is_retryable(&self) -> bool {
        self.kind().is_some_and(ErrorCode::is_retryable)
    }

    /// How the worker ended that should have answered, where that is the reason.
    pub fn exit(&self) -> Option<&WorkerExit> {
        match self {
            Error::Rpc { .. } => None,
            Error::Bus(error) => error.details.exit.as_ref(),
        }
    }

    /// The number of the JSON-RPC error, be it the worker's or one the bus
    /// answered with.
    pub fn rpc_code(&self) -> Option<i64> {
        match self {
            Error::Rpc { code, .. } => Some(*code),
            Error::Bus(error) => error.details.rpc.as_ref().map(|rpc| rpc.code),
        }
    }

    /// The `data` of the JSON-RPC error, be it the worker's or one the bus
    /// answered with.
    pub fn rpc_data(&self) -> Option<&Value> {
        match self {
            Error::Rpc { data, .. } => data.as_ref(),
            Error::Bus(error) => error.details.rpc.as_ref()?.data.as_ref(),
        }
    }

    pub(crate) fn new(kind: ErrorCode, message: impl Into<String>) -> Self {
        Error::Bus(BusError {
            details: Box::new(Details {
                kind,
                message: message.into(),
                source: None,
                rpc: None,
                exit: None,
            }),
        })
    }

    pub(crate) fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.map_details(|details| details.source = Some(source.into()))
    }

    pub(crate) fn with_rpc(self, rpc: RpcError, exit: Option<WorkerExit>) -> Self {
        self.map_details(|details| {
            details.rpc = Some(rpc);
            details.exit = exit;
        })
    }

    #[cfg(feature = "agent")]
    pub(crate) fn with_exit(self, exit: WorkerExit) -> Self {
        self.map_details(|details| details.exit = Some(exit))
    }

    fn map_details(mut self, change: impl FnOnce(&mut Details)) -> Self {
        if let Error::Bus(error) = &mut self {
            change(&mut error.details);
        }
        self
    }

    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    pub(crate) fn invalid_state(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidState, message)
    }

    pub(crate) fn shutting_down() -> Self {
        Self::new(ErrorCode::TransportError, "bus is shutting down")
    }
}

/// What a `main` that returns an error prints: what is there, and no more.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Rpc {
                code,
                message,
                data,
            } => {
                let mut shown = f.debug_struct("Rpc");
                shown.field("code", code).field("message", message);
                if let Some(data) = data {
                    shown.field("data", &format_args!("{data}"));
                }
                shown.finish()
            }
            Error::Bus(error) => fmt::Debug::fmt(error, f),
        }
    }
}

impl From<RpcError> for Error {
    fn from(error: RpcError) -> Self {
        Error::Rpc {
            code: error.code,
            message: error.message,
            data: error.data,
        }
    }
}

/// A failure of the client or of the bus: a kind, a text, and what helps to
/// understand it. Its parts are read through [`Error`].
pub struct BusError {
    // Boxed, so that a Result is small on the path where nothing fails.
    details: Box<Details>,
}

struct Details {
    kind: ErrorCode,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    rpc: Option<RpcError>,
    exit: Option<WorkerExit>,
}

impl fmt::Debug for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details {
            kind,
            message,
            source,
            rpc,
            exit,
        } = &*self.details;
        let mut shown = f.debug_struct("BusError");
        shown.field("kind", kind).field("message", message);
        if let Some(source) = source {
            shown.field("source", source);
        }
        if let Some(rpc) = rpc {
            shown.field("code", &rpc.code);
        }
        match (exit, rpc.as_ref().and_then(|rpc| rpc.data.as_ref())) {
            // The data of the answer says the same.
            (Some(exit), _) => shown.field("exit", exit),
            (None, Some(data)) => shown.field("data", &format_args!("{data}")),
            (None, None) => &mut shown,
        };
        shown.finish()
    }
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.details.message)
    }
}

impl StdError for BusError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.details.source.as_ref()?;
        Some(source.as_ref())
    }
}

/// The kinds of failure, with the numbers the stdio_bus family gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum ErrorCode {
    /// An argument, an option or the configuration is not valid, or names
    /// something that doesn't exist.
    InvalidArgument = 1,
    /// Not allowed in the bus's present state.
    InvalidState = 2,
    /// No answer within the time allowed.
    Timeout = 3,
    /// The caller gave it up.
    Cancelled = 4,
    /// The way to the worker broke: it exited, or the bus is shutting down.
    TransportError = 5,
    /// An extension that was required is not there.
    NegotiationFailed = 6,
    /// The other side does not allow it.
    PolicyDenied = 7,
    /// A program or an address can't be had now.
    Unavailable = 8,
    /// A queue or a budget is full.
    ResourceExhausted = 9,
    /// Not offered here.
    NotSupported = 10,
    /// A fault in the library.
    Internal = 99,
}

impl ErrorCode {
    /// Its number.
    pub fn as_i32(self) -> i32 {
        self as i32
    }

    /// Whether failures of this kind may go away by themselves.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Timeout | Self::Unavailable | Self::ResourceExhausted | Self::TransportError
        )
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "InvalidArgument",
            Self::InvalidState => "InvalidState",
            Self::Timeout => "Timeout",
            Self::Cancelled => "Cancelled",
            Self::TransportError => "TransportError",
            Self::NegotiationFailed => "NegotiationFailed",
            Self::PolicyDenied => "PolicyDenied",
            Self::Unavailable => "Unavailable",
            Self::ResourceExhausted => "ResourceExhausted",
            Self::NotSupported => "NotSupported",
            Self::Internal => "Internal",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The `error` member of a JSON-RPC answer: what a worker sent, or what a
/// handler answers a worker's request with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RpcError {
    /// Its number.
    pub code: i64,
    /// Its text.
    #[serde(default)]
    pub message: String,
    /// More about it, in whatever form its sender chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl RpcError {
    /// An error without `data`.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// -32601: there is no such method here.
    pub fn method_not_found(method: &str) -> Self {
        Self::new(-32601, format!("Method not found: {method}"))
    }

    /// -32602: the params are not what the method takes.
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }

    /// -32603: something failed on this side.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(-32603, message)
    }

    /// Adds `data`.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<Value>) -> Self {
        self.data = Some(data.into());
        self
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}: {}", self.code, self.message)
    }
}

impl StdError for RpcError {}

/// A worker's error passes as it is; anything else is -32603 with its text.
impl From<Error> for RpcError {
    fn from(error: Error) -> Self {
        match error {
            Error::Rpc {
                code,
                message,
                data,
            } => Self {
                code,
                message,
                data,
            },
            Error::Bus(error) => Self::internal(error.to_string()),
        }
    }
}

/// Characters of a worker's last line on stderr, or of its error's data, that a
/// message shows.
const LINE_SHOWN: usize = 200;

/// How a worker ended.
///
/// Its text is one line, which ends with the last of what the worker wrote to
/// stderr.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WorkerExit {
    /// Its pool.
    pub pool: String,
    /// Its number, counted over all pools.
    pub worker: usize,
    /// Its exit status, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// How long it had run.
    pub uptime: Duration,
    /// The last lines it wrote to stderr; empty where the bus doesn't tell.
    pub stderr_tail: String,
    /// Whether any byte of the request had reached it; `None` where this isn't
    /// about a request.
    pub request_sent: Option<bool>,
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} of pool {:?} ", self.worker, self.pool)?;
        match (self.code, self.signal) {
            (_, Some(signal)) => write!(f, "was ended by signal {signal}"),
            (Some(code), None) => write!(f, "exited with status {code}"),
            (None, None) => f.write_str("ended"),
        }?;
        match last_line(&self.stderr_tail) {
            Some(line) => write!(f, ": {line}"),
            None => Ok(()),
        }
    }
}

/// The last line that isn't empty, fit for a message.
fn last_line(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(fit(line))
}

/// What a worker's error says beside its text, fit for a message.
fn shown(data: Option<&Value>) -> String {
    match data {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => format!(" ({})", fit(text)),
        Some(data) => format!(" ({})", fit(&data.to_string())),
    }
}

/// Within bounds, and without what moves a terminal's cursor.
fn fit(line: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = line.chars().map(plain).take(LINE_SHOWN).collect();
    if line.chars().nth(LINE_SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_workers_error_ends_with_its_data() {
        let text = |data: Value| {
            let error = RpcError::new(-32603, "Internal error").with_data(data);
            Error::from(error).to_string()
        };
        let start = "the worker answered with error -32603: Internal error";
        assert_eq!(text(Value::Null), start);
        assert_eq!(
            text("no such\nsession".into()),
            format!("{start} (no such session)")
        );
        let details = serde_json::json!({"details": "x"});
        assert_eq!(text(details), format!(r#"{start} ({{"details":"x"}})"#));
        assert!(text("y".repeat(201).into()).ends_with("yyy...)"));
    }

    #[test]
    fn the_error_of_a_worker_is_never_retryable_and_has_no_kind() {
        let error = Error::from(RpcError {
            code: -32012,
            message: "mine".into(),
            data: Some(1.into()),
        });
        assert_eq!(error.kind(), None);
        assert!(!error.is_retryable());
        assert_eq!(error.rpc_code(), Some(-32012));
        assert_eq!(error.rpc_data(), Some(&Value::from(1)));
    }

    #[test]
    fn codes_have_the_numbers_of_the_family() {
        let numbers = [
            (ErrorCode::InvalidArgument, 1),
            (ErrorCode::InvalidState, 2),
            (ErrorCode::Timeout, 3),
            (ErrorCode::Cancelled, 4),
            (ErrorCode::TransportError, 5),
            (ErrorCode::NegotiationFailed, 6),
            (ErrorCode::PolicyDenied, 7),
            (ErrorCode::Unavailable, 8),
            (ErrorCode::ResourceExhausted, 9),
            (ErrorCode::NotSupported, 10),
            (ErrorCode::Internal, 99),
        ];
        for (code, number) in numbers {
            assert_eq!(code.as_i32(), number, "{code}");
        }
    }

    #[test]
    fn a_source_can_be_asked_for() {
        let error = Error::invalid_argument("no").with_source(std::io::Error::other("inner"));
        let source = StdError::source(&error).and_then(StdError::source);
        assert!(
            source.is_some_and(|s| s.to_string() == "inner"),
            "{error:?}"
        );
    }

    #[test]
    fn debug_shows_what_is_there_and_no_more() {
        let error = Error::new(ErrorCode::Timeout, "no answer within 1s");
        assert_eq!(
            format!("{error:?}"),
            r#"BusError { kind: Timeout, message: "no answer within 1s" }"#
        );
        let data = serde_json::json!({"reason": "unroutable"});
        let rpc = RpcError::new(-32010, "which?").with_data(data);
        let error = Error::new(ErrorCode::InvalidArgument, "which?").with_rpc(rpc.clone(), None);
        assert_eq!(
            format!("{error:?}"),
            r#"BusError { kind: InvalidArgument, message: "which?", code: -32010, data: {"reason":"unroutable"} }"#
        );
        let exit = WorkerExit::default();
        let error = Error::new(ErrorCode::TransportError, "gone").with_rpc(rpc.clone(), Some(exit));
        let text = format!("{error:?}");
        assert!(
            text.contains("exit: WorkerExit") && !text.contains("data"),
            "{text}"
        );
        let error = Error::invalid_argument("no").with_source(std::io::Error::other("inner"));
        assert!(format!("{error:?}").contains("source: Custom"), "{error:?}");
        assert_eq!(
            format!("{:?}", Error::from(rpc)),
            r#"Rpc { code: -32010, message: "which?", data: {"reason":"unroutable"} }"#
        );
        assert_eq!(
            format!("{:?}", Error::from(RpcError::new(1, "no"))),
            r#"Rpc { code: 1, message: "no" }"#
        );
    }

    #[test]
    fn an_error_can_be_asked_for_its_kind() {
        let error = Error::new(ErrorCode::Timeout, "late");
        assert!(error.is(ErrorCode::Timeout) && !error.is(ErrorCode::Cancelled));
        assert!(!Error::from(RpcError::new(3, "mine")).is(ErrorCode::Timeout));
    }

    #[test]
    fn the_text_of_an_exit_has_the_last_line_of_stderr_within_bounds() {
        let text = |stderr_tail: &str| {
            let exit = WorkerExit {
                pool: "a".into(),
                code: Some(2),
                stderr_tail: stderr_tail.into(),
                ..Default::default()
            };
            exit.to_string()
        };
        let before = r#"worker 0 of pool "a" exited with status 2"#;
        assert_eq!(text(" \n\n"), before);
        assert_eq!(
            text("first\n  no \x1b[1mfile\r\n\n"),
            format!("{before}: no  [1mfile")
        );
        let long = text(&"ü".repeat(201));
        assert_eq!(long, format!("{before}: {}...", "ü".repeat(200)));
        assert!(!text(&"ü".repeat(200)).ends_with("..."));
    }

    #[test]
    fn an_error_is_small() {
        // How large JSON data is depends on serde_json's features.
        assert!(size_of::<Error>() <= size_of::<Option<Value>>() + 40);
    }
}
