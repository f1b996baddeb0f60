#!/bin/sh
# Times the networks in our engine and in PyTorch by turns, so that both meet the same machine:
#   tests/scripts/bench_cpu.sh [PYTHON] [ROUNDS]
# PYTHON has torch installed (pip install torch). Then prints the operations of both.
set -e
python=${1:-python3}
rounds=${2:-10}
here=$(dirname "$0")
cargo build --release -p crossfix-offline --example network_time
cargo build --release -p crossfix-kernels --bench peak
ours=${CARGO_TARGET_DIR:-target}/release/examples/network_time
for turn in 1 2 3; do
  for threads in 1 2; do
    "$ours" step,inference,batch-inference "$threads" "$rounds"
    "$python" "$here/bench_torch.py" --what step,inference,batch-inference --threads "$threads" --rounds "$rounds"
  done
done
for threads in 1 2; do
  cargo bench -p crossfix-kernels --bench peak -- "$threads"
  "$python" "$here/bench_torch.py" --what ops --threads "$threads"
done
