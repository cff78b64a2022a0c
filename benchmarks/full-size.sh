#!/usr/bin/env bash
# RoBERTa-large, Swin-T and fusion with random weights, against the published way of working, a quick look: one turn of
# each, which is INVALID for want of turns. What can be believed takes hours on two cores, and an idle machine:
# benchmarks/full-size.sh --rounds 6 --engine torch --faces 50 --seconds 60
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/fmmt bench --random full --engine ort --baseline published --faces 10 --dialogues 1 --rounds 1 \
  --allow-invalid "$@"
