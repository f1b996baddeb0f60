"""Makes training.pt, swa.pt and state.safetensors: what training loops leave behind."""
import argparse
import collections
import pathlib

import numpy as np
import safetensors.torch
import torch

torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
module(torch.ones(2, 1, 3, 3)).sum().backward()
optimizer.step()
average = torch.optim.swa_utils.AveragedModel(module)
settings = {
    "loss": np.float64(0.25),
    "best": np.float32(0.5),
    "history": np.arange(3.0),
    "size": torch.Size([3, 4]),
    "device": torch.device("cpu"),
    "type": torch.float32,
    "arguments": argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("/data")),
    "counts": collections.defaultdict(int, seen=3),
    "names": {"a", "b"},
    "seed": b"1234",
}
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
training = {
    "epoch": 3,
    "state_dict": torch.nn.DataParallel(module).state_dict(),
    "optimizer": optimizer.state_dict(),
    "scheduler": scheduler.state_dict(),
    "extra_head": {"weight": torch.ones(5)},
    **settings,
}
torch.save(training, "training.pt")
torch.save({"model": module.state_dict(), "model_ema": average.state_dict()}, "swa.pt")
safetensors.torch.save_file(module.state_dict(), "state.safetensors")
