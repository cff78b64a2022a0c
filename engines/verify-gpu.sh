#!/usr/bin/env bash
# Everything that a GPU can show, in one go and under 8 minutes; from a checkout, installed or not.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)" # paths among the arguments are the caller's
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" -m fmmt_deploy.verification "$@"
