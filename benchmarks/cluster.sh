#!/bin/bash
# Slurm on one machine without root services, and two seeds of a small run on it as an array; one of
# them is requeued in the middle of its training and has to go on. By hand, on Debian:
#
#     bash benchmarks/cluster.sh [FOLDER]
#
# Slurm comes out of Debian's packages, unpacked into FOLDER (/tmp/fairway-slurm) and not installed;
# it listens on 127.0.0.1 and is stopped at the end. Prints what happened; exits with 1 where a seed
# did not finish, or did not go on.
set -euo pipefail
HERE=$(cd "$(dirname "$0")/.." && pwd)
FOLDER=${1:-/tmp/fairway-slurm}
ROOT=$FOLDER/root
LIB=$ROOT/usr/lib/$(uname -m)-linux-gnu
PACKAGES=(slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge libmunge2 libhwloc15)
export SLURM_CONF=$FOLDER/slurm.conf PATH=$ROOT/usr/bin:$ROOT/usr/sbin:$PATH
SECONDS_OF_TRAINING=30

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
KillWait=30
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=$(nproc --all) State=UNKNOWN
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

unpack
configure
start
cd "$FOLDER"
rm -rf "$FOLDER/runs" "$FOLDER/data" "$FOLDER/jobs.txt"
PYTHON=$HERE/.venv/bin/python
export PYTHONPATH=$HERE/src OMP_NUM_THREADS=1
"$PYTHON" -c 'import pathlib; from fairway.demo import prepare_builtin
prepare_builtin(pathlib.Path("data"), 2048)'

"$PYTHON" "$HERE/examples/cluster/submitit_seeds.py" pocket data runs/seed \
    --seeds 1 2 --cluster slurm --logs runs/jobs --cpus 1 -- --threads 1 --checkpoint-seconds 5 \
    --train.seconds $SECONDS_OF_TRAINING --budget.eval-seconds 15 --tokens.val-tokens 4000 \
    --proof-tokens 100 --audit-seconds 0 > jobs.txt 2> submitit.log &
until_seen '_1$' jobs.txt
JOB=$(grep -o '^[0-9]*_0$' jobs.txt)
echo "submitted $JOB and ${JOB/_0/_1}"
until_seen '"stage": "train"' runs/seed-1/train.log
until_seen '^ *1[0-9]' runs/seed-1/train.spent
echo "requeueing $JOB, $(cat runs/seed-1/train.spent) s into its training"
scontrol requeue "$JOB"
for _ in {1..60}; do # Slurm would let it wait for two minutes
    scontrol update jobid="$JOB" StartTime=now 2> /dev/null || true
    sleep 1
    [ "$(squeue -h -j "$JOB" -o %T)" = RUNNING ] && [ "$(restarts)" = 1 ] && break
done
for seed in 1 2; do
    until_seen '"baselines": {"' runs/seed-$seed/result.json
    "$PYTHON" - "$seed" << 'END'
import json, sys
folder = f"runs/seed-{sys.argv[1]}"
train = json.load(open(f"{folder}/result.json"))["train"]
texts = [json.loads(line).get("text", "") for line in open(f"{folder}/train.log")]
went_on = next((text for text in texts if "going on after" in text), "was not interrupted")
print(f"seed {sys.argv[1]}: {went_on}; {train['seconds']:.1f} of {train['budget_seconds']:.0f} s")
END
done
grep -q "going on after step" runs/seed-1/train.log
echo "both seeds finished, the requeued one from its checkpoint"
