#!/usr/bin/env bash
# Measurements on one GPU, on a machine with CUDA and `ssrl-core[vllm]`, without a network:
#
#   examples/gpu/run.sh --set A          # vLLM rollouts, phases of a step, waiting, datasets in turns, a resumption
#   examples/gpu/run.sh --set B          # the 3B recipe for one GPU, and learning
#   examples/gpu/run.sh --set A --dry-run [--engine vllm]     # the same on a CPU: a tiny model, few steps
#
# A second call runs the stages that are missing. It writes OUT/results.json and OUT/plots.png; see run.py for the
# stages.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 RAY_USAGE_STATS_ENABLED=0
export VLLM_HOST_IP=127.0.0.1 GLOO_SOCKET_IFNAME=lo NCCL_SOCKET_IFNAME=lo    # all processes run on this machine
export VLLM_USE_FLASHINFER_SAMPLER=${VLLM_USE_FLASHINFER_SAMPLER:-0}         # not needed, and may be missing
exec "${PYTHON:-python3}" "$here/run.py" "$@"
