//! A pool of worker threads that compute a part of every batch each.
//!
//! libtorch by itself cuts every single operation into parts, one for each thread, and its threads wait for each other
//! after every operation: a few hundred times in a training step. Here each worker computes its part of the batch from
//! the first layer to the last by itself, and the workers meet once a step. This is faster, and
//! another program that takes one of the cores costs less.

use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, available_parallelism, scope};

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use crate::check_stop;

/// More workers than this gain nothing: their parts of a batch become too small. On larger machines each of them uses
/// several of libtorch's threads instead.
const MAX_WORKERS: usize = 8;

/// How many threads this process may use: the cores that the system grants it (the share of a container counts), or
/// the value of `OMP_NUM_THREADS`, whichever is less.
pub fn threads() -> usize {
    let cores = available_parallelism().map_or(1, NonZero::get);
    let libtorch = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    cores.min(libtorch).max(1)
}

/// Checks a number of threads that a user has given.
///
/// # Errors
/// No thread, or more threads than cores that this process may use.
pub fn check_threads(count: usize) -> Result<()> {
    let cores = available_parallelism().map_or(1, NonZero::get);
    ensure!(
        (1..=cores).contains(&count),
        "the number of threads is {count}; expected 1 to {cores}, the cores that this program may use"
    );
    Ok(())
}

/// How many of libtorch's threads each worker uses.
fn threads_per_worker(threads: usize) -> usize {
    threads.div_ceil(MAX_WORKERS).max(1)
}

/// How many workers share this many threads: at most 8. With more than 8 threads each worker uses several of libtorch's.
pub fn workers(threads: usize) -> usize {
    (threads / threads_per_worker(threads)).max(1)
}

/// The number of libtorch's threads is both a thread's own and a default for threads to come. A pool changes the default
/// while it starts its workers, so only one pool may start at a time. (In a notebook each cell is a library with a lock of
/// its own, so this holds within a cell. If two cells start pools at once, their workers may use another number of
/// libtorch's threads.)
static STARTING: Mutex<()> = Mutex::new(());

/// Worker threads that take tasks `T` and give outputs `O`; made by [`with_pool`].
pub struct Pool<T, O> {
    workers: Vec<(Sender<T>, Receiver<thread::Result<O>>)>,
}

impl<T, O> Pool<T, O> {
    /// Gives one task to each of the first workers and waits for their outputs, which come in the order of the tasks.
    /// Tasks beyond the number of workers are ignored.
    ///
    /// # Errors
    /// When a worker thread has ended.
    ///
    /// # Panics
    /// A panic of a worker continues in the calling thread, once all workers are idle.
    pub fn run(&self, tasks: impl IntoIterator<Item = T>) -> Result<Vec<O>> {
        let ended = "a worker thread of this computation has ended";
        let mut busy = Vec::with_capacity(self.workers.len());
        for (task, (tasks, outputs)) in tasks.into_iter().zip(&self.workers) {
            tasks.send(task).ok().context(ended)?;
            busy.push(outputs);
        }
        let outputs: Vec<thread::Result<O>> = busy
            .into_iter()
            .map(|outputs| outputs.recv().context(ended))
            .collect::<Result<_>>()?;
        let output =
            |output: thread::Result<O>| output.unwrap_or_else(|panic| resume_unwind(panic));
        Ok(outputs.into_iter().map(output).collect())
    }
}

/// Runs `lead` with a pool of as many workers as there are `states`. Each worker owns its state, computes the output of a
/// task by `work`, and uses its share of `threads`. All workers have ended when this function returns.
pub fn with_pool<S: Send, T: Send, O: Send, R>(
    states: Vec<S>,
    threads: usize,
    work: impl Fn(&mut S, T) -> O + Sync,
    lead: impl FnOnce(&Pool<T, O>) -> R,
) -> R {
    let share = threads_per_worker(threads) as i32;
    let starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = tch::get_num_threads();
    scope(|scope| {
        let (ready, all_ready) = channel();
        let start = |mut state| {
            let (task_sender, tasks) = channel::<T>();
            let (output_sender, outputs) = channel();
            let (ready, work) = (ready.clone(), &work);
            scope.spawn(move || {
                // The first query makes libtorch give this thread the default, so that this does not happen later.
                tch::get_num_threads();
                tch::set_num_threads(share);
                ready.send(()).ok();
                for task in tasks {
                    let output = catch_unwind(AssertUnwindSafe(|| work(&mut state, task)));
                    if output_sender.send(output).is_err() {
                        break;
                    }
                }
            });
            (task_sender, outputs)
        };
        let workers: Vec<_> = states.into_iter().map(start).collect();
        all_ready.iter().take(workers.len()).for_each(drop);
        tch::set_num_threads(before);
        drop(starting);
        lead(&Pool { workers })
    })
}

/// What one worker of [`map_batches`] computes: the output of a range of items, whose first dimension is the items.
pub type Worker<'a> = Box<dyn Fn(Range<i64>) -> Result<Tensor> + Send + 'a>;

