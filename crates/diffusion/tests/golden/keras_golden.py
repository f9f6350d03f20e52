#!/usr/bin/env python3
"""Golden numbers of the lesson's network, from the real Keras, for the Rust tests.

    pip install -r requirements-golden.txt
    python keras_golden.py [--mnist FOLDER] [--out keras_golden.json]

Made with Python 3.11, TensorFlow 2.21.0 (CPU), Keras 3.15.1, NumPy 2.4.6.

The weights are not stored. They come from the hash in golden_common.py with
the stream p = number of the tensor, 0..13, in Keras's order (kernel, bias,
layer by layer), and i = the flat index in Keras's own C order, that is

    Conv2D           kernel (rows, cols, in, out)
    Conv2DTranspose  kernel (rows, cols, OUT, IN)      <- note
    Dense            kernel (in, out)
    bias             (out)

    h = i * 2654435761 + (p + 1) * 40503 + 12345       mod 2^32
    h = (h ^ (h >> 15)) * 2246822519                   mod 2^32
    h = h ^ (h >> 13)
    u = h / 2^32                                       float64
    value = float32((2u - 1) * limit)                  product in float64

    limit = sqrt(6 / (fan_in + fan_out)) for a kernel (float64; what Keras's
            Glorot uniform uses: of a convolution kernel (r, c, a, b) it takes
            fan_in + fan_out = r*c*a + r*c*b), 0.05 for a bias, so that biases
            take part although Keras starts them at zero.

Images: the first four of the MNIST test split, stored in the JSON as bytes in
hexadecimal, so that a test needs no MNIST; the noisy ones from the hash, stream
100 (see golden_common.py).

Every figure is computed twice, in two processes: once in float32, which is what
Keras does by default, and once in float64 (keras.config.set_floatx) from the
same float32 weights and images, which is the one to compare with: the
difference of the two is what float32 costs in Keras itself.

What Keras does with the cross-entropy
--------------------------------------
On probabilities, `binary_crossentropy` clips them to [1e-7, 1 - 1e-7] and takes
the logarithms. But on the TensorFlow backend, `keras.activations.sigmoid` leaves
its logits on the tensor that it returns (`_keras_logits`), and the loss, when it
finds them (or, in a graph, an op of type Sigmoid), takes

    tf.nn.sigmoid_cross_entropy_with_logits(target, logits)
        = max(z, 0) - z * target + log(1 + exp(-|z|))

and clips nothing. `train_on_batch`, `fit` and `evaluate` all pass the model's
output on as it is, so they all use the logits. The clipped form appears only where
the probabilities have been turned into plain arrays first (`predict`, then the
loss). This script does not take that on trust: `bce_probe` in the JSON has
the losses of a model whose logit is +40 everywhere, on an all-zero target: 40
with logits, -log(1e-7) or thereabouts with clipping.

The loss is the mean over everything: over the channel (of which there is one)
inside the loss, then over batch, rows and columns.

What Keras does in Adam
-----------------------
    m += (g - m) * (1 - beta1);   v += (g*g - v) * (1 - beta2)
    alpha = lr * sqrt(1 - beta2^t) / (1 - beta1^t)
    w -= alpha * m / (sqrt(v) + 1e-7)

so epsilon is added to the square root of the *uncorrected* v. PyTorch divides
that root by sqrt(1 - beta2^t) first. To get Keras's step from PyTorch's
formula, epsilon has to be 1e-7 / sqrt(1 - beta2^t): 3.16e-6 at step 1.
The betas in the two powers are float32 numbers, also in the float64 run (TensorFlow
turns a Python float into float32 before casting it), while 1 - beta1 and 1 - beta2
in the averages are exact: alpha of step 1 is lr * 0.31622565 instead of
lr * 0.31622777, 6.7e-6 of itself shorter, and less so later. To come as close as
float32 allows, use float64(float32(0.9)) and float64(float32(0.999)) in the powers.

Layout of the JSON
------------------
layers            ten of {name, type, output_shape (null = batch), params}
total_params      3255233
tensors           fourteen of {p, name, shape, limit, first (4 values), last, sum,
                  indices}: first, last and sum (in float64) to check the hash;
                  indices: the up to 40 flat indices sampled from its movement,
                  a quarter of them spread evenly, the rest over what moved in step 1
images            count, clean_hex (784 bytes an image), noise_stream,
                  noisy_first (8 values), noisy_sum
adam              its settings
float64, float32  the same keys in each:
    output          sigmoid of the noisy images, 4 * 28 * 28 values in C order
    output_sum      its sum
    layer_sums      ten, the sum of each layer's output (the input layer's: of the images)
    loss            evaluate: what Keras reports; clipped_from_predict: see above
    bce_probe       see above
    step_losses     four, what train_on_batch(noisy, clean) reports: the loss
                    before step 1, 2, 3, 4 (metrics reset in between: else Keras 3
                    returns the running mean)
    steps           "1" and "3": for each of the fourteen tensors what the weights
                    moved since the start, weights after that step minus initial
                    weights: norm (L2), sum, max (of the absolute values), moved (how
                    many elements are not exactly where they were), at (the movement
                    at the tensor's indices)
strong            factor: the same network with all *kernels* from limit * factor
                  (product in float64, then (2u - 1) * that), biases as before. Its
                  outputs fill the range, those above lie close to a half:
                  output (float64), loss (float64), float32_off (largest difference
                  of Keras's float32 output)
"""

