//! What is done: a function of the seed, of who does it, and of how much that one has done before.

use std::hash::{DefaultHasher, Hash, Hasher};

/// The largest message, in bytes, of both buses.
pub const FRAME_MAX: usize = 64 << 10;
/// With what a worker ends that is asked to.
pub const EXIT_STATUS: i32 = 7;

/// Repeatable chance.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The dice of one step of one actor.
    pub fn of(seed: u64, actor: u64, step: u64) -> Dice {
        let mut dice = Dice(seed ^ actor.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        dice.0 = dice.next().wrapping_add(step);
        dice
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    /// From the first to the last, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.roll(last - first + 1)
    }
}

/// The two buses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bus {
    /// The one in this process.
    Native,
    /// The program `stdio_bus`.
    Program,
}

impl Bus {
    pub const ALL: [Bus; 2] = [Bus::Native, Bus::Program];

    pub fn name(self) -> &'static str {
        match self {
            Bus::Native => "native",
            Bus::Program => "program",
        }
    }
}

/// The pools that each bus has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pool {
    Lines,
    /// The one that reloads change.
    Moving,
    Mcp,
    Acp,
}

impl Pool {
    pub const ALL: [Pool; 4] = [Pool::Lines, Pool::Moving, Pool::Mcp, Pool::Acp];

    pub fn name(self) -> &'static str {
        match self {
            Pool::Lines => "lines",
            Pool::Moving => "moving",
            Pool::Mcp => "mcp",
            Pool::Acp => "acp",
        }
    }

    pub fn instances(self) -> u32 {
        if self == Pool::Lines { 3 } else { 2 }
    }

    pub fn is_plain(self) -> bool {
        matches!(self, Pool::Lines | Pool::Moving)
    }
}

/// Where something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub bus: Bus,
    pub pool: Pool,
}

/// What a worker is to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Work {
    Echo,
    Big {
        bytes: u64,
    },
    Late {
        ms: u64,
    },
    /// Says something so often, then answers.
    Notify {
        count: u64,
    },
    Stream {
        chunks: u64,
        ms: u64,
    },
    /// Asks back before it answers.
    Ask,
    /// Answers with an error of its own.
    Fail,
    /// Never answers.
    Hold,
    // What a worker does that is broken.
    Garbage,
    Oversize,
    Exit,
    Half,
    Twice,
    Stranger,
    /// The request itself is larger than the bus takes.
    TooLarge,
}

impl Work {
    /// How it is called in params.
    pub fn name(self) -> &'static str {
        match self {
            Work::Echo | Work::Big { .. } | Work::TooLarge => "echo",
            Work::Late { .. } => "late",
            Work::Notify { .. } => "notify",
            Work::Stream { .. } => "stream",
            Work::Ask => "ask",
            Work::Fail => "fail",
            Work::Hold => "hold",
            Work::Garbage => "garbage",
            Work::Oversize => "oversize",
            Work::Exit => "exit",
            Work::Half => "half",
            Work::Twice => "twice",
            Work::Stranger => "stranger",
        }
    }

    /// The fault that it is, where it is one.
    pub fn fault(self) -> Option<&'static str> {
        Some(match self {
            Work::Garbage => "worker: garbage",
            Work::Oversize => "worker: oversize answer",
            Work::Exit => "worker: exit",
            Work::Half => "worker: half an answer",
            Work::Twice => "worker: answers twice",
            Work::Stranger => "worker: unknown id",
            Work::TooLarge => "client: oversize frame",
            _ => return None,
        })
    }

    /// Whether the worker answers before it reads on.
    pub fn is_prompt(self) -> bool {
        !matches!(
            self,
            Work::Late { .. } | Work::Stream { .. } | Work::Ask | Work::Hold
        )
    }
}

/// One step of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// So many requests at once, of one session or of none.
    Burst {
        count: u64,
        session: Option<usize>,
    },
    One {
        work: Work,
        session: usize,
    },
    /// Given up after so long.
    GiveUp {
        work: Work,
        session: usize,
        micros: u64,
    },
    TimeOut {
        limit_ms: u64,
        work: Work,
        session: usize,
    },
    /// Refused rather than waiting for room (tasks only).
    Try {
        bytes: u64,
        session: usize,
    },
    Tell {
        count: u64,
        session: usize,
    },
    // Of clients on sockets.
    Nonsense {
        kind: u64,
    },
    HalfClose {
        count: u64,
    },
    Reset {
        count: u64,
    },
    ReadLate {
        count: u64,
        bytes: u64,
        ms: u64,
    },
}

/// Sessions that a client uses at a time.
pub const SESSIONS: usize = 3;

