//! Training on a thread of its own: other cells run meanwhile, and nothing is lost when the training ends early.
//!
//! A training has a folder with its settings, its first weights, the state of its last epoch, and the content of its
//! panel. From the folder the training can be resumed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use figures::panel::{STOP_FILE, panel};
use figures::{Output, is_unattended, rows, rows_with_captions, with_home, write_whole};
use serde::{Deserialize, Serialize};
use tch::Kind;

use super::config::{self, Fit, Keep};
use super::fit::{fit_with, resume};
use super::history::{Epoch, History};
use super::objective::Objective;
use super::panel::{Preview, Watch};
use super::state::Checkpoint;
use super::trainable::Trainable;
use crate::data::Split;
use crate::network::{NamedLayer, Network};
use crate::objective::{Loss, Optimizer};
use crate::pairs::{Pairs, Rule};
use crate::sample::{Sampler, balanced_classes, sample, with_labels};
use crate::schedule::Schedule;
use crate::unet::Unet;

/// What lies in a training's folder.
const SETTINGS: &str = "settings.json";
const FIRST: &str = "first.safetensors";
const CHECKPOINT: &str = "checkpoint.safetensors";
const LOCK: &str = "lock";
/// How long a training that is told to stop may take to end its batch and its epoch.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many digits a panel shows.
const SHOWN: usize = 10;

/// A training in the background.
///
/// It ends by itself, by [`stop`](Training::stop), by the button of its panel, or when this value is dropped.
#[derive(Debug)]
pub struct Training<M> {
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    /// None once it was waited for.
    thread: Option<JoinHandle<(M, Result<History>)>>,
}

/// The settings with which a training was started.
#[derive(Serialize, Deserialize)]
struct Settings {
    model: String,
    /// The layers that training may change.
    trainable: Vec<String>,
    fit: Fit,
}

impl Settings {
    fn of(model: &str, layers: &[NamedLayer], fit: &Fit) -> Settings {
        let trainable = layers.iter().filter(|layer| layer.is_trainable());
        Settings {
            model: model.to_owned(),
            trainable: trainable.map(|layer| layer.name.clone()).collect(),
            fit: fit.clone(),
        }
    }

    fn write(&self, folder: &Path) -> Result<()> {
        write_whole(&folder.join(SETTINGS), &serde_json::to_vec_pretty(self)?)
    }

    /// Those of a folder that holds a training of this kind of model.
    fn read(folder: &Path, model: &str) -> Result<Settings> {
        let path = folder.join(SETTINGS);
        let settings = fs::read(&path).with_context(|| {
            format!(
                "{} holds no training: cannot read {}",
                folder.display(),
                path.display()
            )
        })?;
        let settings: Settings = serde_json::from_slice(&settings)
            .with_context(|| format!("{} is not a training's settings", path.display()))?;
        ensure!(
            settings.model == model,
            "{} holds a training of a model of kind {:?}; expected {model:?}",
            folder.display(),
            settings.model,
        );
        Ok(settings)
    }
}

impl Network {
    /// [`fit`](Network::fit) of a copy of this network, on a thread of its own: returns at once.
    ///
    /// `folder` is where the training keeps its state; one that lies there already is moved aside, to a name that ends in
    /// `.before`, and stopped first if it is still running. With held-out images the training ends with the best weights,
    /// whatever [`Fit::keep`] says, since it may be stopped at any time.
    ///
    /// # Errors
    /// As [`fit`](Network::fit), or a folder that cannot be written.
    ///
    /// ```no_run
    /// use diffusion::prelude::*;
    ///
    /// # fn main() -> anyhow::Result<()> {
    /// let mnist: Mnist = Mnist::load()?;
    /// let mut cnn: Network = Network::new([28, 28, 1], lesson_cnn())?.seeded(26);
    /// cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    /// let training: Training<Network> =
    ///     cnn.fit_in_background(&mnist.train.noisy(0.5)?, &Fit::default(), "saved/run")?;
    /// training.monitor().evcxr_display(); // a panel that follows it
    /// let (cnn, history): (Network, History) = training.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn fit_in_background(
        &self,
        pairs: &Pairs,
        fit: &Fit,
        folder: impl AsRef<Path>,
    ) -> Result<Training<Network>> {
        self.objective(pairs, fit)?;
        let (pairs, preview) = (pairs.shallow_clone(), preview_of(pairs));
        let images = pairs.images().shallow_clone();
        begin(
            self.clone(),
            &images,
            fit,
            folder.as_ref(),
            preview,
            move |network, fit, watch| network.fit_with(&pairs, fit, watch),
        )
    }
}

