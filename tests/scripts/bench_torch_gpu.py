#!/usr/bin/env python3
"""Times the CCVPE networks in PyTorch on a CUDA card (or, to try the script, on the CPU).

    python3 bench_torch_gpu.py --device cuda --network vigor --what adapt,supervised,inference \
        --batch 8,16,32 --precision f32,tf32,bf16 --form eager,channels_last,compile

Prints one line for each measurement, in the words of `offline/examples/device_step.rs`. A step is
forward, loss, backward and fused Adam, with a new batch copied from pinned memory beside the
computation, as ours. `adapt` is the loss of the adaptation recipe `paper`: InfoNCE over the two
coarsest levels, and a pass that ends there; `supervised` is everything. bf16 is
torch.autocast with f32 weights; tf32 allows TF32 in matrix products and convolutions; f32 forbids
it. `compile` is torch.compile in its default mode, `max-autotune` the slow search. The network is
that of `bench_torch.py`, built from the public description.
"""

import argparse
import contextlib
import math
import os
import time

import torch
import torch.nn.functional as F

import bench_torch

SPECS = {"compact": bench_torch.compact, "vigor": bench_torch.vigor}
ADAPTED_LEVELS = 2


def tiny():
    """For trying the script: the published network's form, a hundredth of its size."""
    spec = bench_torch.compact()
    spec.update(ground=(16, 256), aerial=32)
    spec["levels"] = [(grid // 4, *rest) for grid, *rest in spec["levels"]]
    return spec


SPECS["tiny"] = tiny


class Network(bench_torch.Ccvpe):
    """The same network, of which a pass may end after some levels."""

    def forward(self, ground, aerial, levels=None):
        if levels is None:
            return super().forward(ground, aerial)
        ground, _ = self.ground(ground)
        aerial, skips = self.aerial(aerial)
        x = self.descriptors(aerial)
        stacks = []
        for k in range(levels):
            described = self.rows[k](self.heads[k](ground).transpose(2, 3)).squeeze(3)
            stack = self.match(x, described.transpose(1, 2).flatten(1), k)
            stacks.append(stack)
            if k + 1 < levels:
                allowed = stack[:, self.spec["searched"]] if k == 0 else stack
                matching = allowed.max(1, keepdim=True)[0]
                x = self.location[k](torch.cat([matching, F.normalize(x, dim=1)], 1), skips)
        return stacks


def targets_of(spec, batch, device, threshold):
    """The camera in the middle, turned by 0.1 rad; the Gaussian cut off where it would be subnormal."""
    side = spec["levels"][-1][0] * 2
    along = torch.exp(-0.5 * ((torch.arange(side) + 0.5 - side / 2) / spec["sigma"]) ** 2)
    heat = (along[:, None] * along)[None, None].repeat(batch, 1, 1, 1)
    heat[heat < 1e-12] = 0
    share = 0.1 / (2 * math.pi / spec["bins"])
    stacks = []
    for k, (grid, *_) in enumerate(spec["levels"]):
        target = torch.zeros(batch, spec["bins"], grid, grid)
        pooled = F.max_pool2d(heat, side // grid)[:, 0]
        target[:, 0], target[:, -1] = (1 - share) * pooled, share * pooled
        target = (target if k == 0 else target[:, spec["searched"]]).flatten(1)
        stacks.append((target * (target > threshold)).to(device))
    direction = torch.tensor([[math.cos(0.1), math.sin(0.1)]]).repeat(batch, 1)
    return stacks, heat.flatten(1).to(device), direction.to(device)


def info_nce(stacks, targets):
    total = 0
    for stack, target in zip(stacks, targets):
        scores = F.log_softmax(stack.float().flatten(1) / 0.1, 1)
        total = total - (target * scores).sum() / target.sum() / len(stacks)
    return total


def loss_of(prediction, targets, heat, direction, adapt):
    if adapt:
        return info_nce(prediction, targets)
    stacks, logits, field = prediction
    total = info_nce(stacks, targets)
    normal = heat / heat.sum(1, keepdim=True)
    total = total - (normal * F.log_softmax(logits.float(), 1)).sum(1).mean()
    weight = heat.reshape(field.shape[0], 1, *field.shape[2:])
    return total + 0.1 * (weight * (field.float() - direction[:, :, None, None]) ** 2).sum() / field.shape[0]


class Feed:
    """Batches from pinned memory, copied while the last one is computed."""

    def __init__(self, shapes, device, form):
        self.device, self.is_cuda, self.form = device, device.type == "cuda", form
        self.host = [torch.rand(shape) for shape in shapes]
        if self.is_cuda:
            self.host = [tensor.pin_memory() for tensor in self.host]
            self.stream = torch.cuda.Stream()
        self.ahead = self.copy()

    def copy(self):
        with torch.cuda.stream(self.stream) if self.is_cuda else contextlib.nullcontext():
            return [tensor.to(self.device, non_blocking=True, memory_format=self.form) for tensor in self.host]

    def next(self):
        if self.is_cuda:
            torch.cuda.current_stream().wait_stream(self.stream)
            for tensor in self.ahead:
                tensor.record_stream(torch.cuda.current_stream())
        batch, self.ahead = self.ahead, self.copy()
        return batch


def measure(args, what, batch, precision, form):
    device = torch.device(args.device)
    is_cuda = device.type == "cuda"
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = args.search
    spec = SPECS[args.network]()
    layout = torch.channels_last if form in ("channels_last", "compile_channels_last") else torch.contiguous_format
    model = Network(spec).to(device, memory_format=layout)
    run_model = model
    if form.startswith("compile"):
        run_model = torch.compile(model)
    elif form == "max-autotune":
        run_model = torch.compile(model, mode="max-autotune")
    feed = Feed([(batch, 3, *spec["ground"]), (batch, 3, spec["aerial"], spec["aerial"])], device, layout)
    cast = (lambda: torch.autocast(device.type, torch.bfloat16)) if precision == "bf16" else contextlib.nullcontext
    synchronise = torch.cuda.synchronize if is_cuda else lambda: None
    losses = []
    if what == "inference":
        model.eval()

        def step():
            with torch.inference_mode(), cast():
                run_model(*feed.next())
    else:
        adapt = what == "adapt"
        targets, heat, direction = targets_of(spec, batch, device, 0.0 if adapt else 0.01)
        targets = targets[:ADAPTED_LEVELS] if adapt else targets
        # The adaptation moves what its loss reaches.
        adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

        def step():
            ground, aerial = feed.next()
            adam.zero_grad(set_to_none=True)
            with cast():
                prediction = run_model(ground, aerial, ADAPTED_LEVELS) if adapt else run_model(ground, aerial)
            loss = loss_of(prediction, targets, heat, direction, adapt)
            loss.backward()
            adam.step()
            losses.append(loss.detach())
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(args.warm):
        step()
    synchronise()
    if args.gate:
        if is_cuda:
            torch.cuda.empty_cache()  # others warm up meanwhile
        wait_at(args.gate)
        for _ in range(2):
            step()
        synchronise()
    start = time.perf_counter()
    for _ in range(args.steps):
        step()
    synchronise()
    step_ms = (time.perf_counter() - start) / args.steps * 1e3
    memory = f"{torch.cuda.max_memory_reserved() / 2**30:6.2f}" if is_cuda else "     -"
    assert all(torch.isfinite(loss) for loss in losses), "a loss that is not finite measures nothing"
    print(f"torch {args.network:30} {what:10} {precision:5} batch {batch:3} step_ms {step_ms:9.2f}"
          f" images/s {batch / step_ms * 1e3:9.2f} form {form}{'+search' if args.search else ''} memory_GiB {memory}", flush=True)


def wait_at(gate):
    """Says that it is warm, and waits for its turn: compilation is done while others measure nothing."""
    open(f"{gate}.warm", "w").close()
    while not os.path.exists(f"{gate}.go"):
        time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--network", default="vigor", choices=sorted(SPECS))
    parser.add_argument("--what", default="adapt", help="of adapt, supervised, inference")
    parser.add_argument("--batch", default="8")
    parser.add_argument("--precision", default="f32", help="of f32, tf32, bf16")
    parser.add_argument("--form", default="eager",
                        help="of eager, channels_last, compile, compile_channels_last, max-autotune")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--search", action="store_true", help="cudnn.benchmark: algorithms chosen by trying them")
    parser.add_argument("--gate", help="when warm, make the file GATE.warm and wait for GATE.go")
    parser.add_argument("--warm", type=int, default=5, help="steps before, which do not count")
    args = parser.parse_args()
    print(f"torch {torch.__version__} on "
          f"{torch.cuda.get_device_name() if args.device.startswith('cuda') else args.device}", flush=True)
    for precision in args.precision.split(","):
        for batch in args.batch.split(","):
            for what in args.what.split(","):
                for form in args.form.split(","):
                    try:
                        measure(args, what, int(batch), precision, form)
                    except torch.OutOfMemoryError:
                        print(f"torch {args.network:30} {what:10} {precision:5} batch {int(batch):3} form {form}"
                              " out of memory", flush=True)
                    finally:
                        torch.compiler.reset()
                        if torch.cuda.is_available():
                            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
