#!/bin/bash
# sbatch examples/cluster/slurm.sh RECIPE [overrides]
#
# Starts a Ray cluster on the nodes of the job and trains on it. 900 seconds before the time limit, SLURM sends SIGTERM:
# `ssrl train` finishes its step, saves a checkpoint and ends with code 143, and the job is queued again. See
# docs/cluster.md.
#SBATCH --job-name=ssrl
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@900
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.txt
# Your site may also need --partition and --account.
set -eu
GPUS=8
# . /shared/venv/bin/activate             # the environment of ssrl-core, if it is not that of `sbatch`

# Every process of Ray gets the environment of its `ray start`, so all of this must come first.
export HF_HOME=${HF_HOME:-$PWD/.hf}       # models: a folder that all nodes see
export RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID  # on a local disk; the path must be short
# export WANDB_API_KEY=...                # or ~/.netrc, if all nodes see it
# export NCCL_SOCKET_IFNAME=ib0           # if NCCL chooses the wrong network
ulimit -n 65536
mkdir -p "$RAY_TMPDIR"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_ADDRESS=$head:6379
srun --overlap --nodes=1 --ntasks=1 -w "$head" \
    ray start --head --port=6379 --num-gpus=$GPUS --num-cpus="$SLURM_CPUS_PER_TASK" --block &
sleep 20
if [ "$SLURM_NNODES" -gt 1 ]; then
    srun --overlap --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="$head" \
        ray start --address="$RAY_ADDRESS" --num-gpus=$GPUS --num-cpus="$SLURM_CPUS_PER_TASK" --block &
fi
for try in $(seq 120); do                 # ten minutes
    if ray status --address="$RAY_ADDRESS" | grep -q "/$((GPUS * SLURM_NNODES)).0 GPU"; then break; fi
    if [ "$try" = 120 ]; then echo "not all GPUs have joined the Ray cluster" >&2; exit 3; fi
    sleep 5
done

ssrl train "$@" trainer.nnodes="$SLURM_NNODES" trainer.n_gpus_per_node=$GPUS trainer.save_on_signal=800 &
trap 'kill -TERM $!' TERM
code=0
wait $! || true                           # the signal ends this `wait` early
while kill -0 $! 2>/dev/null; do wait $! || true; done
wait $! || code=$?
# 143: ended by the signal. 1: verl failed, perhaps with a node.
if [ $code = 143 ] || { [ $code = 1 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; }; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