impl Training<Network> {
    /// Goes on with a training that [`Network::fit_in_background`] began, from its last whole epoch: the result is that of
    /// an unbroken run. Give it the optimizer, the loss and the pairs that it was begun with.
    ///
    /// # Errors
    /// A folder that holds no network's training, one that is still running, or other pairs.
    pub fn resume(
        folder: impl AsRef<Path>,
        optimizer: impl Into<Optimizer>,
        loss: Loss,
        pairs: &Pairs,
    ) -> Result<Training<Network>> {
        let mut begun: Begun<Network> = Begun::read(folder.as_ref())?;
        begun.model.compile(optimizer, loss);
        begun.model.objective(pairs, &begun.fit)?;
        let (pairs, preview) = (pairs.shallow_clone(), preview_of(pairs));
        begun.go_on(preview, move |network, fit, watch| {
            network.resume(&pairs, fit, watch)
        })
    }
}

/// [`fit_with`] on a thread of its own, as [`Network::fit_in_background`]. `preview` draws what the panel shows of the
/// network as it learns: [`digits_drawn`] for a U-Net.
///
/// # Errors
/// As [`Network::fit_in_background`].
pub fn fit_with_in_background<M: Trainable + 'static>(
    model: M,
    data: &Split,
    objective: impl Objective<M> + Send + 'static,
    fit: &Fit,
    preview: impl Fn(&M) -> Result<Output> + Send + 'static,
    folder: impl AsRef<Path>,
) -> Result<Training<M>> {
    let images = data.shallow_clone();
    begin(
        model,
        data,
        fit,
        folder.as_ref(),
        Box::new(preview),
        move |model, fit, watch| fit_with(model, &images, &objective, fit, watch),
    )
}

impl<M: Trainable + 'static> Training<M> {
    /// Goes on with a training that [`fit_with_in_background`] began, from its last whole epoch: with the objective and the
    /// preview that it was begun with, which may depend on its settings.
    ///
    /// # Errors
    /// A folder that holds no training of this kind of model, one that is still running, or other data.
    pub fn resume_with<O, P>(
        folder: impl AsRef<Path>,
        data: &Split,
        objective: impl FnOnce(&Fit) -> Result<O>,
        preview: impl FnOnce(&Fit) -> Result<P>,
    ) -> Result<Training<M>>
    where
        O: Objective<M> + Send + 'static,
        P: Fn(&M) -> Result<Output> + Send + 'static,
    {
        let begun: Begun<M> = Begun::read(folder.as_ref())?;
        let (objective, preview) = (objective(&begun.fit)?, preview(&begun.fit)?);
        let data = data.shallow_clone();
        begun.go_on(Box::new(preview), move |model, fit, watch| {
            resume(model, &data, &objective, fit, watch)
        })
    }

    /// A panel that follows the training in a notebook: loss, scores, some digits as the network denoises or draws them now,
    /// the time to go, and a button that stops the training. When the training has ended the panel becomes a picture.
    pub fn monitor(&self) -> Output {
        if is_unattended() {
            while self.is_running() {
                thread::sleep(Duration::from_millis(50));
            }
        }
        panel(&self.folder)
    }

    /// Ends the training after its current batch. What it has learnt until then is kept: [`wait`](Training::wait) gives it.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it still trains.
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Where it keeps its state.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits for the end, and gives the model and the course of the training.
    ///
    /// # Errors
    /// As [`Network::fit`]. The folder keeps what was learnt until the last epoch.
    pub fn wait(mut self) -> Result<(M, History)> {
        let Some(thread) = self.thread.take() else {
            bail!("this training was waited for already")
        };
        let (model, history) = thread.join().map_err(|_| {
            anyhow!(
                "the training thread panicked; {} keeps the last epoch, and `Training::resume` resumes it",
                self.folder.display()
            )
        })?;
        Ok((model, history?))
    }
}

