#!/usr/bin/env bash
# The recipe of nano on two CPU cores: bash runs/nano.sh RUN_FOLDER [FOLDER_WITH_RECORDINGS]
# Stages in brackets run side by side, one core each. The committed weights went through these stages in this order, but
# in an hour and a half all in all: LOG.md says how far each stage got, and what it scored.
set -euo pipefail
RUN=${1:?usage: bash runs/nano.sh RUN_FOLDER [FOLDER_WITH_RECORDINGS]}
SPEECH=${2:+--speech $2}   # human recordings with a manifest.jsonl; optional, heard by codec and vocoder alone
PY=${PYTHON:-python}
HERE=$(cd "$(dirname "$0")/.." && pwd)
export OMP_NUM_THREADS=1

# 1. words: tokenizer, embedding table (frozen from here on)
$PY -m michiai.training.tokenizer --out "$RUN/tokenizer"
$PY -m michiai.training.text --tokenizer "$RUN/tokenizer" --out "$RUN/table" --steps 900 --batch 32 --lr 2e-3

# 2. sound: two-channel dialogues
$PY -m michiai.data "$RUN/data/train" --hours 12 --seed 1 --split train --workers 2
$PY -m michiai.data "$RUN/data/test" --hours 1 --seed 1 --split test --workers 2

# 3. parts: codec and then the vocoder on its frozen latents; listen head
(
  $PY -m michiai.training.codec --data "$RUN/data/train" $SPEECH --out "$RUN/codec" --steps 2300
  $PY -m michiai.vocoder.train --data "$RUN/data/train" $SPEECH --codec "$RUN/codec/model.safetensors" --out "$RUN/vocoder" \
    --steps 1500 --wave-frames 20 --lr 1e-3 --warmup 5
) &
PARTS=$!
$PY -m michiai.training.listen --data "$RUN/data/train" --tokenizer "$RUN/tokenizer" --table "$RUN/table/model.safetensors" \
  --out "$RUN/listen" --steps 3900 --batch 10 --clip-frames 96 --lr 1.8e-3 --warmup 80
wait $PARTS

# 4. everything together
$PY -m michiai.training.prepare --data "$RUN/data/train" --codec "$RUN/codec/model.safetensors" \
  --listen "$RUN/listen/model.safetensors" --table "$RUN/table/model.safetensors" --tokenizer "$RUN/tokenizer" --out "$RUN/frames"
$PY -m michiai.training.duplex --text "$RUN/table/model.safetensors" --frames "$RUN/frames" --tokenizer "$RUN/tokenizer" \
  --out "$RUN/duplex" --steps 700 --batch 16 --lr 1.2e-3 --warmup 40

# The committed weights then went on for a second, shorter run on new dialogues: `--seed 2`, `training.listen --init` (3,000 steps, --lr 1.2e-3) and
# `training.duplex --init` (560 steps, --lr 1.2e-3) on frames prepared without --listen; LOG.md, second entry.

# 5. the model folder
$PY "$HERE/scripts/say.py" "the red train is late and the blue one left at nine this morning i think" "$RUN/voice.wav" --role model
$PY "$HERE/scripts/assemble.py" --codec "$RUN/codec/model.safetensors" --listen "$RUN/listen/model.safetensors" \
  --duplex "$RUN/duplex/model.safetensors" --vocoder "$RUN/vocoder/model.safetensors" --tokenizer "$RUN/tokenizer" \
  --default-voice "$RUN/voice.wav" --out "$RUN/nano"
