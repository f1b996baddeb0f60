#!/usr/bin/env bash
# Our training step and PyTorch's on one card, by turns in one run, so that both meet the same card:
#   tests/scripts/bench_gpu.sh [--binaries DIR] [--python PYTHON] [--device cuda:N] [--quick]
# DIR holds device_step (tests/gpu --build DIR); without it the program is built here. PYTHON has
# torch for CUDA. --quick measures batch 8 only. --try runs everything at tiny size on the CPU: the
# script's own test, whose figures mean nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

python=python3
device=cuda
torch_device=cuda
binaries=
network=ccvpe-vigor
torch_network=vigor
batches=8,16,32
precisions=f32,tf32,bf16
forms=eager,channels_last,compile
whats=adapt,supervised,inference
steps=50
parts=--parts
while [ $# -gt 0 ]; do
  case "$1" in
    --binaries) binaries=$2; shift ;;
    --python) python=$2; shift ;;
    --device) device=$2; torch_device=$2; shift ;;
    --quick) batches=8 ;;
    --try)
      device=cpu torch_device=cpu network=compact torch_network=tiny batches=2
      precisions=f32 forms=eager,channels_last steps=2 parts= ;;
    *) echo "bench_gpu.sh: unknown argument '$1' (see the head of this file)" >&2; exit 2 ;;
  esac
  shift
done

if [ -z "$binaries" ]; then
  cargo build --release --workspace --locked --example device_step
  binaries=$(cargo metadata --format-version 1 --no-deps --locked |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1\/release\/examples/')
fi
for folder in "${CUDA_HOME:-/usr/local/cuda}"/{lib64,targets/x86_64-linux/lib}; do
  if [ -d "$folder" ]; then
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"
  fi
done

if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=index,name,driver_version,memory.total,clocks.max.sm --format=csv
fi
# One precision and batch after the other, ours and PyTorch's in the same minute.
for precision in ${precisions//,/ }; do
  for batch in ${batches//,/ }; do
    "$binaries/device_step" --device "$device" --network "$network" --what "$whats" \
      --batch "$batch" --precision "$precision" --steps "$steps"
    "$python" "$here/bench_torch_gpu.py" --device "$torch_device" --network "$torch_network" --what "$whats" \
      --batch "$batch" --precision "$precision" --form "$forms" --steps "$steps"
  done
done
if [ -n "$parts" ]; then
  echo "our adaptation step launch by launch, batch 8"
  "$binaries/device_step" --device "$device" --network "$network" --what adapt --batch 8 --steps 20 $parts
fi
