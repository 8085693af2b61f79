//! Sending: requests, streams, notifications.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::Call;
use super::trace::Trace;
use super::{Request, RequestOptions, ResponseStream, StdioBus, check_running};
use crate::driver::{Command, StreamKey, Wants};
use crate::error::{Error, Result};
use crate::rpc::{self, Route};

impl StdioBus {
    /// Sends a request to a worker and waits for its answer.
    ///
    /// The request belongs to this bus's own session
    /// ([`client_session_id`](Self::client_session_id)), so one worker of the
    /// pool gets them all; [`RequestOptions`] has other ways. It ends after the
    /// builder's timeout, 30 seconds unless set; `session/prompt` has none, since
    /// a person may have to be asked. Where the worker reports progress on it (MCP's
    /// `notifications/progress` for the `_meta.progressToken` of the params), the
    /// builder's timeout begins anew, up to ten times its length in all. Params
    /// that are `()` or `None` are left out.
    ///
    /// # Errors
    /// - [`Error::Rpc`]: the worker answered with an error.
    /// - `Timeout`: no answer in time, or no room in the budget of
    ///   [`max_in_flight_bytes`](crate::StdioBusBuilder::max_in_flight_bytes).
    /// - `TransportError`: the worker exited (see [`Error::exit`]), or the bus is
    ///   shutting down.
    /// - `ResourceExhausted`: too much is queued for the worker.
    /// - `InvalidArgument`: the params can't be written as JSON, the message is
    ///   too large, or no pool can be chosen for it.
    /// - `InvalidState`: the bus isn't running.
    ///
    /// # Cancel safety
    /// Dropping the future gives the request up: a late answer is swallowed.
    pub fn request<P>(&self, method: &str, params: P) -> Request
    where
        P: Serialize,
    {
        self.request_with(method, params, RequestOptions::new())
    }

    /// [`request`](Self::request) with options.
    ///
    /// # Errors
    /// As there; options that exclude each other are `InvalidArgument`.
    pub fn request_with<P>(&self, method: &str, params: P, options: RequestOptions) -> Request
    where
        P: Serialize,
    {
        self.make_request(method, &params, &options)
    }

    /// [`request`](Self::request), with the result as a type of yours.
    ///
    /// # Errors
    /// As there; a result that isn't of this type is `InvalidArgument`.
    pub fn request_as<T, P>(&self, method: &str, params: P) -> Request<T>
    where
        T: DeserializeOwned,
        P: Serialize,
    {
        self.request_as_with(method, params, RequestOptions::new())
    }

    /// [`request_as`](Self::request_as) with options.
    ///
    /// # Errors
    /// As there; options that exclude each other are `InvalidArgument`.
    pub fn request_as_with<T, P>(
        &self,
        method: &str,
        params: P,
        options: RequestOptions,
    ) -> Request<T>
    where
        T: DeserializeOwned,
        P: Serialize,
    {
        self.make_request(method, &params, &options)
    }

    /// [`request`](Self::request), sent at once or not at all: it neither waits
    /// for room among the bytes in flight
    /// ([`max_in_flight_bytes`](crate::StdioBusBuilder::max_in_flight_bytes)) nor
    /// for its first poll.
    ///
    /// # Errors
    /// - `ResourceExhausted`: there is no room now, or others wait for it.
    /// - `InvalidArgument` and `InvalidState` as for [`request`](Self::request);
    ///   its other errors are those of the future.
    pub fn try_request<P>(&self, method: &str, params: P) -> Result<Request>
    where
        P: Serialize,
    {
        self.try_request_with(method, params, RequestOptions::new())
    }

    /// [`try_request`](Self::try_request) with options.
    ///
    /// # Errors
    /// As there; options that exclude each other are `InvalidArgument`.
    pub fn try_request_with<P>(
        &self,
        method: &str,
        params: P,
        options: RequestOptions,
    ) -> Result<Request>
    where
        P: Serialize,
    {
        let (mut trace, call) = self.call(method, &params, &options, |_, _| Wants::Chunks);
        match trace.in_scope(|| call.try_send()) {
            Ok(call) => Ok(Request::new(trace, call)),
            Err(error) => trace.ended(Err(error)),
        }
    }

