#!/usr/bin/env bash
# A training on several machines under SLURM: one torchrun a machine, one process a GPU.
#   sbatch slurm.sh my.yaml
# The run directory must lie on a file system that all machines share. SLURM sends SIGTERM before
# the time is up: the training saves and ends with code 75, and the job is put back into the queue.
#SBATCH --job-name=modelwright
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

set -euo pipefail

recipe=${1:?give the recipe, such as my.yaml}
out=${2:-runs/$(basename "${recipe%.yaml}")}
processes=${SLURM_GPUS_ON_NODE:-1}
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=$(head -n 1 <<<"$nodes")

# torch.distributed has no passwords: choose an interface that only the cluster can reach.
export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-^lo,docker0}
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / processes))

code=0
srun --kill-on-bad-exit=1 torchrun \
  --nnodes "$SLURM_NNODES" \
  --nproc-per-node "$processes" \
  --rdzv-id "$SLURM_JOB_ID" \
  --rdzv-backend c10d \
  --rdzv-endpoint "$first:29400" \
  --max-restarts 3 \
  -m modelwright run "$recipe" --out "$out" || code=$?

if [[ $code -ne 0 && ${SLURM_RESTART_COUNT:-0} -lt 20 ]]; then
  scontrol requeue "$SLURM_JOB_ID" # goes on from the last checkpoint
fi
exit "$code"
