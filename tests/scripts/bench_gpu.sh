#!/usr/bin/env bash
# Our training step and PyTorch's on one card, by turns in one run, so that both meet the same card:
#   tests/scripts/bench_gpu.sh [--binaries DIR] [--python PYTHON] [--device cuda:N] [--quick]
# DIR holds device_step (tests/gpu --build DIR); without it the program is built here. PYTHON has
# torch for CUDA. PyTorch's programs of a batch size compile and warm up together, and are then timed
# one after the other, each while nothing else runs. --quick measures batch 8 only, in the adaptation
# step all forms of PyTorch, elsewhere eager, and compiled in tf32. --try
# runs everything at tiny size on the CPU: the script's own test, whose figures mean nothing.
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
forms=compile,eager,channels_last
whats=adapt,supervised,inference
steps=${STEPS:-50}
parts=--parts
quick=
patience=${PATIENCE:-600}
while [ $# -gt 0 ]; do
  case "$1" in
    --binaries) binaries=$2; shift ;;
    --python) python=$2; shift ;;
    --device) device=$2; torch_device=$2; shift ;;
    --quick) batches=8 quick=yes ;;
    --try)
      device=cpu torch_device=cpu network=compact torch_network=tiny batches=2
      precisions=f32 forms=eager steps=2 parts= ;;
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
gates=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$gates"' EXIT

# Starts PyTorch's program for what, batch, precision, form and maybe --search; it waits when warm.
torch_names=()
start_torch() {
  local name="$gates/${#torch_names[@]}-$*"
  name=${name// /-}
  while [ "$(cold | wc -l)" -ge 4 ]; do sleep 0.1; done
  torch_names+=("$name")
  timeout "$patience" "$python" "$here/bench_torch_gpu.py" --device "$torch_device" --network "$torch_network" \
    --what "$1" --batch "$2" --precision "$3" --form "$4" "${@:5}" --steps "$steps" --gate "$name" \
    >"$name.out" 2>"$name.err" &
  printf '%s' $! >"$name.pid"
}
running() { kill -0 "$(cat "$1.pid")" 2>/dev/null; }
# Those that are not warm yet.
cold() {
  local name
  for name in "${torch_names[@]}"; do
    if [ ! -e "$name.warm" ] && running "$name"; then echo "$name"; fi
  done
}
# Whether --quick has this one.
wanted() {
  case "$quick $1 $2 $3" in
    "yes adapt "* | "yes "*" eager" | "yes "*" tf32 compile" | " "*) true ;;
    *) false ;;
  esac
}

for batch in ${batches//,/ }; do
  torch_names=()
  # The slowest to be warm come first.
  for form in ${forms//,/ }; do
    for precision in ${precisions//,/ }; do
      for what in ${whats//,/ }; do
        if ! wanted "$what" "$precision" "$form"; then continue; fi
        start_torch "$what" "$batch" "$precision" "$form"
        # cuDNN's algorithms by trying them: PyTorch's fastest eager form, sometimes.
        if [ "$form" != compile ] && { [ -z "$quick" ] || [ "$what $precision" = "adapt tf32" ]; }; then
          start_torch "$what" "$batch" "$precision" "$form" --search
        fi
      done
    done
  done
  while [ -n "$(cold)" ]; do sleep 0.1; done
  echo "PyTorch's programs are warm after $SECONDS s"
  "$binaries/device_step" --device "$device" --network "$network" --what "$whats" \
    --batch "$batch" --precision "$precisions" --steps "$steps"
  for name in "${torch_names[@]}"; do
    touch "$name.go"
    while running "$name"; do sleep 0.05; done
    grep '^torch .*step_ms\|memory$' "$name.out" || {
      echo "torch: no figure from ${name##*/}: $(tail -n 1 "$name.err")"
    }
  done
done
if [ -n "$parts" ]; then
  echo "our adaptation step launch by launch, batch 8"
  "$binaries/device_step" --device "$device" --network "$network" --what adapt --batch 8 --steps 20 $parts
fi
