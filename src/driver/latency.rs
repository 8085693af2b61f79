//! How long answers took, in buckets whose number doesn't grow.

use std::time::Duration;

use crate::stats::Latency;

/// Each power of two of microseconds has this many buckets, so a bucket is at
/// most a sixteenth wide.
const STEPS: u64 = 16;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// The longest time that is told apart: 2^42 µs, more than fifty days.
const TOP_BIT: u32 = 42;
const BUCKETS: usize = ((TOP_BIT - STEP_BITS + 1) as usize + 1) * STEPS as usize;

#[derive(Debug)]
pub(super) struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
    max: Duration,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self {
            counts: Box::new([0; BUCKETS]),
            total: 0,
            max: Duration::ZERO,
        }
    }

    pub(super) fn add(&mut self, took: Duration) {
        self.counts[bucket(took)] += 1;
        self.total += 1;
        self.max = self.max.max(took);
    }

    pub(super) fn summary(&self) -> Latency {
        Latency {
            count: self.total,
            p50: self.percentile(50),
            p90: self.percentile(90),
            p99: self.percentile(99),
            max: self.max,
        }
    }

    /// What so many of a hundred didn't exceed.
    fn percentile(&self, percent: u64) -> Duration {
        let wanted = u128::from(self.total) * u128::from(percent);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if seen > 0 && seen * 100 >= wanted {
                return end_of(bucket).min(self.max);
            }
        }
        Duration::ZERO
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let micros = micros.min((1 << TOP_BIT) - 1);
    let Some(shift) = micros.max(1).ilog2().checked_sub(STEP_BITS) else {
        return micros as usize;
    };
    // The leading one and the bits behind it that tell the step.
    let step = (micros >> shift) - STEPS;
    ((u64::from(shift) + 1) * STEPS + step) as usize
}

/// The longest time of a bucket.
fn end_of(bucket: usize) -> Duration {
    let (octave, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    let micros = match octave.checked_sub(1) {
        None => step,
        Some(shift) => ((STEPS + step + 1) << shift) - 1,
    };
    // A whole microsecond is the least that is told apart.
    Duration::from_micros(micros + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn percentiles_are_near_what_was_added_and_never_above_the_longest() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.summary(), Latency::default());
        (1..=1000).for_each(|ms| histogram.add(micros(1000 * ms)));
        let summary = histogram.summary();
        assert_eq!((summary.count, summary.max), (1000, micros(1_000_000)));
        for (got, ms) in [(summary.p50, 500), (summary.p90, 900), (summary.p99, 990)] {
            let exact = micros(1000 * ms);
            assert!(got >= exact && got <= exact + exact / 15, "{got:?}");
        }
        histogram.add(Duration::MAX);
        assert_eq!(histogram.summary().max, Duration::MAX);
    }

    proptest! {
        #[test]
        fn a_time_is_within_its_bucket_and_buckets_are_narrow(n in 0_u64..1 << TOP_BIT) {
            let end = end_of(bucket(micros(n)));
            prop_assert!(end > micros(n));
            prop_assert!(end <= micros(n + n / STEPS + 1));
        }

        #[test]
        fn longer_times_are_in_later_buckets(n: u64, m: u64) {
            let (less, more) = (n.min(m), n.max(m));
            prop_assert!(bucket(micros(less)) <= bucket(micros(more)));
            prop_assert!(bucket(micros(more)) < BUCKETS);
        }
    }
}
