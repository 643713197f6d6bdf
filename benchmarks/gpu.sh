#!/usr/bin/env bash
# Everything that needs a GPU, in four parts and under ten minutes; nothing from the network.
#
#   benchmarks/gpu.sh                 all parts, those that are done already left out
#   benchmarks/gpu.sh 2 3             these parts, again
#   benchmarks/gpu.sh --dry           the same code with tiny shapes, on a CPU
#
# Environment: PYTHON (python3), OUT (runs/gpu), DATA (a folder made by `fairway prepare`; without
# one the proxy run trains on the built-in text). Parts: 1 tests of kernels, attention and proof
# across devices; 2 step times and memory of pr1413 and pr2135; 3 scoring and learning; 4 start-up
# and a proxy run of three minutes. Writes OUT/part-N.json and OUT/table.md.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}" DRY="" PARTS=() AGAIN=""
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
for word in "$@"; do
    case "$word" in
        --dry) DRY=--dry ;;
        [1-4]) PARTS+=("$word") AGAIN=yes ;;
        *) echo "gpu.sh: $word is no part (1 2 3 4) and not --dry" >&2; exit 2 ;;
    esac
done
OUT="${OUT:-runs/gpu${DRY:+-dry}}"
mkdir -p "$OUT"
failed=0
for part in "${PARTS[@]:-1 2 3 4}"; do
    for one in $part; do
        if [[ -s "$OUT/part-$one.json" && -z "$AGAIN" ]]; then
            echo "part $one is done: $OUT/part-$one.json"
            continue
        fi
        # shellcheck disable=SC2086
        "$PYTHON" benchmarks/gpu_parts/measure.py "$one" --out "$OUT" ${DATA:+--data "$DATA"} $DRY || {
            echo "part $one failed; the others go on" >&2
            failed=1
        }
    done
done
"$PYTHON" benchmarks/gpu_parts/measure.py table --out "$OUT" $DRY
exit "$failed"
