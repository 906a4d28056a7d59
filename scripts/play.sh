#!/usr/bin/env bash
# Plays a WAV file where there is a loudspeaker, and says where the file is in any case.
set -u
for player in paplay aplay "ffplay -autoexit -nodisp -loglevel quiet" afplay; do
  if command -v ${player%% *} >/dev/null && timeout 120 $player "$1" 2>/dev/null; then
    exit 0
  fi
done
echo "No loudspeaker found; the conversation is in $1 (you left, MichiAI right)."
