//! One client of an agent: requests in their order, threads side by side.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::io::AsyncRead;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::children::Children;
use super::exec::Exec;
use super::handler;
use super::input::{Input, Line};
use super::server::StdioAgent;
use super::spec::Handler;
use super::wire::{Asked, Call, Refusal, answer, read, refuse};
use crate::error::RpcError;

/// What may wait for its turn, in bytes; the longest line always may.
const MAX_WAITING: usize = 64 << 20;

/// What a request costs beside its text, and the unit in which is counted.
const OVERHEAD: usize = 4 << 10;

/// Beyond this, threads that have nothing to do any more are forgotten.
const MIN_TAILS: usize = 64;

/// One client, while it has something to say.
pub(super) struct Session<'a> {
    agent: &'a StdioAgent,
    answers: mpsc::Sender<Vec<u8>>,
    turns: Turns<'a>,
}

/// Requests that wait for their turn in a thread.
struct Turns<'a> {
    exec: Option<Arc<Exec>>,
    tasks: &'a mut JoinSet<()>,
    /// Closed once the last request of the thread is answered.
    tails: HashMap<String, oneshot::Receiver<()>>,
    /// When to look for those that nobody needs.
    sweep_at: usize,
    slots: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        agent: &'a StdioAgent,
        children: &Arc<Children>,
        answers: mpsc::Sender<Vec<u8>>,
        tasks: &'a mut JoinSet<()>,
    ) -> Self {
        let exec = match &agent.spec.handler {
            Handler::Exec(backend) => Some(Arc::new(Exec {
                agent: agent.spec.name.clone(),
                system_prompt: agent.spec.system_prompt.clone(),
                backend: backend.clone(),
                folder: agent.threads.clone(),
                children: Arc::clone(children),
            })),
            Handler::Echo | Handler::Greeter => None,
        };
        let room = cost(MAX_WAITING) + cost(agent.max_line);
        let turns = Turns {
            exec,
            tasks,
            tails: HashMap::new(),
            sweep_at: MIN_TAILS,
            slots: Arc::new(Semaphore::new(agent.max_concurrent)),
            room: Arc::new(Semaphore::new(room)),
        };
        Self {
            agent,
            answers,
            turns,
        }
    }

    /// Until there is nothing more to read. Requests may be worked on still.
    pub(super) async fn run(mut self, mut input: Input<impl AsyncRead + Unpin>) -> io::Result<()> {
        while let Some(line) = input.next().await? {
            match line {
                Line::Whole(line) => self.line(&line).await,
                Line::TooLong => {
                    let error = RpcError::new(-32700, "request body too large");
                    self.say(refuse(None, &error)).await;
                }
            }
        }
        Ok(())
    }

    async fn line(&mut self, line: &[u8]) {
        match read(line, self.agent.strict_reference) {
            Asked::Notification => {}
            Asked::Task(call) => self.task(&call, line.len()).await,
            Asked::Refused(refusal) => self.refused(refusal, line.len()).await,
        }
    }

    async fn task(&mut self, call: &Call<'_>, len: usize) {
        let Some(exec) = self.turns.exec.clone() else {
            return self
                .say(handler::at_once(&self.agent.spec.handler, call))
                .await;
        };
        let (id, task, text) = (call.id.to_owned(), call.task.clone(), call.text());
        let slots = Arc::clone(&self.turns.slots);
        let answers = self.answers.clone();
        let work = async move {
            // It is never closed.
            let _slot = slots.acquire_owned().await;
            let line = run(&exec, &id, &task, &text).await;
            // Whoever takes it goes on as long as there may be answers.
            let _ = answers.send(line).await;
        };
        self.turns.take(call.task.clone(), len, work).await;
    }

    /// Where the thread is known, its turn comes first.
    async fn refused(&mut self, refusal: Refusal<'_>, len: usize) {
        let line = refuse(refusal.id, &refusal.error);
        if refusal.task.is_empty() || self.turns.exec.is_none() {
            return self.say(line).await;
        }
        let answers = self.answers.clone();
        let work = async move {
            let _ = answers.send(line).await;
        };
        self.turns.take(refusal.task, len, work).await;
    }

    async fn say(&self, line: Vec<u8>) {
        let _ = self.answers.send(line).await;
    }
}

async fn run(exec: &Exec, id: &RawValue, task: &str, text: &str) -> Vec<u8> {
    match exec.answer(task, text).await {
        Ok(result) => answer(id, &result),
        Err(error) => refuse(Some(id), &error),
    }
}

impl Turns<'_> {
    /// Waits for room only; the work begins when all before it in the thread is
    /// done.
    async fn take(
        &mut self,
        thread: String,
        len: usize,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let cost = u32::try_from(cost(len)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(cost).await;
        let (done, tail) = oneshot::channel();
        let before = self.tails.insert(thread, tail);
        self.tasks.spawn(in_turn(before, work, done, room.ok()));
        while self.tasks.try_join_next().is_some() {}
        self.sweep();
    }

    fn sweep(&mut self) {
        if self.tails.len() > self.sweep_at {
            self.tails
                .retain(|_, tail| tail.try_recv() == Err(TryRecvError::Empty));
            self.sweep_at = MIN_TAILS.max(2 * self.tails.len());
        }
    }
}

async fn in_turn(
    before: Option<oneshot::Receiver<()>>,
    work: impl Future<Output = ()>,
    _done: oneshot::Sender<()>,
    _room: Option<OwnedSemaphorePermit>,
) {
    if let Some(before) = before {
        // Nothing is ever sent: the other end is dropped.
        let _ = before.await;
    }
    work.await;
}

fn cost(len: usize) -> usize {
    len / OVERHEAD + 1
}
