"""Keras's worker (on TensorFlow): the lesson's network, and a deeper one.

    python keras_worker.py --policy float32|mixed_bfloat16 --mnist FOLDER --data FOLDER
    python keras_worker.py --policy float32 --mnist FOLDER --to-19db --seed S --start keras|calibrated

The first speaks the protocol of worker.py. Its `deeper_train` trains the lesson's network with three more
convolutions after the second one, from Keras's own first weights. The second trains one network until it
denoises well, from Keras's own first weights or from those calibrated as ours, and prints {"seconds", "images", "psnr"} after every quarter of an epoch.

What was tried for Keras to be at its best (training, batch 128, two cores; 1 is what is used here, the loop over
the batches in one tf.function; a tenth comes and goes from run to run):

    float32  mixed
    1        1       fit on a tf.data.Dataset, steps_per_execution 1 or 10
    0.9              train_on_batch
    0.8      0.5     the loop with XLA (jit_compile=True; "auto" means False for this network)
    0.45             without oneDNN (TF_ENABLE_ONEDNN_OPTS=0)
    1        0.9     one inter-op thread instead of two
    1        1       Conv2D with the flipped kernel instead of Conv2DTranspose
    1        1       without the allocator's settings (GLIBC_TUNABLES)

`fit` seems to have two speeds in one process. It has not: after its last batch it often sits idle until a whole
5 s (sometimes 2.5 s) since its beginning are over, so that a short `fit` looks slow now and then. The loop
here does not wait, and only its batches are timed.
"""

import json
import math
import os
import time

STARTED = time.perf_counter()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np

import worker

NAMES = {"float32": "keras-float32", "mixed_bfloat16": "keras-mixed"}
INFERENCE_BATCH = 256

# The race to 19 dB.
GOAL, BATCH, EPOCHS, EVALUATIONS, TRAIN = 19.0, 128, 6, 4, 55_000

# What `Initialisation::Calibrated` of crates/diffusion/src/network/blueprint.rs changes in the first weights.
MEAN_PIXEL, DENSE_SPREAD = 0.1307, 16.0

# The deeper network: how many more convolutions of 32 channels follow the second one.
DEEPER = 3


def build(keras, deeper=0):
    """The network, to logits: the loss takes them, as Keras itself would behind a sigmoid."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, (3, 3), padding="same", activation="relu"),
            layers.Conv2D(32, (3, 3), padding="same", activation="relu"),
            *(layers.Conv2D(32, (3, 3), padding="same", activation="relu") for _ in range(deeper)),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(28 * 28 * 32, activation="relu"),
            layers.Reshape((28, 28, 32)),
            layers.Conv2DTranspose(32, (3, 3), padding="same", activation="relu"),
            layers.Conv2DTranspose(16, (3, 3), padding="same", activation="relu"),
            layers.Conv2D(1, (3, 3), padding="same"),
        ]
    )


ORDER = ["conv2d", "conv2d_1", "dense", "dense_1", "conv2d_transpose", "conv2d_transpose_1", "conv2d_2"]


def convert(weights):
    """From the lesson's layout to Keras's, in the order of `set_weights`."""
    converted = []
    for layer in ORDER:
        kernel = weights[f"{layer}.kernel"]
        if kernel.ndim == 2:
            kernel = kernel.T
        elif layer.startswith("conv2d_transpose"):
            kernel = kernel[:, ::-1, ::-1, :].transpose(1, 2, 0, 3)  # (rows, cols, out, in)
        else:
            kernel = kernel.transpose(1, 2, 3, 0)  # (rows, cols, in, out)
        converted += [kernel, weights[f"{layer}.bias"]]
    return converted


class Contender:
    def __init__(self, keras, tf, threads, deeper=0):
        self.keras, self.tf, self.threads = keras, tf, threads
        self.network = build(keras, deeper)
        expected = 3_255_233 + deeper * (3 * 3 * 32 * 32 + 32)
        if self.network.count_params() != expected:
            raise ValueError(f"the network has {self.network.count_params()} parameters; expected {expected}")
        self.adam = keras.optimizers.Adam(1e-3)
        self.adam.build(self.network.trainable_variables)
        self.fresh_adam = [variable.numpy() for variable in self.adam.variables]
        self.weights = None
        self.deeper = None

    def start_from(self, weights):
        self.weights = convert(weights)

    def reset(self):
        """The first weights and an Adam that has seen nothing."""
        self.network.set_weights(self.weights)
        for variable, value in zip(self.adam.variables, self.fresh_adam):
            variable.assign(value)

    def compile(self):
        """The training loop and inference as graphs."""
        keras, tf, network = self.keras, self.tf, self.network
        loss_of = keras.losses.BinaryCrossentropy(from_logits=True)

        # Traced once, for any number of images and steps: else the first timed call would be traced, too.
        images, whole = tf.TensorSpec((None, 28, 28, 1), tf.float32), tf.int32
        signature = [images, images, tf.TensorSpec((None,), whole), tf.TensorSpec((), whole)]

        @tf.function(input_signature=signature)
        def steps(clean, noisy, order, batch):
            """A step for each `batch` of these indices, the last one with what is left: its losses."""
            count = -(-tf.size(order) // batch)
            losses = tf.TensorArray(tf.float32, count)
            for step in tf.range(count):
                some = order[step * batch : (step + 1) * batch]
                x, y = tf.gather(noisy, some), tf.gather(clean, some)
                with tf.GradientTape() as tape:
                    logits = network(x, training=True)
                    loss = loss_of(y, keras.ops.cast(logits, "float32"))
                gradients = tape.gradient(loss, network.trainable_variables)
                self.adam.apply(gradients, network.trainable_variables)
                losses = losses.write(step, loss)
            return losses.stack()

        @tf.function(reduce_retracing=True)
        def denoise(noisy):
            logits = keras.ops.cast(network(noisy, training=False), "float32")
            return logits, keras.ops.sigmoid(logits)

        self.steps, self.denoise = steps, denoise

    def denoise_all(self, noisy):
        """Logits and images, batch after batch."""
        parts = [self.denoise(noisy[at : at + INFERENCE_BATCH]) for at in range(0, len(noisy), INFERENCE_BATCH)]
        return [np.concatenate([part.numpy() for part in kind]) for kind in zip(*parts)]

    def train(self, clean, noisy, batch, warmup, steps, threads):
        if threads not in (None, self.threads):
            raise ValueError(
                f"TensorFlow has {self.threads} threads since its start; for {threads} start it with --threads {threads}"
            )
        tf = self.tf
        clean, noisy, order = tf.constant(clean), tf.constant(noisy), tf.range(len(clean))
        self.reset()
        self.steps(clean, noisy, order[: warmup * batch], tf.constant(batch)).numpy()
        start = time.perf_counter()
        losses = self.steps(clean, noisy, order[warmup * batch :], tf.constant(batch)).numpy()
        return time.perf_counter() - start, losses

    def train_deeper(self, *arguments):
        """As `train`, of the deeper network: Keras draws its first weights once, each training starts from them."""
        if self.deeper is None:
            deeper = Contender(self.keras, self.tf, self.threads, DEEPER)
            deeper.weights = deeper.network.get_weights()
            deeper.compile()
            self.deeper = deeper
        return self.deeper.train(*arguments)

    def infer(self, clean, noisy):
        self.reset()
        noisy = self.tf.constant(noisy)
        self.denoise_all(noisy[: INFERENCE_BATCH + len(noisy) % INFERENCE_BATCH])
        start = time.perf_counter()
        logits, _ = self.denoise_all(noisy)
        seconds = time.perf_counter() - start
        loss = np.maximum(logits, 0) - logits * clean + np.log1p(np.exp(-np.abs(logits)))
        return seconds, float(loss.mean(dtype=np.float64))


def calibrate(network):
    """The first weights of `Start::Calibrated`, made of Keras's as ours are."""
    kernel = network.get_layer("dense").kernel
    kernel.assign(kernel * DENSE_SPREAD)
    bias = network.layers[-1].bias
    bias.assign(np.full(bias.shape, math.log(MEAN_PIXEL / (1 - MEAN_PIXEL)), np.float32))


