#!/usr/bin/env bash
# The recipe of the committed nano checkpoint, on two CPU cores: bash runs/nano.sh RUN_FOLDER [FOLDER_WITH_RECORDINGS]
# The stages in one bracket ran side by side, one core each. LOG.md says how long each took and what it scored.
set -euo pipefail
RUN=${1:?usage: bash runs/nano.sh RUN_FOLDER [FOLDER_WITH_RECORDINGS]}
SPEECH=${2:+--speech $2}   # human recordings with a manifest.jsonl; optional, heard by the codec alone
PY=${PYTHON:-python}
export OMP_NUM_THREADS=1

# 1. words: tokenizer and embedding table
$PY -m michiai.training.tokenizer --out "$RUN/tokenizer"
$PY -m michiai.training.text --tokenizer "$RUN/tokenizer" --out "$RUN/table" --steps 900 --batch 32 --lr 2e-3

# 2. sound: two-channel dialogues
$PY -m michiai.data "$RUN/data/train" --hours 8 --seed 1 --split train --workers 2

# 3. parts
(
  $PY -m michiai.training.codec --data "$RUN/data/train" $SPEECH --out "$RUN/codec" --steps 1450 &
  $PY -m michiai.training.listen --data "$RUN/data/train" --tokenizer "$RUN/tokenizer" \
    --table "$RUN/table/model.safetensors" --out "$RUN/listen" &
  $PY -m michiai.training.duplex --text "$RUN/table/model.safetensors" --tokenizer "$RUN/tokenizer" --out "$RUN/virtual" \
    --steps 1000 --batch 8 --text-rows 4 --lr 1.2e-3 &
  wait
)

# 4. everything together
$PY -m michiai.training.prepare --data "$RUN/data/train" --codec "$RUN/codec/model.safetensors" \
  --listen "$RUN/listen/model.safetensors" --table "$RUN/table/model.safetensors" --tokenizer "$RUN/tokenizer" --out "$RUN/frames"
$PY -m accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no \
  -m michiai.training.duplex --init "$RUN/virtual/model.safetensors" --frames "$RUN/frames" --tokenizer "$RUN/tokenizer" --out "$RUN/duplex"
