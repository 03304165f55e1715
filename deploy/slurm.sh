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

# Traps first: whatever happens from here on, the token is removed, no Ray is left, and a signal is not lost.
ended=no
driver=
private=
finish() {
  jobs -p | xargs -r kill 2> /dev/null || true
  [ -z "$private" ] || rm -rf "$private"
}
terminate() {
  ended=yes
  [ -z "$driver" ] || kill -TERM "$driver" 2> /dev/null || true
}
trap finish EXIT
trap terminate TERM

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
cpus=${SLURM_CPUS_PER_TASK:-1}

# Two jobs may share a node, so ports that Ray would fix are the job's own (two of them) or chosen by the system (0).
port=${EMM_RAY_PORT:-$((20000 + 2 * (SLURM_JOB_ID % 6000)))}
ports=(--min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0)

# a token, so that nobody else on these nodes talks to this Ray; the directory must be seen by all nodes
umask 077
private=$(mktemp -d "${EMM_SHARED_DIR:-$HOME}/.emm-$SLURM_JOB_ID-XXXXXX")
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$private/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/token RAY_USAGE_STATS_ENABLED=0
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0

resources=(--num-cpus="$cpus" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")
# since Slurm 22.05 a step has one CPU unless it asks for those of the job
step=(srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="$cpus")

"${step[@]}" --nodelist="$head" \
  ray start --head --node-ip-address="$head" --port="$port" --ray-client-server-port="$((port + 1))" \
  --include-dashboard=false "${ports[@]}" "${resources[@]}" --block &
head_step=$!
deadline=$((SECONDS + ${EMM_START_SECONDS:-180}))
until ray health-check --address "$head:$port" > /dev/null 2>&1; do
  if ! kill -0 "$head_step" 2> /dev/null || [ "$SECONDS" -ge "$deadline" ]; then
    echo "emm: error: Ray's head did not start on $head, port $port; EMM_RAY_PORT takes another port" >&2
    exit 1
  fi
  [ "$ended" = no ] || exit 143
  sleep 1
done
for node in "${nodes[@]:1}"; do
  "${step[@]}" --nodelist="$node" \
    ray start --address="$head:$port" --node-ip-address="$node" "${ports[@]}" "${resources[@]}" --block &
done

emm run "$@" --address "$head:$port" &
driver=$!
[ "$ended" = no ] || terminate # it came just before there was a driver
status=0
wait "$driver" || status=$?
if [ "$ended" = yes ]; then # wait came back because of the signal
  status=0
  wait "$driver" || status=$?
fi
if [ "$ended" = yes ] && [ "$status" = 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