import numpy as np

from golden_common import (
    IMAGES,
    NOISE_STREAM,
    clean_and_noisy,
    digits,
    hashed_model,
    layer_table,
    precision,
    print_steps,
    read_images,
    record_steps,
    rounded,
    run_both,
    start_keras,
    tensor_table,
    versions,
    write_json,
)

STRONG = 2.5  # factor on the kernels' limit in "strong"


def build(keras):
    """The network through the functional API, whose layers include the input layer: ten."""
    layers = keras.layers
    inputs = keras.Input((28, 28, 1))
    x = inputs
    for layer in (
        layers.Conv2D(16, (3, 3), padding="same", activation="relu"),
        layers.Conv2D(32, (3, 3), padding="same", activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(28 * 28 * 32, activation="relu"),
        layers.Reshape((28, 28, 32)),
        layers.Conv2DTranspose(32, (3, 3), padding="same", activation="relu"),
        layers.Conv2DTranspose(16, (3, 3), padding="same", activation="relu"),
        layers.Conv2D(1, (3, 3), padding="same", activation="sigmoid"),
    ):
        x = layer(x)
    return keras.Model(inputs, x)


def fresh(keras, factor=1.0):
    model = hashed_model(keras, build, factor)
    # Keras's defaults: epsilon 1e-7, betas 0.9 and 0.999
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="binary_crossentropy")
    return model


def probe(keras, dtype):
    """Which form of the cross-entropy is used: logit +40 everywhere, target 0."""
    inputs = keras.Input((2,))
    layer = keras.layers.Dense(2, activation="sigmoid", kernel_initializer="zeros")
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.zeros((2, 2)), np.full(2, 40.0)])
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="binary_crossentropy")
    x, y = np.zeros((3, 2), dtype), np.zeros((3, 2), dtype)
    out = {
        "logit": 40.0,
        "target": 0.0,
        "train_on_batch": float(model.train_on_batch(x, y)),
        "evaluate": float(model.evaluate(x, y, verbose=0)),
        "fit": float(model.fit(x, y, verbose=0).history["loss"][0]),
        "loss_of_model_call": float(keras.losses.BinaryCrossentropy()(y, model(x))),
        "loss_of_predict": float(keras.losses.BinaryCrossentropy()(y, model.predict(x, verbose=0))),
    }
    return {k: digits(v, 9) for k, v in out.items()}


