//! All cores at work: a crew of threads that each take a part of every batch.
//!
//! libtorch's own way is to cut every single operation into parts, one for each thread, which then
//! wait for each other: a few hundred times in a training step. Here each thread computes a part of the
//! batch from the first layer to the last by itself, and they meet once a step. On two cores that
//! is about a tenth faster, and it does not suffer when another program takes one of the cores.

use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, available_parallelism, scope};

use anyhow::{Context, Result, ensure};
use tch::Tensor;

/// More hands than this gain nothing: their parts of a batch become too small. On larger machines
/// each of them uses several of libtorch's threads instead.
const MOST_HANDS: usize = 8;

/// How many threads this process may use: the cores that the system grants it (a container's share
/// counts), or what `OMP_NUM_THREADS` says, whichever is less.
pub fn threads() -> usize {
    let granted = available_parallelism().map_or(1, NonZero::get);
    let asked = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    granted.min(asked).max(1)
}

/// Is this a number of threads that makes sense here?
pub(crate) fn check_threads(count: usize) -> Result<()> {
    let cores = available_parallelism().map_or(1, NonZero::get);
    ensure!(
        (1..=cores).contains(&count),
        "the number of threads is {count}; expected 1 to {cores}, the cores that this program may use"
    );
    Ok(())
}

/// How many of libtorch's threads each hand uses.
fn share(threads: usize) -> usize {
    threads.div_ceil(MOST_HANDS).max(1)
}

/// How many hands `threads` threads make.
pub(crate) fn hands(threads: usize) -> usize {
    (threads / share(threads)).max(1)
}

/// The number of threads is both a thread's own and a default for threads to come, which a crew changes
/// for as long as it is hired: one crew at a time. (In a notebook each cell is a library with a lock of its own, so this
/// holds within a cell; two cells at work at once may give each other's threads another share of the cores.)
static HIRING: Mutex<()> = Mutex::new(());

/// Threads at work; made by [`with_crew`].
pub(crate) struct Crew<J, T> {
    lines: Vec<(Sender<J>, Receiver<thread::Result<T>>)>,
}

impl<J, T> Crew<J, T> {
    /// Gives one job to each of the first hands and waits for their answers, in the same order. A panic
    /// in a job goes on here, once all hands are idle.
    ///
    /// # Errors
    /// When a thread has ended.
    pub(crate) fn work(&self, jobs: impl IntoIterator<Item = J>) -> Result<Vec<T>> {
        let ended = "a thread of this computation has ended";
        let mut busy = Vec::with_capacity(self.lines.len());
        for (job, (jobs, answers)) in jobs.into_iter().zip(&self.lines) {
            jobs.send(job).ok().context(ended)?;
            busy.push(answers);
        }
        let answers: Vec<thread::Result<T>> = busy
            .into_iter()
            .map(|answers| answers.recv().context(ended))
            .collect::<Result<_>>()?;
        let answer =
            |answer: thread::Result<T>| answer.unwrap_or_else(|panic| resume_unwind(panic));
        Ok(answers.into_iter().map(answer).collect())
    }
}

/// Runs `lead` with a crew of as many threads as there are `states`. Each owns its state, answers
/// jobs by `work`, and computes with its share of `threads`. All have ended when this returns.
pub(crate) fn with_crew<S: Send, J: Send, T: Send, R>(
    states: Vec<S>,
    threads: usize,
    work: impl Fn(&mut S, J) -> T + Sync,
    lead: impl FnOnce(&Crew<J, T>) -> R,
) -> R {
    let share = share(threads) as i32;
    let hiring = HIRING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = tch::get_num_threads();
    scope(|scope| {
        let (ready, all_ready) = channel();
        let hire = |mut state| {
            let (give, jobs) = channel::<J>();
            let (answer, answers) = channel();
            let (ready, work) = (ready.clone(), &work);
            scope.spawn(move || {
                // The first question makes this thread take the default, so that it will not later.
                tch::get_num_threads();
                tch::set_num_threads(share);
                ready.send(()).ok();
                for job in jobs {
                    let result = catch_unwind(AssertUnwindSafe(|| work(&mut state, job)));
                    if answer.send(result).is_err() {
                        break;
                    }
                }
            });
            (give, answers)
        };
        let lines: Vec<_> = states.into_iter().map(hire).collect();
        all_ready.iter().take(lines.len()).for_each(drop);
        tch::set_num_threads(before);
        drop(hiring);
        lead(&Crew { lines })
    })
}

