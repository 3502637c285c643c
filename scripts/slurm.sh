#!/usr/bin/env bash
# Trains a preset on several nodes of a cluster with the scheduler Slurm, and goes on with a run
# that was interrupted:
#
#     sbatch --nodes 2 --gpus-per-node 4 scripts/slurm.sh aagc_640x360_b2 [options of train_uda.py]
#
# The batch size of a preset is that of all GPUs together; it has to be a multiple of their number:
#     sbatch ... scripts/slurm.sh aagc_640x360_b2 --set train.batch_size=8
#
#SBATCH --job-name=uda
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

preset=${1:?give the name of a preset: sbatch scripts/slurm.sh NAME [options of train_uda.py]}
shift
cd "${SLURM_SUBMIT_DIR:-.}"
if [[ -d .venv ]]; then
  source .venv/bin/activate
fi

resume=()
if [[ -e snapshots/$preset/resume.pth ]]; then
  resume=(--resume)
fi
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Without a count there are no GPUs, and one process per node works on the CPU.
exec srun torchrun \
  --nnodes "$SLURM_NNODES" \
  --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
  --rdzv-backend c10d \
  --rdzv-endpoint "${nodes[0]}:29500" \
  --rdzv-id "$SLURM_JOB_ID" \
  -- train_uda.py --preset "$preset" "${resume[@]}" "$@"
