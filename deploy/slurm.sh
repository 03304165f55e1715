#!/bin/bash
# A sweep on nodes of Slurm: sbatch --nodes=4 deploy/slurm.sh cifar10-width --out /shared/emm/width --gpus-per-trial 1
# The arguments are those of `emm run`; --out (or --storage) must be on storage that every node sees. When the time is up, or
# the job is preempted, trials leave checkpoints and the job is queued again; sbatch with the same arguments goes on as well.
#SBATCH --job-name=emm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@90
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

port=${EMM_RAY_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}

# a token, so that nobody else on these nodes talks to this Ray; the directory must be seen by all nodes
umask 077
private=$(mktemp -d "${EMM_SHARED_DIR:-$HOME}/.emm-$SLURM_JOB_ID-XXXXXX")
trap 'rm -rf "$private"' EXIT
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$private/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/token RAY_USAGE_STATS_ENABLED=0
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0

resources=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --node-ip-address="$head" --port="$port" --include-dashboard=false "${resources[@]}" --block &
until ray health-check --address "$head:$port" > /dev/null 2>&1; do sleep 1; done
for node in "${nodes[@]:1}"; do
  srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" \
    ray start --address="$head:$port" --node-ip-address="$node" "${resources[@]}" --block &
done

ended=no
emm run "$@" --address "$head:$port" &
driver=$!
trap 'ended=yes; kill -TERM "$driver"' TERM
status=0
wait "$driver" || status=$?
if [ "$ended" = yes ]; then # wait came back because of the signal
  status=0
  wait "$driver" || status=$?
fi
jobs -p | xargs -r kill 2> /dev/null || true
if [ "$ended" = yes ] && [ "$status" = 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
