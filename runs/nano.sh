#!/usr/bin/env bash
# The recipe of nano on two CPU cores: bash runs/nano.sh RUN_FOLDER [FOLDER_WITH_RECORDINGS [FOLDER_WITH_TEXTS]]
# Stages in brackets run side by side, one core each. The committed weights went through stages 1 to 5 in this order, but in seven short legs, each from
# the weights of the one before (`--init`), all but the last with AdamW in place of Muon, then through stage 6, in 15 minutes of one H200 where the
# learning rate followed the clock, and through stages 7 to 13 on two cores: LOG.md says what each leg was, how far it got, and what it scored.
# All data of stages 1 to 8 were made before SVOX Pico was among the engines, those of stage 9 before Kokoro was and before users had accents, and all of them
# with invented names of random syllables (data/words.py spells them as English now); those of stage 10 before the means of Kokoro's voices were voices, too,
# and all but those of stages 11 to 13 with fewer question forms; before stage 13 dictations drew for rare names as often as for other words (data/wide.py). Each listen run
# began a new letter head: `mean` keeps it now.
set -euo pipefail
RUN=${1:?usage: bash runs/nano.sh RUN_FOLDER [FOLDER_WITH_RECORDINGS [FOLDER_WITH_TEXTS]]}
SPEECH=${2:+--speech $2}   # human recordings with a manifest.jsonl; optional, for the codec, the vocoder, the listen head and, in stage 11, the speak head
TEXTS=${3:-}               # public dialogues (*.jsonl.gz); optional: words beyond the domain, heard and read aloud
PY=${PYTHON:-python}
HERE=$(cd "$(dirname "$0")/.." && pwd)
export OMP_NUM_THREADS=1

# 1. words: tokenizer, embedding table (frozen from here on), the text LLM on that table
$PY -m michiai.training.tokenizer --out "$RUN/tokenizer"
$PY -m michiai.training.text --tokenizer "$RUN/tokenizer" --out "$RUN/table" --steps 900 --batch 32 --lr 2e-3
$PY -m michiai.training.text --tokenizer "$RUN/tokenizer" --init "$RUN/table/model.safetensors" --out "$RUN/text" \
  --steps 6550 --batch 64 --lr 1.5e-3 --warmup 40 --weight-decay 0.05

# 2. sound: two-channel dialogues, and wide speech
LISTEN_DATA=("$RUN/data/train")
$PY -m michiai.data "$RUN/data/train" --hours 66 --seed 1 --split train --workers 2
$PY -m michiai.data "$RUN/data/test" --hours 1 --seed 1 --split test --workers 2
if [ -n "$TEXTS" ]; then
  $PY -m michiai.data "$RUN/data/wide" --hours 20 --seed 4 --split train --workers 2 --text "$TEXTS"
  LISTEN_DATA+=("$RUN/data/wide")
fi
if [ -n "$SPEECH" ]; then  # a tenth of the clips, and they are the hardest: heard twice as often
  $PY -m michiai.data "$RUN/data/human" --hours 4.5 --seed 5 --split train --workers 2 $SPEECH
  LISTEN_DATA+=("$RUN/data/human" "$RUN/data/human")
fi

# 3. parts: codec and vocoder together; listen head
($PY -m michiai.training.codec --width 224 --data "$RUN/data/train" $SPEECH --share 0.06 --out "$RUN/codec" --steps 7800 --wave-frames 20 --warmup 60
 $PY -m michiai.training.encoder --data "$RUN/data/train" $SPEECH --codec "$RUN/codec/model.safetensors" --out "$RUN/encoder" --steps 3000 --lr 2e-3) &
PARTS=$!
$PY -m michiai.training.listen --data "${LISTEN_DATA[@]}" --tokenizer "$RUN/tokenizer" --table "$RUN/table/model.safetensors" \
  --out "$RUN/listen" --steps 47000 --batch 12 --clip-frames 96 --lr 1.3e-3 --warmup 80
wait $PARTS  # at step 35,000 the committed listen head went on from the mean of its weights of then (0.8) and of 7,500 steps before (0.2), when people joined,
# and at step 42,200 it grew from 5 layers to 7 (scripts/grow.py)

