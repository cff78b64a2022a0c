#!/usr/bin/env bash
# A step of training beside the published way's, with the small model; --full --rounds 3 takes RoBERTa-large and 14 GB.
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/python scripts/training_speed.py "$@"
