"""What the golden scripts share: MNIST from its raw files, the integer hash, runs of Keras, JSON.

The hash
--------
Everything "random" in the golden numbers comes from one integer formula, so
that nothing big has to be stored and Rust reproduces it bit for bit. For
stream p and flat index i, in unsigned 32-bit arithmetic that wraps:

    h = i * 2654435761 + (p + 1) * 40503 + 12345
    h = (h ^ (h >> 15)) * 2246822519
    h = h ^ (h >> 13)
    u = h / 2^32                       (float64, exact, 0 <= u < 1)

Noisy images use p = 100 and the flat index over all images together:

    clean = float32(byte) / float32(255)
    noisy = float32(clip(float64(clean) + (0.5 * (2u - 1)) * 1.7, 0, 1))

all in float64 but for the first division and the last rounding, in this
order, without fused multiply-add.

The weights of a network in Keras use p = number of the tensor, in the order of
`get_weights` (layer by layer), and the flat index in Keras's own C order:

    value = float32((2u - 1) * limit) + offset     product in float64, sum in float32

    kernel   limit = sqrt(6 / (fan_in + fan_out)), as in Keras's Glorot uniform; offset 0
    gamma    limit = 0.2, offset 1
    others   limit = 0.05, offset 0
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

NOISE_STREAM = 100
IMAGES = 4
SAMPLES = 40  # indices for each tensor
RECORD = (1, 3)  # after these steps the movement of the weights is recorded


def cache_folder():
    """$DIFFUSION_CACHE, else the per-user cache folder, as the lesson has it."""
    if os.environ.get("DIFFUSION_CACHE"):
        return Path(os.environ["DIFFUSION_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "diffusion-lesson"


def add_mnist_argument(parser):
    parser.add_argument(
        "--mnist",
        type=Path,
        default=cache_folder() / "mnist",
        help="folder with the four raw IDX files (default: mnist in the per-user cache)",
    )


def read_images(folder, split):
    """Bytes of the 'train' or 't10k' images, shape (n, 28, 28)."""
    data = (Path(folder) / f"{split}-images-idx3-ubyte").read_bytes()
    magic, n, rows, cols = struct.unpack(">IIII", data[:16])
    if (magic, rows, cols) != (2051, 28, 28) or len(data) != 16 + n * 784:
        raise SystemExit(f"{split}-images-idx3-ubyte is not an IDX file of 28x28 images")
    return np.frombuffer(data, np.uint8, offset=16).reshape(n, 28, 28)


def read_labels(folder, split):
    """Digits 0..9 of the 'train' or 't10k' images, shape (n,)."""
    data = (Path(folder) / f"{split}-labels-idx1-ubyte").read_bytes()
    magic, n = struct.unpack(">II", data[:8])
    if magic != 2049 or len(data) != 8 + n:
        raise SystemExit(f"{split}-labels-idx1-ubyte is not an IDX file of labels")
    return np.frombuffer(data, np.uint8, offset=8)


def scale(images):
    return images.astype(np.float32) / np.float32(255)


def hash_unit(count, stream):
    """u of the docstring above for the indices 0..count."""
    mask = np.uint64(0xFFFFFFFF)
    h = np.arange(count, dtype=np.uint64) * np.uint64(2654435761)
    h = (h + np.uint64((stream + 1) * 40503 + 12345)) & mask
    h = ((h ^ (h >> np.uint64(15))) * np.uint64(2246822519)) & mask
    h = h ^ (h >> np.uint64(13))
    return h.astype(np.float64) / 4294967296.0


def hash_noisy(clean):
    u = hash_unit(clean.size, NOISE_STREAM).reshape(clean.shape)
    noisy = clean.astype(np.float64) + (0.5 * (2.0 * u - 1.0)) * 1.7
    return np.clip(noisy, 0.0, 1.0).astype(np.float32)


def clean_and_noisy(mnist):
    """The first test images and their noisy versions in float32, (IMAGES, 28, 28, 1)."""
    clean = scale(read_images(mnist, "t10k")[:IMAGES])[..., None]
    return clean, hash_noisy(clean)


def digits(value, n):
    """value rounded to n significant digits."""
    return float(f"{float(value):.{n}g}")


def rounded(values, n=9):
    return [digits(v, n) for v in np.asarray(values).ravel()]


def precision(floatx):
    """How many significant digits of a figure are stored."""
    return 9 if floatx == "float32" else 12


def limit(name, shape):
    if name.endswith("/gamma"):
        return 0.2
    if len(shape) == 1:
        return 0.05
    field = int(np.prod(shape[:-2]))
    return float(np.sqrt(6.0 / (field * shape[-2] + field * shape[-1])))


def offset(name):
    return 1.0 if name.endswith("/gamma") else 0.0


def hash_weights(name, shape, p, factor=1.0):
    """The tensor `p` of a network; the factor is for kernels only."""
    u = hash_unit(int(np.prod(shape)), p)
    bound = limit(name, shape) * (factor if len(shape) > 1 else 1.0)
    return (((2.0 * u - 1.0) * bound).astype(np.float32) + np.float32(offset(name))).reshape(shape)


def weight_names(model):
    return [f"{layer.name}/{w.name}" for layer in model.layers for w in layer.weights]


def hashed_model(keras, build, factor=1.0):
    """A new model with weights from the hash, not compiled. The names of its layers count from zero."""
    keras.utils.clear_session()
    model = build(keras)
    shapes = [w.shape for w in model.get_weights()]
    model.set_weights(
        [hash_weights(name, shape, p, factor) for p, (name, shape) in enumerate(zip(weight_names(model), shapes))]
    )
    return model


def sample_indices(movement):
    """Up to SAMPLES flat indices: a quarter spread evenly, the rest spread over what moved."""
    n = movement.size
    if n <= SAMPLES:
        return list(range(n))
    plain = {(2 * k + 1) * n // (2 * (SAMPLES // 4)) for k in range(SAMPLES // 4)}
    moved = [int(i) for i in np.flatnonzero(movement) if int(i) not in plain]
    rest = min(SAMPLES - len(plain), len(moved))
    return sorted(plain | {moved[(2 * k + 1) * len(moved) // (2 * rest)] for k in range(rest)})


def record_steps(model, inputs, targets, indices, precise):
    """Trains always on the same batch: the loss before each step, and how far the weights moved.

    `indices` are the sampled indices of each tensor; an empty list is filled after the first recorded step.
    """
    before = model.get_weights()
    losses, steps = [], {}
    for step in range(1, max(RECORD) + 2):
        model.reset_metrics()  # else Keras 3 returns the running mean
        losses.append(digits(model.train_on_batch(inputs, targets), precise))
        if step in RECORD:
            tensors = []
            for p, (a, b) in enumerate(zip(model.get_weights(), before)):
                move = (a.astype(np.float64) - b.astype(np.float64)).ravel()
                if len(indices) == p:
                    indices.append(sample_indices(move))
                tensors.append(
                    {
                        "norm": digits(np.sqrt(np.sum(move * move)), precise),
                        "sum": digits(np.sum(move), precise),
                        "max": digits(np.max(np.abs(move)), precise),
                        "moved": int(np.count_nonzero(move)),
                        "at": rounded(move[indices[p]], 9),
                    }
                )
            steps[str(step)] = tensors
    return losses, steps


def tensor_table(model):
    """What a test needs to make the weights itself, and to check them. Of a model that has not been trained."""
    return [
        {
            "p": p,
            "name": name,
            "shape": list(w.shape),
            "limit": limit(name, w.shape),
            "first": rounded(w.ravel()[:4], 9),
            "last": digits(w.ravel()[-1], 9),
            "sum": digits(np.sum(w, dtype=np.float64), 12),
        }
        for p, (name, w) in enumerate(zip(weight_names(model), model.get_weights()))
    ]


def layer_table(layers):
    return [
        {
            "name": layer.name,
            "type": type(layer).__name__,
            "output_shape": [None, *layer.output.shape[1:]],
            "params": int(layer.count_params()),
        }
        for layer in layers
    ]


def start_keras(floatx):
    """Keras on TensorFlow with this default type, and TensorFlow."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    keras.config.set_floatx(floatx)
    assert keras.config.epsilon() == 1e-7
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(1)
    return keras, tf


