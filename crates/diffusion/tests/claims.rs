//! What the notebooks say about the weights that come with the lesson.
#![allow(clippy::unwrap_used)]

use diffusion::prelude::*;
use diffusion::scores::diversity;

fn weights(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../notebooks/weights");
    format!("{folder}/{name}.safetensors")
}

fn network(name: &str) -> Network {
    Network::load(weights(name)).unwrap()
}

fn unet(name: &str) -> Unet {
    Unet::load(weights(name)).unwrap()
}

#[test]
fn an_untrained_network_has_the_loss_of_a_half() {
    // Notebook 2.
    let mnist = Mnist::load().unwrap();
    let cnn = Network::new([28, 28, 1], lesson_cnn()).unwrap().seeded(26);
    let images = mnist.test.images(100).unwrap();
    let loss = binary_cross_entropy(&cnn.logits(&images).unwrap(), &images).unwrap();
    assert!((loss.double_value(&[]) - 2f64.ln()).abs() < 0.02);
}

#[test]
fn on_the_plateau_the_network_gives_every_image_the_same_answer() {
    // Notebook 3.
    let mnist = Mnist::load().unwrap();
    let mut young = Network::new([28, 28, 1], lesson_cnn()).unwrap().seeded(26);
    young.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    let first_40 = mnist.train.first(40 * 128).unwrap().noisy(0.5).unwrap();
    let fit = Fit {
        validation: 0,
        quiet: true,
        ..Fit::default()
    };
    young.fit(&first_40, &fit).unwrap();
    let clean = mnist.test.one_of_each().unwrap();
    let variety = |x: &Tensor| {
        let deviation = x.std_dim([0i64].as_slice(), true, false);
        deviation.mean(Kind::Float).double_value(&[])
    };
    set_seed(1);
    let answers = young.predict(&add_noise(&clean, 0.5).unwrap()).unwrap();
    let (ours, real) = (variety(&answers), variety(&clean));
    assert!(ours < 0.1 * real, "{ours} {real}");
}

#[test]
fn the_cnn_beats_filters_at_its_noise_and_not_doing_nothing_at_weak_noise() {
    // Notebook 4.
    let mnist = Mnist::load().unwrap();
    let (cnn, test) = (network("cnn"), mnist.test.first(1_000).unwrap());
    let psnr = |level: f64, denoise: &dyn Fn(&Tensor) -> Result<Tensor>| {
        Scores::of(&test, level, denoise).unwrap().psnr
    };
    // Half a bell of deviation 0.5 has the mean 0.195 once it is clipped at 1.
    let stretched = |x: Tensor| ((x - 0.195) / (1.0 - 2.0 * 0.195)).clamp(0.0, 1.0);
    let filter = psnr(0.5, &|x| Ok(stretched(gaussian_filter(x, 0.9)?)));
    let raw_filter = psnr(0.5, &|x| gaussian_filter(x, 0.9));
    let once = psnr(0.5, &|x| cnn.predict(x));
    let twice = psnr(0.5, &|x| cnn.predict(&cnn.predict(x)?));
    assert!(filter > raw_filter + 0.5, "{filter} {raw_filter}");
    assert!(once > filter + 2.0, "{once} {filter}");
    assert!(twice < once - 0.1, "{twice} {once}");
    let untouched = psnr(0.05, &|x| Ok(x.shallow_clone()));
    assert!(psnr(0.05, &|x| cnn.predict(x)) < untouched);
}

