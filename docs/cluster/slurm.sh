#!/usr/bin/env bash
# A run on two nodes of 8 GPUs: sbatch slurm.sh my.yaml
# The first node trains, the second samples. The checkout, its .venv and runs/ are on a file system that both nodes share.
#SBATCH --job-name=corewarding
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

recipe=${1:?"usage: sbatch slurm.sh RECIPE"}
source .venv/bin/activate
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$PWD/.ray-token-$SLURM_JOB_ID"
(umask 077; python -c 'import secrets; print(secrets.token_hex(32))' > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  ray start --head --node-ip-address "$address" --port 6379 --resources '{"training": 8}' --block &
sleep 20
srun --nodes=1 --ntasks=1 --nodelist="${nodes[1]}" --overlap \
  ray start --address "$address:6379" --resources '{"sampling": 8}' --block &
sleep 20

# SIGTERM comes 120 s before the end: the run saves a checkpoint, and the same script goes on with it.
export RAY_ADDRESS="$address:6379"
corewarding train "$recipe" --rollout.resources sampling 1 --learner.resources training 1 --run.sigterm-exit-code 0 &
run=$!
trap 'kill -TERM "$run"' TERM
wait "$run" || wait "$run"
