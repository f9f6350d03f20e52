#!/usr/bin/env python3
"""Golden numbers of three other networks, from the real Keras, for the Rust tests.

    pip install -r requirements-golden.txt
    python keras_networks.py [--mnist FOLDER] [--out keras_networks.json]

Made with Python 3.11, TensorFlow 2.21.0 (CPU), Keras 3.15.1, NumPy 2.4.6.

    pooling      pooling and upsampling                  Adam and SGD
    normalised   group normalisation, SiLU, strides      Adam
    classes      a classifier                            Adam

Weights and noisy images come from the hash in golden_common.py, and the layouts of the
kernels are those in keras_golden.py, as is the way of computing everything in float64 and in
float32. The clean images are the ones stored in keras_golden.json.

Layers
------
Padding is "same" in all convolutions. With strides 2 and an even size, Keras pads one row
less at the top than at the bottom (for a kernel of 3: none and one), and likewise left and
right. Conv2DTranspose with strides 2 doubles the size and is the gradient of such a convolution.
Pooling has no padding. UpSampling2D repeats each pixel.

GroupNormalization divides the channels into groups of neighbours and takes the mean and the
biased variance over rows, columns and the channels of a group:

    y = (x - mean) / sqrt(variance + 1e-3) * gamma + beta

The group's mean and variance are each image's own. In "normalised" an Activation layer follows each GroupNormalization. `layers` leaves these
Activation layers out, and `layer_sums` then has the sum after the activation.

Losses
------
binary_crossentropy and sparse_categorical_crossentropy are taken from the logits, without clipping:
see keras_golden.py. mean_squared_error is the mean over images, rows, columns and the channel.

SGD with momentum
-----------------
    m = momentum * m - lr * g;   w += m

The momentum is a float32 number also in the float64 run: float64(float32(0.9)). Adam is described
in keras_golden.py.

Layout of the JSON
------------------
images            count; from: the file with clean_hex; noise_stream, noisy_first (8 values), noisy_sum; labels
optimizers        the settings of adam and sgd
networks          for each of the three names:
  inputs, targets   "noisy", "clean" or "labels"
  loss_function     Keras's name
  layers            {name, type, output_shape (null = batch), params}, the input layer first
  total_params
  tensors           {p, name, shape, limit, offset, first (4 values), last, sum, indices}; see golden_common.py for
                    limit and offset, keras_golden.py for the rest
  output_indices    the flat indices, in C order, of the values in output: 200 spread evenly, or all if there are fewer
  float64, float32  the same keys in each:
    output            after the last activation, at output_indices
    output_sum        over the whole output
    layer_sums        the sum of the output of each of `layers` (the input layer's: of the images)
    loss              what evaluate reports
    step_losses       four, what train_on_batch reports: the loss before step 1, 2, 3, 4 of Adam
    steps             "1" and "3": what each tensor moved since the start: norm, sum, max, moved, at
    sgd               only in "pooling": {step_losses, steps} of SGD, sampled at the same indices
"""

import numpy as np

from golden_common import (
    IMAGES,
    NOISE_STREAM,
    clean_and_noisy,
    digits,
    hashed_model,
    layer_table,
    offset,
    precision,
    print_steps,
    read_labels,
    record_steps,
    rounded,
    run_both,
    start_keras,
    tensor_table,
    versions,
    write_json,
)

