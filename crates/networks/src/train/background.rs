//! Training on a thread of its own: other cells run meanwhile, and nothing is lost when the training ends early.
//!
//! A training has a folder with what it was begun with, its first weights, the state of its last epoch, the content of its
//! panel, and in the end the network. From the folder the training can be resumed.

use std::any::Any;
use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use figures::panel::{STOP_FILE, panel};
use figures::{Output, is_unattended};
use ops::pool::threads;
use ops::{Precision, Stopped, check_stop};

use super::config::{Fit, Keep};
use super::history::History;
use super::model::{Data, Model};
use super::panel::Watch;
use super::runs::{CHECKPOINT, END, FIRST, Record, Run};
use super::state::Checkpoint;
use super::trainer::{Trainer, compiled};
use crate::objective::Compiled;

/// How far apart probes of the same loss and data may be: rounding differs between machines.
const PROBE_TOLERANCE: f64 = 1e-4;

/// A training in the background.
///
/// It ends by itself, by [`stop`](Training::stop), by the button of its panel, or when this value is dropped.
pub struct Training<M> {
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    state: Mutex<State<M>>,
}

enum State<M> {
    Running(JoinHandle<Outcome<M>>),
    Ended(Outcome<M>),
    /// Only while one becomes the other.
    Ending,
}

/// The trained copy, and the course of the training, or why it failed.
type Outcome<M> = (M, Result<History, String>);

impl<M: Clone> Training<M> {
    /// A panel that follows the training: its loss, what the network makes of some images now,
    /// the time to go, and a button that stops the training. When the training has ended the panel becomes a picture.
    pub fn monitor(&self) -> Output {
        if is_unattended() {
            let _ = self.watch_until_end(); // after Stop the panel shows how far it has come
        }
        panel(&self.folder)
    }

    /// Waits for the end, and gives a copy of the trained network and the course of the training: the same each time it is
    /// asked.
    ///
    /// The notebook's Stop button ends the waiting, not the training.
    ///
    /// # Errors
    /// What ended the training, whose folder keeps the network of its end, `end.safetensors`; or that the waiting was stopped.
    pub fn wait(&self) -> Result<(M, History)> {
        self.watch_until_end().context(
            "the training goes on; wait() waits again, and training.stop() would end it",
        )?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(_) = *state {
            let State::Running(thread) = std::mem::replace(&mut *state, State::Ending) else {
                unreachable!("it was running a line before")
            };
            let outcome = thread.join();
            *state = State::Ended(outcome.map_err(|panic| anyhow!(message(&*panic)))?);
        }
        let State::Ended((model, history)) = &*state else {
            anyhow::bail!("this training cannot be waited for: its thread panicked")
        };
        match history {
            Ok(history) => Ok((model.clone(), history.clone())),
            Err(error) => Err(anyhow!(error.clone())),
        }
    }
}