    pub(crate) fn make_request<T: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl Serialize,
        options: &RequestOptions,
    ) -> Request<T> {
        let (trace, call) = self.call(method, params, options, |_, _| Wants::Chunks);
        Request::new(trace, call)
    }

    fn call(
        &self,
        method: &str,
        params: &impl Serialize,
        options: &RequestOptions,
        wants: impl FnOnce(&[u8], Route<'_>) -> Wants,
    ) -> (Trace, Call) {
        let id = self.owner.handle.shared().next_id();
        let trace = Trace::new(self, id, method, options);
        let frame = options.ext().and_then(|ext| {
            let route = options.route(&self.owner.session_id, &ext)?;
            let frame = rpc::request(id, method, route, params)?;
            let wants = wants(&frame, route);
            Ok((frame, wants))
        });
        let limit = options.limit(method, self.owner.timeout);
        let call = Call::new(&self.owner.handle, id, frame, limit, options);
        (trace, call)
    }

    /// Sends a request and gives what belongs to it as it comes: an ACP agent's
    /// text in chunks, its other updates, progress; at last the result.
    ///
    /// Any number of streams may run at once, one of each session. The session
    /// of a stream is the one its params name as `sessionId`, as those of an ACP
    /// prompt do; without that it is the session of the request, so that two
    /// streams at once need [`RequestOptions::session_id`]. Its pool and timeout
    /// are those of [`request`](Self::request).
    ///
    /// ```no_run
    /// # use serde_json::json;
    /// # use stdiobus::{StdioBus, StreamEvent};
    /// # async fn example(bus: StdioBus) -> stdiobus::Result<()> {
    /// let params = json!({"sessionId": "s", "prompt": [{"type": "text", "text": "hello"}]});
    /// let mut answer = bus.stream_request("session/prompt", params);
    /// while let Some(event) = answer.next().await {
    ///     match event? {
    ///         StreamEvent::Chunk(text) => print!("{text}"),
    ///         StreamEvent::Result(result) => println!("\n{}", result["stopReason"]),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As the last item of the stream, those of [`request`](Self::request), and:
    /// - `InvalidState`: the session has a stream already.
    /// - `ResourceExhausted`: what came was not taken
    ///   ([`RequestOptions::max_waiting`]).
    ///
    /// # Cancel safety
    /// Dropping the stream gives the request up.
    pub fn stream_request<P>(&self, method: &str, params: P) -> ResponseStream
    where
        P: Serialize,
    {
        self.stream_request_with(method, params, RequestOptions::new())
    }

    /// [`stream_request`](Self::stream_request) with options.
    ///
    /// # Errors
    /// As there; options that exclude each other are `InvalidArgument`.
    pub fn stream_request_with<P>(
        &self,
        method: &str,
        params: P,
        options: RequestOptions,
    ) -> ResponseStream
    where
        P: Serialize,
    {
        let wants = |frame: &[u8], route: Route<'_>| Wants::Everything(stream_key(frame, route));
        let (trace, call) = self.call(method, &params, &options, wants);
        ResponseStream::new(trace, call)
    }

    /// Sends a notification: no answer comes. Resolves once the bus has
    /// accepted it.
    ///
    /// # Errors
    /// `InvalidArgument`, `InvalidState`, `ResourceExhausted` and
    /// `TransportError` as for [`request`](Self::request).
    ///
    /// # Cancel safety
    /// Once polled, it is sent.
    pub async fn notify<P>(&self, method: &str, params: P) -> Result<()>
    where
        P: Serialize + Send,
    {
        self.notify_with(method, params, RequestOptions::new())
            .await
    }

    /// [`notify`](Self::notify) with options.
    ///
    /// # Errors
    /// As there; options about the answer are `InvalidArgument`, since none comes.
    pub async fn notify_with<P>(
        &self,
        method: &str,
        params: P,
        options: RequestOptions,
    ) -> Result<()>
    where
        P: Serialize + Send,
    {
        if let Some(option) = options.about_the_answer() {
            return Err(Error::invalid_argument(format!(
                "{option}: a notification has no answer"
            )));
        }
        let ext = options.ext()?;
        let route = options.route(&self.owner.session_id, &ext)?;
        let frame = rpc::notification(method, route, &params)?;
        drop(params);
        self.submit(frame).await
    }

    /// Sends a message as it is: a notification, or the answer to a worker's
    /// request.
    ///
    /// # Errors
    /// As for [`notify`](Self::notify). `InvalidArgument` also for text with a
    /// newline, for text that isn't one JSON object, and for a request, whose
    /// answer would reach nobody.
    pub async fn send(&self, message: &str) -> Result<()> {
        rpc::check_raw(message)?;
        self.submit(message.as_bytes().to_vec()).await
    }

    async fn submit(&self, frame: Vec<u8>) -> Result<()> {
        check_running(self.state())?;
        self.ask(|reply| Command::Send { frame, reply }).await
    }
}

/// Of what there may be one stream at a time; `None` for a request without a
/// session.
fn stream_key(frame: &[u8], route: Route<'_>) -> Option<StreamKey> {
    let parts = rpc::Parts::read(frame);
    let in_params = parts.raw_params().and_then(rpc::session_in);
    let session = in_params.or_else(|| route.session_id.map(str::to_owned))?;
    let pool = route.pool.or(route.agent_id).unwrap_or_default();
    Some((pool.to_owned(), session))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_of_the_session_in_its_params_or_of_its_own() {
        let key = |params: &str, session_id| {
            let route = Route {
                session_id,
                pool: Some("p"),
                agent_id: None,
                ext: None,
            };
            let frame = format!(r#"{{"id":1,"method":"m","params":{params}}}"#);
            stream_key(frame.as_bytes(), route).map(|(pool, session)| format!("{pool}/{session}"))
        };
        let agents = r#"{"sessionId":"agent's"}"#;
        assert_eq!(key(agents, Some("own")).as_deref(), Some("p/agent's"));
        assert_eq!(key(agents, None).as_deref(), Some("p/agent's"));
        assert_eq!(
            key(r#"{"sessionId":1}"#, Some("own")).as_deref(),
            Some("p/own")
        );
        assert_eq!(key("[]", Some("own")).as_deref(), Some("p/own"));
        assert_eq!(key("{}", None), None);
    }
}
