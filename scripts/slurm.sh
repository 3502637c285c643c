#!/usr/bin/env bash
# Trains a preset on several nodes of a cluster with the scheduler Slurm, and resumes a run that was
# interrupted:
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
# Two minutes before the time is up: the step is finished and saved, and the job queued again. Who
# preempts a job queues it again himself, and what scancel ends stays ended: both send TERM.
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
set -euo pipefail

preset=${1:?give the name of a preset: sbatch scripts/slurm.sh NAME [options of train_uda.py]}
shift
cd "${SLURM_SUBMIT_DIR:-.}"
if [[ -d .venv ]]; then
  source .venv/bin/activate
fi

run=$preset
previous=
for argument in "$@"; do
  if [[ $previous == --run ]]; then run=$argument; fi
  if [[ $argument == --run=* ]]; then run=${argument#--run=}; fi
  previous=$argument
done
resume=()
if compgen -G "snapshots/$run/resume*.pth" > /dev/null; then
  resume=(--resume)
fi
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Without a count there are no GPUs, and one process per node works on the CPU.
srun torchrun \
  --nnodes "$SLURM_NNODES" \
  --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
  --rdzv-backend c10d \
  --rdzv-endpoint "${nodes[0]}:29500" \
  --rdzv-id "$SLURM_JOB_ID" \
  -- train_uda.py --preset "$preset" "${resume[@]}" "$@" &
job=$!
again=
trap 'kill -TERM "$job"' TERM
trap 'again=yes; kill -TERM "$job"' USR1
status=0
wait "$job" || status=$?
while kill -0 "$job" 2> /dev/null; do # a signal has ended the waiting, not the job
  status=0
  wait "$job" || status=$?
done
if [[ -n $again && $status -ne 0 ]]; then # torchrun that was told to end does not return 0
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
