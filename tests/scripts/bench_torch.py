#!/usr/bin/env python3
"""Times the CCVPE networks and their convolutions in PyTorch on the CPU, for comparison with ours.

    pip install torch; python3 bench_torch.py --what step,inference,ops --threads 1 --rounds 8

Prints one line for each measurement: what, threads, least and median milliseconds, images/s.
The networks follow the tables of `offline/src/model/presets.rs`; the matching is one matrix product
for each level, and Adam is the fused one: PyTorch's best eager form that we know.
"""

import argparse
import math
import time

import torch
import torch.nn.functional as F
from torch import nn


def compact():
    """The compact preset: plain convolution blocks, three levels, heading known to one bin."""
    blocks = [("conv", 3, s, c) for s, c in
              [(2, 12), (2, 24), (1, 24), (2, 40), (1, 40), (2, 80), (1, 80)]]
    return dict(
        ground=(48, 256), aerial=128, sigma=1.0, stem=None, blocks=blocks, head=None, bins=16, searched=[0], cell=1,
        levels=[(8, 8, 128, 8), (16, 4, 64, 4), (32, 2, 32, 2)],
        location=[(40, 4, 32, 64), (24, 2, 16, 32), (12, 0, 8, 1)],
        orientation=[(24, 4, 16, 32), (12, 2, 8, 16), (8, 0, 8, 2)])


def vigor():
    """The published VIGOR network: two EfficientNet-B0 encoders, six levels."""
    blocks = []
    for expand, kernel, stride, channels, repeats in [
            (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
            (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)]:
        blocks += [(expand, kernel, stride if i == 0 else 1, channels) for i in range(repeats)]
    return dict(
        ground=(320, 640), aerial=512, sigma=7.133, stem=32, blocks=blocks, head=1280, bins=20, searched=list(range(20)),
        cell=2,
        levels=[(8, 64, 1280, 64), (16, 32, 640, 32), (32, 16, 320, 16), (64, 8, 160, 8),
                (128, 4, 80, 4), (256, 2, 40, 2)],
        location=[(1024, 15, 640, 640), (320, 10, 320, 320), (160, 4, 160, 160), (80, 2, 80, 80),
                  (40, 0, 40, 40), (16, None, 16, 1)],
        orientation=[(1024, 15, 640, 640), (256, 10, 256, 256), (128, 4, 128, 128), (64, 2, 64, 64),
                     (32, 0, 32, 32), (16, None, 16, 2)])


class Conv(nn.Module):
    """Convolution (padding by constants, columns wrapping on request), batch norm, activation."""

    def __init__(self, inputs, outputs, kernel, stride, groups=1, wrap=False, activation=True):
        super().__init__()
        total = kernel - stride
        self.before, self.after, self.wrap, self.activation = total // 2, total - total // 2, wrap, activation
        self.symmetric = self.before == self.after
        inside = 0 if not self.symmetric else ((self.before, 0) if wrap else self.before)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, inside, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)

    def forward(self, x):
        before, after = self.before, self.after
        if before + after > 0:
            if self.wrap:
                x = F.pad(x, (before, after, 0, 0), mode="circular")
                if not self.symmetric:
                    x = F.pad(x, (0, 0, before, after))
            elif not self.symmetric:
                x = F.pad(x, (before, after, before, after))
        x = self.norm(self.conv(x))
        return F.silu(x) if self.activation else x


class Block(nn.Module):
    def __init__(self, inputs, kind, kernel, stride, outputs, wrap):
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        self.excite = None
        if kind == "conv":
            self.before = nn.Sequential(Conv(inputs, outputs, kernel, stride, wrap=wrap))
            self.project = None
            return
        hidden = inputs * kind
        before = [Conv(inputs, hidden, 1, 1)] if kind != 1 else []
        before.append(Conv(hidden, hidden, kernel, stride, groups=hidden, wrap=wrap))
        self.before = nn.Sequential(*before)
        squeezed = max(inputs // 4, 1)
        self.excite = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, squeezed, 1), nn.SiLU(),
                                    nn.Conv2d(squeezed, hidden, 1), nn.Sigmoid())
        self.project = Conv(hidden, outputs, 1, 1, activation=False)

    def forward(self, x):
        y = self.before(x)
        if self.excite is not None:
            y = self.project(y * self.excite(y))
        return y + x if self.residual else y


class Encoder(nn.Module):
    def __init__(self, spec, wrap):
        super().__init__()
        inputs = spec["stem"] or 3
        self.stem = Conv(3, inputs, 3, 2, wrap=wrap) if spec["stem"] else None
        self.blocks = nn.ModuleList()
        for kind, kernel, stride, outputs in spec["blocks"]:
            self.blocks.append(Block(inputs, kind, kernel, stride, outputs, wrap))
            inputs = outputs
        self.head = Conv(inputs, spec["head"], 1, 1) if spec["head"] else None
        self.channels = spec["head"] or inputs

    def forward(self, x):
        if self.stem is not None:
            x = self.stem(x)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return (self.head(x) if self.head is not None else x), outputs


