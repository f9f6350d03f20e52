//! What the golden tests share: the numbers of the reference implementations, and the hash by
//! which both sides make the same weights and images (see `golden/golden_common.py`).

use diffusion::prelude::*;
use serde_json::Value;

/// A file of golden numbers.
pub fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

/// The numbers of a JSON array.
pub fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap())
        .collect()
}

/// Element `i` of stream `p`: a number in [-1, 1).
fn hash(p: u64, i: u64) -> f64 {
    let word = |value: u64| value & 0xFFFF_FFFF;
    let h = word(i * 2_654_435_761 + (p + 1) * 40_503 + 12_345);
    let h = word((h ^ (h >> 15)) * 2_246_822_519);
    let h = h ^ (h >> 13);
    2.0 * (h as f64 / 4_294_967_296.0) - 1.0
}

/// `count` float32 numbers in [-limit, limit), exactly as the Python side makes them.
pub fn hashed(p: u64, count: usize, limit: f64) -> Vec<f32> {
    (0..count as u64)
        .map(|i| (hash(p, i) * limit) as f32)
        .collect()
}

/// The clean images and their noisy versions, (4, 1, 28, 28), checked against the Python side's.
pub fn images(golden: &Value) -> (Tensor, Tensor) {
    let images = &golden["images"];
    let bytes: Vec<u8> = images["clean_hex"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|hex| {
            let hex = hex.as_str().unwrap();
            (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect::<Vec<u8>>()
        })
        .collect();
    let clean = Tensor::from_slice(&bytes)
        .to_kind(Kind::Float)
        .view([-1, 1, 28, 28])
        / 255.0;
    let stream = images["noise_stream"].as_u64().unwrap();
    let noise = Tensor::from_slice(&hashed(stream, bytes.len(), 0.5 * 1.7)).view([-1, 1, 28, 28]);
    let noisy = (&clean + noise).clamp(0.0, 1.0);
    for (at, first) in numbers(&images["noisy_first"]).into_iter().enumerate() {
        assert!((noisy.view(-1).double_value(&[at as i64]) - first).abs() < 1e-6);
    }
    let sum = noisy
        .to_kind(Kind::Double)
        .sum(Kind::Double)
        .double_value(&[]);
    assert!((sum - images["noisy_sum"].as_f64().unwrap()).abs() < 1e-3);
    (clean, noisy)
}
