#!/usr/bin/env bash
# Everything that a GPU can show, in one go and under 8 minutes; from a checkout, installed or not.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" -m fmmt_deploy.verification "$@"
