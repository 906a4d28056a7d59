#!/usr/bin/env bash
# Every stage of runs/nano.sh at a size that says nothing, to see that each runs and fits the next: bash runs/smoke.sh [RUN_FOLDER]
# Under 5 minutes on two cores. The result is a complete model that talks nonsense, in RUN_FOLDER/model (a temporary folder if left out).
set -euo pipefail
RUN=${1:-$(mktemp -d)}
PY=${PYTHON:-python}
HERE=$(cd "$(dirname "$0")/.." && pwd)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
SMALL=(--steps 3 --batch 4 --warmup 2)

beside() { "$@" >"$RUN/beside.log" 2>&1 & BESIDE=$!; }                # on the other core
joined() { wait $BESIDE || { cat "$RUN/beside.log"; exit 1; }; }

# 1. words, and sound beside them
speech() {
  $PY -m michiai.data "$RUN/data" --hours 0.05 --seed 1 --split train --workers 1
  $PY -m michiai.data "$RUN/read" --hours 0.02 --seed 1 --split train --workers 1 --reading
}
beside speech
$PY -m michiai.training.tokenizer --out "$RUN/tokenizer" --scripts 1500
$PY -m michiai.training.text --tokenizer "$RUN/tokenizer" --out "$RUN/table" "${SMALL[@]}"
joined

# 2. parts
sound() {
  $PY -m michiai.training.codec --width 136 --data "$RUN/data" --out "$RUN/codec" "${SMALL[@]}"
  $PY -m michiai.training.encoder --data "$RUN/data" --codec "$RUN/codec/model.safetensors" --out "$RUN/encoder" "${SMALL[@]}"
}
beside sound
$PY -m michiai.training.listen --data "$RUN/data" --tokenizer "$RUN/tokenizer" --table "$RUN/table/model.safetensors" \
  --out "$RUN/listen" "${SMALL[@]}"
joined
frames() {  # DATA OUT [OPTION...]
  $PY -m michiai.training.prepare --data "$RUN/$1" --codec "$RUN/codec/model.safetensors" --listen "$RUN/listen/model.safetensors" \
    --table "$RUN/table/model.safetensors" --tokenizer "$RUN/tokenizer" --out "$RUN/$2" "${@:3}"
}
beside frames read readings --copies 1
frames data frames
$PY -m michiai.training.duplex --text "$RUN/table/model.safetensors" --tokenizer "$RUN/tokenizer" --out "$RUN/virtual" --steps 2 --batch 2
joined

# 3. together, and the vocoder against discriminators
beside $PY -m michiai.vocoder.train --data "$RUN/data" --codec "$RUN/codec/model.safetensors" --adversarial-from 1 --out "$RUN/vocoder" "${SMALL[@]}"
$PY -m michiai.training.duplex --init "$RUN/virtual/model.safetensors" --frames "$RUN/frames" --readings "$RUN/readings" --tokenizer "$RUN/tokenizer" \
  --out "$RUN/duplex" --steps 2 --batch 2
joined

# 4. a model folder, and a conversation with it
$PY "$HERE/scripts/say.py" "the red train is late and the blue one left at nine this morning i think" "$RUN/voice.wav" --role model
$PY "$HERE/scripts/say.py" "what is three plus four" "$RUN/question.wav"
$PY "$HERE/scripts/assemble.py" --codec "$RUN/encoder/model.safetensors" --listen "$RUN/listen/model.safetensors" \
  --duplex "$RUN/duplex/model.safetensors" --vocoder "$RUN/vocoder/model.safetensors" --tokenizer "$RUN/tokenizer" \
  --default-voice "$RUN/voice.wav" --out "$RUN/model"
$PY -m michiai converse "$RUN/question.wav" "$RUN/answer.wav" --model "$RUN/model" --plot
ls "$RUN"/model/{config.json,model.safetensors} "$RUN"/answer.{wav,png} "$RUN"/{codec,listen,duplex,vocoder}/loss.png
echo "every stage ran; the model is in $RUN/model"