# 4. everything together
$PY -m michiai.training.prepare --data "$RUN/data/train" --codec "$RUN/codec/model.safetensors" \
  --listen "$RUN/listen/model.safetensors" --table "$RUN/table/model.safetensors" --tokenizer "$RUN/tokenizer" --out "$RUN/frames"
$PY -m torch.distributed.run --standalone --nproc_per_node 2 -m michiai.training.duplex --device cpu --text "$RUN/text/model.safetensors" --frames "$RUN/frames" --tokenizer "$RUN/tokenizer" \
  --out "$RUN/duplex" --steps 6450 --batch 32 --lr 1.1e-3 --warmup 30

# 5. the model folder
$PY "$HERE/scripts/say.py" "the red train is late and the blue one left at nine this morning i think" "$RUN/voice.wav" --role model
assemble() {  # CODEC LISTEN DUPLEX VOCODER OUT
  $PY "$HERE/scripts/assemble.py" --codec "$RUN/$1/model.safetensors" --listen "$RUN/$2/model.safetensors" --duplex "$RUN/$3/model.safetensors" \
    --vocoder "$RUN/$4/model.safetensors" --tokenizer "$RUN/tokenizer" --default-voice "$RUN/voice.wav" --out "$RUN/$5"
}
assemble encoder listen duplex codec nano_cpu

# 6. on a GPU, from that folder: everything again, in large batches; codec, listen head and the rest side by side if there are cores
command -v nvidia-smi >/dev/null || { echo "no GPU here: the model folder is $RUN/nano_cpu"; exit; }
FIRST="$RUN/nano_cpu/model.safetensors"
$PY -m michiai.training.codec --init "$FIRST" --data "$RUN/data/train" --out "$RUN/codec_gpu" --steps 2700 --batch 96 --wave-frames 20 \
  --lr 1.3e-3 --warmup 60 --workers 3
$PY -m michiai.vocoder.train --data "$RUN/data/train" --codec "$RUN/codec_gpu/model.safetensors" --adversarial-from 150 --out "$RUN/vocoder_gpu" \
  --steps 2970 --batch 48 --wave-frames 20 --lr 6e-4 --warmup 60 --workers 2
$PY -m michiai.training.listen --init "$FIRST" --data "${LISTEN_DATA[@]}" --tokenizer "$RUN/tokenizer" --table "$RUN/table/model.safetensors" \
  --out "$RUN/listen_gpu" --steps 4600 --batch 256 --clip-frames 96 --lr 1.6e-3 --warmup 60 --workers 4
$PY -m michiai.training.prepare --data "$RUN/data/train" --codec "$RUN/codec_gpu/model.safetensors" --listen "$RUN/listen_gpu/model.safetensors" \
  --table "$RUN/table/model.safetensors" --tokenizer "$RUN/tokenizer" --out "$RUN/frames_gpu"
$PY -m michiai.training.duplex --init "$FIRST" --frames "$RUN/frames_gpu" --tokenizer "$RUN/tokenizer" --out "$RUN/duplex_gpu" \
  --steps 1370 --batch 128 --lr 1.2e-3 --warmup 60 --virtual 0.25 --workers 7
assemble codec_gpu listen_gpu duplex_gpu vocoder_gpu nano_gpu

