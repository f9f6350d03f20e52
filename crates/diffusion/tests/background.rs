//! Training in the background can be watched, stopped and resumed, and nothing is lost.
#![allow(clippy::unwrap_used)]

#[path = "common/noise_loss.rs"]
mod noise_loss;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diffusion::prelude::*;
use diffusion::train::{Keep, Precision, threads};
use noise_loss::noise_loss;

fn few(n: usize) -> Split {
    Mnist::load().unwrap().train.first(n).unwrap()
}

fn config(epochs: usize) -> Fit {
    Fit {
        epochs,
        batch_size: 32,
        validation: 64,
        quiet: true,
        ..Fit::default()
    }
}

fn pairs(n: usize) -> Pairs {
    few(n).noisy(0.5).unwrap()
}

fn cnn() -> Network {
    let mut cnn = Network::new([28, 28, 1], lesson_cnn()).unwrap().seeded(26);
    cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    cnn
}

fn resumed(folder: &Path, pairs: &Pairs) -> Result<Training<Network>> {
    Network::resume(folder, Loss::BinaryCrossEntropy, pairs)
}

fn weights(network: &Network) -> Vec<Tensor> {
    let layers = network.layers().iter().flat_map(|layer| &layer.weights);
    layers.map(|(_, weight)| weight.copy()).collect()
}