class Step(nn.Module):
    def __init__(self, inputs, up, skip, skip_channels, hidden, out):
        super().__init__()
        self.skip = skip
        self.up = nn.ConvTranspose2d(inputs, up, 2, 2)
        self.convs = nn.Sequential(nn.Conv2d(up + skip_channels, hidden, 3, padding=1), nn.ReLU(),
                                   nn.Conv2d(hidden, out, 3, padding=1))

    def forward(self, x, skips):
        x = self.up(x)
        if self.skip is not None:
            x = torch.cat([x, skips[self.skip]], 1)
        return self.convs(x)


class Ccvpe(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.spec = spec
        self.ground, self.aerial = Encoder(spec, True), Encoder(spec, False)
        features = self.ground.channels
        strides = math.prod(b[2] for b in spec["blocks"]) * (2 if spec["stem"] else 1)
        rows = spec["ground"][0] // strides
        self.heads = nn.ModuleList(nn.Conv2d(features, ground, 1) for _, ground, _, _ in spec["levels"])
        self.rows = nn.ModuleList(nn.Linear(rows, 1) for _ in spec["levels"])
        width = spec["levels"][0][2]
        self.descriptors = nn.Conv2d(features, width, spec["cell"], spec["cell"])
        skip_channels = lambda skip: 0 if skip is None else spec["blocks"][skip][3]
        self.location = nn.ModuleList(
            Step(1 + level[2], up, skip, skip_channels(skip), hidden, out)
            for level, (up, skip, hidden, out) in zip(spec["levels"], spec["location"]))
        self.orientation, inputs = nn.ModuleList(), spec["bins"] + width
        for up, skip, hidden, out in spec["orientation"]:
            self.orientation.append(Step(inputs, up, skip, skip_channels(skip), hidden, out))
            inputs = out
        for k, (_, ground, channels, shift) in enumerate(spec["levels"]):
            bins = range(spec["bins"]) if k == 0 else spec["searched"]
            places = [[(j - i * shift) % channels for j in range(channels)] for i in bins]
            self.register_buffer(f"roll{k}", torch.tensor(places))

    def match(self, x, ground, k):
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels, height * width)
        rolled = ground[:, getattr(self, f"roll{k}")]  # [N, bins, C]
        norms = x.norm(dim=1, keepdim=True) * ground.norm(dim=1)[:, None, None]
        return (torch.bmm(rolled, x) / norms).reshape(batch, -1, height, width)

    def forward(self, ground, aerial):
        ground, _ = self.ground(ground)
        aerial, skips = self.aerial(aerial)
        first = x = self.descriptors(aerial)
        stacks = []
        for k, step in enumerate(self.location):
            described = self.rows[k](self.heads[k](ground).transpose(2, 3))  # [N, c, W, 1]
            described = described.squeeze(3).transpose(1, 2).flatten(1)  # column outer, channel inner
            stack = self.match(x, described, k)
            stacks.append(stack)
            allowed = stack[:, self.spec["searched"]] if k == 0 else stack
            matching = allowed.max(1, keepdim=True)[0]
            x = step(torch.cat([matching, F.normalize(x, dim=1)], 1), skips)
        y = torch.cat([stacks[0], F.normalize(first, dim=1)], 1)
        for step in self.orientation:
            y = step(y, skips)
        return stacks, x.flatten(1), F.normalize(y, dim=1)


def loss_of(prediction, targets, total_target, direction):
    stacks, logits, field = prediction
    total = 0
    for stack, target in zip(stacks, targets):
        scores = F.log_softmax(stack.flatten(1) / 0.1, 1)
        positive = target * (target > 0.01)
        total = total - (positive * scores).sum() / positive.sum() / len(stacks)
    normal = total_target / total_target.sum(1, keepdim=True)
    total = total - (normal * F.log_softmax(logits, 1)).sum(1).mean()
    weight = total_target.reshape(field.shape[0], 1, *field.shape[2:])
    return total + 0.1 * (weight * (field - direction[:, :, None, None]) ** 2).sum() / field.shape[0]