# 7. the listen head again, twice, on fresh dialogues, and the mean (the weights of stage 6 in it because the backbone knows their embeddings)
$PY -m michiai.data "$RUN/data/fresh" --hours 12 --seed 31 --split train --workers 2
listen() {  # FROM OUT SEED STEPS RATE FOLDER...
  $PY -m michiai.training.listen --init "$RUN/$1/model.safetensors" --data "${@:6}" --tokenizer "$RUN/tokenizer" --table "$RUN/table/model.safetensors" \
    --out "$RUN/$2" --seed "$3" --steps "$4" --batch 24 --clip-frames 96 --lr "$5" --warmup 60
}
mean() {  # OUT SHARE RUN ...
  local out=$1 pairs=() && shift
  while [ $# -gt 0 ]; do pairs+=("$1" "$RUN/$2/model.safetensors") && shift 2; done
  mkdir -p "$RUN/$out" && $PY "$HERE/scripts/average.py" --also letters --out "$RUN/$out/model.safetensors" "${pairs[@]}"
}
listen listen_gpu listen_a 31 3000 4e-4 "$RUN/data/fresh" "${LISTEN_DATA[@]:1}" &
FIRST_RUN=$!  # the committed one heard people twice as often as wide speech, and fresh dialogues twice
listen listen_gpu listen_b 32 3000 4e-4 "$RUN/data/fresh"
wait $FIRST_RUN
mean listen_mean 0.2 listen_gpu 0.4 listen_a 0.4 listen_b

# 8. the listen head once more; then everything together with it, twice, on those dialogues and on readings, and the mean
$PY -m michiai.data "$RUN/data/fresher" --hours 14 --seed 41 --split train --workers 2
$PY -m michiai.data "$RUN/data/read" --hours 8 --seed 45 --split train --workers 2 --reading ${TEXTS:+--text "$TEXTS"}
listen listen_mean listen_c 41 3000 4e-4 "$RUN/data/fresher" "$RUN/data/fresh" "${LISTEN_DATA[@]:1}"
mean listen_last 0.5 listen_mean 0.5 listen_c
frames() {  # DATA CODEC LISTEN [OPTION...]: into frames_DATA
  $PY -m michiai.training.prepare --data "$RUN/data/$1" --codec "$RUN/$2/model.safetensors" --listen "$RUN/$3/model.safetensors" \
    --table "$RUN/table/model.safetensors" --tokenizer "$RUN/tokenizer" --out "$RUN/frames_$1" "${@:4}"
}
together() {  # FROM OUT SEED STEPS RATE OPTION...
  $PY -m michiai.training.duplex --init "$RUN/$1/model.safetensors" --tokenizer "$RUN/tokenizer" --out "$RUN/$2" --seed "$3" --steps "$4" --batch 16 \
    --lr "$5" "${@:6}"
}
MIXED=(--readings "$RUN/frames_read" --virtual 0.25 --warmup 30)
frames fresher codec_gpu listen_last
frames read codec_gpu listen_last
together duplex_gpu duplex_a 1 2800 6e-4 "${MIXED[@]}" --frames "$RUN/frames_fresher" &
FIRST_RUN=$!
together duplex_gpu duplex_b 2 2800 6e-4 "${MIXED[@]}" --frames "$RUN/frames_fresher"
wait $FIRST_RUN
mean duplex_mean 0.5 duplex_a 0.5 duplex_b

# 9. everything together once more, at the end with more dialogues, twice; the mean of them and of stage 8 (the second of the two runs really left the first at step 1,800)
$PY -m michiai.data "$RUN/data/freshest" --hours 8 --seed 51 --split train --workers 2
frames freshest codec_gpu listen_last
together duplex_mean duplex_c 31 2000 6e-4 "${MIXED[@]}" --frames "$RUN/frames_fresher"
together duplex_c duplex_d 41 790 4e-4 "${MIXED[@]}" --frames "$RUN/frames_fresher" "$RUN/frames_freshest" &
FIRST_RUN=$!
together duplex_c duplex_e 42 840 4e-4 "${MIXED[@]}" --frames "$RUN/frames_fresher" "$RUN/frames_freshest"
wait $FIRST_RUN
mean duplex_last 0.5 duplex_mean 0.25 duplex_d 0.25 duplex_e
assemble codec_gpu listen_last duplex_last vocoder_gpu nano_before

# 10. voices like people's: codec and vocoder, listen head, and everything together with them, from that folder
FIRST="$RUN/nano_before/model.safetensors"
synthesise() {  # FOLDER HOURS SEED [OPTION...]
  $PY -m michiai.data "$RUN/data/$1" --hours "$2" --seed "$3" --split train --workers 2 "${@:4}"
}
synthesise natural 10 113
synthesise read_heart 2.5 111 --reading ${TEXTS:+--text "$TEXTS"} --voices heart
synthesise read_kokoro 0.64 112 --reading ${TEXTS:+--text "$TEXTS"} --voices kokoro
synthesise read_all 4 117 --reading ${TEXTS:+--text "$TEXTS"}
synthesise heart 1.5 115 --voices heart
HEARD=("$RUN/data/natural" "$RUN/data/natural" "$RUN/data/heart" ${SPEECH:+"$RUN/data/human"})
if [ -n "$TEXTS" ]; then
  synthesise wide_heart 1.5 114 --text "$TEXTS" --voices heart
  synthesise wide_accents 3 116 --text "$TEXTS"
  HEARD+=("$RUN/data/wide_heart" "$RUN/data/wide_accents")
fi
($PY -m michiai.training.codec --init "$FIRST" --data "$RUN/data/read_heart" "$RUN/data/natural" "$RUN/data/read_kokoro" "$RUN/data/read_kokoro" \
  $SPEECH --share 0.08 --out "$RUN/codec_natural" --steps 5600 --wave-frames 20 --lr 8e-4 --warmup 60 --seed 7) &
PARTS=$!
listen nano_before listen_natural 201 2400 5e-4 "${HEARD[@]}"
wait $PARTS
mean listen_both 0.5 nano_before 0.5 listen_natural
for data in natural read_heart read_kokoro read_all; do frames $data codec_natural listen_both; done
MIXED=(--frames "$RUN/frames_natural" --readings "$RUN/frames_read_heart" "$RUN/frames_read_kokoro" "$RUN/frames_read_kokoro" "$RUN/frames_read_all"
  --virtual 0.15 --read 0.5 --warmup 40)
together nano_before duplex_f 301 1900 6e-4 "${MIXED[@]}" &  # the committed ones were stopped at step 1,800
FIRST_RUN=$!
together nano_before duplex_g 302 1900 6e-4 "${MIXED[@]}"
wait $FIRST_RUN
mean duplex_natural 0.25 nano_before 0.375 duplex_f 0.375 duplex_g
$PY "$HERE/scripts/say.py" "the red train is late and the blue one left at nine this morning i think" "$RUN/voice.wav" --role model --split train --voice heart --sex F --seed 134
assemble codec_natural listen_both duplex_natural codec_natural nano_natural

# 11. every word of the held-out forms in other forms, spelling within longer ones, more echoes, means of Kokoro's voices and people as readers:
# listen head, then everything together, first one run on frames by the listen head before (half of the dialogues: they had to do until it was ready)
synthesise worded 10 213
synthesise read_heart_again 1.5 211 --reading ${TEXTS:+--text "$TEXTS"} --voices heart
synthesise read_blends 0.64 212 --reading ${TEXTS:+--text "$TEXTS"} --voices kokoro
synthesise read_again 2.5 217 --reading ${TEXTS:+--text "$TEXTS"}
synthesise heart_again 1.5 215 --voices heart
HEARD=("$RUN/data/worded" "$RUN/data/worded" "$RUN/data/heart_again" "$RUN/data/read_blends")
READ=("$RUN/frames_read_heart_again" "$RUN/frames_read_blends" "$RUN/frames_read_blends" "$RUN/frames_read_again")
if [ -n "$SPEECH" ]; then
  synthesise people 3 5 $SPEECH
  synthesise read_people 1.5 218 --reading $SPEECH
  HEARD+=("$RUN/data/people")
  READ+=("$RUN/frames_read_people")
fi
if [ -n "$TEXTS" ]; then
  synthesise wide_again 2 216 --text "$TEXTS"
  synthesise wide_heart_again 1 214 --text "$TEXTS" --voices heart
  HEARD+=("$RUN/data/wide_again" "$RUN/data/wide_heart_again")
fi
listen nano_natural listen_worded 221 2400 5e-4 "${HEARD[@]}" &
PARTS=$!
for data in worded read_heart_again read_blends read_again ${SPEECH:+read_people}; do frames $data codec_natural listen_both; done
MIXED=(--frames "$RUN/frames_worded" --readings "${READ[@]}" --virtual 0.15 --read 0.45)
together nano_natural duplex_h 401 800 6e-4 "${MIXED[@]}" --warmup 40  # the committed one was stopped at step 600
wait $PARTS
mean listen_mixed 0.5 nano_natural 0.5 listen_worded
rm -r "$RUN/frames_worded"
frames worded codec_natural listen_mixed
together duplex_h duplex_i 411 620 6e-4 "${MIXED[@]}" --warmup 20 &
FIRST_RUN=$!
together duplex_h duplex_j 412 620 6e-4 "${MIXED[@]}" --warmup 20
wait $FIRST_RUN
mean duplex_worded 0.25 nano_natural 0.375 duplex_i 0.375 duplex_j
assemble codec_natural listen_mixed duplex_worded codec_natural nano_worded

# 12. the same again, twice: listen head, then everything together on frames as it hears them; at first with dictations of crossed questions, then with
# readings in more voices: copies at other speeds, and voices blended (training/duplex.py; in the first of the two the speak head was, in vain, told the
# voice prompt's statistics by one more matrix, which is gone: LOG.md, sixteenth leg)
synthesise crossed 7 413
synthesise heart_crossed 1.5 415 --voices heart
synthesise read_heart_more 2.2 411 --reading ${TEXTS:+--text "$TEXTS"} --voices heart
synthesise read_blends_more 0.5 412 --reading ${TEXTS:+--text "$TEXTS"} --voices kokoro
synthesise read_more 3.5 417 --reading ${TEXTS:+--text "$TEXTS"}
HEARD=("$RUN/data/crossed" "$RUN/data/crossed" "$RUN/data/heart_crossed" "$RUN/data/read_blends_more" ${SPEECH:+"$RUN/data/human"})
READ=("$RUN/frames_read_blends_more" "$RUN/frames_read_blends_more" "$RUN/frames_read_heart_more" "$RUN/frames_read_more" ${SPEECH:+"$RUN/frames_read_people_more"})
if [ -n "$SPEECH" ]; then synthesise read_people_more 1.5 418 --reading $SPEECH; fi
if [ -n "$TEXTS" ]; then  # in the first of each pair of listen runs below some folders were named twice, in the last run the readings not at all
  synthesise wide_crossed 5 416 --text "$TEXTS"
  synthesise wide_heart_crossed 1 414 --text "$TEXTS" --voices heart
  HEARD+=("$RUN/data/wide_crossed" "$RUN/data/wide_heart_crossed")
fi
pair() {  # listen|together FROM OUT SHARE SEED STEPS RATE OPTION...: two runs side by side; OUT is their mean with a share of what they began from
  local half && half=$(awk "BEGIN { print (1 - $4) / 2 }")
  "$1" "$2" "$3_a" "${5}1" "${@:6}" &
  local first=$!
  "$1" "$2" "$3_b" "${5}2" "${@:6}"
  wait $first
  mean "$3" "$4" "$2" "$half" "$3_a" "$half" "$3_b"
}
pair listen nano_worded listen_crossed 0.5 42 1200 5e-4 "${HEARD[@]}"
for data in crossed read_blends_more read_heart_more read_more ${SPEECH:+read_people_more}; do frames $data codec_natural listen_crossed; done
MIXED=(--readings "${READ[@]}" --virtual 0.15 --read 0.45 --warmup 20)
pair together nano_worded duplex_crossed 0.25 61 707 6e-4 "${MIXED[@]}" --frames "$RUN/frames_crossed"
synthesise last 7 513
pair listen listen_crossed listen_end 0.5 72 2200 5e-4 "$RUN/data/last" "${HEARD[@]}"
rm -r "$RUN"/frames_read_*_more "$RUN/frames_read_more"
frames last codec_natural listen_end
frames read_blends_more codec_natural listen_end --copies 3
for data in read_heart_more read_more; do frames $data codec_natural listen_end; done
if [ -n "$SPEECH" ]; then frames read_people_more codec_natural listen_end --copies 1; fi
pair together duplex_crossed duplex_end 0.25 71 1011 6e-4 "${MIXED[@]}" --frames "$RUN/frames_last"
assemble codec_natural listen_end duplex_end codec_natural nano

# 13. the listen head again, in one long run, and the mean; the rest stays, and does not mind (LOG.md, eighteenth leg)
synthesise long 7 713
synthesise dictated 3 717 --dictation
synthesise heart_long 1.2 715 --voices heart
HEARD=("$RUN/data/long" "$RUN/data/long" "$RUN/data/dictated" "$RUN/data/heart_long")
if [ -n "$TEXTS" ]; then synthesise wide_long 3 716 --text "$TEXTS" && HEARD+=("$RUN/data/wide_long"); fi
if [ -n "$SPEECH" ]; then synthesise people_long 4 5 $SPEECH && HEARD+=("$RUN/data/people_long"); fi
listen nano listen_long 901 4500 5e-4 "${HEARD[@]}"  # up to step 3,000 its rate fell as if there were to be 5,000
mean listen_half 0.5 nano 0.5 listen_long
assemble codec_natural listen_half duplex_end codec_natural nano_long