/// Dropping the value ends the training, because its result can no longer be fetched.
impl<M> Drop for Training<M> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // an error cannot be returned from here
        }
    }
}

/// The settings of a training in this folder.
fn in_folder(config: &Fit, folder: &Path) -> Fit {
    Fit {
        checkpoint: Some(folder.join(CHECKPOINT)),
        keep: match config.validation {
            0 => config.keep,
            _ => Keep::Best,
        },
        quiet: true,
        ..config.clone()
    }
}

/// An empty folder; what was there is moved aside, and stopped first.
fn make_room(folder: &Path) -> Result<()> {
    if folder.exists() {
        let is_ours = folder.join(SETTINGS).is_file() || folder.read_dir()?.next().is_none();
        ensure!(
            is_ours,
            "{} is there already, and holds no training: choose another folder",
            folder.display()
        );
        let started = std::time::Instant::now();
        while try_lock(folder)?.is_none() {
            ensure!(
                started.elapsed() < PATIENCE,
                "{} holds a training that does not stop: stop it, or choose another folder",
                folder.display()
            );
            fs::write(folder.join(STOP_FILE), "stop")?;
            thread::sleep(Duration::from_millis(20));
        }
        let mut before = folder.as_os_str().to_owned();
        before.push(".before");
        let before = PathBuf::from(before);
        if before.exists() {
            fs::remove_dir_all(&before)
                .with_context(|| format!("cannot remove {}", before.display()))?;
        }
        fs::rename(folder, &before)
            .with_context(|| format!("cannot move {} aside", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// The lock of a folder, which a training holds while it runs; None if another training holds it.
fn try_lock(folder: &Path) -> Result<Option<File>> {
    let path = folder.join(LOCK);
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.try_lock().is_ok().then_some(file))
}

/// A folder that no other training uses as long as this value lives.
struct LockedFolder {
    folder: PathBuf,
    _lock: File,
}

impl LockedFolder {
    fn lock(folder: &Path) -> Result<LockedFolder> {
        let lock = try_lock(folder)?.with_context(|| {
            format!(
                "the training in {} is still running: stop it, or wait for it",
                folder.display()
            )
        })?;
        Ok(LockedFolder {
            folder: folder.to_owned(),
            _lock: lock,
        })
    }
}

/// Begins a training in a folder of its own.
fn begin<M: Trainable + 'static>(
    model: M,
    images: &Split,
    fit: &Fit,
    folder: &Path,
    preview: Preview<M>,
    train: impl FnOnce(&mut M, &Fit, &mut Watch<M>) -> Result<History> + Send + 'static,
) -> Result<Training<M>> {
    let folder: &Path = &with_home(folder)?;
    let fit = in_folder(fit, folder);
    config::check(&fit, images)?;
    make_room(folder)?;
    let locked = LockedFolder::lock(folder)?;
    model.save(&folder.join(FIRST))?;
    Settings::of(M::KIND, model.layers(), &fit).write(folder)?;
    start(model, locked, preview, None, move |model, watch| {
        train(model, &fit, watch)
    })
}

/// A training that was begun earlier.
struct Begun<M> {
    model: M,
    fit: Fit,
    locked: LockedFolder,
    earlier: (Vec<Epoch>, Vec<f64>),
}

impl<M: Trainable + 'static> Begun<M> {
    fn read(folder: &Path) -> Result<Begun<M>> {
        let folder: &Path = &with_home(folder)?;
        let settings = Settings::read(folder, M::KIND)?;
        let locked = LockedFolder::lock(folder)?;
        // The folder may have been moved since.
        let fit = in_folder(&settings.fit, folder);
        let mut model = M::load(&folder.join(FIRST))?;
        for layer in model.layers_mut() {
            layer.set_trainable(settings.trainable.contains(&layer.name));
        }
        let earlier = Checkpoint::read(&folder.join(CHECKPOINT))?.progress();
        let _ = fs::remove_file(folder.join(STOP_FILE)); // there is one only after the button was pressed
        Ok(Begun {
            model,
            fit,
            locked,
            earlier,
        })
    }

    fn go_on(
        self,
        preview: Preview<M>,
        train: impl FnOnce(&mut M, &Fit, &mut Watch<M>) -> Result<History> + Send + 'static,
    ) -> Result<Training<M>> {
        let Begun {
            model,
            fit,
            locked,
            earlier,
        } = self;
        start(
            model,
            locked,
            preview,
            Some(earlier),
            move |model, watch| train(model, &fit, watch),
        )
    }
}

fn start<M: Trainable + 'static>(
    mut model: M,
    locked: LockedFolder,
    preview: Preview<M>,
    earlier: Option<(Vec<Epoch>, Vec<f64>)>,
    train: impl FnOnce(&mut M, &mut Watch<M>) -> Result<History> + Send + 'static,
) -> Result<Training<M>> {
    let stop = Arc::new(AtomicBool::new(false));
    let folder = locked.folder.clone();
    let mut watch = Watch::new(&folder, Arc::clone(&stop), earlier, preview);
    watch.begin(&model)?;
    let thread = thread::Builder::new()
        .name("training".to_owned())
        .spawn(move || {
            let history = train(&mut model, &mut watch);
            watch.end(&model, &history);
            drop(locked);
            (model, history)
        })?;
    Ok(Training {
        folder,
        stop,
        thread: Some(thread),
    })
}