def timed(run, rounds, seconds):
    run()
    run()
    times, start = [], time.perf_counter()
    while len(times) < rounds and (len(times) < 3 or time.perf_counter() - start < seconds):
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    times.sort()
    return times[0] * 1e3, times[len(times) // 2] * 1e3


def report(name, threads, least, median, images):
    print(f"torch {name:34} threads {threads} least {least:9.2f} ms median {median:9.2f} ms"
          f" images/s {images / median * 1e3:8.2f}", flush=True)


def network(args, name, batch, training):
    torch.manual_seed(0)
    spec = {"compact": compact, "vigor": vigor}[name]()
    model = Ccvpe(spec)
    form = torch.channels_last if args.channels_last else torch.contiguous_format
    model = model.to(memory_format=form)
    ground = torch.rand(batch, 3, *spec["ground"]).to(memory_format=form)
    aerial = torch.rand(batch, 3, spec["aerial"], spec["aerial"]).to(memory_format=form)
    suffix = " channels_last" if args.channels_last else ""
    if not training:
        model.eval()

        def run():
            with torch.inference_mode():
                model(ground, aerial)
        report(f"{name} inference batch {batch}{suffix}", args.threads, *timed(run, args.rounds, args.seconds), batch)
        return
    # The camera in the middle, turned by 0.1 rad; the Gaussian cut off where it would turn subnormal.
    side = spec["levels"][-1][0] * 2
    along = torch.exp(-0.5 * ((torch.arange(side) + 0.5 - side / 2) / spec["sigma"]) ** 2)
    heat = (along[:, None] * along)[None, None].repeat(batch, 1, 1, 1)
    heat[heat < 1e-12] = 0
    share = 0.1 / (2 * math.pi / spec["bins"])
    targets = []
    for k, (grid, *_) in enumerate(spec["levels"]):
        target = torch.zeros(batch, spec["bins"], grid, grid)
        pooled = F.max_pool2d(heat, side // grid)[:, 0]
        target[:, 0], target[:, -1] = (1 - share) * pooled, share * pooled
        targets.append((target if k == 0 else target[:, spec["searched"]]).flatten(1))
    heat = heat.flatten(1)
    direction = torch.tensor([[math.cos(0.1), math.sin(0.1)]]).repeat(batch, 1)
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def run():
        adam.zero_grad(set_to_none=True)
        loss_of(model(ground, aerial), targets, heat, direction).backward()
        adam.step()
    report(f"{name} training step batch {batch}{suffix}", args.threads, *timed(run, args.rounds, args.seconds), batch)


# (outputs, inputs, kernel, stride, groups, rows, columns) of input images: the list of
# `kernels/benches/shapes/mod.rs`.
OPS = [
    (96, 16, 1, 1, 1, 256, 256), (24, 144, 1, 1, 1, 128, 128), (240, 40, 1, 1, 1, 64, 64),
    (80, 480, 1, 1, 1, 32, 32), (672, 112, 1, 1, 1, 32, 32), (1152, 192, 1, 1, 1, 16, 16),
    (1280, 320, 1, 1, 1, 16, 16), (32, 3, 3, 2, 1, 512, 512),
    (640, 1344, 3, 1, 1, 16, 16), (320, 432, 3, 1, 1, 32, 32), (160, 200, 3, 1, 1, 64, 64),
    (80, 104, 3, 1, 1, 128, 128), (40, 56, 3, 1, 1, 256, 256), (16, 16, 3, 1, 1, 512, 512),
    (32, 32, 3, 1, 32, 256, 256), (96, 96, 3, 2, 96, 256, 256), (144, 144, 3, 1, 144, 128, 128),
    (144, 144, 5, 2, 144, 128, 128), (240, 240, 5, 1, 240, 64, 64), (480, 480, 3, 1, 480, 32, 32),
    (672, 672, 5, 1, 672, 32, 32), (1152, 1152, 5, 1, 1152, 16, 16),
]


def operations(args):
    for outputs, inputs, kernel, stride, groups, rows, columns in OPS:
        x = torch.rand(1, inputs, rows, columns, requires_grad=True)
        weight = torch.rand(outputs, inputs // groups, kernel, kernel, requires_grad=True)
        pad = kernel // 2
        run = lambda: F.conv2d(x, weight, None, stride, pad, 1, groups)
        with torch.inference_mode():
            forward = timed(run, args.rounds, args.seconds)[1]
        y = run()
        gradient = torch.rand_like(y)

        def backward():
            torch.autograd.grad(y, (x, weight), gradient, retain_graph=True)
        back = timed(backward, args.rounds, args.seconds)[1]
        flop = 2 * y.numel() * inputs // groups * kernel * kernel
        kind = "depthwise" if groups > 1 else "dense"
        print(f"torch {kind} {kernel}x{kernel}/{stride} {inputs}->{outputs} @{rows}x{columns} threads {args.threads}"
              f" forward {flop / forward / 1e6:7.1f} backward {2 * flop / back / 1e6:7.1f} GFLOP/s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default="step,inference",
                        help="of: step, inference, batch-inference, vigor-step, vigor-inference, ops")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10, help="measurements, after two that do not count")
    parser.add_argument("--seconds", type=float, default=10, help="no new measurement after this long")
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs = {
        "step": lambda: network(args, "compact", args.batch, True),
        "inference": lambda: network(args, "compact", 1, False),
        "batch-inference": lambda: network(args, "compact", args.batch, False),
        "vigor-step": lambda: network(args, "vigor", 1, True),
        "vigor-inference": lambda: network(args, "vigor", 1, False),
        "ops": lambda: operations(args),
    }
    for what in args.what.split(","):
        runs[what]()


if __name__ == "__main__":
    main()
