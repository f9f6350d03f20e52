//! Training in the background can be watched, stopped and resumed, and nothing is lost.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use diffusion::prelude::*;

fn few(n: usize) -> Split {
    Mnist::load().unwrap().train.first(n).unwrap()
}

fn config(epochs: usize) -> FitConfig {
    FitConfig {
        epochs,
        batch_size: 32,
        validation: 64,
        quiet: true,
        ..FitConfig::default()
    }
}

fn cnn() -> Cnn {
    Cnn::new(CnnConfig::default())
}

fn weights(model: &impl Model) -> Vec<Tensor> {
    let layers = model.layers().iter().flat_map(|layer| &layer.weights);
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
    let (split, folder) = (few(400), tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    let mut blocking = cnn();
    let best = FitConfig {
        keep: Keep::Best,
        ..config(2)
    };
    let whole = fit(&mut blocking, &split, &best).unwrap();
    let training = fit_in_background(cnn(), &split, &config(2), &run).unwrap();
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
    let (split, folder) = (few(400), tempfile::tempdir().unwrap());
    let (run, other) = (folder.path().join("run"), folder.path().join("other"));
    // Some layers are frozen: that, too, must come back.
    let frozen = || {
        let mut cnn = cnn();
        cnn.freeze(..).unwrap();
        cnn.unfreeze_last(5).unwrap();
        cnn
    };
    let unbroken = fit_in_background(frozen(), &split, &config(3), &other).unwrap();
    let (unbroken, whole) = unbroken.wait().unwrap();
    let training = fit_in_background(frozen(), &split, &config(3), &run).unwrap();
    training.stop();
    let (_, part) = training.wait().unwrap();
    assert!(part.stopped && part.batch_losses.len() < whole.batch_losses.len());
    assert_eq!(notes(&run)["state"], "stopped");
    let training = Training::<Cnn>::resume(&run, &split).unwrap();
    let (model, history) = training.wait().unwrap();
    assert_eq!(weights(&model), weights(&unbroken));
    assert_eq!(history.batch_losses, whole.batch_losses);
    assert_eq!(model.summary(), unbroken.summary());
}

#[test]
fn the_button_of_its_panel_stops_it() {
    let (split, folder) = (few(2_000), tempfile::tempdir().unwrap());
    let training =
        fit_in_background(cnn(), &split, &config(50), folder.path().join("run")).unwrap();
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
    let (split, folder) = (few(2_000), tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    let first = fit_in_background(cnn(), &split, &config(50), &run).unwrap();
    let error = Training::<Cnn>::resume(&run, &split).unwrap_err();
    assert!(error.to_string().contains("still running"), "{error}");
    let second = fit_in_background(cnn(), &split, &config(1), &run).unwrap();
    assert!(!first.is_running() && first.wait().unwrap().1.stopped);
    assert!(!second.wait().unwrap().1.stopped);
    assert_eq!(notes(&folder.path().join("run.before"))["state"], "stopped");
}

#[test]
fn what_is_dropped_ends() {
    let (split, folder) = (few(2_000), tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    drop(fit_in_background(cnn(), &split, &config(50), &run).unwrap());
    assert_eq!(notes(&run)["state"], "stopped");
}

#[test]
fn what_cannot_be_trained_or_resumed_is_named() {
    let (split, folder) = (few(200), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name);
    let begin = |config: &FitConfig, name: &str| {
        format!(
            "{:#}",
            fit_in_background(cnn(), &split, config, path(name)).unwrap_err()
        )
    };
    assert!(begin(&config(0), "a").contains("the number of epochs is 0"));
    let noisy = FitConfig {
        noise: -1.0,
        ..config(1)
    };
    assert!(begin(&noisy, "b").contains("noise level is -1"));
    assert!(
        !path("a").exists() && !path("b").exists(),
        "nothing is left behind"
    );
    std::fs::create_dir(path("mine")).unwrap();
    std::fs::write(path("mine").join("thesis.txt"), "years of work").unwrap();
    assert!(begin(&config(1), "mine").contains("holds no training: choose another folder"));
    assert!(path("mine").join("thesis.txt").exists());

    let resumed = |name: &str| {
        format!(
            "{:#}",
            Training::<Cnn>::resume(path(name), &split).unwrap_err()
        )
    };
    assert!(resumed("nowhere").contains("nowhere holds no training"));
    fit_in_background(cnn(), &split, &config(1), path("run"))
        .unwrap()
        .wait()
        .unwrap();
    let unet = Training::<UnetDenoiser>::resume(path("run"), &split).unwrap_err();
    assert!(
        unet.to_string()
            .contains("of kind \"cnn\"; expected \"unet_denoiser\""),
        "{unet}"
    );
    let fewer = Training::<Cnn>::resume(path("run"), &few(190))
        .unwrap()
        .wait()
        .unwrap_err();
    assert!(
        format!("{fewer:#}").contains("of another training"),
        "{fewer:#}"
    );
    std::fs::write(path("run").join("settings.json"), "{").unwrap();
    assert!(resumed("run").contains("is not a training's settings"));
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
