#!/usr/bin/env bash
# The recipe of the 530M: bash runs/530m.sh SMOLLM_FOLDER RUN_FOLDER [FOLDER_WITH_RECORDINGS [FOLDER_WITH_TEXTS]]
# NOT RUN AT FULL SIZE: there are no weights of it, and steps, batches and rates below are nano's of its GPU stage, made longer by guess. What was run is
# every command of it at toy size on two CPU cores, from warm start to a conversation, at 24 kHz (tests/test_recipe.py does so again):
#   PRESET=TINY_24_KHZ.json HOURS=0.02 OPTIONS="--steps 2 --batch 2 --warmup 1 --workers 0" bash runs/530m.sh TINY_LLAMA RUN_FOLDER
# A run goes on where it stopped: data, frames and steps that are there are kept.
set -euo pipefail
LLM=${1:?usage: bash runs/530m.sh SMOLLM_FOLDER RUN_FOLDER [FOLDER_WITH_RECORDINGS [FOLDER_WITH_TEXTS]]}  # SmolLM-360M, downloaded beforehand
RUN=${2:?usage: bash runs/530m.sh SMOLLM_FOLDER RUN_FOLDER [FOLDER_WITH_RECORDINGS [FOLDER_WITH_TEXTS]]}
SPEECH=${3:-}              # human recordings with a manifest.jsonl: the only sound above 8 kHz, since what engines say is written at 16 kHz
TEXTS=${4:-}               # public dialogues (*.jsonl.gz): words beyond the domain, heard and read aloud
PY=${PYTHON:-python}
LAUNCH=${LAUNCH:-$PY -m accelerate.commands.launch}  # as `accelerate config` was told; or "accelerate launch --num_processes 8", or $PY for one process
HERE=$(cd "$(dirname "$0")/.." && pwd)
PRESET=${PRESET:-$HERE/configs/530m/config.json}
OPTIONS=${OPTIONS:-}       # of every training stage, in place of those below
WORKERS=${WORKERS:-16}     # processes that synthesise
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# 1. words: the LLM comes trained, and its table, grown by the marks of frames, stays frozen; all other parts are random
[ -e "$RUN/warm/model.safetensors" ] || $PY "$HERE/scripts/warm_start.py" --backbone "$LLM" --preset "$PRESET" --out "$RUN/warm"
WARM="$RUN/warm/model.safetensors"
mkdir -p "$RUN/tokenizer" && cp "$RUN"/warm/tokenizer*.json "$RUN/tokenizer"

# 2. sound: as for nano, but more of it. Shards hold 16 kHz; whoever reads them brings them to the preset's rate
synthesise() {  # FOLDER HOURS SEED [OPTION...]
  $PY -m michiai.data "$RUN/data/$1" --hours "${HOURS:-$2}" --seed "$3" --split train --workers "$WORKERS" "${@:4}"
}
synthesise train 400 1
synthesise read 100 2 --reading ${TEXTS:+--text "$TEXTS"}
HEARD=("$RUN/data/train")
READ=("$RUN/frames_read")
if [ -n "$TEXTS" ]; then
  synthesise wide 100 4 --text "$TEXTS"
  HEARD+=("$RUN/data/wide")
fi
if [ -n "$SPEECH" ]; then
  synthesise human 50 5 --speech "$SPEECH"
  synthesise read_people 50 6 --reading --speech "$SPEECH"
  HEARD+=("$RUN/data/human")
  READ+=("$RUN/frames_read_people")
fi

# 3. parts: codec and vocoder together, the vocoder against discriminators; the listen head needs neither and may run on other GPUs
stage() {  # MODULE OUT OPTION...
  $LAUNCH -m "michiai.$1" --config "$RUN/warm" --out "$RUN/$2" --warmup 1000 --save-every 2000 --workers 8 "${@:3}" $OPTIONS
}
WORDS=(--tokenizer "$RUN/tokenizer" --table "$WARM")
RECORDED=(${SPEECH:+--speech "$SPEECH"})
stage training.codec codec --data "$RUN/data/train" "$RUN/data/read" "${RECORDED[@]}" --steps 100000 --batch 96 --wave-frames 20 --lr 8e-4
CODEC="$RUN/codec/model.safetensors"
stage vocoder.train vocoder --data "$RUN/data/train" "$RUN/data/read" "${RECORDED[@]}" --codec "$CODEC" --adversarial-from 1000 \
  --steps 100000 --batch 48 --wave-frames 20 --lr 4e-4
stage training.listen listen --data "${HEARD[@]}" "${WORDS[@]}" --steps 100000 --batch 256 --clip-frames 96 --lr 8e-4
LISTEN="$RUN/listen/model.safetensors"

# 4. everything together, speaking among it: dialogues teach when and what to say, readings how it sounds
frames() {  # DATA: into frames_DATA
  $PY -m michiai.training.prepare --config "$RUN/warm" --data "$RUN/data/$1" --codec "$CODEC" --listen "$LISTEN" "${WORDS[@]}" --out "$RUN/frames_$1"
}
for data in train read ${SPEECH:+read_people}; do frames $data; done
stage training.duplex duplex --init "$WARM" --tokenizer "$RUN/tokenizer" --frames "$RUN/frames_train" --readings "${READ[@]}" --virtual 0.25 --read 0.4 \
  --steps 40000 --batch 128 --lr 3e-4

# 5. the model folder
$PY "$HERE/scripts/say.py" "the red train is late and the blue one left at nine this morning i think" "$RUN/voice.wav" --role model
$PY "$HERE/scripts/assemble.py" --config "$RUN/warm" --codec "$CODEC" --listen "$LISTEN" --duplex "$RUN/duplex/model.safetensors" \
  --vocoder "$RUN/vocoder/model.safetensors" --tokenizer "$RUN/tokenizer" --default-voice "$RUN/voice.wav" --max-bytes 2000000000 --out "$RUN/model"
echo "the model is in $RUN/model"