/// What one hand of [`map_batches`] does with a batch.
pub(crate) type Work<'a> = Box<dyn Fn(&Tensor) -> Tensor + Send + 'a>;

/// The answers of `hire`'s hands to a tensor's rows, a batch at a time on all cores, joined again in order. Nothing is
/// remembered for training.
pub(crate) fn map_batches<'a>(
    x: &Tensor,
    batch: i64,
    hire: &dyn Fn() -> Work<'a>,
) -> Result<Tensor> {
    let threads = threads();
    let batches = x.split(batch, 0);
    let hands = hands(threads).min(batches.len());
    if hands < 2 {
        let work = hire();
        let _guard = tch::no_grad_guard();
        let parts: Vec<Tensor> = batches.iter().map(work).collect();
        return Ok(Tensor::cat(&parts, 0));
    }
    let crew = (0..hands).map(|_| hire()).collect();
    let work = |work: &mut Work, part: Tensor| tch::no_grad(|| work(&part));
    let parts = with_crew(crew, threads, work, |crew| {
        let mut parts = Vec::with_capacity(batches.len());
        for jobs in batches.chunks(hands) {
            parts.extend(crew.work(jobs.iter().map(Tensor::shallow_clone))?);
        }
        anyhow::Ok(parts)
    })?;
    Ok(Tensor::cat(&parts, 0))
}

/// `f` of ranges of the numbers `0..count`, at most `batch` long, on all cores; the results are joined in order.
/// Nothing is remembered for training.
pub(crate) fn map_ranges<S: Send>(
    count: usize,
    batch: usize,
    mut state: impl FnMut() -> S,
    f: impl Fn(&S, Range<usize>) -> Tensor + Sync,
) -> Result<Tensor> {
    let threads = threads();
    let hands = hands(threads).min(count).max(1);
    let size = count.div_ceil(hands).clamp(1, batch.max(1));
    let ranges: Vec<Range<usize>> = (0..count)
        .step_by(size)
        .map(|at| at..count.min(at + size))
        .collect();
    let states = (0..hands).map(|_| state()).collect();
    let work = |state: &mut S, range: Range<usize>| tch::no_grad(|| f(state, range));
    let parts = with_crew(states, threads, work, |crew| {
        let mut parts = Vec::with_capacity(ranges.len());
        for jobs in ranges.chunks(hands) {
            parts.extend(crew.work(jobs.iter().cloned())?);
        }
        anyhow::Ok(parts)
    })?;
    Ok(Tensor::cat(&parts, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn a_crew_answers_in_order_and_leaves_the_number_of_threads_as_it_was() -> Result<()> {
        let before = tch::get_num_threads();
        let work = |state: &mut i32, job: i32| (*state, job, tch::get_num_threads());
        let answers = with_crew(vec![10, 20], 2, work, |crew| crew.work([1, 2]))?;
        assert_eq!(answers, [(10, 1, 1), (20, 2, 1)]);
        assert_eq!(tch::get_num_threads(), before);
        let hiring = HIRING.lock().unwrap_or_else(PoisonError::into_inner);
        let later = thread::spawn(tch::get_num_threads).join();
        drop(hiring);
        assert_eq!(later.ok(), Some(before));
        Ok(())
    }

    #[test]
    fn a_panic_in_a_job_goes_on_where_the_work_was_given() {
        let work = |_: &mut (), job: i32| assert_ne!(job, 2, "job two");
        let lead = |crew: &Crew<i32, ()>| crew.work([1, 2]).map(|_| ());
        let panic = catch_unwind(|| with_crew(vec![(), ()], 2, work, lead)).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("job two"), "{text}");
    }

    #[test]
    fn hands_share_the_threads() {
        let shared = [1, 2, 8, 9, 12, 16, 64].map(|threads| (hands(threads), share(threads)));
        let expected = [(1, 1), (2, 1), (8, 1), (4, 2), (6, 2), (8, 2), (8, 8)];
        assert_eq!(shared, expected);
    }

    #[test]
    fn batches_come_back_in_order_the_last_partial_one_included() -> Result<()> {
        let x = Tensor::arange(23, (Kind::Float, Device::Cpu)).view([23, 1]);
        let doubled = map_batches(&x, 4, &|| Box::new(|part| part * 2))?;
        assert_eq!(doubled, &x * 2);
        Ok(())
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
