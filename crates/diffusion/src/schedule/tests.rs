use super::*;
use tch::Device;

#[test]
fn schedules_are_monotone_and_between_0_and_1() {
    for steps in [1, 2, 7, 100, 1000] {
        for schedule in [Schedule::linear(steps), Schedule::cosine(steps)] {
            let schedule = schedule.unwrap();
            let mut before = 1.0;
            for t in 0..steps {
                let (beta, alpha_bar) = (schedule.betas()[t], schedule.alpha_bar()[t]);
                assert!(beta > 0.0 && beta < 1.0 && alpha_bar > 0.0 && alpha_bar < before);
                before = alpha_bar;
            }
            assert_eq!(schedule.posterior_variance()[0], 0.0);
        }
    }
}

#[test]
fn the_cosine_is_its_closed_form_until_betas_are_cut_off() {
    let schedule = Schedule::cosine(1000).unwrap();
    let f = |t: f64| {
        ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2)
            .cos()
            .powi(2)
    };
    for t in 0..990 {
        let expected = f((t + 1) as f64 / 1000.0) / f(0.0);
        assert!((schedule.alpha_bar()[t] - expected).abs() < 1e-12);
    }
    assert_eq!(schedule.betas()[999], 0.999);
}

#[test]
fn alpha_bar_and_betas_lead_to_each_other() {
    let schedule = Schedule::linear(50).unwrap();
    let again = Schedule::from_alpha_bar(schedule.alpha_bar().clone()).unwrap();
    for t in 0..50 {
        assert!((schedule.betas()[t] - again.betas()[t]).abs() < 1e-14);
    }
}

#[test]
fn q_sample_has_its_closed_form_mean_and_variance() {
    let schedule = Schedule::cosine(1000).unwrap();
    tch::manual_seed(3);
    let double = (Kind::Double, Device::Cpu);
    let x0 = Tensor::full([3, 400_000], 0.6, double);
    let eps = Tensor::randn([3, 400_000], double);
    let steps = [10, 500, 990];
    let x = schedule.q_sample(&x0, &steps, &eps).unwrap();
    for (row, &t) in steps.iter().enumerate() {
        let (alpha_bar, x) = (schedule.alpha_bar()[t], x.get(row as i64));
        // 400,000 draws: a standard error of 0.0016 of the deviation, and 0.0022 of the variance.
        let mean = x.mean(Kind::Double).double_value(&[]);
        assert!((mean - 0.6 * alpha_bar.sqrt()).abs() < 0.008 * (1.0 - alpha_bar).sqrt());
        let variance = x.var(true).double_value(&[]);
        assert!((variance / (1.0 - alpha_bar) - 1.0).abs() < 0.011);
    }
}

#[test]
fn a_step_for_all_images_is_one_for_each() {
    let schedule = Schedule::linear(10).unwrap();
    let x0 = Tensor::rand([3, 1, 28, 28], (Kind::Float, Device::Cpu));
    let eps = x0.randn_like();
    let one = schedule.q_sample(&x0, &[4], &eps).unwrap();
    assert_eq!(one, schedule.q_sample(&x0, &[4, 4, 4], &eps).unwrap());
}

#[test]
fn timesteps_are_evenly_spaced_from_the_noisiest_to_the_first() {
    let schedule = Schedule::cosine(1000).unwrap();
    let numbers = |steps: Vec<(Timestep, Timestep)>| -> Vec<usize> {
        steps.iter().map(|(now, _)| now.t).collect()
    };
    let of = |count| numbers(schedule.timesteps(count).unwrap());
    assert_eq!(of(5), [999, 749, 500, 250, 0]);
    assert_eq!(of(1000), (0..1000).rev().collect::<Vec<_>>());
    assert_eq!(of(1), [999]);
    let from = |t| numbers(schedule.timesteps_from(t, 5).unwrap());
    assert_eq!(from(600), [600, 500, 250, 0]);
    assert_eq!(from(500), [500, 250, 0]);
    assert_eq!(from(0), [0]);
    assert!(schedule.timesteps_from(1000, 5).is_err());
}

