//! Metrics: what each worker counts per command, and the form in which all metrics are collected.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ferrite_telemetry::schema::{DURATION_BOUNDS, Label, Metric, SYNC_BOUNDS};
use ferrite_telemetry::{Counter, Exemplar, NewExemplar};

use crate::exponential::Exponential;
use crate::native::{FIRST_INTERVAL, NativeTimes};

const BUCKETS: usize = DURATION_BOUNDS.len() + 1;
const SYNC_BUCKETS: usize = SYNC_BOUNDS.len() + 1;

const BOUNDS_NS: [u64; BUCKETS - 1] = in_nanoseconds(DURATION_BOUNDS);
const SYNC_BOUNDS_NS: [u64; SYNC_BUCKETS - 1] = in_nanoseconds(SYNC_BOUNDS);

/// Bounds as integers, so that the hot path compares those.
const fn in_nanoseconds<const N: usize>(bounds: &[f64]) -> [u64; N] {
    let mut integers = [0; N];
    let mut at = 0;
    while at < N {
        integers[at] = (bounds[at] * 1e9 + 0.5) as u64;
        at += 1;
    }
    integers
}

/// One command on one worker. Calls are the sum of the buckets. In cache lines of its own: the next one is another worker's.
#[derive(Debug, Default)]
#[repr(align(64))]
struct CommandCounters {
    failed: Counter,
    sum_ns: Counter,
    /// The buckets that shall have a new exemplar, a bit each. Two write it, now and then: one wish may be lost.
    wanted: AtomicU64,
    buckets: [Counter; BUCKETS],
}

const _: () = assert!(BUCKETS <= u64::BITS as usize);

/// One command over all workers since the start.
#[derive(Clone, Debug, Default)]
pub struct CommandTotals {
    /// Index of the command in the table.
    pub command: usize,
    pub failed: u64,
    pub sum_ns: u64,
    /// Per bucket of [`DURATION_BOUNDS`], the last without an upper bound; not cumulative.
    pub buckets: Vec<u64>,
}

impl CommandTotals {
    pub fn calls(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The upper bound of the bucket in which the percentile (0 to 100) lies, in nanoseconds.
    pub fn percentile_ns(&self, percentile: f64) -> u64 {
        let wanted = (self.calls() as f64 * percentile / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, calls) in self.buckets.iter().enumerate() {
            seen += calls;
            if seen >= wanted {
                return BOUNDS_NS.get(at).or(BOUNDS_NS.last()).copied().unwrap_or_default();
            }
        }
        0
    }
}

/// Which of the disk's histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskWork {
    /// A sync of the AOF.
    Sync,
    /// A run of the log's flush.
    Flush,
}

/// A piece of the disk's work that would be the exemplar of its bucket, which lacks one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskCandidate {
    pub bucket: usize,
    pub duration_ns: u64,
    /// When it ended, on the monotonic clock.
    pub ended_ns: u64,
}

/// How long the disk took, for one kind of its work.
#[derive(Debug, Default)]
struct DiskTimes {
    sum_ns: Counter,
    buckets: [Counter; SYNC_BUCKETS],
    /// The buckets that shall have a new exemplar, a bit each.
    wanted: AtomicU64,
    native: Option<NativeTimes>,
    /// What was last counted in one of these.
    candidate: parking_lot::Mutex<Option<DiskCandidate>>,
    exemplars: parking_lot::Mutex<BTreeMap<usize, Exemplar>>,
}

impl DiskTimes {
    fn count(&self, duration_ns: u64, ended_ns: u64, interval: &AtomicU64) {
        self.sum_ns.add(duration_ns);
        if let Some(native) = &self.native {
            native.count(0, interval.load(Ordering::Relaxed), duration_ns);
        }
        let bucket = SYNC_BOUNDS_NS.iter().position(|&bound| duration_ns <= bound).unwrap_or(SYNC_BUCKETS - 1);
        self.buckets[bucket].add(1);
        if self.wanted.load(Ordering::Relaxed) & 1 << bucket != 0 {
            *self.candidate.lock() = Some(DiskCandidate { bucket, duration_ns, ended_ns });
        }
    }

