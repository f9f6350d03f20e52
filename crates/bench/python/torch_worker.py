"""PyTorch's worker: the lesson's network in eager mode or compiled, tuned for the CPU.

    python torch_worker.py --precision float32|mixed [--compile] --mnist FOLDER --data FOLDER

It speaks the protocol of worker.py under the names pytorch-float32, pytorch-mixed and torch-compile.

What was tried for PyTorch to be at its best (training, batch 128, two cores; 1 is what is used here):

    float32  mixed
    0.97     0.9     nn.ConvTranspose2d instead of the equal nn.Conv2d (--conv-transpose), channels last
    0.95     1       nn.Conv2d, channels first
    0.86             nn.ConvTranspose2d, channels first

Adam's epsilon is PyTorch's own formula with Keras's 1e-7. Keras adds it before the correction of the second moment, as
if it were 3e-6 in the first step, and that alone makes its loss after few steps differ by a per cent or two.
"""

import time

import numpy as np
import worker

INFERENCE_BATCH = 500  # all test images in whole batches
UNET_PARAMETERS = 1_050_948


def build(torch, transposed):
    """The network on channels-last images, to logits. A transposed convolution with stride 1 may
    stand as the ordinary one with its kernel flipped and its channels swapped: the same function."""
    nn = torch.nn

    def up(from_, to):
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        return kind(from_, to, 3, padding=1)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv2d = nn.Conv2d(1, 16, 3, padding=1)
            self.conv2d_1 = nn.Conv2d(16, 32, 3, padding=1)
            self.dense = nn.Linear(28 * 28 * 32, 64)
            self.dense_1 = nn.Linear(64, 28 * 28 * 32)
            self.conv2d_transpose = up(32, 32)
            self.conv2d_transpose_1 = up(32, 16)
            self.conv2d_2 = nn.Conv2d(16, 1, 3, padding=1)

        def forward(self, x):
            relu = nn.functional.relu
            x = relu(self.conv2d(x))
            x = relu(self.conv2d_1(x))
            x = x.permute(0, 2, 3, 1).flatten(1)  # a view: the memory is channels last already
            x = relu(self.dense(x))
            x = relu(self.dense_1(x))
            x = x.view(-1, 28, 28, 32).permute(0, 3, 1, 2)
            x = relu(self.conv2d_transpose(x))
            x = relu(self.conv2d_transpose_1(x))
            return self.conv2d_2(x)

    return Network().to(memory_format=torch.channels_last)


def convert(torch, weights, transposed):
    """From the lesson's layout to PyTorch's: (out, in, h, w), of a transposed one (in, out, h, w) and flipped."""
    state = {}
    for name, value in weights.items():
        layer, part = name.split(".")
        value = torch.from_numpy(value)
        if part == "kernel" and value.dim() == 4:
            if transposed and layer.startswith("conv2d_transpose"):
                value = value.permute(3, 0, 1, 2).flip(2, 3)
            else:
                value = value.permute(0, 3, 1, 2)
        state[f"{layer}.{'weight' if part == 'kernel' else 'bias'}"] = value
    return state


