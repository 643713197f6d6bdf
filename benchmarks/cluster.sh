#!/bin/bash
# Slurm on one machine without root services, and runs on it that are requeued. By hand, on Debian:
#
#     bash benchmarks/cluster.sh [FOLDER]
#
# 1. Two seeds of fixed steps as an array, through submitit; the first is requeued five times in its
#    training. Both must end with the very artifact of the same seed that nobody disturbed.
# 2. A seed on the training clock, requeued once: it must not have had its time twice.
# 3. A corpus prepared by datatrove's jobs, one task of which is requeued: the bytes of one process.
#
# Slurm comes out of Debian's packages, unpacked into FOLDER (/tmp/fairway-slurm) and not installed;
# it listens on 127.0.0.1 and is stopped at the end. Prints what happened; exits with 1 where a run
# did not finish, did not go on, or became another.
set -euo pipefail
HERE=$(cd "$(dirname "$0")/.." && pwd)
FOLDER=${1:-/tmp/fairway-slurm}
ROOT=$FOLDER/root
LIB=$ROOT/usr/lib/$(uname -m)-linux-gnu
PACKAGES=(slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge libmunge2 libhwloc15)
export SLURM_CONF=$FOLDER/slurm.conf PATH=$ROOT/usr/bin:$ROOT/usr/sbin:$PATH
STEPS=90 SECONDS_OF_TRAINING=60 REQUEUES=5