OUTPUTS = 200
ADAM = {"learning_rate": 1e-3, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
SGD = {"learning_rate": 0.05, "momentum": 0.9}


def chain(keras, layers):
    inputs = x = keras.Input((28, 28, 1))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def pooling(keras):
    layers = keras.layers
    return chain(
        keras,
        [
            layers.Conv2D(8, (3, 3), padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, (5, 5), padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.UpSampling2D(2),
            layers.Conv2D(8, (3, 3), padding="same", activation="relu"),
            layers.UpSampling2D(2),
            layers.Conv2D(1, (3, 3), padding="same", activation="sigmoid"),
        ],
    )


def normalised(keras):
    layers = keras.layers
    return chain(
        keras,
        [
            layers.Conv2D(32, (3, 3), strides=2, padding="same"),
            layers.GroupNormalization(2),
            layers.Activation("silu"),
            layers.Conv2D(32, (3, 3), padding="same"),
            layers.GroupNormalization(4),
            layers.Activation("silu"),
            layers.Conv2DTranspose(16, (3, 3), strides=2, padding="same", activation="silu"),
            layers.Conv2DTranspose(8, (5, 5), strides=2, padding="same", activation="relu"),
            layers.Conv2D(8, (5, 5), strides=2, padding="same", activation="relu"),
            layers.Conv2D(1, (1, 1), padding="same", activation="sigmoid"),
        ],
    )


def classes(keras):
    layers = keras.layers
    return chain(
        keras,
        [
            layers.Conv2D(8, (3, 3), strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ],
    )


# The network, its inputs and targets, the loss.
NETWORKS = {
    "pooling": (pooling, "noisy", "clean", "binary_crossentropy"),
    "normalised": (normalised, "noisy", "clean", "mean_squared_error"),
    "classes": (classes, "clean", "labels", "sparse_categorical_crossentropy"),
}


def without_activations(keras, model):
    """The layers of the table, and the output of each with the Activation layer after it."""
    layers, outputs = [], []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Activation):
            outputs[-1] = layer.output
        else:
            layers.append(layer)
            outputs.append(layer.output)
    return layers, outputs


def measure(keras, name, data, indices, floatx):
    build, inputs, targets, loss = NETWORKS[name]
    x, y, precise = data[inputs], data[targets], precision(floatx)

    def fresh(optimizer):
        model = hashed_model(keras, build)
        model.compile(optimizer=optimizer, loss=loss)
        return model

    model = fresh(keras.optimizers.Adam(**ADAM))
    assert all(w.dtype == floatx for w in model.get_weights())
    layers, outputs = without_activations(keras, model)
    output = model.predict_on_batch(x)
    count = min(OUTPUTS, output.size)
    output_indices = [(2 * k + 1) * output.size // (2 * count) for k in range(count)]
    result = {
        "layers": layer_table(layers),
        "total_params": int(model.count_params()),
        "tensors": [dict(t, offset=offset(t["name"])) for t in tensor_table(model)],
        "output_indices": output_indices,
        "range": [float(output.min()), float(output.max())],
        "figures": {
            "output": rounded(output.ravel()[output_indices], 9),
            "output_sum": digits(np.sum(output, dtype=np.float64), 12),
            "layer_sums": [
                digits(np.sum(a, dtype=np.float64), 10)
                for a in keras.Model(model.inputs, outputs).predict_on_batch(x)
            ],
            "loss": digits(model.evaluate(x, y, batch_size=IMAGES, verbose=0), precise),
        },
    }
    figures = result["figures"]
    figures["step_losses"], figures["steps"] = record_steps(model, x, y, indices, precise)
    if name == "pooling":
        losses, steps = record_steps(fresh(keras.optimizers.SGD(**SGD)), x, y, indices, precise)
        figures["sgd"] = {"step_losses": losses, "steps": steps}
    return result


def worker(floatx, mnist, indices):
    keras, tf = start_keras(floatx)
    clean, noisy = clean_and_noisy(mnist)
    labels = read_labels(mnist, "t10k")[:IMAGES]
    data = {"clean": clean.astype(floatx), "noisy": noisy.astype(floatx), "labels": labels.astype(np.int64)}
    return {
        "versions": versions(keras, tf),
        "images": {
            "count": IMAGES,
            "from": "keras_golden.json",
            "noise_stream": NOISE_STREAM,
            "noisy_first": rounded(noisy.ravel()[:8], 9),
            "noisy_sum": digits(np.sum(noisy, dtype=np.float64), 12),
            "labels": labels.tolist(),
        },
        "networks": {name: measure(keras, name, data, indices.setdefault(name, []), floatx) for name in NETWORKS},
        "indices": indices,
    }


def main():
    done = run_both(__file__, __doc__, "keras_networks.json", worker, {})
    if done is None:
        return
    args, f64, f32 = done
    for key in ("images", "indices"):
        assert f32[key] == f64[key], f"{key} differs between the two runs"
    golden = {
        "about": "made by keras_networks.py; see its docstring for the formulas and layouts",
        "versions": f32["versions"],
        "images": f32["images"],
        "optimizers": {"adam": ADAM, "sgd": SGD},
        "networks": {},
    }
    for name, (_, inputs, targets, loss) in NETWORKS.items():
        a, b = f64["networks"][name], f32["networks"][name]
        same = ("layers", "total_params", "tensors", "output_indices")
        for key in same:
            assert a[key] == b[key], f"{key} of {name} differs between the two runs"
        golden["networks"][name] = {
            "inputs": inputs,
            "targets": targets,
            "loss_function": loss,
            **{key: a[key] for key in same},
            "tensors": [dict(t, indices=i) for t, i in zip(a["tensors"], f64["indices"][name])],
            "float64": a["figures"],
            "float32": b["figures"],
        }
    write_json(args.out, golden)

    print(f"{args.out.name}: {args.out.stat().st_size} bytes")
    for name in NETWORKS:
        low, high = f64["networks"][name]["range"]
        a, b = (f["networks"][name]["figures"] for f in (f64, f32))
        off = np.abs(np.array(a["output"]) - np.array(b["output"])).max()
        print(f"\n{name}: {low:.4f} .. {high:.4f}, float32 off by {off:.2e}, loss {a['loss']} {b['loss']}")
        print("layer sums", a["layer_sums"], b["layer_sums"])
        tensors = f64["networks"][name]["tensors"]
        print("adam step losses", a["step_losses"], b["step_losses"])
        print_steps(tensors, a["steps"], b["steps"])
        if "sgd" in a:
            print("sgd step losses", a["sgd"]["step_losses"], b["sgd"]["step_losses"])
            print_steps(tensors, a["sgd"]["steps"], b["sgd"]["steps"])


if __name__ == "__main__":
    main()
