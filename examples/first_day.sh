#!/usr/bin/env bash
# A first day with fairway: own text, own recipe, own learner, a proof, Python, and other tools.
#
#     bash examples/first_day.sh           # with the real model: an hour on two CPU cores
#     QUICK=1 bash examples/first_day.sh   # with a miniature of it: minutes
#
# Environment
#     WORK    folder to work in (./first-day)
#     TEXT    your own text; without it, modules of Python's standard library
#     PYTHON  a Python that has fairway; without it, one is made in WORK, from WHEEL or from the
#             package index
set -euo pipefail

examples="$(cd "$(dirname "$0")" && pwd)"
work="${WORK:-first-day}"
mkdir -p "$work"
cd "$work"

step() { printf '\n== %s\n' "$*" >&2; }

step "install"
if [ -z "${PYTHON:-}" ]; then
    python3 -m venv venv
    venv/bin/python -m pip install --quiet "${WHEEL:-fairway}"
    PYTHON="$PWD/venv/bin/python"
fi
fairway() { "$PYTHON" -m fairway "$@"; }
fairway --version

step "a text of one's own, to shards and a tokenizer"
if [ -z "${TEXT:-}" ]; then
    TEXT="$PWD/text.txt"
    "$PYTHON" - "$TEXT" "${QUICK:-}" <<'PY'
import pathlib, sys, sysconfig

most, number = (4_000, 40) if sys.argv[2] else (1_000_000, 150)
texts = [f.read_bytes() for f in sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"))]
plain = [text for text in texts if text.isascii() and 500 < len(text) < most]
pathlib.Path(sys.argv[1]).write_bytes(b"\0".join(plain[:number]))
PY
fi
cp "$examples/own_recipe.py" "$examples/own_learner.py" .
if [ -n "${QUICK:-}" ]; then
    recipe=own_recipe.py:quick vocab=512 quick=(--proof-tokens 200 --audit-seconds 10 --fit)
else
    recipe=own_recipe.py:deeper vocab=2048 quick=(--fit)
fi
fairway prepare data "$TEXT" --vocab-size "$vocab" --val-fraction 0.1 --overwrite

step "a recipe of one's own: train, pack, score, prove, audit, report"
fairway run "$recipe" data --out run --resume auto "${quick[@]}"
fairway verify run/proof.fwp run/model.fwy --text decoded.txt

step "a learner of one's own, on the same model"
learner='{"type": "own_learner:OneStep", "lr": 0.02}'
fairway score run/model.fwy data --tokens 2000 --set "evaluate.ttt=$learner" --out own.json
fairway prove run/model.fwy data --score own.json --tokens 200 --plugin own_learner.py:OneStep

step "the model in use: text, and any file made smaller"
fairway generate run/model.fwy --prompt "def " --num-tokens 60
head -c 2000 "$TEXT" > sample.bin
fairway compress run/model.fwy sample.bin sample.fwc
fairway decompress run/model.fwy sample.fwc sample.again
cmp sample.bin sample.again

step "from Python, as in the notebook beside this script"
"$PYTHON" "$examples/python_api.py"

step "a folder that the Hugging Face library opens"
if "$PYTHON" -c 'import transformers' 2> /dev/null; then
    fairway export run/model.fwy exported --overwrite
    ls exported
else
    echo "left out: pip install 'fairway[hub]'" >&2
fi

step "the questions of lm-evaluation-harness, on documents of one's own"
if "$PYTHON" -c 'import lm_eval' 2> /dev/null; then
    mkdir -p tasks
    "$PYTHON" - "$TEXT" "$PWD/tasks" <<'PY'
import json, pathlib, sys

text, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
documents = [part[:500].decode("utf-8", "replace") for part in text.read_bytes().split(b"\0")[:3]]
lines = "\n".join(json.dumps({"text": document}) for document in documents)
(folder / "documents.jsonl").write_text(lines)
(folder / "own.yaml").write_text(
    f"""task: own_documents
dataset_path: json
test_split: test
dataset_kwargs: {{data_files: {{test: '{folder / "documents.jsonl"}'}}}}
output_type: loglikelihood_rolling
doc_to_text: ''
doc_to_target: '{{{{text}}}}'
metric_list: [{{metric: bits_per_byte}}]
"""
)
PY
    HF_DATASETS_CACHE="$PWD/tasks/cache" HF_HUB_OFFLINE=1 \
        fairway lm-eval run/model.fwy --tasks own_documents --include-path tasks --out asked.json
else
    echo "left out: pip install 'fairway[lm-eval]'" >&2
fi

step "a server, asked as OpenAI's are"
if "$PYTHON" -c 'import starlette, uvicorn' 2> /dev/null; then
    "$PYTHON" -m fairway serve run/model.fwy --port 0 2> serve.log &
    server=$!
    trap 'kill "$server" 2> /dev/null || true' EXIT
    "$PYTHON" - <<'PY'
import json, pathlib, re, time, urllib.request

for _ in range(600):
    found = re.search(r"http://[\w.]+:\d+", pathlib.Path("serve.log").read_text())
    if found:
        break
    time.sleep(0.1)
asked = {"model": "model", "prompt": "def ", "max_tokens": 20}
request = urllib.request.Request(
    f"{found[0]}/v1/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
)
answer = json.load(urllib.request.urlopen(request, timeout=60))
pathlib.Path("served.json").write_text(json.dumps(answer))
print(repr(answer["choices"][0]["text"]))
PY
    kill -INT "$server"
    wait "$server" || true
    trap - EXIT
else
    echo "left out: pip install 'fairway[serve]'" >&2
fi

step "done: $PWD/run/report.html"