    /// What ended since then, if its bucket still lacks an exemplar.
    fn candidate_since(&self, monotonic_ns: u64) -> Option<DiskCandidate> {
        if self.wanted.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let candidate = (*self.candidate.lock())?;
        let wanted = self.wanted.load(Ordering::Relaxed) & 1 << candidate.bucket != 0;
        (wanted && candidate.ended_ns >= monotonic_ns).then_some(candidate)
    }

    fn exemplar(&self, bucket: usize, exemplar: Exemplar) {
        self.wanted.fetch_and(!(1 << bucket), Ordering::Relaxed);
        self.exemplars.lock().insert(bucket, exemplar);
    }

    fn series(&self, metric: Metric, ended_interval: u64) -> Series {
        let buckets = self.buckets.iter().map(Counter::get).collect();
        let exemplars = self.exemplars.lock().iter().map(|(bucket, exemplar)| (*bucket, exemplar.clone())).collect();
        let native = self.native.as_ref().map(|native| NativeTimes::collect([native].into_iter(), 0, ended_interval));
        let value = Value::Histogram { buckets, sum: self.sum_ns.get() as f64 / 1e9, exemplars, native };
        Series { metric, points: vec![Point { label: None, value }] }
    }
}

/// What all workers count per command, the AOF's task per sync, and the log's flush per run.
pub struct Metrics {
    /// Worker by worker, of each the commands in their order.
    counters: Box<[CommandCounters]>,
    /// Of each worker, if they are wanted.
    native: Option<Box<[NativeTimes]>>,
    syncs: DiskTimes,
    flushes: DiskTimes,
    commands: usize,
    /// The export's interval that is under way; see [`Metrics::end_interval`].
    interval: AtomicU64,
    /// By command and bucket.
    exemplars: parking_lot::Mutex<BTreeMap<(usize, usize), Exemplar>>,
    /// What CONFIG RESETSTAT hides from INFO. Exported counters never go back.
    hidden: parking_lot::Mutex<Vec<CommandTotals>>,
}

impl Metrics {
    /// `commands`: how many rows the command table has.
    pub fn new(workers: usize, commands: usize) -> Self {
        let metrics = Self {
            counters: (0..workers * commands).map(|_| CommandCounters::default()).collect(),
            native: None,
            commands,
            interval: AtomicU64::new(FIRST_INTERVAL),
            syncs: DiskTimes::default(),
            flushes: DiskTimes::default(),
            exemplars: parking_lot::Mutex::default(),
            hidden: parking_lot::Mutex::default(),
        };
        metrics.want_exemplars();
        metrics
    }

    /// Has every time counted in exponential buckets as well, from the start on.
    pub fn with_native_histograms(self) -> Self {
        let native = |commands| Some(NativeTimes::new(commands));
        Self {
            native: Some((0..self.workers()).map(|_| NativeTimes::new(self.commands)).collect()),
            syncs: DiskTimes { native: native(1), ..self.syncs },
            flushes: DiskTimes { native: native(1), ..self.flushes },
            ..self
        }
    }

    fn workers(&self) -> usize {
        self.counters.len().checked_div(self.commands).unwrap_or(0)
    }

    fn of_worker(&self, worker: usize, command: usize) -> &CommandCounters {
        debug_assert!(command < self.commands);
        &self.counters[worker * self.commands + command]
    }

    /// What each worker has counted of a command.
    fn of_command(&self, command: usize) -> impl Iterator<Item = &CommandCounters> {
        (0..self.workers()).map(move |worker| self.of_worker(worker, command))
    }