def build_unet(torch, width=64, waves=64, classes=11):
    """The lesson's U-Net (crates/diffusion/src/unet.rs), channels first, as is usual in PyTorch: here it is faster
    than channels last. Four neighbours become channels; groups of 16 channels; 1,050,948 parameters, as there."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, from_, to, code):
            super().__init__()
            self.norm = nn.GroupNorm(from_ // 16, from_)
            self.conv = nn.Conv2d(from_, to, 3, padding=1)
            self.time = nn.Linear(code, to)
            self.norm_1 = nn.GroupNorm(to // 16, to)
            self.conv_1 = nn.Conv2d(to, to, 3, padding=1)
            self.skip = nn.Identity() if from_ == to else nn.Conv2d(from_, to, 1)
            nn.init.zeros_(self.conv_1.weight)
            nn.init.zeros_(self.conv_1.bias)

        def forward(self, x, code):
            h = self.conv(F.silu(self.norm(x)))
            h = h + self.time(code)[:, :, None, None]
            h = self.conv_1(F.silu(self.norm_1(h)))
            return self.skip(x) + h

    class Unet(nn.Module):
        def __init__(self):
            super().__init__()
            few, many, code = width, 2 * width, 2 * width
            self.time, self.time_1 = nn.Linear(waves, code), nn.Linear(code, code)
            self.classes = nn.Embedding(classes, code)
            self.stem = nn.Conv2d(4, few, 3, padding=1)
            self.down, self.down_1 = Block(few, few, code), Block(few, few, code)
            self.deep, self.deep_1 = Block(few, many, code), Block(many, many, code)
            self.up, self.up_1 = Block(many + few, few, code), Block(2 * few, few, code)
            self.last_norm = nn.GroupNorm(few // 16, few)
            self.last = nn.Conv2d(few, 4, 3, padding=1)
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)
            powers = torch.arange(waves // 2) / (waves // 2)
            self.register_buffer("frequencies", torch.exp(-powers * np.log(10_000)))

        def forward(self, x, times, labels):
            angles = times[:, None].float() * self.frequencies
            code = F.silu(self.time(torch.cat([angles.sin(), angles.cos()], 1)))
            code = F.silu(self.time_1(code) + self.classes(labels))
            x = self.stem(F.pixel_unshuffle(x, 2))
            large = self.down_1(self.down(x, code), code)
            x = self.deep_1(self.deep(F.avg_pool2d(large, 2), code), code)
            x = self.up(torch.cat([F.interpolate(x, scale_factor=2), large], 1), code)
            x = self.up_1(torch.cat([x, large], 1), code)
            return F.pixel_shuffle(self.last(F.silu(self.last_norm(x))), 2)

    return Unet()


class Contender:
    def __init__(self, torch, precision, compiled, data, transposed):
        self.torch = torch
        self.mixed = precision == "mixed"
        self.network = build(torch, transposed)
        self.state = convert(torch, worker.first_weights(data), transposed)
        self.network.load_state_dict(self.state)
        self.forward = torch.compile(self.network, dynamic=False) if compiled else self.network
        count = sum(p.numel() for p in self.network.parameters())
        if count != 3_255_233:
            raise ValueError(f"the network has {count} parameters; expected 3255233")

    def autocast(self):
        return self.torch.autocast("cpu", self.torch.bfloat16, enabled=self.mixed)

    def tensors(self, clean, noisy):
        """(n, 28, 28, 1) to (n, 1, 28, 28) without copying."""
        return [self.torch.from_numpy(images).permute(0, 3, 1, 2) for images in (clean, noisy)]

    def train(self, clean, noisy, batch, warmup, steps, threads):
        torch = self.torch
        if threads:
            torch.set_num_threads(threads)
        clean, noisy = self.tensors(clean, noisy)
        self.network.load_state_dict(self.state)
        self.network.train()
        adam = torch.optim.Adam(self.network.parameters(), lr=1e-3, eps=1e-7, fused=True)
        loss_of = torch.nn.functional.binary_cross_entropy_with_logits
        losses = []
        for step in range(warmup + steps):
            if step == warmup:
                start = time.perf_counter()
            some = slice(step * batch, (step + 1) * batch)
            adam.zero_grad(set_to_none=True)
            with self.autocast():
                logits = self.forward(noisy[some])
            loss = loss_of(logits.float(), clean[some])
            loss.backward()
            adam.step()
            losses.append(loss.detach())
        seconds = time.perf_counter() - start
        return seconds, [float(loss) for loss in losses[warmup:]]

    def train_unet(self, clean, labels, batch, warmup, steps, threads):
        """Noise prediction on the cosine schedule, a class in ten hidden, as in the lesson."""
        torch = self.torch
        if threads:
            torch.set_num_threads(threads)
        torch.manual_seed(1)
        network = build_unet(torch)
        count = sum(p.numel() for p in network.parameters())
        if count != UNET_PARAMETERS:
            raise ValueError(f"the U-Net has {count} parameters; expected {UNET_PARAMETERS}")
        adam = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-7, fused=True)
        steps_ = torch.arange(1001) / 1000
        left = torch.cos((steps_ + 0.008) / 1.008 * np.pi / 2) ** 2
        left = (left[1:] / left[0]).clamp(min=1e-6)
        x0 = torch.from_numpy(clean).permute(0, 3, 1, 2).contiguous() * 2 - 1
        labels = torch.from_numpy(np.resize(labels, len(clean)).astype(np.int64))
        losses = []
        for step in range(warmup + steps):
            if step == warmup:
                start = time.perf_counter()
            some = slice(step * batch, (step + 1) * batch)
            image, eps = x0[some], torch.randn(batch, 1, 28, 28)
            t = torch.randint(0, 1000, (batch,))
            hidden = torch.rand(batch) < 0.1
            share = left[t][:, None, None, None]
            x = share.sqrt() * image + (1 - share).sqrt() * eps
            adam.zero_grad(set_to_none=True)
            with self.autocast():
                found = network(x, t, torch.where(hidden, 10, labels[some]))
            loss = torch.nn.functional.mse_loss(found.float(), eps)
            loss.backward()
            adam.step()
            losses.append(loss.detach())
        seconds = time.perf_counter() - start
        return seconds, [float(loss) for loss in losses[warmup:]]

    def infer(self, clean, noisy):
        torch = self.torch
        clean, noisy = self.tensors(clean, noisy)
        self.network.load_state_dict(self.state)
        self.network.eval()
        with torch.no_grad(), self.autocast():
            self.forward(noisy[:INFERENCE_BATCH])  # compiles, where there is something to compile
            if len(noisy) % INFERENCE_BATCH:
                self.forward(noisy[-(len(noisy) % INFERENCE_BATCH) :])
            start = time.perf_counter()
            logits = torch.cat([self.forward(some) for some in noisy.split(INFERENCE_BATCH)])
            logits.float().sigmoid()
            seconds = time.perf_counter() - start
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), clean)
        return seconds, float(loss)


def main():
    channel = worker.claim_stdout()
    parser = worker.arguments(__doc__.split("\n")[0])
    parser.add_argument("--precision", choices=("float32", "mixed"), required=True)
    parser.add_argument("--compile", action="store_true", help="with torch.compile; the name is then torch-compile")
    parser.add_argument("--conv-transpose", action="store_true", help="nn.ConvTranspose2d instead of the equal nn.Conv2d")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    contender = Contender(torch, args.precision, args.compile, args.data, args.conv_transpose)
    settings = [
        "channels last (the U-Net: channels first)",
        "fused Adam",
        "nn.ConvTranspose2d" if args.conv_transpose else "nn.Conv2d with the flipped kernel for nn.ConvTranspose2d",
        "bfloat16 autocast" if contender.mixed else "float32",
        "torch.compile" if args.compile else "eager",
        f"{args.threads} threads",
    ]
    name = "torch-compile" if args.compile else f"pytorch-{args.precision}"
    ready = {"name": name, "versions": {"torch": torch.__version__}, "settings": ", ".join(settings)}
    worker.serve(channel, ready, contender, worker.Images(args.mnist))


if __name__ == "__main__":
    main()