def worker(floatx, mnist, indices):
    keras, tf = start_keras(floatx)
    dtype, precise = np.dtype(floatx), precision(floatx)
    clean32, noisy32 = clean_and_noisy(mnist)
    clean, noisy = clean32.astype(dtype), noisy32.astype(dtype)

    model = fresh(keras)
    assert all(w.dtype == dtype for w in model.get_weights())
    every = keras.Model(model.inputs, [layer.output for layer in model.layers])
    result = {
        "versions": versions(keras, tf),
        "output": rounded(model.predict_on_batch(noisy), 9),
        "output_sum": digits(np.sum(model.predict_on_batch(noisy), dtype=np.float64), 12),
        # per layer, activation included: the way to find the layer that is wrong
        "layer_sums": [digits(np.sum(a, dtype=np.float64), 10) for a in every.predict_on_batch(noisy)],
        "loss": {
            "evaluate": digits(model.evaluate(noisy, clean, batch_size=IMAGES, verbose=0), precise),
            "clipped_from_predict": digits(
                keras.losses.BinaryCrossentropy()(clean, model.predict_on_batch(noisy)), precise
            ),
        },
        "bce_probe": probe(keras, dtype),
    }

    model = fresh(keras, STRONG)
    result["strong"] = {
        "factor": STRONG,
        "output": rounded(model.predict_on_batch(noisy), 9),
        "loss": digits(model.evaluate(noisy, clean, batch_size=IMAGES, verbose=0), precise),
    }

    model = fresh(keras)
    result["tensors"] = tensor_table(model)
    result["layers"] = layer_table(model.layers)
    result["step_losses"], result["steps"] = record_steps(model, noisy, clean, indices, precise)
    result["indices"] = indices
    result["total_params"] = int(model.count_params())
    result["noisy"] = {
        "first": rounded(noisy32.ravel()[:8], 9),
        "sum": digits(np.sum(noisy32, dtype=np.float64), 12),
    }
    return result


def main():
    done = run_both(__file__, __doc__, "keras_golden.json", worker, [])
    if done is None:
        return
    args, f64, f32 = done
    for key in ("tensors", "layers", "total_params", "noisy", "indices"):
        assert f32[key] == f64[key], f"{key} differs between the two runs"

    images = read_images(args.mnist, "t10k")[:IMAGES]
    strong = [np.array(f["strong"]["output"]) for f in (f64, f32)]
    off = np.abs(strong[0] - strong[1]).max()
    keys = ("output", "output_sum", "layer_sums", "loss", "bce_probe", "step_losses")
    golden = {
        "about": "made by keras_golden.py; see its docstring for the formulas and layouts",
        "versions": f32["versions"],
        "adam": {"learning_rate": 1e-3, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
        "layers": f32["layers"],
        "total_params": f32["total_params"],
        "tensors": [dict(t, indices=i) for t, i in zip(f64["tensors"], f64["indices"])],
        "images": {
            "count": IMAGES,
            "clean_hex": [image.tobytes().hex() for image in images],
            "noise_stream": NOISE_STREAM,
            "noisy_first": f32["noisy"]["first"],
            "noisy_sum": f32["noisy"]["sum"],
        },
        "strong": dict(f64["strong"], float32_off=digits(off, 3)),
        "float64": {**{k: f64[k] for k in keys}, "steps": f64["steps"]},
        "float32": {**{k: f32[k] for k in keys}, "steps": f32["steps"]},
    }
    write_json(args.out, golden)
    o32, o64 = np.array(f32["output"]), np.array(f64["output"])
    print(f"{args.out.name}: {args.out.stat().st_size} bytes")
    print(f"output: {o64.min():.4f} .. {o64.max():.4f}, float32 off by {np.abs(o32 - o64).max():.2e}")
    print(f"strong: {strong[0].min():.4f} .. {strong[0].max():.4f}, deviation {strong[0].std():.3f}, float32 off by {off:.1e}")
    print("strong loss", f64["strong"]["loss"], f32["strong"]["loss"])
    print("loss", f64["loss"], f32["loss"])
    print("step losses", f64["step_losses"], f32["step_losses"])
    print("probe", f64["bce_probe"], f32["bce_probe"])
    print_steps(f64["tensors"], f64["steps"], f32["steps"])


if __name__ == "__main__":
    main()
