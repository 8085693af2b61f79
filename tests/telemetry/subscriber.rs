//! A subscriber of `tracing` that keeps what the bus tells.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Fields and their values as text; of an event also its `message`.
pub type Fields = BTreeMap<&'static str, String>;

#[derive(Debug, Clone)]
pub struct Told {
    pub target: &'static str,
    pub name: &'static str,
    pub level: Level,
    pub fields: Fields,
    /// Of a span.
    pub parent: Option<u64>,
    pub entered: usize,
    pub closed: bool,
}

impl Told {
    /// A field's value; empty for none.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// An event's message.
    pub fn is(&self, message: &str) -> bool {
        self.field("message") == message
    }
}

#[derive(Default)]
struct Kept {
    spans: Vec<Told>,
    events: Vec<Told>,
}

/// Installed for the whole process, since the bus has a thread of its own.
#[derive(Clone)]
pub struct Collector {
    level: Level,
    kept: Arc<Mutex<Kept>>,
}

impl Collector {
    pub fn install(level: Level) -> Self {
        let collector = Self {
            level,
            kept: Arc::default(),
        };
        tracing::subscriber::set_global_default(collector.clone()).expect("the first one");
        collector
    }

    /// The spans so far; numbers of parents count them from 1.
    pub fn spans(&self) -> Vec<Told> {
        self.kept.lock().unwrap().spans.clone()
    }

    /// The events so far, but not the log lines.
    pub fn events(&self) -> Vec<Told> {
        let events = self.kept.lock().unwrap().events.clone();
        let mine = events.into_iter().filter(|e| e.target == "stdiobus");
        mine.collect()
    }

    /// The log lines so far.
    pub fn lines(&self) -> Vec<Told> {
        let events = self.kept.lock().unwrap().events.clone();
        let mine = events.into_iter().filter(|e| e.target == "stdiobus::log");
        mine.collect()
    }

    /// What agents have said on stderr so far.
    pub fn agents(&self) -> Vec<Told> {
        let events = self.kept.lock().unwrap().events.clone();
        let mine = events.into_iter().filter(|e| e.target == "stdiobus::agent");
        mine.collect()
    }

    /// How many spans this thread is in.
    pub fn depth(&self) -> usize {
        ENTERED.with_borrow(Vec::len)
    }

    fn change(&self, id: &Id, change: impl FnOnce(&mut Told)) {
        let at = usize::try_from(id.into_u64()).unwrap() - 1;
        change(&mut self.kept.lock().unwrap().spans[at]);
    }
}

fn told(metadata: &'static Metadata<'static>, fields: Fields) -> Told {
    Told {
        target: metadata.target(),
        name: metadata.name(),
        level: *metadata.level(),
        fields,
        parent: None,
        entered: 0,
        closed: false,
    }
}

struct Reader<'a>(&'a mut Fields);

impl Visit for Reader<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::new();
        span.record(&mut Reader(&mut fields));
        let mut told = told(span.metadata(), fields);
        if span.is_contextual() {
            told.parent = ENTERED.with_borrow(|entered| entered.last().copied());
        }
        let mut kept = self.kept.lock().unwrap();
        kept.spans.push(told);
        Id::from_u64(kept.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.change(span, |told| values.record(&mut Reader(&mut told.fields)));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::new();
        event.record(&mut Reader(&mut fields));
        let told = told(event.metadata(), fields);
        self.kept.lock().unwrap().events.push(told);
    }

    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.into_u64()));
        self.change(span, |told| told.entered += 1);
    }

    fn exit(&self, span: &Id) {
        let left = ENTERED.with_borrow_mut(Vec::pop);
        assert_eq!(left, Some(span.into_u64()), "spans are left in their order");
    }

    fn try_close(&self, span: Id) -> bool {
        self.change(&span, |told| told.closed = true);
        true
    }
}
