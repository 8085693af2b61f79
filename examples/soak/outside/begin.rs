//! How a client on a socket begins.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::{Value, json};

use super::{Client, Outside, Own, Result, Session};
use crate::plan::{Dice, Pool, SESSIONS, Work};
use crate::socket::Socket;

impl Client {
    pub(super) async fn connect(me: Outside, step: u64) -> Result<Client> {
        let over_tcp = Dice::of(me.seed, me.actor, step).roll(2) == 0;
        let socket = Socket::connect(&me.ways, over_tcp).await?;
        let mut client = Client {
            client: me.ledger.number(),
            me,
            step,
            socket,
            next_id: 0,
            waiting: HashMap::new(),
            own: HashMap::new(),
            mine: HashSet::new(),
            sessions: Vec::new(),
            named: None,
            ended: VecDeque::new(),
            nameless: 0,
        };
        client.greet().await?;
        Ok(client)
    }

    pub(super) async fn greet(&mut self) -> Result<()> {
        let hello = match self.me.place.pool {
            Pool::Mcp => json!({
                "protocolVersion": "2025-06-18", "capabilities": {},
                "clientInfo": {"name": "soak", "version": "1"},
            }),
            Pool::Acp => json!({"protocolVersion": 1, "clientCapabilities": {}}),
            _ => Value::Null,
        };
        if !hello.is_null() {
            let id = self.id();
            self.own.insert(id, Own::Hello);
            self.send(json!({"id": id, "method": "initialize", "params": hello}))
                .await?;
            self.pump(0).await?;
        }
        if self.me.place.pool == Pool::Mcp {
            self.send(json!({"method": "notifications/initialized"}))
                .await?;
        }
        self.begin_sessions().await?;
        // Over TCP a connection that begins with nonsense is closed, as it may be a browser's.
        self.ask(Work::Echo, Some(0)).await?;
        self.pump(0).await
    }

    /// An agent makes its sessions: the answer has the name. Others take any.
    pub(super) async fn begin_sessions(&mut self) -> Result<()> {
        while self.sessions.len() < SESSIONS {
            let key = self.me.ledger.number();
            let mut name = format!("s{key}");
            if self.me.place.pool == Pool::Acp {
                let sent = self.describe(Work::Echo, None);
                let mut params = sent.params(None);
                params["cwd"] = json!("/");
                params["mcpServers"] = json!([]);
                self.request(sent, None, "session/new", params).await?;
                self.pump(0).await?;
                // Where the agent dies meanwhile, another one makes it.
                let Some(made) = self.named.take() else {
                    continue;
                };
                name = made;
            }
            let (seq, seen, gave_up) = (0, 0, false);
            self.sessions.push(Session {
                key,
                name,
                seq,
                seen,
                gave_up,
            });
        }
        Ok(())
    }
}