def versions(keras, tf):
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def run_both(script, about, out, worker, fresh):
    """Runs a script's worker in float64, then in float32, each in a process of its own.

    `worker(floatx, mnist, indices)` returns a dictionary that has the sampled `indices`; it starts with `fresh`,
    an empty container for them, and fills it in float64. Returns the arguments and what the workers returned, or
    None in a worker's process.
    """
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    add_mnist_argument(parser)
    parser.add_argument("--out", type=Path, default=Path(script).resolve().parent / out)
    parser.add_argument("--worker", nargs=2, metavar=("FLOATX", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--indices", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        floatx, path = args.worker
        indices = json.loads(Path(args.indices).read_text())["indices"] if args.indices else fresh
        Path(path).write_text(json.dumps(worker(floatx, args.mnist, indices)))
        return None

    environment = dict(os.environ, CUDA_VISIBLE_DEVICES="", TF_CPP_MIN_LOG_LEVEL="2", TF_ENABLE_ONEDNN_OPTS="0")
    run = {}
    with tempfile.TemporaryDirectory() as folder:
        for floatx in ("float64", "float32"):
            path = Path(folder) / f"{floatx}.json"
            command = [sys.executable, script, "--mnist", args.mnist, "--worker", floatx, path]
            if floatx == "float32":  # the same samples as in float64
                command += ["--indices", Path(folder) / "float64.json"]
            subprocess.run([str(c) for c in command], env=environment, check=True)
            run[floatx] = json.loads(path.read_text())
    return args, run["float64"], run["float32"]


def print_steps(tensors, f64, f32):
    """What float32 costs in the movement of the weights."""
    for step in map(str, RECORD):
        print(f"step {step}: tensor, norm, moved, relative difference of float32 in norm, in samples (of the largest)")
        for t, a, b in zip(tensors, f64[step], f32[step]):
            d = np.abs(np.array(a["at"]) - np.array(b["at"])).max() / max(a["max"], 1e-30)
            print(f"  {t['name']:28} {a['norm']:.6e} {a['moved']:8d} {b['norm'] / a['norm'] - 1:+.1e} {d:.1e}")


def write_json(path, value):
    """Indented objects, every list of plain values on one line, written whole or not at all."""

    def text(v, pad):
        inner = pad + " "
        if isinstance(v, dict):
            body = ",\n".join(f"{inner}{json.dumps(k)}: {text(w, inner)}" for k, w in v.items())
            return "{\n" + body + "\n" + pad + "}"
        if isinstance(v, list) and any(isinstance(w, (list, dict)) for w in v):
            return "[\n" + ",\n".join(inner + text(w, inner) for w in v) + "\n" + pad + "]"
        return json.dumps(v, separators=(",", ":"), allow_nan=False)

    part = Path(f"{path}.part")
    part.write_text(text(value, "") + "\n")
    part.replace(path)