unpack() {
    [ -e "$ROOT/usr/bin/sbatch" ] && return
    mkdir -p "$FOLDER/packages"
    (cd "$FOLDER/packages" && apt-get -q=2 download "${PACKAGES[@]}" 2> /dev/null)
    for package in "$FOLDER"/packages/*.deb; do dpkg -x "$package" "$ROOT"; done
}

configure() {
    mkdir -p "$FOLDER"/{spool,state}
    cat > "$SLURM_CONF" << END
ClusterName=here
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
PluginDir=$LIB/slurm-wlm
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd.pid
SlurmctldLogFile=$FOLDER/slurmctld.log
SlurmdLogFile=$FOLDER/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=10
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
}

start() {
    export LD_LIBRARY_PATH=$LIB:$LIB/slurm-wlm
    slurmctld-wlm -D -c > "$FOLDER/slurmctld.out" 2>&1 &
    CONTROLLER=$!
    slurmd-wlm -D -d "$ROOT/usr/sbin/slurmstepd-wlm" > "$FOLDER/slurmd.out" 2>&1 &
    WORKER=$!
    trap 'scancel -n fairway; sleep 2; kill $CONTROLLER $WORKER 2> /dev/null; wait' EXIT
    for _ in {1..30}; do sinfo -h -o %T 2> /dev/null | grep -q idle && return; sleep 1; done
    echo "Slurm did not come up; see $FOLDER/slurmd.log" && exit 1
}

until_seen() { # TEXT FILE: until the file holds the text, four minutes at most
    for _ in {1..480}; do grep -qs "$1" "$2" && return; sleep 0.5; done
    echo "no '$1' in $2" && exit 1
}

restarts() { scontrol show job "$JOB" | grep -o 'Restarts=[0-9]*' | cut -d= -f2; }

submit() { # OUT SEEDS MORE...: an array of OUT/seed-N; JOB is its first
    local out=$1 seeds=$2
    rm -f jobs.txt
    # shellcheck disable=SC2086 (several words each)
    "$PYTHON" -m fairway seeds pocket data --out "$out" --seeds $seeds \
        --slurm --cluster slurm --logs runs/jobs --cpus 1 $COMMON "${@:3}" 2> jobs.txt &
    for _ in {1..120}; do # submitit's warnings stand there too
        grep -o '^job [0-9_]*' jobs.txt | cut -d' ' -f2 > numbers.txt || true
        [ "$(wc -l < numbers.txt)" = "$(wc -w <<< "$seeds")" ] && break
        sleep 0.5
    done
    JOB=$(head -1 numbers.txt)
    echo "submitted $(xargs < numbers.txt)"
}

requeue() { # RUN N: once N more losses are in its log, end it and start it again
    local before
    before=$(restarts)
    until_seen '"stage": "train"' "$1/train.log"
    steps_since "$1" "$2"
    echo "requeueing $JOB, $(xargs < "$1/train.spent") s into its training"
    scontrol requeue "$JOB"
    for _ in {1..120}; do # Slurm would let it wait for two minutes
        scontrol update jobid="$JOB" StartTime=now 2> /dev/null || true
        sleep 1
        [ "$(squeue -h -j "$JOB" -o %T)" = RUNNING ] && [ "$(restarts)" -gt "$before" ] && return
    done
    echo "$JOB was not started again" && exit 1
}

steps_since() { # RUN N: until N more losses are in its log
    local before
    before=$(grep -c train_loss "$1/train.log" || true)
    for _ in {1..480}; do
        [ "$(grep -c train_loss "$1/train.log" || true)" -ge $((before + $2)) ] && return
        sleep 0.5
    done
    echo "no step in $1" && exit 1
}

finished() { # RUN
    until_seen '"baselines": {' "$1/result.json"
    "$PYTHON" - "$1" << 'END'
import json, sys
folder = sys.argv[1]
result = json.load(open(f"{folder}/result.json"))
train, texts = result["train"], [json.loads(line).get("text", "") for line in open(f"{folder}/train.log")]
went_on = [text.split(",")[0] for text in texts if "going on after" in text]
budget = train.get("budget_seconds")
print(f"{folder}: {'; '.join(went_on) or 'was not interrupted'}; {train['steps']} steps, "
      f"{train['seconds']:.1f} s" + (f" of {budget:.0f}" if budget else "")
      + f"; artifact {result['artifact']['sha256'][:16]}")
sys.exit(budget is not None and train["seconds"] > budget)
END
}

score_of() { "$PYTHON" -c 'import json, sys
print(json.load(open(sys.argv[1]))["score"])' "$1/result.json"; }

unpack
configure
start
cd "$FOLDER"
rm -rf runs data text corpus .corpus.tasks plain submitit.log
PYTHON=$HERE/.venv/bin/python
export PYTHONPATH=$HERE/src OMP_NUM_THREADS=1
"$PYTHON" -c 'import pathlib; from fairway.demo import prepare_builtin
prepare_builtin(pathlib.Path("data"), 2048)'
COMMON="--threads 1 --compute-dtype float32 --checkpoint-seconds 5 --budget.eval-seconds 60"
COMMON="$COMMON --tokens.val-tokens 4000 --proof-tokens 100 --audit-seconds 0"

submit runs "1 2" --train.steps $STEPS
for _ in $(seq $REQUEUES); do requeue runs/seed-1 6; done
finished runs/seed-1
finished runs/seed-2
[ "$(grep -c 'going on after step' runs/seed-1/train.log)" = $REQUEUES ]
for seed in 1 2; do
    # shellcheck disable=SC2086
    "$PYTHON" -m fairway run pocket data --seed $seed --out runs/calm-$seed $COMMON \
        --train.steps $STEPS 2> calm.log > calm.json
    cmp runs/seed-$seed/model.fwy runs/calm-$seed/model.fwy
    cmp <(score_of runs/seed-$seed) <(score_of runs/calm-$seed)
done
echo "two seeds as an array, one requeued $REQUEUES times: the models and scores of undisturbed runs"

submit runs/clock 3 --train.seconds $SECONDS_OF_TRAINING
requeue runs/clock/seed-3 3
finished runs/clock/seed-3
grep -q 'going on after step' runs/clock/seed-3/train.log
echo "a requeued run had its training time once"

PATH=$HERE/.venv/bin:$PATH # where datatrove's jobs find its commands
mkdir -p text
"$PYTHON" -c 'import pathlib
from fairway.text import builtin_documents
for number in range(20):
    texts = [b"file %d\n" % number + text for text in builtin_documents()]
    pathlib.Path(f"text/{number}.txt").write_bytes(b"\0".join(texts))'
PREPARE="text --vocab-size 1024 --val-fraction 0.05"
ON_SLURM="$HERE/examples/cluster/prepare_datatrove.py corpus $PREPARE --tasks 4 --partition all"
# shellcheck disable=SC2086
"$PYTHON" $ON_SLURM --time 01:00:00 --memory 1 2> datatrove.log
for _ in {1..480}; do
    [ "$(find .corpus.tasks/parts -name 'train-*.json' | wc -l)" -ge 4 ] && break
    sleep 0.25
done
JOB=$(squeue -h -r -n prepare-train -t RUNNING -o %i | head -1)
echo "requeueing $JOB, $(find .corpus.tasks/parts -name 'train-*.json' | wc -l) of 20 files encoded"
scontrol requeue "$JOB"
for _ in {1..480}; do
    scontrol update jobid="$JOB" StartTime=now 2> /dev/null || true
    [ -e corpus/data.json ] && break
    sleep 1
done
# shellcheck disable=SC2086
"$PYTHON" -m fairway prepare plain $PREPARE 2> prepare.log > prepare.json
diff -r corpus plain
echo "a corpus prepared by four tasks on Slurm, one of them requeued: the bytes of one process"
