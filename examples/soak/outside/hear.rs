//! What a client on a socket is told, and whether it may be.

use serde_json::{Value, json};

use super::{Broken, Client, Own, Result, Waiting};
use crate::check::{End, Failure, Sent, one};
use crate::plan::{Pool, Work};

/// The last requests that ended, kept for violations.
pub(super) const REMEMBERED: usize = 40;

impl Client {
    /// Takes one line.
    pub(super) async fn take(&mut self, line: &[u8]) -> Result<()> {
        let message: Value = serde_json::from_slice(line)
            .map_err(|e| Broken(format!("{e}: {}", String::from_utf8_lossy(line))))?;
        if message["method"].is_string() {
            return self.take_words(&message).await;
        }
        let Some(id) = message["id"].as_u64() else {
            return self.take_nameless(&message);
        };
        if let Some(own) = self.own.remove(&id) {
            self.take_own(own, &message);
        } else if let Some(waiting) = self.waiting.remove(&id) {
            self.end(&waiting, &message);
        } else if id < self.next_id {
            let text = format!("{} once more: {message}", self.who());
            self.me.ledger.violates(&self.me.ledger.duplicated, text);
        } else {
            let text = format!("{} never asked for {message}", self.who());
            self.me.ledger.violates(&self.me.ledger.misdelivered, text);
        }
        Ok(())
    }

    fn who(&self) -> String {
        format!(
            "actor {} step {} client {}",
            self.me.actor, self.step, self.client
        )
    }

    /// The error for a line that has no id.
    fn take_nameless(&mut self, message: &Value) -> Result<()> {
        let code = message["error"]["code"].as_i64();
        if self.nameless == 0 || !matches!(code, Some(-32700 | -32600)) {
            let text = format!("{} got {message}", self.who());
            self.me.ledger.violates(&self.me.ledger.misdelivered, text);
        }
        self.nameless = self.nameless.saturating_sub(1);
        Ok(())
    }

    /// What the bus itself has answered.
    fn take_own(&mut self, own: Own, message: &Value) {
        let ledger = &self.me.ledger;
        let was_pending = &message["result"]["ok"];
        let wrong = match own {
            Own::Hello => message["result"]["protocolVersion"].is_null(),
            // It has ended either by this or before: never both, and not neither.
            Own::Cancel(id) => match self.waiting.remove(&id) {
                Some(waiting) => {
                    ledger.ends(&waiting.sent, End::GivenUp);
                    *was_pending != true
                }
                None => *was_pending != false,
            },
            Own::Fence(id) => {
                if let Some(waiting) = self.waiting.remove(&id) {
                    ledger.ends(&waiting.sent, End::GivenUp);
                }
                *was_pending != false
            }
        };
        if wrong {
            let text = format!("{}: {message}", self.who());
            ledger.violates(&ledger.unexplained, text);
        }
    }

    fn end(&mut self, waiting: &Waiting, message: &Value) {
        let (sent, result) = (&waiting.sent, &message["result"]);
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        let error = &message["error"];
        self.ended
            .push_back((sent.session, sent.seq, error["code"].as_i64()));
        if result.is_null() {
            let failure = Failure::of_wire(&message["error"]);
            if failure.is_exit() {
                self.advance(waiting);
            }
            if failure.is_forgotten() {
                self.sessions.retain(|session| session.key != sent.session);
            }
            return self.me.ledger.ends(sent, End::Failed(failure));
        }
        if waiting.to_end && *result == json!({"stopReason": "cancelled"}) {
            return self.me.ledger.ends(sent, End::GivenUp);
        }
        if sent.work.is_prompt() && !self.advance(waiting) {
            let ended = &self.ended;
            let text = format!("{}: {sent:?} is answered after {ended:?}", self.who());
            self.me.ledger.violates(&self.me.ledger.disordered, text);
        }
        if let Work::Stream { chunks, .. } = sent.work
            && waiting.next != chunks
            && result["stopReason"] != "cancelled"
        {
            let text = format!("{}: {sent:?} had {} chunks", self.who(), waiting.next);
            self.me.ledger.violates(&self.me.ledger.misdelivered, text);
        }
        // The session that an agent has made.
        if let Some(name) = result["sessionId"].as_str() {
            self.named = Some(name.to_owned());
        }
        self.me.ledger.ends(sent, End::Answer(result.clone()));
    }

    /// Whether nothing that was sent later in its session has been answered before. Where a reload has
    /// changed the pool, that is no promise: the new workers answer while the old ones still do.
    fn advance(&mut self, waiting: &Waiting) -> bool {
        let Sent {
            session: key,
            seq,
            place,
            ..
        } = waiting.sent;
        if place.pool == Pool::Moving {
            return true;
        }
        let Some(session) = self.sessions.iter_mut().find(|session| session.key == key) else {
            return true;
        };
        let seen = &mut session.seen;
        let is_next = seq > *seen;
        *seen = seq.max(*seen);
        is_next
    }

    /// What a worker says or asks.
    async fn take_words(&mut self, message: &Value) -> Result<()> {
        let params = &message["params"];
        let text = params["update"]["content"]["text"]
            .as_str()
            .or(params["message"].as_str());
        if let Some((nonce, piece)) = text.and_then(|text| text.trim().split_once(':')) {
            self.take_piece(
                nonce.parse().unwrap_or(0),
                piece.parse().unwrap_or(0),
                message,
            );
            return Ok(());
        }
        if params["c"]
            .as_u64()
            .is_some_and(|client| client != self.client)
        {
            let text = format!("{} hears {message}", self.who());
            self.me.ledger.violates(&self.me.ledger.misdelivered, text);
        }
        one(&self.me.ledger.heard);
        if !message["id"].is_null() {
            let result = json!({"n": params["n"]});
            return self
                .send(json!({"id": message["id"], "result": result}))
                .await;
        }
        Ok(())
    }

    /// A piece of what a request brings before its answer.
    fn take_piece(&mut self, nonce: u64, piece: u64, message: &Value) {
        one(&self.me.ledger.heard);
        let ledger = &self.me.ledger;
        let waiting = self
            .waiting
            .values_mut()
            .find(|waiting| waiting.sent.nonce == nonce);
        let fits = match waiting {
            Some(waiting) => {
                waiting.next += 1;
                piece == waiting.next - 1
            }
            // Without a protocol a worker doesn't hear that it was given up.
            None => self.me.place.pool.is_plain() && self.mine.contains(&nonce),
        };
        if !fits {
            let text = format!("{} hears {message}", self.who());
            ledger.violates(&ledger.misdelivered, text);
        }
    }
}
