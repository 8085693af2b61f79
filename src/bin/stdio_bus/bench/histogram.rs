//! Many latencies in little memory, from any number of threads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Each power of two is cut into so many parts, as a power of two: what is read is
/// within 0.8 % of what was recorded.
const BITS: u32 = 7;

const BUCKETS: usize = ((64 - BITS as usize) + 1) << BITS;

#[derive(Debug)]
pub(super) struct Histogram {
    buckets: Box<[AtomicU64]>,
}

/// The latencies below which so much of all was.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Percentiles {
    pub(super) n: u64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) p999: Duration,
    pub(super) max: Duration,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(super) fn record(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[index(nanos)].fetch_add(1, Relaxed);
    }

    /// Recorded while this reads may count or not.
    pub(super) fn percentiles(&self) -> Percentiles {
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Relaxed)).collect();
        let n: u64 = counts.iter().sum();
        let at = |share: f64| {
            let rank = ((n as f64 * share).ceil() as u64).clamp(1, n.max(1));
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            Duration::from_nanos(found.map_or(0, middle))
        };
        Percentiles {
            n,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }
}

/// Small numbers have a bucket each.
fn index(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(BITS + 1);
    let part = nanos >> shift;
    ((u64::from(shift) << BITS) + part) as usize
}

/// The middle of what a bucket holds.
fn middle(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index >> BITS).saturating_sub(1);
    let part = index - (shift << BITS);
    (part << shift) + ((1 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_samples() {
        let histogram = Histogram::new();
        assert_eq!(histogram.percentiles(), Percentiles::default());
        for nanos in (1..=1000).rev() {
            histogram.record(Duration::from_nanos(nanos));
        }
        let found = histogram.percentiles();
        assert_eq!(found.n, 1000);
        let near = |found: Duration, exact: u128| {
            assert!(found.as_nanos().abs_diff(exact) <= exact / 128, "{found:?}");
        };
        near(found.p50, 500);
        near(found.p99, 990);
        near(found.p999, 999);
        near(found.max, 1000);
    }

    proptest! {
        #[test]
        fn a_bucket_says_what_was_recorded_to_within_a_hundredth(nanos: u64) {
            let found = middle(index(nanos));
            prop_assert!(found.abs_diff(nanos) <= nanos >> BITS, "{nanos} {found}");
        }

        #[test]
        fn buckets_are_in_the_order_of_what_they_hold(a: u64, b: u64) {
            prop_assert_eq!(index(a.min(b)).min(index(a.max(b))), index(a.min(b)));
            prop_assert!(index(a) < BUCKETS);
        }
    }
}
