#!/usr/bin/env bash
# Makes .venv and installs MichiAI into it; installs the speech synthesisers of the system where it may, else says how.
#   bash scripts/setup.sh [core|app|full]     core: to talk; app: also in the browser and to serve; full: also to train, evaluate and test
set -euo pipefail
cd "$(dirname "$0")/.."
WHAT=${1:-core}
TORCH=${TORCH:-torch==2.13.0}   # to take a CPU-only build: TORCH="torch==2.13.0 --index-url <PyTorch's index of CPU wheels>"
PYTHON=${PYTHON:-$(command -v python3.11 || command -v python3)}

need=()
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || need+=(python3-venv)
# the int8 form's kernels are compiled where they run; without a compiler it works, too, at half to a third of the speed
if [ "$WHAT" = app ] && [ "$(id -u)" = 0 ] && ! command -v g++ >/dev/null; then need+=(g++); fi
if [ "$WHAT" = full ]; then
  for pair in espeak-ng:espeak-ng flite:flite festival:festival; do
    command -v "${pair%%:*}" >/dev/null || need+=("${pair##*:}")
  done
  for voice in kallpc16k kdlpc16k us-slt-hts; do
    dpkg -s "festvox-$voice" >/dev/null 2>&1 || need+=("festvox-$voice")
  done
  # the tests of the Space talk to it in a browser; where the system has none (Ubuntu), they are skipped. So is that of a relay
  # where coturn is not installed: its package starts a server, which only whoever wants it should do
  if ! command -v chromium >/dev/null && apt-cache show chromium >/dev/null 2>&1; then need+=(chromium); fi
  command -v gcc >/dev/null || need+=(gcc python3-dev)   # SVOX Pico and some referees are built from source
  command -v g++ >/dev/null || need+=(g++)
fi
if [ ${#need[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${need[@]}"
  else
    echo "Missing on this system: ${need[*]}. Please run:  sudo apt-get install ${need[*]}" >&2
    exit 1
  fi
fi

"$PYTHON" -c 'import sys; assert sys.version_info >= (3, 11)' || { echo "Python 3.11 or newer is needed; $PYTHON is older" >&2; exit 1; }
stamp=.venv/.installed-$WHAT
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
  install() { .venv/bin/python -m pip install -q --no-compile "$@"; }  # what is imported, a small part of it all, is compiled then
  install --upgrade pip
  # torch first and alone, so that nothing else can choose another one
  install $TORCH
  if [ "$WHAT" = full ]; then
    install -e ".[app,serve,train,eval,dev]"
    touch .venv/.installed-core .venv/.installed-app
  elif [ "$WHAT" = app ]; then
    install -e ".[app,serve]"
    touch .venv/.installed-core
  else
    install -e .
  fi
  touch "$stamp"
fi
