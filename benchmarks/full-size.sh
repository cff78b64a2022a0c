#!/usr/bin/env bash
# RoBERTa-large, Swin-T and fusion with random weights, against the published way of working; takes hours on two cores,
# and 12 GB. For a quick look, which is INVALID: --dialogues 1 --rounds 1 --allow-invalid
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/fmmt bench --random full --engine torch --engine ort --baseline published --faces 10 --faces 50 "$@"
