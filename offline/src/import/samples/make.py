"""Makes the sample checkpoints beside this file."""
import io
import os
import pickle
import zipfile
from collections import OrderedDict

import torch

base = torch.arange(24, dtype=torch.float32) / 8 - 1
state = OrderedDict(
    plain=base.reshape(2, 3, 4),
    shared=base[4:10],  # a view of the same storage
    transposed=base.reshape(4, 6).t(),
    double=torch.tensor([0.1, -2.5], dtype=torch.float64),
    half=torch.tensor([0.5, -1.25, 6e-8, float("inf")], dtype=torch.float16),
    bfloat=torch.tensor([1.0, -3.0], dtype=torch.bfloat16),
    count=torch.tensor(7),
    flags=torch.tensor([True, False]),
    parameter=torch.nn.Parameter(torch.ones(2)),
    empty=torch.zeros(0, 3),
)
whole = {"epoch": 3, "note": "sample", "state_dict": state}
torch.save(whole, "state.pt")
torch.save(whole, "state_legacy.pt", _use_new_zipfile_serialization=False)
torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
torch.save(torch.nn.DataParallel(module).state_dict(), "module.pt")


class Command:
    def __reduce__(self):
        return os.system, ("touch /tmp/this-was-run",)


with zipfile.ZipFile("hostile.pt", "w", zipfile.ZIP_STORED) as archive:
    archive.writestr("archive/data.pkl", pickle.dumps({"a": Command()}, protocol=2))
    archive.writestr("archive/version", "3\n")