impl<M> Training<M> {
    /// Ends the training after its current batch. What it has learnt until then is kept: [`wait`](Training::wait) gives it.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns when the training has ended, or when the notebook's Stop button was pressed.
    fn watch_until_end(&self) -> Result<(), Stopped> {
        while self.is_running() {
            check_stop()?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Whether it still trains.
    pub fn is_running(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(&*state, State::Running(thread) if !thread.is_finished())
    }

    /// Where it keeps its state: a folder with a number, in the one that it was begun with.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl<M> fmt::Debug for Training<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Training")
            .field("folder", &self.folder)
            .field("is_running", &self.is_running())
            .finish_non_exhaustive()
    }
}

/// Dropping the value ends the training, because its result can no longer be fetched.
impl<M> Drop for Training<M> {
    fn drop(&mut self) {
        self.stop();
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(thread) = std::mem::replace(state, State::Ending) {
            let _ = thread.join(); // an error cannot be returned from here
        }
    }
}

/// [`Network::fit_in_background`](crate::network::Network::fit_in_background) of any model.
///
/// # Errors
/// As [`Network::fit_in_background`](crate::network::Network::fit_in_background).
pub fn fit_in_background<M: Model>(
    model: &M,
    data: &M::Data,
    fit: &Fit,
    folder: &Path,
) -> Result<Training<M>> {
    let model = model.clone();
    let fit = Fit {
        keep: match fit.validation {
            0 => fit.keep,
            _ => Keep::Best,
        },
        quiet: true,
        ..fit.clone()
    };
    let trainer = Trainer::new(&model, data, &fit)?;
    let compiled = compiled(&model)?;
    let trainable = model.layers().iter().filter(|layer| layer.is_trainable());
    let record = Record {
        model: M::KIND.to_owned(),
        trainable: trainable.map(|layer| layer.name.clone()).collect(),
        optimizer: compiled.optimizer,
        loss: M::measures(compiled.loss, data).loss.to_owned(),
        data: data.description(),
        images: data.len(),
        probe: trainer.probe()?,
        threads: threads(),
        precision: Precision::of_this_cpu(),
        fit,
    };
    let run = Run::begin(folder)?;
    let written = || -> Result<()> {
        model.save(&run.join(FIRST))?;
        trainer.save(&run.join(CHECKPOINT))?;
        run.write(&record)
    };
    let folder = run.folder.clone();
    let started = written().and_then(|()| start(model, trainer, run, data));
    if started.is_err() {
        let _ = fs::remove_dir_all(&folder); // begun a moment ago, and holds nothing
    }
    started.context("the training did not begin")
}

/// [`Network::resume`](crate::network::Network::resume) of any model.
///
/// # Errors
/// As [`Network::resume`](crate::network::Network::resume).
pub fn resume<M: Model>(folder: &Path, loss: M::Loss, data: &M::Data) -> Result<Training<M>> {
    let (run, record) = Run::again(folder)?;
    let at = run.folder.display().to_string();
    ensure!(
        record.model == M::KIND,
        "{at} holds a training of a model of kind {:?}; expected {:?}",
        record.model,
        M::KIND,
    );
    let mut model = M::load(&run.join(FIRST))?;
    for layer in model.layers_mut() {
        layer.set_trainable(record.trainable.contains(&layer.name));
    }
    *model.compiled_mut() = Some(Compiled::new(record.optimizer, loss));
    model.check(loss, data)?;
    let found = (
        M::measures(loss, data).loss.to_owned(),
        data.len(),
        data.description(),
    );
    let begun = (record.loss.clone(), record.images, record.data.clone());
    ensure!(
        found == begun,
        "the training in {at} began with the loss {:?} and {} {}; got {:?} and {} {}",
        begun.0,
        begun.1,
        begun.2,
        found.0,
        found.1,
        found.2,
    );
    let mut trainer = Trainer::new(&model, data, &record.fit_here())?;
    let probe = trainer.probe()?;
    let same = |(now, then): (&f64, &f64)| (now - then).abs() <= PROBE_TOLERANCE * then.abs();
    ensure!(
        probe.iter().zip(&record.probe).all(same),
        "the training in {at} began with another loss or other images: for the first images the first weights had the loss \
         {:.5} and gradients of size {:.5}; now they have {:.5} and {:.5}",
        record.probe[0],
        record.probe[1],
        probe[0],
        probe[1],
    );
    trainer.restore(Checkpoint::read(&run.join(CHECKPOINT))?)?;
    let _ = fs::remove_file(run.join(STOP_FILE)); // there is one only after the button was pressed
    start(model, trainer, run, data)
}

impl Record {
    /// The settings on this machine: as many threads, and the precision, that fit it. A line says what changed.
    fn fit_here(&self) -> Fit {
        let now = (threads(), Precision::of_this_cpu());
        let threads = match self.fit.threads == self.threads {
            true => now.0,
            false => self.fit.threads.min(now.0),
        };
        let precision = match self.fit.precision == self.precision {
            true => now.1,
            false => self.fit.precision,
        };
        if (threads, precision) != (self.fit.threads, self.fit.precision) {
            println!(
                "Goes on with {threads} threads in {precision}; it began with {} in {}. Sums are rounded in another order, \
                 so the weights differ a little from those of an unbroken training.",
                self.fit.threads, self.fit.precision
            );
        }
        Fit {
            threads,
            precision,
            ..self.fit.clone()
        }
    }
}

fn start<M: Model>(
    mut model: M,
    mut trainer: Trainer<M>,
    run: Run,
    data: &M::Data,
) -> Result<Training<M>> {
    let stop = Arc::new(AtomicBool::new(false));
    let folder = run.folder.clone();
    let (seen, data) = (model.shared(), data.part(0..data.len()));
    let preview = Box::new(move || seen.preview(&data));
    let history = trainer.history().clone();
    let mut watch = Watch::new(&folder, Arc::clone(&stop), history, preview);
    watch.begin()?;
    let thread = thread::Builder::new()
        .name("training".to_owned())
        .spawn(move || {
            let checkpoint = run.join(CHECKPOINT);
            let training = || trainer.run(Some(&checkpoint), &mut watch);
            let history = catch_unwind(AssertUnwindSafe(training))
                .unwrap_or_else(|panic| Err(anyhow!(message(&*panic))));
            if let Some(compiled) = model.compiled_mut() {
                compiled.progress = trainer.progress();
            }
            // Whatever ended it, what was learnt is in the folder.
            let end = run.join(END);
            let history = match (history, model.save(&end)) {
                (Err(error), Ok(())) => {
                    Err(error.context(format!("the network of its end is {}", end.display())))
                }
                (history, _) => history,
            };
            watch.end(&history);
            drop(run);
            (model, history.map_err(|error| format!("{error:#}")))
        })
        .context("cannot start a thread for the training")?;
    Ok(Training {
        folder,
        stop,
        state: Mutex::new(State::Running(thread)),
    })
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!(
        "the training panicked: {}",
        text.unwrap_or("no reason given")
    )
}