/// Shows what the network makes of the last images of the pairs.
fn preview_of(pairs: &Pairs) -> Preview<Network> {
    let count = pairs.len() as i64;
    let indices: Vec<i64> = ((count - SHOWN as i64).max(0)..count).collect();
    let rule = pairs.rule();
    let (input, target) = rule.held_out(pairs.images(), &indices);
    Box::new(move |network| {
        let prediction = network.predict(&input)?;
        if let Rule::Noisy { .. } = rule {
            let three = [
                ("original", &target),
                ("noisy", &input),
                ("denoised", &prediction.clamp(0.0, 1.0)),
            ];
            return Ok(rows(&three)
                .alt("Ten digits: original, noisy, and as the network denoises them now"));
        }
        let classes = Vec::<i64>::try_from(prediction.argmax(1, false).to_kind(Kind::Int64))?;
        let classes: Vec<String> = classes.iter().map(i64::to_string).collect();
        let captions: Vec<&str> = classes.iter().map(String::as_str).collect();
        Ok(rows_with_captions(&[("read as", &input)], &captions)
            .alt("Ten digits, and below each the class that the network reads now"))
    })
}

/// The preview of a U-Net's training: a digit of each class, drawn by the network of this moment, always from the same
/// noise.
pub fn digits_drawn(
    schedule: &Schedule,
    sampler: &Sampler,
) -> impl Fn(&Unet) -> Result<Output> + Send + 'static + use<> {
    let (schedule, sampler) = (schedule.clone(), sampler.clone());
    move |unet: &Unet| {
        let drawn = sample(
            unet,
            &schedule,
            &sampler,
            &with_labels(&balanced_classes(SHOWN)),
        )?;
        Ok(rows(&[("drawn", &drawn.images)])
            .alt("A digit of each class, as the network draws it now"))
    }
}