#[test]
fn generated_digits_are_read_new_and_nearer_to_real_ones_than_denoised_noise() {
    // Notebooks 1 and 6.
    let mnist = Mnist::load().unwrap();
    let (classifier, unet, cnn) = (network("classifier"), unet("unet"), network("cnn"));
    let labels = mnist.train.labels(200).unwrap();
    let sampler = Sampler::ddim(25).seeded(7);
    let drawn = sample(&unet, &with_labels(&labels), &sampler)
        .unwrap()
        .images;
    let reference = Reference::new(&classifier, &mnist.train, &mnist.test, 200).unwrap();
    let scores = reference.evaluate(&drawn, &labels).unwrap();
    assert!(scores.accuracy > 0.85, "{scores:?}");
    assert!(scores.copies < 0.06, "{scores:?}");
    assert!((0.85..1.25).contains(&scores.diversity), "{scores:?}");
    let real = reference.of_real(&mnist.test).unwrap();
    set_seed(5);
    let noise = Tensor::randn([200, 1, 28, 28], (Kind::Float, Device::Cpu)).clamp(0.0, 1.0);
    let smears = cnn.predict(&noise).unwrap();
    let smears = reference.evaluate(&smears, &labels).unwrap();
    // So many images cannot tell the new ones from real ones, but smears from both.
    assert!(smears.distance > 0.3, "{smears:?}");
    for near in [real, scores] {
        assert!(
            near.distance.abs() < 0.2 * smears.distance,
            "{near:?} {smears:?}"
        );
    }
}

#[test]
fn few_steps_of_ddim_give_the_same_digits_and_guidance_trades_variety_for_accuracy() {
    // Notebook 7.
    let (unet, classifier) = (unet("unet"), network("classifier"));
    let mnist = Mnist::load().unwrap();
    let ten = with_labels(&balanced_classes(10));
    let drawn = |sampler: Sampler| sample(&unet, &ten, &sampler.seeded(3)).unwrap().images;
    let hundred = drawn(Sampler::ddim(100));
    let near = |images: &Tensor| mean_psnr(&hundred, images).unwrap();
    let (ddim, ddpm) = (
        near(&drawn(Sampler::ddim(10))),
        near(&drawn(Sampler::ddpm(10))),
    );
    assert!(ddim > ddpm + 3.0, "{ddim} {ddpm}");

    let requested = balanced_classes(100);
    let at = |strength| {
        let sampler = Sampler::ddim(25).guided(strength).seeded(8);
        let images = sample(&unet, &with_labels(&requested), &sampler)
            .unwrap()
            .images;
        let accuracy = class_accuracy(&classifier, &images, &requested).unwrap();
        (
            accuracy,
            diversity(&classifier, &images, &requested, &mnist.test).unwrap(),
        )
    };
    let (without, with) = (at(0.0), at(4.0));
    assert!(
        with.0 >= without.0 && with.1 < without.1,
        "{without:?} {with:?}"
    );
}

#[test]
fn denoisers_rank_as_the_last_notebook_says() {
    // Notebook 8.
    let mnist = Mnist::load().unwrap();
    let (unet, denoiser, cnn) = (unet("unet"), unet("unet_denoiser"), network("cnn"));
    let clean = mnist.test.images(100).unwrap();
    let by_diffusion = |noisy: &Tensor, level: f64| {
        let beyond = noisy.randn_like().abs() * level;
        let start = noisy - &beyond * noisy.le(0.0) + &beyond * noisy.ge(1.0);
        let t = unet.schedule().step_of_noise(level).unwrap();
        let sampler = Sampler::ddim(10).from_noisy(&start, t);
        sample(&unet, &[None], &sampler).unwrap().images
    };
    let mean_of_8 = |noisy: &Tensor, level: f64| {
        (0..8).fold(noisy.zeros_like(), |sum, _| {
            sum + by_diffusion(noisy, level) / 8.0
        })
    };
    let psnr = |images: &Tensor| mean_psnr(&clean, images).unwrap();
    set_seed(2);
    let noisy = add_noise(&clean, 0.5).unwrap();
    let (one, eight) = (
        psnr(&by_diffusion(&noisy, 0.5)),
        psnr(&mean_of_8(&noisy, 0.5)),
    );
    let in_one_step = denoiser.predict(&centred(&noisy), &[0], &[None]).unwrap();
    let one_step = psnr(&in_one_step.sigmoid());
    let by_cnn = psnr(&cnn.predict(&noisy).unwrap());
    assert!(
        eight > one + 0.1 && one_step > eight && one_step > by_cnn,
        "{one} {eight} {one_step} {by_cnn}"
    );
    let weak = add_noise(&clean, 0.05).unwrap();
    assert!(psnr(&cnn.predict(&weak).unwrap()) < psnr(&weak));
    assert!(psnr(&mean_of_8(&weak, 0.05)) > psnr(&weak));
}