/// The outputs of the items `0..count`, computed on all cores and concatenated in order along the first dimension. No
/// gradients are recorded.
///
/// `worker` makes a worker; it is called once for each. A range has at most `batch` items, and fewer if some worker would
/// have none otherwise. A single worker computes in the calling thread. For `count` 0 a worker gets the range `0..0`.
///
/// # Errors
/// The error of a worker; a `batch` of 0; [`Stopped`](crate::Stopped).
///
/// ```
/// use ops::pool::map_batches;
/// use tch::Tensor;
///
/// # fn main() -> anyhow::Result<()> {
/// let x = Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0]);
/// let doubled = map_batches(5, 2, &|| {
///     let x = x.shallow_clone(); // each worker has a handle of its own
///     Box::new(move |range| Ok(x.narrow(0, range.start, range.end - range.start) * 2.0))
/// })?;
/// assert_eq!(doubled, x * 2.0);
/// # Ok(())
/// # }
/// ```
pub fn map_batches<'a>(
    count: usize,
    batch: usize,
    worker: &dyn Fn() -> Worker<'a>,
) -> Result<Tensor> {
    let threads = threads();
    let workers = workers(threads).min(count).max(1);
    let ranges = ranges(count, batch, workers)?;
    let mut outputs = Vec::with_capacity(ranges.len());
    if workers == 1 {
        let worker = worker();
        let _guard = tch::no_grad_guard();
        for range in ranges {
            check_stop()?;
            outputs.push(worker(range)?);
        }
    } else {
        let states: Vec<Worker> = (0..workers).map(|_| worker()).collect();
        let work = |worker: &mut Worker, range: Range<i64>| tch::no_grad(|| worker(range));
        with_pool(states, threads, work, |pool| {
            for ranges in ranges.chunks(workers) {
                check_stop()?;
                for output in pool.run(ranges.iter().cloned())? {
                    outputs.push(output?);
                }
            }
            anyhow::Ok(())
        })?;
    }
    Ok(Tensor::f_cat(&outputs, 0)?)
}

/// `0..count` in ranges of at most `batch`, and small enough that each worker has one.
fn ranges(count: usize, batch: usize, workers: usize) -> Result<Vec<Range<i64>>> {
    ensure!(
        batch > 0,
        "the batch size is 0; expected at least one item in a batch"
    );
    let size = count.div_ceil(workers).clamp(1, batch);
    let range = |at: usize| at as i64..count.min(at + size) as i64;
    Ok(match count {
        0 => std::iter::once(0..0).collect(),
        _ => (0..count).step_by(size).map(range).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use tch::{Device, Kind};

    #[test]
    fn outputs_come_in_order_and_the_number_of_threads_is_as_before() -> Result<()> {
        let before = tch::get_num_threads();
        let work = |state: &mut i32, task: i32| (*state, task, tch::get_num_threads());
        let outputs = with_pool(vec![10, 20], 2, work, |pool| pool.run([1, 2]))?;
        assert_eq!(outputs, [(10, 1, 1), (20, 2, 1)]);
        assert_eq!(tch::get_num_threads(), before);
        let starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let later = thread::spawn(tch::get_num_threads).join();
        drop(starting);
        assert_eq!(later.ok(), Some(before));
        Ok(())
    }

    #[test]
    fn a_panic_of_a_worker_continues_in_the_calling_thread() {
        let work = |_: &mut (), task: i32| assert_ne!(task, 2, "task two");
        let lead = |pool: &Pool<i32, ()>| pool.run([1, 2]).map(|_| ());
        let panic = catch_unwind(|| with_pool(vec![(), ()], 2, work, lead)).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("task two"), "{text}");
    }

    #[test]
    fn workers_share_the_threads() {
        let shared = [1, 2, 8, 9, 12, 16, 64].map(|n| (workers(n), threads_per_worker(n)));
        let expected = [(1, 1), (2, 1), (8, 1), (4, 2), (6, 2), (8, 2), (8, 8)];
        assert_eq!(shared, expected);
    }

    #[test]
    fn batches_come_back_in_order_the_last_partial_one_included() -> Result<()> {
        for count in [0, 1, 2, 23] {
            let x = Tensor::arange(count, (Kind::Float, Device::Cpu)).view([count, 1]);
            let doubled = map_batches(count as usize, 4, &|| {
                let x = x.shallow_clone();
                Box::new(move |range| Ok(x.narrow(0, range.start, range.end - range.start) * 2))
            })?;
            assert_eq!(doubled, &x * 2);
        }
        Ok(())
    }

    #[test]
    fn no_gradients_are_recorded() -> Result<()> {
        let x = Tensor::ones([8], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let y = map_batches(8, 2, &|| {
            let x = x.shallow_clone();
            Box::new(move |range| Ok(x.narrow(0, range.start, range.end - range.start) * 2))
        })?;
        assert!(!y.requires_grad());
        Ok(())
    }

    #[test]
    fn ranges_are_small_enough_that_each_worker_has_one() -> Result<()> {
        assert_eq!(ranges(10, 8, 2)?, [0..5, 5..10]);
        assert_eq!(ranges(10, 4, 2)?, [0..4, 4..8, 8..10]);
        assert_eq!(ranges(10, 100, 1)?.first(), Some(&(0..10)));
        assert!(ranges(10, 0, 1).is_err());
        Ok(())
    }

    #[test]
    fn the_error_of_a_worker_is_returned() {
        let error = map_batches(10, 2, &|| {
            Box::new(|range| match range.contains(&5) {
                true => bail!("item five"),
                false => Ok(Tensor::zeros([1], (Kind::Float, Device::Cpu))),
            })
        });
        assert_eq!(error.unwrap_err().to_string(), "item five");
    }

    #[test]
    fn a_number_of_threads_that_makes_no_sense_is_named() {
        let error = check_threads(0).unwrap_err().to_string();
        assert!(
            error.starts_with("the number of threads is 0; expected 1 to "),
            "{error}"
        );
        assert!(check_threads(100_000).is_err());
    }
}