fn notes(folder: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(folder.join("panel.json")).unwrap()).unwrap()
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn it_gives_what_a_blocking_training_gives() {
    let (split, folder) = (pairs(400), tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    let mut blocking = cnn();
    let best = Fit {
        keep: Keep::Best,
        ..config(2)
    };
    let whole = blocking.fit(&split, &best).unwrap();
    let training = cnn().fit_in_background(&split, &config(2), &run).unwrap();
    assert_eq!(training.folder(), run.join("1"));
    let (model, history) = training.wait().unwrap();
    assert_eq!(weights(&model), weights(&blocking));
    assert_eq!(history.batch_losses, whole.batch_losses);
    let notes = notes(&run.join("1"));
    assert_eq!(notes["state"], "done");
    assert!(
        notes["line"]
            .as_str()
            .unwrap()
            .starts_with("Done. 2 epochs")
    );
    for picture in ["preview", "curve"] {
        assert!(
            notes[picture]
                .as_str()
                .unwrap()
                .starts_with("<img src=\"data:image/")
        );
    }
}

#[test]
fn a_stopped_and_resumed_training_ends_as_an_uninterrupted_one() {
    let (split, folder) = (pairs(400), tempfile::tempdir().unwrap());
    let (run, other) = (folder.path().join("run"), folder.path().join("other"));
    // Some layers are frozen: that, too, must come back.
    let frozen = || {
        let mut cnn = cnn();
        cnn.freeze(..).unwrap();
        cnn.unfreeze_last(5).unwrap();
        cnn
    };
    let unbroken = frozen()
        .fit_in_background(&split, &config(3), &other)
        .unwrap();
    let (unbroken, whole) = unbroken.wait().unwrap();
    let training = frozen()
        .fit_in_background(&split, &config(3), &run)
        .unwrap();
    training.stop();
    let (_, part) = training.wait().unwrap();
    assert!(part.stopped && part.batch_losses.len() < whole.batch_losses.len());
    assert_eq!(notes(&run.join("1"))["state"], "stopped");
    let training = resumed(&run, &split).unwrap();
    let (model, history) = training.wait().unwrap();
    assert_eq!(weights(&model), weights(&unbroken));
    assert_eq!(history.batch_losses, whole.batch_losses);
    assert_eq!(model.summary(), unbroken.summary());
    let end = Network::load(run.join("1/end.safetensors")).unwrap();
    assert_eq!(weights(&end), weights(&unbroken));
}

#[test]
fn it_trains_a_copy_that_goes_on_where_the_network_was() {
    let (pairs, folder) = (pairs(200), tempfile::tempdir().unwrap());
    let (run, other) = (folder.path().join("run"), folder.path().join("other"));
    let best = Fit {
        keep: Keep::Best,
        ..config(2)
    };
    let mut network = cnn();
    network.fit(&pairs, &config(1)).unwrap();
    let before = weights(&network);
    let training = network.fit_in_background(&pairs, &config(2), &run).unwrap();
    let (trained, whole) = training.wait().unwrap();
    assert_ne!(weights(&trained), before);
    assert_eq!(weights(&network), before);
    // The same, stopped within its first epoch: with the optimizer's state of the earlier fit it is resumed.
    let training = network.fit_in_background(&pairs, &config(2), &other);
    let training = training.unwrap();
    training.stop();
    training.wait().unwrap();
    let (again, history) = resumed(&other, &pairs).unwrap().wait().unwrap();
    assert_eq!(weights(&again), weights(&trained));
    assert_eq!(history.batch_losses, whole.batch_losses);
    assert_eq!(weights(&network), before);
    // And the network itself goes on as its copy did.
    network.fit(&pairs, &best).unwrap();
    assert_eq!(weights(&network), weights(&trained));
    // So do the networks that came back.
    let [mut trained, mut again] = [trained, again];
    for network in [&mut trained, &mut again, &mut network] {
        network.fit(&pairs, &config(1)).unwrap();
    }
    assert_eq!(weights(&trained), weights(&again));
    assert_eq!(weights(&network), weights(&trained));
}

fn half_of_it(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok(mean_squared_error(prediction, target)? * 0.5)
}

fn whole(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    mean_squared_error(prediction, target)
}

#[test]
fn it_is_resumed_with_what_it_was_begun_with_only() {
    let (pairs, folder) = (pairs(200), tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    let mut network = cnn();
    network.compile(Adam::new(0.001), Loss::Custom(whole));
    let training = network.fit_in_background(&pairs, &config(1), &run);
    training.unwrap().wait().unwrap();
    let loss = Loss::Custom(whole);
    let refused = |loss: Loss, pairs: &Pairs| {
        let error = Network::resume(&run, loss, pairs).unwrap_err();
        format!("{error:#}")
    };
    // What can be told by a name is told at once.
    let error = refused(Loss::MeanSquaredError, &pairs);
    assert!(
        error.contains("the loss \"loss\"") && error.contains("\"mean squared error\""),
        "{error}"
    );
    let error = refused(loss, &few(200).noisy(0.4).unwrap());
    assert!(
        error.contains("strength 0.5") && error.contains("strength 0.4"),
        "{error}"
    );
    let error = refused(loss, &few(200).noisy(0.5).unwrap().fixed());
    assert!(error.contains("drawn once"), "{error}");
    let error = refused(loss, &few(190).noisy(0.5).unwrap());
    assert!(
        error.contains("200 images") && error.contains("190 images"),
        "{error}"
    );
    // Another loss of the same name, and other images, by what the first weights make of the first images.
    let error = refused(Loss::Custom(half_of_it), &pairs);
    assert!(error.contains("another loss or other images"), "{error}");
    let others = Mnist::load().unwrap().test.first(200).unwrap();
    let error = refused(loss, &others.noisy(0.5).unwrap());
    assert!(error.contains("another loss or other images"), "{error}");
    let error = refused(Loss::BinaryCrossEntropy, &few(200).labelled());
    assert!(error.contains("have labels"), "{error}");
    Network::resume(&run, loss, &pairs).unwrap().wait().unwrap();
}

#[test]
fn the_button_of_its_panel_stops_it() {
    let (split, folder) = (pairs(2_000), tempfile::tempdir().unwrap());
    let training = cnn()
        .fit_in_background(&split, &config(50), folder.path().join("run"))
        .unwrap();
    assert!(training.is_running());
    let panel = training.monitor().html().unwrap().to_owned();
    assert!(
        panel.contains("<button") && panel.contains("<script>"),
        "{panel}"
    );
    std::fs::write(training.folder().join("stop"), "stop").unwrap();
    wait_until("it goes on after the button", || !training.is_running());
    let panel = training.monitor().html().unwrap().to_owned();
    assert!(
        !panel.contains("<button") && panel.contains("Stopped."),
        "{panel}"
    );
    assert!(training.wait().unwrap().1.stopped);
}

#[test]
fn a_second_training_in_a_folder_stops_the_first_and_keeps_it() {
    let (split, folder) = (pairs(2_000), tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    let first = cnn().fit_in_background(&split, &config(50), &run).unwrap();
    let error = resumed(&run, &split).unwrap_err();
    assert!(error.to_string().contains("still running"), "{error}");
    let second = cnn().fit_in_background(&split, &config(1), &run).unwrap();
    assert!(!first.is_running());
    let (_, history) = first.wait().unwrap();
    assert!(history.stopped);
    assert!(!second.wait().unwrap().1.stopped);
    let state = |number: &str| {
        notes(&run.join(number))["state"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!([state("1"), state("2")], ["stopped", "done"]);
    // The newest is resumed, or the one that is named; with a slash at the end, too.
    let newest = resumed(&folder.path().join("run/"), &split).unwrap();
    assert_eq!(newest.folder(), run.join("2"));
    drop(newest);
    let older = resumed(&run.join("1"), &split).unwrap();
    assert_eq!(older.folder(), run.join("1"));
    drop(older);
    // A third one overwrites neither.
    let third = cnn()
        .fit_in_background(&split, &config(1), format!("{}/", run.display()))
        .unwrap();
    assert_eq!(third.folder(), run.join("3"));
    assert_eq!(state("2"), "done");
}

#[test]
fn a_training_can_be_waited_for_again_and_leaves_the_network_alone() {
    let (split, folder) = (pairs(200), tempfile::tempdir().unwrap());
    let network = cnn();
    let before = weights(&network);
    let training = network
        .fit_in_background(&split, &config(1), folder.path().join("run"))
        .unwrap();
    let (mut once, history) = training.wait().unwrap();
    let (again, same) = training.wait().unwrap();
    assert_eq!((weights(&once), history), (weights(&again), same));
    once.fit(&split, &config(1)).unwrap();
    assert_ne!(weights(&once), weights(&again));
    assert_eq!(weights(&network), before);
    // A divergence does not change it either, and is told each time.
    let mut network = cnn();
    network.compile(Adam::new(1e30), Loss::BinaryCrossEntropy);
    let training = network
        .fit_in_background(&split, &config(1), folder.path().join("run"))
        .unwrap();
    for _ in 0..2 {
        let error = training.wait().unwrap_err().to_string();
        assert!(error.contains("training has diverged"), "{error}");
    }
    assert_eq!(weights(&network), before);
    assert_eq!(notes(training.folder())["state"], "failed");
    // What it gave back at its end is in the folder.
    let end = Network::load(training.folder().join("end.safetensors")).unwrap();
    assert_eq!(weights(&end), before);
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// The checks before the first batch are five calls.
fn panics_in_the_second_batch(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    if CALLS.fetch_add(1, Ordering::Relaxed) > 5 {
        let _ = prediction.reshape([7, 7]);
    }
    mean_squared_error(prediction, target)
}

#[test]
fn a_training_that_panics_ends_its_panel() {
    let (split, folder) = (pairs(400), tempfile::tempdir().unwrap());
    let mut network = cnn();
    network.compile(Adam::new(0.001), Loss::Custom(panics_in_the_second_batch));
    let fit = Fit {
        threads: 1,
        ..config(1)
    };
    let training = network
        .fit_in_background(&split, &fit, folder.path().join("run"))
        .unwrap();
    let error = training.wait().unwrap_err().to_string();
    assert!(
        error.contains("panicked") && error.contains("shape '[7, 7]' is invalid"),
        "{error}"
    );
    let notes = notes(training.folder());
    assert_eq!(notes["state"], "failed");
    assert!(
        notes["line"].as_str().unwrap().contains("panicked"),
        "{notes}"
    );
}

#[test]
fn it_goes_on_with_another_number_of_threads_and_in_another_precision() {
    let (split, folder) = (pairs(300), tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    let training = cnn().fit_in_background(&split, &config(2), &run).unwrap();
    training.stop();
    training.wait().unwrap();
    // As if it had begun on another machine.
    let path = run.join("1/run.json");
    let mut record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for place in ["/threads", "/fit/threads"] {
        *record.pointer_mut(place).unwrap() = 64.into();
    }
    let other = match Precision::of_this_cpu() {
        Precision::Mixed => "Float32",
        Precision::Float32 => "Mixed",
    };
    for place in ["/precision", "/fit/precision"] {
        *record.pointer_mut(place).unwrap() = other.into();
    }
    std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    let (_, history) = resumed(&run, &split).unwrap().wait().unwrap();
    assert_eq!(history.epochs.len(), 2);
    assert_eq!(history.plan.precision, Precision::of_this_cpu());
}

#[test]
fn it_is_resumed_at_any_moment_on_one_and_on_two_threads() {
    let (split, folder) = (pairs(300), tempfile::tempdir().unwrap());
    for threads in 1..=threads().min(2) {
        let fit = Fit {
            threads,
            moving_average: Some(0.9),
            ..config(8)
        };
        let begin = |name: &str| {
            let folder = folder.path().join(format!("{name}-{threads}"));
            cnn().fit_in_background(&split, &fit, folder).unwrap()
        };
        let started = Instant::now();
        let (whole, course) = begin("whole").wait().unwrap();
        let time = started.elapsed();
        let mut rng = Rng::new(threads as u64);
        let mut training = begin("broken");
        let mut ends = Vec::new();
        for _ in 0..10 {
            std::thread::sleep(time.mul_f64(0.15 * rng.share()));
            training.stop();
            let (_, history) = training.wait().unwrap();
            ends.push((history.epochs.len(), history.batch_losses.len()));
            training = resumed(training.folder(), &split).unwrap();
        }
        let (network, history) = training.wait().unwrap();
        assert_eq!(history.batch_losses, course.batch_losses, "{ends:?}");
        assert_eq!(weights(&network), weights(&whole), "{ends:?}");
        ends.dedup();
        assert!(
            ends.len() >= 5,
            "all stops were at the same moment: {ends:?}"
        );
    }
}

#[test]
fn what_is_dropped_ends() {
    let (split, folder) = (pairs(2_000), tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    drop(cnn().fit_in_background(&split, &config(50), &run).unwrap());
    assert_eq!(notes(&run.join("1"))["state"], "stopped");
}

#[test]
fn what_cannot_be_trained_or_resumed_is_named() {
    let (split, folder) = (pairs(200), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name);
    let begin = |config: &Fit, name: &str| {
        format!(
            "{:#}",
            cnn()
                .fit_in_background(&split, config, path(name))
                .unwrap_err()
        )
    };
    assert!(begin(&config(0), "a").contains("the number of epochs is 0"));
    let mut zero = cnn();
    zero.compile(Adam::new(0.0), Loss::BinaryCrossEntropy);
    let zero = zero.fit_in_background(&split, &config(1), path("b"));
    let zero = format!("{:#}", zero.unwrap_err());
    assert!(zero.contains("learning rate is 0"), "{zero}");
    assert!(
        !path("a").exists() && !path("b").exists(),
        "nothing is left behind"
    );
    std::fs::create_dir(path("mine")).unwrap();
    std::fs::write(path("mine").join("thesis.txt"), "years of work").unwrap();
    let error = begin(&config(1), "mine");
    assert!(
        error.contains("holds thesis.txt, which is no training: choose another"),
        "{error}"
    );
    std::fs::create_dir(path("old")).unwrap();
    std::fs::write(path("old").join("settings.json"), "{}").unwrap();
    let error = begin(&config(1), "old");
    assert!(
        error.contains("earlier version of this lesson: delete the folder"),
        "{error}"
    );
    let error = begin(&config(1), "mine/thesis.txt");
    assert!(
        error.contains("cannot make a folder for the training in"),
        "{error}"
    );
    assert!(path("mine").join("thesis.txt").exists());

    let refused = |name: &str| format!("{:#}", resumed(&path(name), &split).unwrap_err());
    assert!(refused("nowhere").contains("nowhere holds no training"));
    cnn()
        .fit_in_background(&split, &config(1), path("run"))
        .unwrap()
        .wait()
        .unwrap();
    let unet = Unet::resume(path("run"), noise_loss, &few(200)).unwrap_err();
    let error = unet.to_string();
    assert!(
        error.contains("of kind \"network\"; expected \"unet\""),
        "{error}"
    );
    assert!(refused("old").contains("earlier version of this lesson"));
    // What a killed process left behind does not stay.
    let left = path("run").join("1/checkpoint.safetensors.77.part");
    std::fs::write(&left, "half a file").unwrap();
    drop(resumed(&path("run"), &split).unwrap());
    assert!(!left.exists());
    // A training that ended while it began is no training.
    std::fs::create_dir(path("run").join("2")).unwrap();
    let newest = resumed(&path("run"), &split).unwrap();
    assert_eq!(newest.folder(), path("run").join("1"));
    drop(newest);
    std::fs::write(path("run").join("2/lock"), "").unwrap();
    assert!(refused("run/2").contains("its training ended while it began"));
    let checkpoint = path("run").join("1/checkpoint.safetensors");
    let bytes = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    assert!(refused("run").contains("truncated"));
    cnn().save(&checkpoint).unwrap();
    assert!(refused("run").contains("holds no training's state"));
    std::fs::write(path("run").join("1/run.json"), "{").unwrap();
    assert!(refused("run").contains("does not say what was trained"));
}

fn noised(unet: &Unet, batch: &Batch) -> (Tensor, Vec<usize>, Tensor) {
    let (t, eps) = (batch.timesteps(unet.schedule()), batch.noise());
    let x_t = unet.schedule().q_sample(&centred(&batch.images), &t, &eps);
    (x_t.unwrap(), t, eps)
}

fn without_labels(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    let (x_t, t, eps) = noised(unet, batch);
    mean_squared_error(&unet.predict(&x_t, &t, &[None])?, &eps)
}

fn at_one_timestep(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    let (x_t, _, eps) = noised(unet, batch);
    mean_squared_error(
        &unet.predict(&x_t, &[0], &batch.labels_dropped(0.1)?)?,
        &eps,
    )
}

fn all_labels(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    let (x_t, t, eps) = noised(unet, batch);
    mean_squared_error(&unet.predict(&x_t, &t, &batch.labels)?, &eps)
}

#[test]
fn a_unets_training_shows_what_it_draws() {
    let (split, folder) = (few(200), tempfile::tempdir().unwrap());
    let mut unet = Unet::new(UnetConfig {
        width: 16,
        schedule: Schedule::cosine(100).unwrap(),
        ..UnetConfig::default()
    })
    .unwrap();
    unet.compile(Adam::new(0.001), noise_loss);
    let run = folder.path().join("run");
    let training = unet.fit_in_background(&split, &config(1), &run).unwrap();
    let (trained, _) = training.wait().unwrap();
    let preview = notes(training.folder())["preview"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(preview.contains("as the network draws it now"), "{preview}");
    assert_eq!(trained.schedule().steps(), 100);
    let again = Unet::resume(&run, noise_loss, &split).unwrap();
    let (again, _) = again.wait().unwrap();
    let of = |unet: &Unet| unet.layers()[1].weight("kernel").unwrap();
    assert_eq!(of(&again), of(&trained));
    // An untrained U-Net says "no noise" whatever it sees, and yet other images, labels, timesteps and losses are noticed.
    let others = Mnist::load().unwrap().test.first(200).unwrap();
    let mut labels = split.labels(200).unwrap();
    labels.rotate_left(1);
    let permuted = Split::of(&split.images(200).unwrap(), &labels).unwrap();
    let cases: [(diffusion::unet::UnetLoss, &Split); 5] = [
        (noise_loss, &others),
        (noise_loss, &permuted),
        (without_labels, &split),
        (at_one_timestep, &split),
        (all_labels, &split),
    ];
    for (at, (loss, images)) in cases.into_iter().enumerate() {
        let error = Unet::resume(&run, loss, images).unwrap_err().to_string();
        assert!(
            error.contains("another loss or other images"),
            "{at}: {error}"
        );
    }
}

/// Set in a process that is killed while it trains.
const KILLED: &str = "TRAINS_UNTIL_IT_IS_KILLED_IN";

#[test]
fn a_process_that_is_killed_loses_one_epoch_at_most() {
    let (split, fit) = (pairs(300), config(4));
    if let Some(folder) = std::env::var_os(KILLED) {
        let training = cnn().fit_in_background(&split, &fit, folder);
        training.unwrap().wait().unwrap();
        std::thread::sleep(Duration::from_secs(600));
    }
    let folder = tempfile::tempdir().unwrap();
    let (whole, course) = cnn()
        .fit_in_background(&split, &fit, folder.path().join("whole"))
        .unwrap()
        .wait()
        .unwrap();
    let mut rng = Rng::new(3);
    for at in 0..5 {
        let run = folder.path().join(format!("killed-{at}"));
        let mut process = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_process_that_is_killed_loses_one_epoch_at_most",
            ])
            .env(KILLED, &run)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait_until("no training begins", || run.join("1/run.json").exists());
        std::thread::sleep(Duration::from_secs_f64(course.seconds() * rng.share()));
        process.kill().unwrap();
        process.wait().unwrap();
        let (network, history) = resumed(&run, &split).unwrap().wait().unwrap();
        assert_eq!(history.batch_losses, course.batch_losses);
        assert_eq!(weights(&network), weights(&whole));
    }
}

#[test]
fn a_disk_that_takes_no_more_ends_the_training_with_an_error_and_the_last_epoch_stays() {
    let (split, folder) = (pairs(2_000), tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    let training = cnn().fit_in_background(&split, &config(50), &run).unwrap();
    let first_epoch = || {
        notes(&run.join("1"))["line"]
            .as_str()
            .unwrap()
            .contains("epoch 1/50")
    };
    wait_until("no epoch ends", first_epoch);
    // The folder is gone, and nothing can be written there.
    let aside = folder.path().join("aside");
    std::fs::rename(run.join("1"), &aside).unwrap();
    std::fs::write(run.join("1"), "").unwrap();
    let error = format!("{:#}", training.wait().unwrap_err());
    assert!(
        error.contains("training ended here") && error.contains("run/1"),
        "{error}"
    );
    std::fs::remove_file(run.join("1")).unwrap();
    std::fs::rename(&aside, run.join("1")).unwrap();
    let again = resumed(&run, &split).unwrap();
    again.stop();
    let (_, history) = again.wait().unwrap();
    assert!(!history.epochs.is_empty());
}
