//! Lines of JSON from stdin to a bus, and what comes back to stdout, both at the
//! same time.

use std::future::pending;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::failed::{ERROR, Failed, LATE, REJECTED, say};
use super::ledger::Ledger;
use super::message::{Answer, Defaults, Outgoing};
use super::output::{self, Output};
use super::target::Target;
use super::{CallArgs, interrupted};
use crate::signals::Signals;

/// How long the bus may say nothing, unless the user says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A longer line is taken for a mistake. The bus has a limit of its own.
const MAX_LINE: u64 = 256 << 20;

/// Read in one go.
const CHUNK: usize = 64 << 10;

pub(super) async fn run(
    args: &CallArgs,
    target: &Target,
    signals: &mut Signals,
) -> Result<(), Failed> {
    let defaults = Defaults {
        session: args.session.clone(),
        pool: args.pool.clone(),
    };
    let limit = args.timeout.map_or(Some(TIMEOUT), |limit| limit.0);
    let exchange = async {
        let ends = stdiobus::program::connect(&target.options).await;
        let (reader, writer) = ends.map_err(|e| target.failed(&e))?;
        if io::stdin().is_terminal() {
            say("stdio_bus: type messages, one JSON object a line; Ctrl-D ends");
        }
        let traffic = Arc::new(watch::Sender::new(Traffic::new()));
        let sender = tokio::spawn(send(writer, defaults, Arc::clone(&traffic)));
        let print = async |output: &Output| {
            tokio::select! {
                received = receive(reader, target, &traffic, output) => received,
                failed = silence(&traffic, limit) => failed,
            }
        };
        let printed = output::print(print).await;
        sender.abort();
        printed.and(traffic.borrow().verdict(target))
    };
    tokio::select! {
        outcome = exchange => outcome,
        // The connection goes with us, and what is open on it is cancelled.
        failed = interrupted(signals) => Err(failed),
    }
}

/// What the two directions know of each other.
#[derive(Debug)]
struct Traffic {
    ledger: Ledger,
    /// How many wait for somebody else than the bus: for stdin, for stdout.
    held: usize,
    /// When a line passed, or the bus's turn began.
    last: Instant,
    /// All lines of stdin have been sent.
    sent: bool,
    /// A line could not be.
    rejected: bool,
    /// An answer was an error, or that of a bus that wants a token.
    error: bool,
    refused: bool,
}

impl Traffic {
    fn new() -> Self {
        Self {
            ledger: Ledger::default(),
            held: 0,
            last: Instant::now(),
            sent: false,
            rejected: false,
            error: false,
            refused: false,
        }
    }

    fn hold(&mut self) {
        self.held += 1;
    }

    fn release(&mut self) {
        self.held -= 1;
        self.last = Instant::now();
    }

    fn take(&mut self, answer: &Answer) {
        self.ledger.answered(&answer.id);
        self.error |= answer.is_error;
        self.refused |= answer.is_refusal;
    }

    /// What it comes to where nothing was lost.
    fn verdict(&self, target: &Target) -> Result<(), Failed> {
        match self {
            Self { refused: true, .. } => Err(target.refused()),
            Self { rejected: true, .. } => Err(Failed::quiet(REJECTED)),
            Self { error: true, .. } => Err(Failed::quiet(ERROR)),
            _ => Ok(()),
        }
    }
}

/// Sends the lines of stdin, and at last waits for their answers before it says
/// that no more will come: a client of MCP or ACP has left with that.
async fn send(
    mut writer: impl AsyncWrite + Unpin,
    defaults: Defaults,
    traffic: Arc<watch::Sender<Traffic>>,
) {
    let mut changes = traffic.subscribe();
    let mut stdin = BufReader::with_capacity(CHUNK, tokio::io::stdin());
    for number in 1.. {
        traffic.send_modify(Traffic::hold);
        let line = read_line(&mut stdin).await;
        traffic.send_modify(Traffic::release);
        let message = match line {
            Ok(None) => break,
            Ok(Some(line)) => prepare(&line, number, &defaults),
            Err(error) => {
                say(&format!("stdio_bus: line {number}: {error}"));
                traffic.send_modify(|traffic| traffic.rejected = true);
                break;
            }
        };
        match message {
            Ok(None) => {}
            Ok(Some(message)) => {
                if put(&mut writer, &message, &traffic, &mut changes)
                    .await
                    .is_err()
                {
                    // The connection is broken: what came before is still to be read.
                    return;
                }
            }
            Err(Rejected) => traffic.send_modify(|traffic| traffic.rejected = true),
        }
    }
    // An error would say that the traffic is gone, which we hold.
    let _ = changes
        .wait_for(|traffic| traffic.ledger.unanswered() == 0)
        .await;
    if writer.shutdown().await.is_ok() {
        traffic.send_modify(|traffic| traffic.sent = true);
    }
}