    /// Ends the interval for which native histograms tell the least and the greatest time: what is collected from now
    /// on has those of the interval that ended. To be called by the one export that tells them.
    pub fn end_interval(&self) {
        self.interval.fetch_add(1, Ordering::Relaxed);
    }

    fn ended_interval(&self) -> u64 {
        self.interval.load(Ordering::Relaxed) - 1
    }

    /// Counts one command. To be called by `worker` alone. Gives the bucket if it shall have a new exemplar.
    #[inline]
    pub fn command(&self, worker: usize, command: usize, duration_ns: u64, failed: bool) -> Option<usize> {
        let counters = self.of_worker(worker, command);
        counters.sum_ns.add(duration_ns);
        // Most commands take microseconds: the first few bounds decide.
        let bucket = BOUNDS_NS.iter().position(|&bound| duration_ns <= bound).unwrap_or(BUCKETS - 1);
        counters.buckets[bucket].add(1);
        if failed {
            counters.failed.add(1);
        }
        if let Some(native) = &self.native {
            self.count_native(native, worker, command, duration_ns);
        }
        (counters.wanted.load(Ordering::Relaxed) & 1 << bucket != 0).then_some(bucket)
    }

    /// Apart, so that who does not want it pays for one look alone.
    #[inline(never)]
    fn count_native(&self, native: &[NativeTimes], worker: usize, command: usize, duration_ns: u64) {
        native[worker].count(command, self.interval.load(Ordering::Relaxed), duration_ns);
    }

    /// From now on each bucket of each histogram takes one new exemplar; called once in a while.
    pub fn want_exemplars(&self) {
        for disk in [&self.syncs, &self.flushes] {
            disk.wanted.store(u64::MAX, Ordering::Relaxed);
        }
        for counters in &self.counters {
            counters.wanted.store(u64::MAX, Ordering::Relaxed);
        }
    }

    fn disk(&self, work: DiskWork) -> &DiskTimes {
        match work {
            DiskWork::Sync => &self.syncs,
            DiskWork::Flush => &self.flushes,
        }
    }

    /// What a [`NewExemplar`] has in the place of a command if it is of the disk's work: these come behind the commands.
    pub fn subject_of(&self, work: DiskWork) -> usize {
        self.commands + work as usize
    }

    /// The last work of this kind, if it ended at this time or later and shall be an exemplar.
    pub fn disk_candidate(&self, work: DiskWork, since_ns: u64) -> Option<DiskCandidate> {
        self.disk(work).candidate_since(since_ns)
    }

    /// Takes an exemplar from `worker`, in the place of an older one.
    pub fn exemplar(&self, worker: usize, new: NewExemplar) {
        for work in [DiskWork::Sync, DiskWork::Flush] {
            if new.command == self.subject_of(work) {
                return self.disk(work).exemplar(new.bucket, new.exemplar);
            }
        }
        let wanted = &self.of_worker(worker, new.command).wanted;
        wanted.store(wanted.load(Ordering::Relaxed) & !(1 << new.bucket), Ordering::Relaxed);
        self.exemplars.lock().insert((new.command, new.bucket), new.exemplar);
    }

    /// A command's exemplars, by bucket.
    pub fn exemplars(&self, command: usize) -> Vec<(usize, Exemplar)> {
        let exemplars = self.exemplars.lock();
        let own = exemplars.range((command, 0)..(command + 1, 0));
        own.map(|((_, bucket), exemplar)| (*bucket, exemplar.clone())).collect()
    }

    /// Counts one sync of the AOF; monotonic times. To be called by its task alone.
    pub fn aof_sync(&self, began_ns: u64, ended_ns: u64) {
        self.syncs.count(ended_ns.saturating_sub(began_ns), ended_ns, &self.interval);
    }

    /// Counts one run of the log's flush; monotonic times. To be called by its task's worker alone.
    pub fn flush(&self, began_ns: u64, ended_ns: u64) {
        self.flushes.count(ended_ns.saturating_sub(began_ns), ended_ns, &self.interval);
    }

