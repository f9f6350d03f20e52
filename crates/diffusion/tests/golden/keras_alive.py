#!/usr/bin/env python3
"""How many of the 64 units in the denoiser's narrowest layer stay alive when Keras trains it.

    pip install -r requirements-golden.txt
    python keras_alive.py [--last-seed 24] [--mnist FOLDER]

The counterpart of crates/diffusion/examples/seeds.rs, with Keras's own first weights from
`keras.utils.set_random_seed(seed)`: each network learns from the last 5,120 training images once
(40 steps of 128, shuffled by the seed), noise 0.5, Adam 1e-3, binary cross-entropy. A unit
of the layer `dense` is alive when it answers more than 0 to at least one of the first 1,000 noisy
test images; beside it the count for 2,000.

The noise comes from a seed of its own, the same for all networks.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np

from golden_common import add_mnist_argument, read_images, scale
from keras_golden import build
from keras_reference import add_noise

LEARN = 5_120
TEST = 1_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_mnist_argument(parser)
    parser.add_argument("--last-seed", type=int, default=24)
    args = parser.parse_args()

    import keras
    import tensorflow as tf

    clean = scale(read_images(args.mnist, "train"))[-LEARN:, ..., None]
    noisy = add_noise(clean, 1)
    test = add_noise(scale(read_images(args.mnist, "t10k"))[: 2 * TEST, ..., None], 2)

    counts = []
    for seed in range(1, args.last_seed + 1):
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        network = build(keras)
        network.compile(optimizer=keras.optimizers.Adam(1e-3), loss="binary_crossentropy")
        batches = tf.data.Dataset.from_tensor_slices((noisy, clean)).shuffle(LEARN, seed=seed).batch(128)
        loss = network.fit(batches, shuffle=False, verbose=0).history["loss"][0]
        encoder = keras.Model(network.input, network.get_layer("dense").output)
        answers = np.concatenate([encoder(part, training=False).numpy() for part in np.split(test, 4)]) > 0
        alive, of_more = int(answers[:TEST].any(axis=0).sum()), int(answers.any(axis=0).sum())
        counts.append(alive)
        print(f"seed {seed:>2}: {alive:>2} units alive ({of_more} by 2,000 images), mean loss {loss:.3f}", flush=True)
    low, median, high = np.percentile(counts, [25, 50, 75])
    print(f"median {median:g}, quartiles {low:g} and {high:g}, from {min(counts)} to {max(counts)}")


if __name__ == "__main__":
    main()