/// One step of a client, with the pause after it in milliseconds.
pub fn act(seed: u64, actor: u64, step: u64, pool: Pool, on_socket: bool) -> (Act, u64) {
    let mut dice = Dice::of(seed, actor, step);
    let pause = dice.roll(32);
    let session = dice.roll(SESSIONS as u64) as usize;
    let act = match dice.roll(if on_socket { 110 } else { 100 }) {
        0..=44 => Act::Burst {
            count: dice.between(1, 12),
            session: (pool == Pool::Acp || dice.roll(4) > 0).then_some(session),
        },
        45..=69 => Act::One {
            work: work(&mut dice, pool),
            session,
        },
        70..=79 => Act::GiveUp {
            work: slow(&mut dice),
            session,
            micros: dice.roll(3000),
        },
        80..=84 => Act::TimeOut {
            limit_ms: dice.between(1, 8),
            work: Work::Late { ms: dice.roll(16) },
            session,
        },
        85..=89 => Act::Try {
            bytes: dice.between(100, 8000),
            session,
        },
        90..=99 => Act::Tell {
            count: dice.between(1, 6),
            session,
        },
        100..=102 => Act::Nonsense { kind: dice.roll(3) },
        103..=104 => Act::HalfClose {
            count: dice.between(1, 6),
        },
        105..=107 => Act::Reset {
            count: dice.between(1, 10),
        },
        _ => Act::ReadLate {
            count: dice.between(4, 24),
            bytes: dice.between(1000, 30_000),
            ms: dice.between(50, 400),
        },
    };
    (act, pause)
}

fn work(dice: &mut Dice, pool: Pool) -> Work {
    match dice.roll(256) {
        0..=39 => Work::Big {
            bytes: dice.between(1000, 20_000),
        },
        40..=79 => Work::Late { ms: dice.roll(20) },
        80..=111 => Work::Notify {
            count: dice.between(1, 8),
        },
        112..=167 => Work::Stream {
            chunks: dice.between(1, 8),
            ms: dice.roll(3),
        },
        // Whose a question of an MCP server is can't always be told.
        168..=199 if pool != Pool::Mcp => Work::Ask,
        200..=209 => Work::Fail,
        210..=219 => Work::Garbage,
        220..=221 => Work::Oversize,
        222 => [Work::Exit, Work::Half][dice.roll(2) as usize],
        // Where ids are the clients' own, a worker's second answer may be another client's first.
        223..=230 if !pool.is_plain() => [Work::Twice, Work::Stranger][dice.roll(2) as usize],
        231..=232 => Work::TooLarge,
        _ => Work::Echo,
    }
}

/// Something that may be given up before its end.
fn slow(dice: &mut Dice) -> Work {
    match dice.roll(16) {
        0 => Work::Hold,
        1..=4 => Work::Echo,
        5..=9 => Work::Late { ms: dice.roll(6) },
        _ => Work::Stream {
            chunks: dice.between(1, 8),
            ms: dice.roll(3),
        },
    }
}

/// What is done to workers and buses from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Which of the workers that run then is a number that is taken modulo their number.
    Kill {
        which: u64,
    },
    Terminate {
        which: u64,
    },
    Stall {
        which: u64,
        ms: u64,
    },
    /// Another configuration for the bus in this process.
    Reload,
    /// The same for the program: a file and SIGHUP.
    Hangup,
    /// A file that can't be used, and SIGHUP.
    BadHangup,
}

/// The actor that injects faults.
const INJECTOR: u64 = u64::MAX;

/// One fault, with the pause before it in milliseconds.
pub fn fault(seed: u64, step: u64) -> (Fault, u64) {
    let mut dice = Dice::of(seed, INJECTOR, step);
    let pause = dice.between(100, 1200);
    let which = dice.roll(1 << 20);
    let fault = match dice.roll(20) {
        0..=8 => Fault::Kill { which },
        9..=10 => Fault::Terminate { which },
        11..=14 => Fault::Stall {
            which,
            ms: dice.between(50, 1500),
        },
        15..=16 => Fault::Reload,
        17..=18 => Fault::Hangup,
        _ => Fault::BadHangup,
    };
    (fault, pause)
}

/// A number that two runs share if they have the same plan.
pub fn digest(seed: u64, actors: &[(u64, Pool, bool)]) -> u64 {
    const STEPS: u64 = 1000;
    let mut hasher = DefaultHasher::new();
    for step in 0..STEPS {
        fault(seed, step).hash(&mut hasher);
        for (actor, pool, on_socket) in actors {
            act(seed, *actor, step, *pool, *on_socket).hash(&mut hasher);
        }
    }
    hasher.finish()
}