    /// `ferrite.aof.sync.duration` and `ferrite.flush.duration`.
    pub fn disk_series(&self) -> [Series; 2] {
        let interval = self.ended_interval();
        [self.syncs.series(Metric::AOF_SYNC_DURATION, interval), self.flushes.series(Metric::FLUSH_DURATION, interval)]
    }

    /// The commands that were called since the start.
    pub fn totals(&self) -> Vec<CommandTotals> {
        (0..self.commands)
            .map(|command| {
                let mut totals = CommandTotals { command, buckets: vec![0; BUCKETS], ..CommandTotals::default() };
                for counters in self.of_command(command) {
                    totals.failed += counters.failed.get();
                    totals.sum_ns += counters.sum_ns.get();
                    for (sum, bucket) in totals.buckets.iter_mut().zip(&counters.buckets) {
                        *sum += bucket.get();
                    }
                }
                totals
            })
            .filter(|totals| totals.calls() > 0)
            .collect()
    }

    /// The commands that were called since the last [`Metrics::reset_commands`].
    pub fn totals_since_reset(&self) -> Vec<CommandTotals> {
        let hidden = self.hidden.lock();
        let mut totals = self.totals();
        for now in &mut totals {
            if let Some(before) = hidden.iter().find(|before| before.command == now.command) {
                now.failed -= before.failed;
                now.sum_ns -= before.sum_ns;
                now.buckets.iter_mut().zip(&before.buckets).for_each(|(now, before)| *now -= before);
            }
        }
        totals.retain(|totals| totals.calls() > 0);
        totals
    }

    /// CONFIG RESETSTAT.
    pub fn reset_commands(&self) {
        *self.hidden.lock() = self.totals();
    }

    /// `ferrite.commands.total` and `ferrite.command.duration`; `name` gives a command's normalised name.
    pub fn command_series(&self, name: impl Fn(usize) -> String) -> [Series; 2] {
        let totals = self.totals();
        let point = |totals: &CommandTotals, value| Point { label: Some(name(totals.command)), value };
        let counts = totals.iter().map(|totals| point(totals, Value::Integer(totals.calls()))).collect();
        let durations = totals
            .iter()
            .map(|totals| {
                let sum = totals.sum_ns as f64 / 1e9;
                let exemplars = self.exemplars(totals.command);
                let native = self
                    .native
                    .as_ref()
                    .map(|workers| NativeTimes::collect(workers.iter(), totals.command, self.ended_interval()));
                point(totals, Value::Histogram { buckets: totals.buckets.clone(), sum, exemplars, native })
            })
            .collect();
        [
            Series { metric: Metric::COMMANDS_TOTAL, points: counts },
            Series { metric: Metric::COMMAND_DURATION, points: durations },
        ]
    }
}

/// One metric with its points.
#[derive(Clone, Debug)]
pub struct Series {
    pub metric: Metric,
    pub points: Vec<Point>,
}

impl Series {
    /// A metric without labels.
    pub fn single(metric: Metric, value: u64) -> Self {
        Self { metric, points: vec![Point { label: None, value: Value::Integer(value) }] }
    }

    /// The metric's label, if it has one.
    pub fn label(&self) -> Option<Label> {
        self.metric.label
    }
}

