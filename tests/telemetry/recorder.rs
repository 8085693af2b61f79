//! A recorder of `metrics` that keeps the present values.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

/// Values by name and labels: `name{a=b,c=d}`, labels in the order of their names.
#[derive(Clone, Default)]
pub struct Values(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    values: BTreeMap<String, Vec<f64>>,
    described: BTreeMap<String, Option<Unit>>,
}

impl Values {
    /// Installs a recorder for the whole process.
    pub fn install() -> Self {
        let values = Self::default();
        metrics::set_global_recorder(values.clone()).expect("the first one");
        values
    }

    /// The present value; `None` where nothing has been told.
    pub fn get(&self, key: &str) -> Option<f64> {
        let kept = self.0.lock().unwrap();
        kept.values.get(key)?.last().copied()
    }

    /// What a histogram has got.
    pub fn all(&self, key: &str) -> Vec<f64> {
        let kept = self.0.lock().unwrap();
        kept.values.get(key).cloned().unwrap_or_default()
    }

    /// The names that have values.
    pub fn names(&self) -> Vec<String> {
        let kept = self.0.lock().unwrap();
        let names = kept.values.keys().map(|key| key.split('{').next().unwrap());
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.dedup();
        names
    }

    /// The names that are described, with their units.
    pub fn described(&self) -> BTreeMap<String, Option<Unit>> {
        self.0.lock().unwrap().described.clone()
    }

    fn slot(&self, key: &Key) -> Arc<Slot> {
        let mut labels: Vec<_> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        labels.sort();
        Arc::new(Slot {
            key: format!("{}{{{}}}", key.name(), labels.join(",")),
            values: self.clone(),
        })
    }

    fn describe(&self, name: KeyName, unit: Option<Unit>) {
        let mut kept = self.0.lock().unwrap();
        kept.described.insert(name.as_str().to_owned(), unit);
    }
}

struct Slot {
    key: String,
    values: Values,
}

impl Slot {
    fn change(&self, change: impl FnOnce(&mut Vec<f64>)) {
        let mut kept = self.values.0.lock().unwrap();
        change(kept.values.entry(self.key.clone()).or_default());
    }

    fn set(&self, value: impl FnOnce(f64) -> f64) {
        self.change(|values| {
            let before = values.pop().unwrap_or(0.0);
            values.push(value(before));
        });
    }
}

impl CounterFn for Slot {
    fn increment(&self, value: u64) {
        self.set(|before| before + value as f64);
    }

    fn absolute(&self, value: u64) {
        self.set(|before| before.max(value as f64));
    }
}

impl GaugeFn for Slot {
    fn increment(&self, value: f64) {
        self.set(|before| before + value);
    }

    fn decrement(&self, value: f64) {
        self.set(|before| before - value);
    }

    fn set(&self, value: f64) {
        Slot::set(self, |_| value);
    }
}

impl HistogramFn for Slot {
    fn record(&self, value: f64) {
        self.change(|values| values.push(value));
    }
}

impl Recorder for Values {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(name, unit);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(name, unit);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(name, unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.slot(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.slot(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.slot(key))
    }
}
