//! One request, or one notification, with the library's client.

use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use stdiobus::{
    BackendMode, BusState, Error, NotificationOptions, Request, RequestOptions, StdioBus,
};
use tokio::pin;

use super::failed::{Failed, REJECTED};
use super::output::{self, Output};
use super::target::Target;
use super::{CallArgs, interrupted};
use crate::signals::Signals;

/// How long the bus may take to hear that a request is given up.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Notifications that may wait to be handed to stdout.
const MAX_WAITING: usize = 1 << 16;

pub(super) async fn run(
    args: &CallArgs,
    method: &str,
    params: Option<&RawValue>,
    target: &Target,
    signals: &mut Signals,
) -> Result<(), Failed> {
    let bus = StdioBus::builder()
        .backend(BackendMode::Remote(target.options.clone()))
        .build()
        .map_err(|e| target.failed(&e))?;
    let call = async {
        bus.start().await.map_err(|e| target.failed(&e))?;
        if args.notify {
            let sent = notify(&bus, args, method, params).await;
            return sent.map_err(|e| target.failed(&e));
        }
        let request = stdiobus::program::request_raw(&bus, method, params, &options(args));
        let print = async |output: &Output| match args.stream {
            true => print_all(&bus, request, target, output).await,
            false => print_result(request.await, target, output).await,
        };
        output::print(print).await
    };
    let outcome = tokio::select! {
        outcome = call => outcome,
        failed = interrupted(signals) => Err(failed),
    };
    // While it is being reached there is nothing to give up.
    if bus.state() == BusState::Running {
        let _ = bus.stop_with_timeout(LAST_WORDS).await;
    }
    outcome
}

async fn print_result(
    result: Result<Box<RawValue>, Error>,
    target: &Target,
    output: &Output,
) -> Result<(), Failed> {
    let result = result.map_err(|e| target.failed(&e))?;
    let text = Box::<str>::from(result);
    output.line(text.into_string().into_bytes()).await;
    Ok(())
}

fn options(args: &CallArgs) -> RequestOptions {
    let options = route(args);
    match args.timeout {
        Some(limit) => options.timeout(limit.0),
        None => options,
    }
}

fn route(args: &CallArgs) -> RequestOptions {
    let mut options = RequestOptions::new();
    options = match &args.session {
        Some(session) => options.session_id(session),
        None => options.unpinned(),
    };
    match &args.pool {
        Some(pool) => options.pool(pool),
        None => options,
    }
}

/// Sends it between two requests that the bus itself answers: one tells whether
/// it lets us in, since it has no answer to a notification; the other that it has
/// read it.
async fn notify(
    bus: &StdioBus,
    args: &CallArgs,
    method: &str,
    params: Option<&RawValue>,
) -> Result<(), Error> {
    let answered = || {
        let of_no_request = json!({"requestId": "none"});
        bus.request_with("stdio_bus/cancel", of_no_request, options(args))
    };
    answered().await?;
    bus.notify_with(method, params, route(args)).await?;
    answered().await?;
    Ok(())
}

/// Prints what comes before the result, too: on this connection, all of it is
/// about the one request.
async fn print_all(
    bus: &StdioBus,
    request: Request<Box<RawValue>>,
    target: &Target,
    output: &Output,
) -> Result<(), Failed> {
    let options = NotificationOptions::new().max_queue(MAX_WAITING);
    let mut updates = bus.subscribe_notifications_with(options);
    pin!(request);
    let result = loop {
        tokio::select! {
            biased;
            Some(update) = updates.next() => output.line(update.raw().to_vec()).await,
            result = &mut request => break result,
        }
    };
    while let Some(update) = updates.try_next() {
        output.line(update.raw().to_vec()).await;
    }
    if updates.lagged() > 0 {
        let text = format!(
            "{} notifications were lost: read stdout faster",
            updates.lagged()
        );
        return Err(Failed::new(REJECTED, text));
    }
    print_result(result, target, output).await
}