#[derive(Clone, Debug)]
pub struct Point {
    /// The value of the metric's label.
    pub label: Option<String>,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Integer(u64),
    Float(f64),
    /// Counts per bucket (not cumulative; the last has no upper bound) and the sum of all values.
    Histogram {
        buckets: Vec<u64>,
        sum: f64,
        /// With the indices of their buckets.
        exemplars: Vec<(usize, Exemplar)>,
        /// The same times in exponential buckets, if they are wanted.
        native: Option<Exponential>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_summed_and_a_reset_hides_what_was_before() {
        let metrics = Metrics::new(2, 3);
        metrics.command(0, 1, 900, false);
        metrics.command(1, 1, 1_500, true);
        let totals = metrics.totals();
        assert_eq!((totals.len(), totals[0].command, totals[0].calls(), totals[0].failed), (1, 1, 2, 1));
        assert_eq!((totals[0].buckets[0], totals[0].buckets[1], totals[0].sum_ns), (1, 1, 2_400));
        metrics.reset_commands();
        assert!(metrics.totals_since_reset().is_empty());
        metrics.command(0, 1, 5, false);
        assert_eq!(metrics.totals_since_reset()[0].calls(), 1);
        assert_eq!(metrics.totals()[0].calls(), 3);
    }

    #[test]
    fn syncs_and_flushes_are_counted_by_their_duration() {
        let metrics = Metrics::new(1, 1);
        metrics.aof_sync(7, 50_007);
        metrics.aof_sync(0, 6_000_000_000);
        metrics.flush(10, 70_010);
        let [syncs, flushes] = metrics.disk_series().map(|mut series| series.points.remove(0).value);
        assert!(
            matches!(flushes, Value::Histogram { buckets, .. } if buckets[1] == 1 && buckets.iter().sum::<u64>() == 1)
        );
        let Value::Histogram { buckets, sum, .. } = syncs else { panic!("a histogram") };
        assert_eq!((buckets[0], buckets[SYNC_BUCKETS - 1], buckets.iter().sum::<u64>(), sum), (1, 1, 2, 6.00005));
    }

    #[test]
    fn the_disk_s_work_has_one_exemplar_a_bucket_until_more_are_wanted() {
        let metrics = Metrics::new(1, 3);
        let pins = std::sync::Arc::<ferrite_telemetry::Pins>::default();
        let exemplars = || match metrics.disk_series()[0].points[0].value.clone() {
            Value::Histogram { exemplars, .. } => exemplars,
            other => panic!("{other:?}"),
        };
        metrics.aof_sync(100, 60_100);
        assert_eq!(metrics.disk_candidate(DiskWork::Sync, 60_101), None, "it ended before");
        assert_eq!(metrics.disk_candidate(DiskWork::Flush, 0), None, "another kind of work");
        let candidate = metrics.disk_candidate(DiskWork::Sync, 60_100).expect("its bucket has none");
        assert_eq!((candidate.bucket, candidate.duration_ns), (1, 60_000));
        let trace = pins.pin(ferrite_telemetry::TraceId(1), ferrite_telemetry::SpanId(1));
        let exemplar = Exemplar { trace, value_ns: candidate.duration_ns, unix_ns: 1 };
        let command = metrics.subject_of(DiskWork::Sync);
        metrics.exemplar(0, NewExemplar { command, bucket: candidate.bucket, exemplar: exemplar.clone() });
        assert_eq!(exemplars(), [(1, exemplar)]);
        metrics.aof_sync(200, 60_200);
        assert_eq!(metrics.disk_candidate(DiskWork::Sync, 0), None, "it has one");
        metrics.want_exemplars();
        metrics.aof_sync(300, 60_300);
        assert!(metrics.disk_candidate(DiskWork::Sync, 0).is_some());
        assert_eq!(exemplars().len(), 1);
    }

    #[test]
    fn percentiles_are_bucket_bounds() {
        let metrics = Metrics::new(1, 1);
        (0..99).for_each(|_| _ = metrics.command(0, 0, 800, false));
        metrics.command(0, 0, 4_000_000_000, false);
        let totals = metrics.totals().remove(0);
        assert_eq!(totals.percentile_ns(50.0), 1_000);
        assert_eq!(totals.percentile_ns(100.0), 5_000_000_000);
        metrics.command(0, 0, u64::MAX / 4, false);
        assert_eq!(metrics.totals()[0].buckets[BUCKETS - 1], 1);
    }
}
