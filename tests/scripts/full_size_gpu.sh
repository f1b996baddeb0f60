#!/usr/bin/env bash
# A CCVPE of published size: simulated towns at its resolution (panoramas of 320 x 640 pixels, tiles of
# zoom 20), a teacher trained on the source style from nothing, adapted to a target style with the
# recipe `paper`, and teacher, auxiliary student and student measured on other districts.
#   tests/scripts/full_size_gpu.sh [--quick | --dry-run] CROSSFIX OUT [DEVICE]
# CROSSFIX is the program (a stripped one will do; nothing else is needed), OUT a folder for some
# gigabytes, DEVICE cuda if not said. Steps that are finished are left alone when the script is run
# again. Every step has a limit in seconds: one that reaches it is stopped, and so is the script.
# --quick fits a few minutes of a card; --dry-run tries every option on the processor in a minute.
# What is worth keeping is in OUT/result: times.txt, JSON of every measurement, curves.
#
# The task is easier than VIGOR's with unknown orientation: the heading is known to a few degrees
# (preset -prior0) and the camera is within 22.4 m of the aerial image's centre on each axis.
set -euo pipefail
scale=full
case ${1:-} in
--quick | --dry-run)
  scale=${1#--}
  shift
  ;;
esac
crossfix=${1:?"full_size_gpu.sh: where is the program crossfix?"}
out=${2:?"full_size_gpu.sh: where may everything go?"}
device=${3:-cuda}
preset=${PRESET:-ccvpe-vigor-prior0}
precision=${PRECISION:-tf32}
#            pairs districts steps target districts test epochs
case $scale in
full) set -- 8000 32 12000 6000 24 500 3 ;;
quick) set -- 1200 12 1000 700 8 200 2 ;;
dry-run) set -- 8 1 2 8 1 4 0.25 ;;
esac
pairs=${PAIRS:-$1} districts=${DISTRICTS:-$2} steps=${STEPS:-$3}
target_pairs=${TARGET_PAIRS:-$4} target_districts=${TARGET_DISTRICTS:-$5}
test_pairs=${TEST_PAIRS:-$6} epochs=${EPOCHS:-$7}
# Limits in seconds: simulating, training, adapting, measuring.
case $scale in
full) limits=(900 1800 1200 300) ;;
quick) limits=(60 150 90 40) ;;
dry-run) limits=(120 600 600 300) ;;
esac
if [ "$device" = cpu ]; then precision=f32; fi
result=$out/result
mkdir -p "$result"

# once NAME LIMIT COMMAND...: runs it unless it is done; its time, and what it prints, are kept.
once() {
  local name=$1 limit=$2 begun=$EPOCHREALTIME status=0
  shift 2
  if [ -e "$out/$name.done" ]; then return; fi
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.txt" 2>"$out/$name.log" || status=$?
  awk -v name="$name" -v from="$begun" -v to="$EPOCHREALTIME" -v limit="$limit" -v status="$status" \
    'BEGIN { printf "%-13s %7.1f s of %d, exit %d\n", name, to - from, limit, status }' |
    tee -a "$result/times.txt"
  cat "$out/$name.txt"
  if [ "$status" != 0 ]; then
    tail -n 5 "$out/$name.log" | tee "$result/$name.failed.txt"
    exit "$status"
  fi
  touch "$out/$name.done"
}
simulate() {
  local name=$1
  shift
  if [ ! -e "$out/$name.done" ]; then rm -rf "${out:?}/$name"; fi # an unfinished one is not gone on with
  once "$name" "${limits[0]}" "$crossfix" simulate --seed 1 --kind pairs --panorama 320x640 --zoom 20 \
    --out "$out/$name" "$@"
}
evaluate() {
  once "$1" "${limits[3]}" "$crossfix" evaluate --model "$2" --data "$3" --json --device "$device" \
    --precision "$precision"
  cp "$out/$1.txt" "$result/$1.json"
}

# From nothing in some thousand steps at most: the compact network's loss and views, a rate between its
# own (2e-3, for at most 128 channels) and the published one for pretrained encoders (1e-4), no
# stochastic depth, which needs many epochs before it gives anything back. The orientation term adds up
# cells of (0.14 m)², fifty times as many as the compact network's of 1 m²: its weight is 1/50.
cat >"$out/teacher.toml" <<EOF
batch = 8
learning_rate = ${LEARNING_RATE:-4e-4}
decay = "cosine"
warm_up_steps = $((steps / 20))
batch_norm_momentum = 0.02
drop_connect = false
checkpoint_every = 1000000
clip_norm = ${CLIP_NORM:-100.0}

[augmentation]
symmetries = true
heading_jitter_deg = 6.0
colour = 0.0
crop_jitter_m = 8.0

[loss]
info_nce = 1.0
heatmap = 1.0
orientation = 0.002
temperature = 0.1
sigma_m = 1.0
EOF
# As the compact networks adapt: a falling rate and kept running statistics are steadier than the
# published constant rate and batch statistics when a run has a hundred steps.
cat >"$out/student.toml" <<EOF
batch = 8
epochs = $epochs
learning_rate = ${STUDENT_LEARNING_RATE:-1e-4}
decay = "linear_to_zero"
batch_norm = "frozen"
sigma_m = 1.0
EOF

simulate source --area source --part adapt --pairs "$pairs" --districts "$districts"
simulate target --area target --part adapt --pairs "$target_pairs" --districts "$target_districts"
simulate source-test --area source --part test --pairs "$test_pairs" --districts 2
simulate target-test --area target --part test --pairs "$test_pairs" --districts 2
once teacher "${limits[1]}" "$crossfix" train --data "$out/source" --preset "$preset" --config "$out/teacher.toml" \
  --steps "$steps" --margin-m 8 --device "$device" --precision "$precision" --out "$out/teacher"
evaluate teacher-on-source "$out/teacher/model.safetensors" "$out/source-test"
evaluate teacher-on-target "$out/teacher/model.safetensors" "$out/target-test"
once student "${limits[2]}" "$crossfix" adapt --recipe paper --teacher "$out/teacher/model.safetensors" \
  --data "$out/target" --config "$out/student.toml" --device "$device" --precision "$precision" --out "$out/student"
evaluate auxiliary-on-target "$out/student/auxiliary.safetensors" "$out/target-test"
evaluate student-on-target "$out/student/student.safetensors" "$out/target-test"
for run in teacher student; do cp "$out/$run/run.json" "$result/$run.run.json"; done
cp "$out/teacher.toml" "$out/student.toml" "$result"
for curve in "$out"/{teacher/train,student/auxiliary,student/student}.curve.jsonl; do
  if [ -e "$curve" ]; then cp "$curve" "$result"; fi
done
cat "$result/times.txt"
