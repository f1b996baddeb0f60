#!/bin/sh
# Trains and adapts both compact networks in simulated cities and prints one table:
#   tests/scripts/both_families.sh OUT [PART] [SEED...]
# City, training and adaptation have the seed (default 1 2 3). PART is what is measured in the
# target area: validation while anything is chosen, test (the default) for what is reported.
# Settings of the trainings: CCVPE_STEPS, CCVPE_RATE, GGCVT_STEPS, GGCVT_RATE, SOURCE_PAIRS.
set -e
out=${1:?usage: both_families.sh OUT [PART] [SEED...]}
part=${2:-test}
[ $# -gt 2 ] && shift 2 || set -- 1 2 3
crossfix=${CROSSFIX:-$(dirname "$0")/../../target/release/crossfix}
ccvpe_steps=${CCVPE_STEPS:-1500} ccvpe_rate=${CCVPE_RATE:-0.0015}
ggcvt_steps=${GGCVT_STEPS:-1500} ggcvt_rate=${GGCVT_RATE:-0.003}
pairs=${SOURCE_PAIRS:-3000}

once() { # NAME ARGUMENTS...: simulates unless it is there
  name=$1
  shift
  [ -f "$out/$name/dataset.toml" ] || "$crossfix" simulate "$@" --out "$out/$name" >/dev/null
}

row() { # NAME MODEL DATA
  "$crossfix" evaluate --model "$2" --data "$3" --json | python3 -c "
import json, sys
found = json.load(sys.stdin)
free, masked = found['unmasked'], found['masked']
print('| %s | %.2f | %.2f | %.2f | %.2f |' % (
    sys.argv[1], free['mean_m'], free['median_m'], masked['mean_m'], masked['median_m']))" "$1"
}

mkdir -p "$out"
for seed in "$@"; do
  once "source$seed" --area source --part adapt --seed "$seed" --kind pairs --pairs "$pairs" --districts 10
  once "home-$part$seed" --area source --part "$part" --seed "$seed" --kind pairs --pairs 400 --districts 3
  once "adapt$seed" --area target --part adapt --seed "$seed" --districts 4 --drives 12 --logs 0
  once "$part$seed" --area target --part "$part" --seed "$seed" --districts 3 --drives 6 --logs 0
  for preset in compact ggcvt-compact; do
    case $preset in
      compact) steps=$ccvpe_steps rate=$ccvpe_rate ;;
      *) steps=$ggcvt_steps rate=$ggcvt_rate ;;
    esac
    run="$out/$preset-$seed"
    teacher="$run/teacher/model.safetensors"
    [ -f "$teacher" ] || "$crossfix" train --data "$out/source$seed" --preset "$preset" --steps "$steps" \
      --learning-rate "$rate" --seed "$seed" --out "$run/teacher" >/dev/null
    [ -f "$run/paper/student.safetensors" ] || "$crossfix" adapt --teacher "$teacher" \
      --data "$out/adapt$seed" --seed "$seed" --out "$run/paper" >/dev/null
    [ -f "$run/oracle/student.safetensors" ] || "$crossfix" adapt --recipe oracle --truth "$out/adapt$seed" \
      --teacher "$teacher" --data "$out/adapt$seed" --seed "$seed" --out "$run/oracle" >/dev/null
    echo
    echo "| $preset, seed $seed, $part | mean, m | median, m | mean in prior, m | median in prior, m |"
    echo "|---|---|---|---|---|"
    row "teacher, source area" "$teacher" "$out/home-$part$seed"
    row "teacher" "$teacher" "$out/$part$seed"
    row "auxiliary student" "$run/paper/auxiliary.safetensors" "$out/$part$seed"
    row "student" "$run/paper/student.safetensors" "$out/$part$seed"
    row "true positions (bound)" "$run/oracle/student.safetensors" "$out/$part$seed"
  done
  "$crossfix" evaluate --model "$teacher" --data "$out/$part$seed" | grep -E "guess|coarse"
done
