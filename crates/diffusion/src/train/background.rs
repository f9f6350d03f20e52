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
use figures::{Output, is_unattended, rows, with_home, write_whole};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::config::{self, FitConfig, Keep};
use super::fit::{fit_with, resume};
use super::history::{Epoch, History};
use super::objective::{Denoising, Objective};
use super::panel::Watch;
use super::state::Checkpoint;
use crate::data::Split;
use crate::denoiser::Denoiser;
use crate::model::{Layer, Model};
use crate::noise::{corrupt, noise_of};
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
/// The seed of the noise that they are given.
const SHOWN_SEED: u64 = 20_260_103;

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
    config: FitConfig,
}

impl Settings {
    fn of(model: &str, layers: &[Layer], config: &FitConfig) -> Settings {
        let trainable = layers.iter().filter(|layer| layer.is_trainable());
        Settings {
            model: model.to_owned(),
            trainable: trainable.map(|layer| layer.name.clone()).collect(),
            config: config.clone(),
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

/// [`fit`](super::fit) on a thread of its own: returns at once.
///
/// `folder` is where the training keeps its state; one that lies there already is moved aside, to a name that ends in
/// `.before`, and stopped first if it is still running. With held-out images the training ends with the best weights,
/// whatever [`FitConfig::keep`] says, since it may be stopped at any time.
///
/// # Errors
/// Settings that make no sense, or a folder that cannot be written.
///
/// ```no_run
/// use diffusion::prelude::*;
///
/// # fn main() -> anyhow::Result<()> {
/// let mnist: Mnist = Mnist::load()?;
/// let cnn: Cnn = Cnn::new(CnnConfig::default());
/// let training: Training<Cnn> =
///     fit_in_background(cnn, &mnist.train, &FitConfig::default(), "saved/run")?;
/// training.monitor().evcxr_display(); // a panel that follows it
/// let (cnn, history): (Cnn, History) = training.wait()?;
/// # Ok(())
/// # }
/// ```
pub fn fit_in_background<M: Denoiser + 'static>(
    model: M,
    data: &Split,
    config: &FitConfig,
    folder: impl AsRef<Path>,
) -> Result<Training<M>> {
    let objective = Denoising::of(config)?;
    let preview = denoised(data, config.noise)?;
    fit_with_in_background(model, data, objective, config, preview, folder)
}

/// [`fit_with`] on a thread of its own, as [`fit_in_background`]. `preview` draws what the panel shows of the network as
/// it learns: [`digits_drawn`] for a U-Net.
///
/// # Errors
/// As [`fit_in_background`].
pub fn fit_with_in_background<M: Model + 'static>(
    model: M,
    data: &Split,
    objective: impl Objective<M> + Send + 'static,
    config: &FitConfig,
    preview: impl Fn(&M) -> Result<Output> + Send + 'static,
    folder: impl AsRef<Path>,
) -> Result<Training<M>> {
    let folder: &Path = &with_home(folder.as_ref())?;
    let config = in_folder(config, folder);
    config::check(&config, data)?;
    make_room(folder)?;
    let locked = LockedFolder::lock(folder)?;
    model.save(folder.join(FIRST))?;
    Settings::of(M::KIND, model.layers(), &config).write(folder)?;
    let data = data.shallow_clone();
    start(model, locked, preview, None, move |model, watch| {
        fit_with(model, &data, &objective, &config, watch)
    })
}

impl<M: Denoiser + 'static> Training<M> {
    /// Goes on with a training that [`fit_in_background`] began, from its last whole epoch: the result is that of an unbroken
    /// run. Give it the same data.
    ///
    /// # Errors
    /// A folder that holds no training of this kind of model, one that is still running, or other data.
    pub fn resume(folder: impl AsRef<Path>, data: &Split) -> Result<Training<M>> {
        let preview = |config: &FitConfig| denoised(data, config.noise);
        Training::resume_with(&folder, data, Denoising::of, preview)
    }
}

impl<M: Model + 'static> Training<M> {
    /// [`resume`](Training::resume) for a training that [`fit_with_in_background`] began: with the objective and the
    /// preview that it was begun with, which may depend on its settings.
    ///
    /// # Errors
    /// As [`resume`](Training::resume).
    pub fn resume_with<O, P>(
        folder: impl AsRef<Path>,
        data: &Split,
        objective: impl FnOnce(&FitConfig) -> Result<O>,
        preview: impl FnOnce(&FitConfig) -> Result<P>,
    ) -> Result<Training<M>>
    where
        O: Objective<M> + Send + 'static,
        P: Fn(&M) -> Result<Output> + Send + 'static,
    {
        let folder: &Path = &with_home(folder.as_ref())?;
        let settings = Settings::read(folder, M::KIND)?;
        let locked = LockedFolder::lock(folder)?;
        // The folder may have been moved since.
        let config = in_folder(&settings.config, folder);
        let mut model = M::load(folder.join(FIRST))?;
        for layer in model.layers_mut() {
            layer.set_trainable(settings.trainable.contains(&layer.name));
        }
        let checkpoint = Checkpoint::read(&folder.join(CHECKPOINT))?;
        let _ = fs::remove_file(folder.join(STOP_FILE)); // there is one only after the button was pressed
        let (objective, preview) = (objective(&config)?, preview(&config)?);
        let data = data.shallow_clone();
        let earlier = Some(checkpoint.progress());
        start(model, locked, preview, earlier, move |model, watch| {
            resume(model, &data, &objective, &config, watch)
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
    /// As [`fit`](super::fit). The folder keeps what was learnt until the last epoch.
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
fn in_folder(config: &FitConfig, folder: &Path) -> FitConfig {
    FitConfig {
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

fn start<M: Model + 'static>(
    mut model: M,
    locked: LockedFolder,
    preview: impl Fn(&M) -> Result<Output> + Send + 'static,
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

/// Draws some of the data's last digits, noisy and denoised.
fn denoised<M: Denoiser>(
    data: &Split,
    noise: f64,
) -> Result<impl Fn(&M) -> Result<Output> + Send + 'static + use<M>> {
    let (clean, noisy) = last_digits(data, noise)?;
    Ok(move |model: &M| Ok(three_rows(&clean, &noisy, &model.denoise(&noisy)?)))
}

fn last_digits(data: &Split, noise: f64) -> Result<(Tensor, Tensor)> {
    let count = SHOWN.min(data.len());
    let indices: Vec<i64> = (data.len() - count..data.len())
        .map(|at| at as i64)
        .collect();
    let clean = data.batch(&indices)?;
    let noisy = corrupt(&clean, &noise_of(SHOWN_SEED, 0, &indices), noise);
    Ok((clean, noisy))
}

fn three_rows(clean: &Tensor, noisy: &Tensor, denoised: &Tensor) -> Output {
    rows(&[
        ("original", clean),
        ("noisy", noisy),
        ("denoised", denoised),
    ])
    .alt("Ten digits: original, noisy, and as the network denoises them now")
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
