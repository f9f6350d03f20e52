"""What the benchmark's Python workers share: the protocol, MNIST, the noise, the first weights.

A worker is one long-lived process for one contender. It prints `{"ready": …}`, then reads one JSON
request a line and answers each with one JSON line:

    {"run": "cnn_train", "batch": 128, "warmup": 20, "steps": 100, "threads": 2}
                                             -> {"value": images/s, "loss": mean of the last 20 steps}
    {"run": "cnn_infer", "images": 10000}    -> {"value": images/s, "loss": cross-entropy}
    {"run": "deeper_train", …}               -> as cnn_train; Keras's workers alone know it
    {"run": "unet_train", …}                 -> as cnn_train; PyTorch's workers alone know it
    {"run": "mnist_load"}                    -> {"value": seconds}
    {"run": "exit"}

and `{"error": "…"}` to a request that it does not know or that failed. Whatever else is printed,
by libraries too, goes to stderr.
"""

import argparse
import hashlib
import json
import os
import struct
import sys
import time
import traceback
from pathlib import Path

import numpy as np

NOISE = 0.5
TRAIN_NOISE_SEED = 1
TEST_NOISE_SEED = 2
LOSS_STEPS = 20  # the loss of a training is the mean over this many last steps
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def claim_stdout():
    """The channel for answers: stdout, which from here on means stderr to everyone else."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return channel


def arguments(description):
    """The parser with the arguments that every worker takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, help="folder with first_weights.safetensors")
    parser.add_argument("--mnist", type=Path, required=True, help="folder with the four raw IDX files")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: one for each CPU")
    return parser


def read_idx(folder, name):
    """One of the four files, its SHA-256 checked: bytes, (n, 28, 28) or (n,)."""
    path = Path(folder) / name
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256[name]:
        raise ValueError(f"{path} is not the standard MNIST file: expected SHA-256 {SHA256[name]}, found {found}")
    rank = data[3]
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_images(folder, split):
    """The images of `train` or `t10k` as float32 in [0, 1], (n, 28, 28, 1)."""
    images = read_idx(folder, f"{split}-images-idx3-ubyte").astype(np.float32)
    images /= np.float32(255)
    return images[..., None]


def load_mnist(folder):
    """All four files: images in float32, labels as they are."""
    splits = [(read_images(folder, split), read_idx(folder, f"{split}-labels-idx1-ubyte")) for split in ("train", "t10k")]
    for images, labels in splits:
        if len(images) != len(labels) or labels.max() > 9:
            raise ValueError(f"{len(images)} images have {len(labels)} labels, the highest of them {labels.max()}")
    return splits


def add_noise(images, seed):
    """clip(x + 0.5 * N(0, 1), 0, 1). The first images get the same noise, however many follow."""
    noise = np.random.default_rng(seed).standard_normal(images.shape, dtype=np.float32)
    noise *= np.float32(NOISE)
    noise += images
    return np.clip(noise, 0.0, 1.0, out=noise)


def psnr(clean, other):
    """Mean over the images of 10 log10(1 / MSE), in float64 as in the lesson."""
    error = np.mean(np.square(clean.astype(np.float64) - other.astype(np.float64)), axis=(1, 2, 3))
    return float(np.mean(-10.0 * np.log10(error)))


class Images:
    """Clean and noisy images, (n, 28, 28, 1), made when they are first asked for and kept."""

    def __init__(self, folder):
        self.folder = folder
        self.made = {}

    def get(self, split, count, seed):
        """The first `count` images of a split, from its beginning again where they run out."""
        if len(self.made.get(split, ((), ()))[0]) < count:
            clean = read_images(self.folder, split)
            clean = np.take(clean, np.arange(count), axis=0, mode="wrap")
            self.made[split] = (clean, add_noise(clean, seed))
        clean, noisy = self.made[split]
        return clean[:count], noisy[:count]

    def train(self, count):
        return self.get("train", count, TRAIN_NOISE_SEED)

    def test(self, count):
        return self.get("t10k", count, TEST_NOISE_SEED)


def first_weights(folder):
    """The lesson's checkpoint: name -> float32 array, laid out as described in crates/diffusion/src/network/apply.rs."""
    from safetensors.numpy import load_file

    if folder is None:
        raise ValueError("--data is missing: the folder with first_weights.safetensors")
    weights = load_file(Path(folder) / "first_weights.safetensors")
    return {name: value.astype(np.float32) for name, value in weights.items()}


def serve(channel, ready, contender, images):
    """Answers requests until `exit` or the end of stdin.

    The contender has `train(clean, noisy, batch, warmup, steps, threads)`, which returns seconds of
    the timed steps and all their losses, and `infer(clean, noisy)`: seconds and cross-entropy.
    Keras's has `train_deeper`, too, with the arguments of `train`.
    """
    trainings = {"cnn_train": contender.train}
    if hasattr(contender, "train_deeper"):
        trainings["deeper_train"] = contender.train_deeper

    def answer(request):
        run = request.get("run")
        if run in trainings:
            batch, warmup, steps = request["batch"], request["warmup"], request["steps"]
            clean, noisy = images.train(batch * (warmup + steps))
            seconds, losses = trainings[run](clean, noisy, batch, warmup, steps, request.get("threads"))
            return {"value": batch * steps / seconds, "loss": float(np.mean(losses[-LOSS_STEPS:]))}
        if run == "cnn_infer":
            count = request.get("images", 10_000)
            seconds, loss = contender.infer(*images.test(count))
            return {"value": count / seconds, "loss": loss}
        if run == "unet_train" and hasattr(contender, "train_unet"):
            batch, warmup, steps = request["batch"], request["warmup"], request["steps"]
            clean, _ = images.train(batch * (warmup + steps))
            labels = read_idx(images.folder, "train-labels-idx1-ubyte")[: len(clean)]
            seconds, losses = contender.train_unet(clean, labels, batch, warmup, steps, request.get("threads"))
            return {"value": batch * steps / seconds, "loss": float(np.mean(losses[-LOSS_STEPS:]))}
        if run == "mnist_load":
            start = time.perf_counter()
            load_mnist(images.folder)
            return {"value": time.perf_counter() - start}
        raise ValueError(
            f"unknown request {run!r}; this worker knows {', '.join(trainings)}, cnn_infer, mnist_load, exit, "
            "and unet_train if it is PyTorch's"
        )

    print(json.dumps({"ready": ready}), file=channel)
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            request = json.loads(line)
            if request.get("run") == "exit":
                return
            reply = answer(request)
        except Exception as error:  # whatever it is, the orchestrator has to hear of it
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=channel)
