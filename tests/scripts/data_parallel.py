"""One network trained in two processes over MPI, beside one process with the same batches; a run stopped and gone on with, and
every way of starting several processes that would each train the same network.

Usage: data_parallel.py CROSSFIX CROSSFIX-MPI OUT    the program as it is shipped, and built with --features mpi; OUT: made anew
"""
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy

from checks import check, failures

plain, parallel, work = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), Path(sys.argv[3])
shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
# One thread for each process, so that two of them take as long as two cores let them.
started = re.compile("OMPI_|PMI_|PMIX_|SLURM_|RANK$|WORLD_SIZE$")
environment = {name: value for name, value in os.environ.items() if not started.match(name)} | {"RAYON_NUM_THREADS": "1"}


def run(*words, variables=None):
    words = [str(word) for word in words]
    return subprocess.run(words, capture_output=True, text=True, check=False, env={**environment, **(variables or {})}, timeout=120)


# Open MPI: as root in containers, more processes than cores, no binding, no shared memory across user namespaces.
start = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca", "btl_vader_single_copy_mechanism", "none"]


def mpirun(processes, *words):
    return run(*start, "-np", processes, parallel, *words)


def numbers(path):
    """The arrays of a safetensors file, by name."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    body = data[8 + length:]
    return {name: numpy.frombuffer(body[slice(*row["data_offsets"])], "<f4") for name, row in header.items()}


def losses(folder, of="loss"):
    lines = (folder / "train.curve.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["step"]: row[of] for row in map(json.loads, lines)}


made = run(plain, "simulate", "--kind", "pairs", "--pairs", 80, "--districts", 1, "--area", "source", "--out", work / "pairs")
assert made.returncode == 0, made.stderr

# Ten steps an epoch, whose last one's loss is in the curve. `compact` normalises by batch statistics. Two processes add the same
# numbers in another order; how that grows is the network's: one process alone, its weights changed in their last bit, has a loss
# 1e-7 away after three epochs of `compact`, and 4e-5 away after three of `ggcvt-compact`, at a tenth of the rate.
for preset, epochs, rate in [("compact", 3, 1e-3), ("ggcvt-compact", 1, 1e-4)]:
    words = ["train", "--data", work / "pairs", "--preset", preset, "--epochs", epochs, "--learning-rate", rate, "--seed", 3, "--device", "cpu", "--no-check"]
    alone = run(parallel, *words, "--out", work / preset / "one")
    both = mpirun(2, *words, "--out", work / preset / "two")
    check(f"{preset}: one process and two finish", alone.returncode == both.returncode == 0, alone.stderr + both.stderr)
    said = [line for line in both.stdout.splitlines() if "model.safetensors" in line]
    check(f"{preset}: the first process alone says how it went", len(said) == 1 and both.stderr.count("device:") == 1, both.stdout + both.stderr)
    files = {path.name for path in (work / preset / "two").iterdir()}
    expected = {"model.safetensors", "run.json", "train.checkpoint.safetensors", "train.curve.jsonl"}
    check(f"{preset}: the first process alone writes", files == expected, files)
    # Adam does not see a factor on all gradients; clipping them does.
    one, two = (losses(work / preset / name, "gradient_norm") for name in ["one", "two"])
    worst = max(abs(two[step] / norm - 1) for step, norm in one.items())
    check(f"{preset}: norms of gradients within 1e-3 of one process's (worst {worst:.1e})", one.keys() == two.keys() and worst < 1e-3, (one, two))
    one, two = losses(work / preset / "one"), losses(work / preset / "two")
    worst = max(abs(two[step] / loss - 1) for step, loss in one.items())
    check(f"{preset}: losses of {len(one)} epochs within 1e-5 of one process's (worst {worst:.1e})", one.keys() == two.keys() and worst < 1e-5, (one, two))
    one, two = (numbers(work / preset / name / "model.safetensors") for name in ["one", "two"])
    # Adam divides a gradient by its own size: where it is nothing but rounding, a number goes its own way at the learning rate.
    worst = max(float(numpy.abs(one[name] - two[name]).max()) for name in one)
    squares = [float(sum(numpy.square(a.astype("f8")).sum() for a in values)) for values in ([one[n] - two[n] for n in one], one.values())]
    relative = (squares[0] / squares[1]) ** 0.5
    check(f"{preset}: weights within 1e-4 of their length (here {relative:.1e}, worst number {worst:.1e})", one.keys() == two.keys() and relative < 1e-4, relative)

# At 1e-3 rounding alone grew to 1.06e-4 once, where the run was stopped as early as after step 6.
words = ["train", "--data", work / "pairs", "--steps", 60, "--learning-rate", 3e-4, "--seed", 3, "--device", "cpu", "--set=checkpoint_every=3"]
whole = mpirun(2, *words, "--out", work / "whole")


def stopped(folder, processes):
    """A run that ends some time after its first checkpoint, with the step of that."""
    command = [*(start if processes > 1 else []), *(["-np", str(processes)] if processes > 1 else []), parallel, *words, "--out", folder]
    running = subprocess.Popen([str(word) for word in command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (folder / "train.checkpoint.safetensors").exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.terminate()
    running.wait(30)
    return not (folder / "model.safetensors").exists()


def apart(one, two):
    one, two = numbers(one / "model.safetensors"), numbers(two / "model.safetensors")
    squares = [float(sum(numpy.square(a.astype("f8")).sum() for a in values)) for values in ([one[n] - two[n] for n in one], one.values())]
    return (squares[0] / squares[1]) ** 0.5


check("two processes train 60 steps", whole.returncode == 0, whole.stderr)
for before, after in [(2, 2), (1, 2), (2, 1)]:
    part = work / f"resumed-{before}-{after}"
    was_stopped = stopped(part, before)
    resumed = mpirun(after, *words, "--out", part, "--resume")
    done = resumed.returncode == 0 and "going on after step" in resumed.stderr
    far = apart(work / "whole", part) if done else None
    # The same sums in the same order; with another number of processes in another one.
    limit = 0.0 if before == after else 1e-4
    check(f"stopped with {before} and gone on with {after}: weights {far} of their length apart", was_stopped and done and far <= limit, resumed.stderr)

uneven = mpirun(3, *words, "--out", work / "uneven")
check("a batch of 8 has no equal shares for 3", uneven.returncode != 0 and "a multiple of 3" in uneven.stderr, uneven.stderr)
teacher = work / "whole" / "model.safetensors"
adapt = ["adapt", "--teacher", teacher, "--data", work / "pairs", "--recipe", "paper", "--force", "--no-check", "--device", "cpu", "--epochs", 1]
adapted = mpirun(2, *adapt, "--out", work / "adapted")
check("two processes adapt", adapted.returncode == 0 and (work / "adapted" / "student.safetensors").exists(), adapted.stdout + adapted.stderr)

# All refuse at once; the first to fail ends the others, one of which has to write why. Once by the data, once by the gate.
shutil.copytree(work / "pairs", work / "cut")
next((work / "cut" / "images").iterdir()).unlink()
# The gate looks at drives.
drives = work / "drives"
run(plain, "simulate", "--seed", 1, "--part", "adapt", "--districts", 1, "--drives", 1, "--out", drives)
refusals = [("data", ["--data", work / "cut", "--recipe", "paper"], "refused"),
            ("gate", ["--data", drives, "--no-check", "--set=gate.least_agreement=1"], "refused")]
for name, more, word in refusals:
    told = []
    for number in range(3):
        out = work / f"refused-{name}-{number}"
        refused = mpirun(2, "adapt", "--teacher", teacher, *more, "--device", "cpu", "--epochs", 1, "--out", out)
        told.append(refused.returncode != 0 and word in refused.stderr and (out / "refused.json").exists()
                    and any(found["refuses"] for found in json.loads((out / "refused.json").read_text(encoding="utf-8"))["findings"]))
    check(f"{name} that two processes refuse: refused.json says why, every time", all(told), (told, refused.stderr))

# Never several identical trainings in silence.
words = ["train", "--data", work / "pairs", "--steps", 1, "--device", "cpu", "--out", work / "refused"]
for by, rank, size in [("torchrun", "RANK", "WORLD_SIZE"), ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
                       ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")]:
    refused = run(plain, *words, variables={rank: "1", size: "2"})
    asks = re.search(rf"process 1 of 2 that {by} started.*--features mpi", refused.stderr)
    check(f"without MPI, a process of {by} is refused", refused.returncode == 1 and asks, refused.stderr)
refused = run(parallel, *words, variables={"RANK": "1", "WORLD_SIZE": "2"})
check("with MPI, processes that it does not connect are refused", refused.returncode == 1 and "MPI connects 1" in refused.stderr, refused.stderr)
refused = run(plain, "ablate", "--teacher", teacher, "--area", work, "--out", work / "refused", variables={"RANK": "0", "WORLD_SIZE": "2"})
check("a command that shares no work is refused", refused.returncode == 1 and "do the same work" in refused.stderr, refused.stderr)
check("nothing was written by those refused", not (work / "refused").exists())

sys.exit(f"{len(failures)} failed: {failures}" if failures else 0)
