#!/usr/bin/env bash
# A CCVPE of published size on a card: simulated towns, a teacher trained on the source style, adapted
# to the target style with the recipe `paper`, and evaluated.
#   tests/scripts/full_size_gpu.sh CROSSFIX OUT [DEVICE]
# CROSSFIX is the program (target/release/crossfix), OUT a folder for some gigabytes. Steps that are
# finished are left alone when the script is run again, and training resumes. The simulated city
# renders panoramas of 48 x 256 pixels and tiles of zoom 18: the network's size is the published one,
# the pictures' is not (docs/gpu.md).
#
# From the environment: PRESET (ccvpe-vigor), PAIRS (8000) and DISTRICTS (16) to train on, DRIVES (24)
# to adapt on, TEACHER and STUDENT (more options of train and adapt, such as "--epochs 5").
set -euo pipefail
crossfix=${1:?"full_size_gpu.sh: where is the program crossfix?"}
out=${2:?"full_size_gpu.sh: where may everything go?"}
device=${3:-cuda}
preset=${PRESET:-ccvpe-vigor}
precision=${PRECISION:-tf32}
pairs=${PAIRS:-8000}
districts=${DISTRICTS:-16}
drives=${DRIVES:-24}
read -r -a teacher <<<"${TEACHER:-}"
read -r -a student <<<"${STUDENT:-}"
mkdir -p "$out"

once() {
  local name=$1 begun=$SECONDS
  shift
  if [ -e "$out/$name.done" ]; then return; fi
  "$@"
  touch "$out/$name.done"
  printf '%s: %s s\n' "$name" $((SECONDS - begun)) | tee -a "$out/times.txt"
}
simulate() {
  rm -rf "${out:?}/$1" # an unfinished one is not gone on with
  "$crossfix" simulate --seed 1 --out "$out/$1" "${@:2}"
}

once source simulate source --area source --part adapt --kind pairs --pairs "$pairs" --districts "$districts"
once source-test simulate source-test --area source --part test --kind pairs --pairs 500 --districts 3
once target simulate target --area target --part adapt --drives "$drives" --districts "$districts" --logs 0
once target-test simulate target-test --area target --part test --kind pairs --pairs 500 --districts 3
once teacher "$crossfix" train --data "$out/source" --validation "$out/source-test" --preset "$preset" \
  --device "$device" --precision "$precision" --out "$out/teacher" --resume "${teacher[@]}"
once student "$crossfix" adapt --recipe paper --teacher "$out/teacher/model.safetensors" --data "$out/target" \
  --test "$out/target-test" --device "$device" --precision "$precision" --out "$out/student" --resume "${student[@]}"
cat "$out/times.txt"