#[test]
fn each_step_leads_to_the_next_and_the_last_to_the_image() {
    let schedule = Schedule::linear(100).unwrap();
    let steps = schedule.timesteps(10).unwrap();
    for (at, (now, next)) in steps.iter().enumerate() {
        assert!((now.alpha.powi(2) - schedule.alpha_bar()[now.t]).abs() < 1e-15);
        assert!((now.alpha.powi(2) + now.sigma.powi(2) - 1.0).abs() < 1e-15);
        match steps.get(at + 1) {
            Some((following, _)) => assert_eq!(next, following),
            None => assert!(next.is_image() && next.alpha == 1.0),
        }
    }
    // Over all steps it is the root of Ho et al.'s posterior variance.
    for ((now, next), variance) in schedule
        .timesteps(100)
        .unwrap()
        .iter()
        .zip(schedule.posterior_variance().iter().rev())
    {
        assert!((now.posterior_deviation(next).powi(2) - variance).abs() < 1e-14);
    }
}

#[test]
fn a_file_says_which_schedule_it_is() {
    let own = Schedule::from_betas(ndarray::array![0.1, 0.123_456_789_012_345_67]).unwrap();
    let other = Schedule::from_alpha_bar(ndarray::array![0.9, 1.0 / 3.0]).unwrap();
    for schedule in [
        Schedule::linear(30).unwrap(),
        Schedule::cosine(40).unwrap(),
        own,
        other,
    ] {
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(
            serde_json::from_str::<Schedule>(&text).unwrap(),
            schedule,
            "{text}"
        );
    }
    let cosine = serde_json::to_string(&Schedule::cosine(1000).unwrap()).unwrap();
    assert_eq!(cosine, r#"{"cosine":1000}"#);
    assert!(serde_json::from_str::<Schedule>(r#"{"cosine":0}"#).is_err());
}

#[test]
fn noise_finds_its_step() {
    let schedule = Schedule::cosine(1000).unwrap();
    let t = schedule.step_of_noise(0.5).unwrap();
    assert!((schedule.noise_level()[t] - 1.0).abs() < 0.01);
    assert!(schedule.step_of_noise(0.0).is_err());
}

#[test]
fn what_makes_no_sense_is_named() {
    let text = |error: Result<Schedule>| error.unwrap_err().to_string();
    assert!(text(Schedule::linear(0)).contains("0 steps"));
    assert!(text(Schedule::cosine(0)).contains("0 steps"));
    let betas = |values: &[f64]| Schedule::from_betas(Array1::from(values.to_vec()));
    assert!(text(betas(&[0.1, 1.5])).contains("step 1 is 1.5"));
    assert!(text(betas(&[0.1, f64::NAN])).contains("NaN"));
    assert!(text(betas(&[0.9; 100])).contains("fewer steps"));
    assert!(text(betas(&[1e-17])).contains("fewer steps"));
    assert!(text(Schedule::linear(100_000)).contains("fewer steps"));
    let from_alpha_bar = |values: &[f64]| Schedule::from_alpha_bar(Array1::from(values.to_vec()));
    assert!(text(from_alpha_bar(&[0.9, 0.95])).contains("step 1 is 0.95, and 0.9 before it"));
    assert!(text(from_alpha_bar(&[0.9, 0.0])).contains("step 1 is 0"));
    let schedule = Schedule::linear(10).unwrap();
    let zeros = Tensor::zeros([2, 4], (Kind::Float, Device::Cpu));
    let error = |t: &[usize]| {
        schedule
            .q_sample(&zeros, t, &zeros)
            .unwrap_err()
            .to_string()
    };
    assert!(error(&[10]).contains("no step 10"));
    assert!(error(&[1, 2, 3]).contains("each of 2 images"));
    assert!(
        schedule
            .timesteps(0)
            .unwrap_err()
            .to_string()
            .contains("cannot take 0 steps")
    );
    assert!(
        schedule
            .timesteps(11)
            .unwrap_err()
            .to_string()
            .contains("1 to 10")
    );
}

#[test]
fn the_two_ranges_of_pixels_meet() {
    let pixels = Tensor::from_slice(&[0.0f32, 0.25, 1.0]);
    assert_eq!(centred(&pixels), Tensor::from_slice(&[-1.0f32, -0.5, 1.0]));
    assert_eq!(to_pixels(&centred(&pixels)), pixels);
    assert_eq!(
        to_pixels(&Tensor::from_slice(&[-3.0f32, 3.0])),
        Tensor::from_slice(&[0.0f32, 1.0])
    );
}