def race(contender, channel, mnist, seed):
    """Trains until the score on all test images is reached: fixed noise, a new order in each epoch."""
    tf = contender.tf
    test = worker.read_images(mnist, "t10k")
    noisy_test = tf.constant(worker.add_noise(test, worker.TEST_NOISE_SEED))
    train = worker.read_images(mnist, "train")[:TRAIN]
    noisy = tf.constant(worker.add_noise(train, seed))
    train = tf.constant(train)
    orders = np.random.default_rng(seed)
    batches = -(-TRAIN // BATCH)
    cuts = [BATCH * (batches * quarter // EVALUATIONS) for quarter in range(1, EVALUATIONS)]
    images = 0
    for _ in range(EPOCHS):
        for order in np.split(orders.permutation(TRAIN).astype(np.int32), cuts):
            contender.steps(train, noisy, tf.constant(order), tf.constant(BATCH))
            images += len(order)
            psnr = worker.psnr(test, contender.denoise_all(noisy_test)[1])
            line = {"seconds": time.perf_counter() - STARTED, "images": images, "psnr": psnr}
            print(json.dumps(line), file=channel)
            if psnr >= GOAL:
                return


def main():
    channel = worker.claim_stdout()
    parser = worker.arguments(__doc__.split("\n")[0])
    parser.add_argument("--policy", choices=NAMES, required=True)
    parser.add_argument("--to-19db", action="store_true", help="train until the test images reach 19 dB")
    parser.add_argument("--seed", type=int, default=1, help="of the first weights, noise and order of --to-19db")
    parser.add_argument("--start", choices=["keras", "calibrated"], default="keras", help="first weights of --to-19db")
    args = parser.parse_args()

    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    keras.mixed_precision.set_global_policy(args.policy)
    keras.utils.set_random_seed(args.seed)
    contender = Contender(keras, tf, args.threads)
    contender.compile()
    if args.to_19db:
        if args.start == "calibrated":
            calibrate(contender.network)
        return race(contender, channel, args.mnist, args.seed)
    contender.start_from(worker.first_weights(args.data))
    settings = [
        "a training loop in one tf.function",
        "oneDNN",
        args.policy,
        f"{args.threads} threads",
    ]
    ready = {
        "name": NAMES[args.policy],
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__},
        "settings": ", ".join(settings),
    }
    worker.serve(channel, ready, contender, worker.Images(args.mnist))


if __name__ == "__main__":
    main()
