//! Training in the background can be watched, stopped and resumed, and nothing is lost.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use diffusion::prelude::*;
use diffusion::train::Supervised;

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
    Training::resume(folder, Adam::new(0.001), Loss::BinaryCrossEntropy, pairs)
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
    assert_eq!(training.folder(), run);
    let (model, history) = training.wait().unwrap();
    assert_eq!(weights(&model), weights(&blocking));
    assert_eq!(history.batch_losses, whole.batch_losses);
    let notes = notes(&run);
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
    assert_eq!(notes(&run)["state"], "stopped");
    let training = resumed(&run, &split).unwrap();
    let (model, history) = training.wait().unwrap();
    assert_eq!(weights(&model), weights(&unbroken));
    assert_eq!(history.batch_losses, whole.batch_losses);
    assert_eq!(model.summary(), unbroken.summary());
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

#[test]
fn it_is_resumed_with_what_it_was_begun_with_only() {
    let (pairs, folder) = (pairs(200), tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    let training = cnn().fit_in_background(&pairs, &config(1), &run);
    training.unwrap().wait().unwrap();
    let (adam, entropy) = (Adam::new(0.001), Loss::BinaryCrossEntropy);
    let other_noise = few(200).noisy(0.4).unwrap();
    let fixed = few(200).noisy(0.5).unwrap().fixed();
    let others: [(Optimizer, Loss, &Pairs); 5] = [
        (Adam::new(0.002).into(), entropy, &pairs),
        (Sgd::new(0.001).into(), entropy, &pairs),
        (adam.into(), Loss::MeanSquaredError, &pairs),
        (adam.into(), entropy, &other_noise),
        (adam.into(), entropy, &fixed),
    ];
    for (optimizer, loss, pairs) in others {
        let training = Training::resume(&run, optimizer, loss, pairs).unwrap();
        let error = format!("{:#}", training.wait().unwrap_err());
        assert!(error.contains("of another training"), "{error}");
    }
    assert!(resumed(&run, &pairs).unwrap().wait().is_ok());
    let labels = few(200).labelled();
    let error = Training::resume(&run, adam, entropy, &labels).unwrap_err();
    assert!(error.to_string().contains("have labels"), "{error}");
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
fn a_second_training_in_a_folder_stops_the_first_and_moves_it_aside() {
    let (split, folder) = (pairs(2_000), tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    let first = cnn().fit_in_background(&split, &config(50), &run).unwrap();
    let error = resumed(&run, &split).unwrap_err();
    assert!(error.to_string().contains("still running"), "{error}");
    let second = cnn().fit_in_background(&split, &config(1), &run).unwrap();
    assert!(!first.is_running() && first.wait().unwrap().1.stopped);
    assert!(!second.wait().unwrap().1.stopped);
    assert_eq!(notes(&folder.path().join("run.before"))["state"], "stopped");
}

#[test]
fn what_is_dropped_ends() {
    let (split, folder) = (pairs(2_000), tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    drop(cnn().fit_in_background(&split, &config(50), &run).unwrap());
    assert_eq!(notes(&run)["state"], "stopped");
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
    assert!(begin(&config(1), "mine").contains("holds no training: choose another folder"));
    assert!(path("mine").join("thesis.txt").exists());

    let refused = |name: &str| format!("{:#}", resumed(&path(name), &split).unwrap_err());
    assert!(refused("nowhere").contains("nowhere holds no training"));
    cnn()
        .fit_in_background(&split, &config(1), path("run"))
        .unwrap()
        .wait()
        .unwrap();
    let unet = Training::<UnetDenoiser>::resume_with(
        path("run"),
        &few(200),
        |fit| {
            let adam = Adam::new(0.001);
            Supervised::of(&split, adam, Loss::BinaryCrossEntropy, fit.precision)
        },
        |_| Ok(|_: &UnetDenoiser| Ok(Output::plain(""))),
    )
    .unwrap_err();
    assert!(
        unet.to_string()
            .contains("of kind \"network\"; expected \"unet_denoiser\""),
        "{unet}"
    );
    let fewer = resumed(&path("run"), &pairs(190))
        .unwrap()
        .wait()
        .unwrap_err();
    assert!(
        format!("{fewer:#}").contains("of another training"),
        "{fewer:#}"
    );
    std::fs::write(path("run").join("settings.json"), "{").unwrap();
    assert!(refused("run").contains("is not a training's settings"));
}

#[test]
fn a_unets_training_shows_what_it_draws() {
    let (split, folder) = (few(200), tempfile::tempdir().unwrap());
    let schedule = Schedule::cosine(100).unwrap();
    let unet = Unet::new(UnetConfig {
        width: 16,
        ..UnetConfig::default()
    })
    .unwrap();
    let config = config(1);
    let objective = NoisePrediction::of(&config, &schedule, 0.1).unwrap();
    let preview = digits_drawn(&schedule, &Sampler::ddim(2));
    let run = folder.path().join("run");
    let training = fit_with_in_background(unet, &split, objective, &config, preview, &run).unwrap();
    training.wait().unwrap();
    assert!(
        notes(&run)["preview"]
            .as_str()
            .unwrap()
            .contains("as the network draws it now")
    );
    let again = Training::<Unet>::resume_with(
        &run,
        &split,
        |config| NoisePrediction::of(config, &schedule, 0.1),
        |_| Ok(digits_drawn(&schedule, &Sampler::ddim(2))),
    );
    assert!(again.unwrap().wait().is_ok());
}