/// A line was not sent, and the user has been told.
struct Rejected;

/// `None` for a blank line.
fn prepare(line: &[u8], number: u64, defaults: &Defaults) -> Result<Option<Outgoing>, Rejected> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let line = match number {
        1 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
        _ => line,
    };
    match line.trim_ascii() {
        b"" => Ok(None),
        line => match Outgoing::read(line, defaults) {
            Ok(message) => Ok(Some(message)),
            Err(reason) => {
                say(&format!(
                    "stdio_bus: line {number} is not a JSON object and is not sent: {reason}"
                ));
                Err(Rejected)
            }
        },
    }
}

async fn put(
    writer: &mut (impl AsyncWrite + Unpin),
    message: &Outgoing,
    traffic: &watch::Sender<Traffic>,
    changes: &mut watch::Receiver<Traffic>,
) -> io::Result<()> {
    let bytes = message.frame.len();
    if let Some(id) = &message.awaits {
        let room = |traffic: &Traffic| traffic.ledger.has_room(bytes);
        // As above.
        let _ = changes.wait_for(|traffic| room(traffic)).await;
        traffic.send_modify(|traffic| traffic.ledger.expect(id, bytes));
    }
    writer.write_all(&message.frame).await
}

/// Prints what comes, until the bus closes the connection.
async fn receive(
    reader: impl AsyncRead + Unpin,
    target: &Target,
    traffic: &watch::Sender<Traffic>,
    output: &Output,
) -> Result<(), Failed> {
    let mut reader = BufReader::with_capacity(CHUNK, reader);
    let reason = loop {
        let line = match read_line(&mut reader).await {
            Ok(Some(line)) => line,
            Ok(None) => break "closed".to_owned(),
            Err(error) => break format!("lost: {error}"),
        };
        let answer = Answer::read(&line);
        traffic.send_modify(Traffic::hold);
        output.line(line).await;
        traffic.send_modify(|traffic| {
            traffic.release();
            if let Some(answer) = &answer {
                traffic.take(answer);
            }
        });
    };
    let traffic = traffic.borrow();
    match (traffic.ledger.unanswered(), traffic.sent) {
        _ if traffic.refused => Err(target.refused()),
        (0, true) => Ok(()),
        (0, false) => Err(target.lost(&format!(
            "the connection to {target} was {reason} before the end of stdin"
        ))),
        (open, _) => Err(target.lost(&format!(
            "the connection to {target} was {reason} with {} unanswered",
            requests(open)
        ))),
    }
}

fn requests(count: usize) -> String {
    match count {
        1 => "1 request".into(),
        n => format!("{n} requests"),
    }
}

/// Waits until nothing has passed for this time while it was the bus's turn.
async fn silence(traffic: &watch::Sender<Traffic>, limit: Option<Duration>) -> Result<(), Failed> {
    let Some(limit) = limit else {
        return pending().await;
    };
    let mut changes = traffic.subscribe();
    loop {
        let (due, open, sent) = {
            let traffic = changes.borrow_and_update();
            let due = traffic
                .last
                .checked_add(limit)
                .filter(|_| traffic.held == 0);
            (due, traffic.ledger.unanswered(), traffic.sent)
        };
        let over = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        tokio::select! {
            // The traffic is there as long as we are.
            _ = changes.changed() => {}
            // With everything answered, all that is missing is the end.
            () = over => return match open {
                0 if sent => Ok(()),
                open => Err(late(open, limit)),
            },
        }
    }
}

fn late(open: usize, limit: Duration) -> Failed {
    let open = requests(open);
    Failed::new(
        LATE,
        format!(
            "{open} unanswered, and nothing has come for {limit:?}: given up; --timeout SECONDS gives more time"
        ),
    )
}

/// A line without its end; `None` at the end. One at the end may lack it.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut part = reader.take(MAX_LINE + 1);
    part.read_until(b'\n', &mut line).await?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() as u64 >= MAX_LINE => Err(io::Error::other(format!(
            "it has more than {MAX_LINE} bytes"
        ))),
        Some(last) => {
            line.push(last);
            Ok(Some(line))
        }
    }
}
