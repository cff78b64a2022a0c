#!/usr/bin/env bash
# The whole job on data made here: checkpoint and data set in the published formats → bundle → answers, parity, F1, speed.
# Needs no GPU and no network. Everything goes to demo-out/, which is made anew.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

# Prints a command as one would type it, quoted where a shell needs it, then runs it.
step() {
  printf '\n$%s\n' "$(printf ' %q' "$@")"
  "$@"
}

# Progress bars are for terminals and are left out of the demo.
rm -rf demo-out
step fmmt make-demo-data -o demo-out --models -q
step ls fmmt_deploy/demo/trained/roberta # what was trained on such data by: fmmt train --config training/demo.toml
step fmmt export --ckpt demo-out/pretrained_model/FacialMMT-RoBERTa --plm-dir demo-out/pretrained_model/roberta-large -o demo-out/bundle -q
step fmmt inspect demo-out/bundle
step fmmt run -b demo-out/bundle --data demo-out --split test --engine ort -o demo-out/answers.jsonl -q
step head -n 2 demo-out/answers.jsonl
step fmmt parity -b demo-out/bundle --engine ort -q
# 64 dialogues can't show that F1 is the same within 0.5 points, the default for MELD's 280, but within 3; 24 within 6.
step fmmt eval -b demo-out/bundle --data demo-out --split test --engine ort --reference torch --margin 3 -q
step fmmt eval -b demo-out/bundle --data demo-out --split test --engine ort --noise gumbel --seeds 5 -q
step fmmt parity -b demo-out/bundle --engine ort --self -q
step fmmt cast -b demo-out/bundle --precision fp16 --require 'fp16>=0.95' --data demo-out --split train --limit 4 -q
step fmmt eval -b demo-out/bundle --data demo-out --split test --limit 24 --engine emulated --precision fp16 --reference torch --margin 6 -q
step fmmt calibrate -b demo-out/bundle --precision int8-fp32 --data demo-out --split train -q
step fmmt eval -b demo-out/bundle --data demo-out --split test --engine ort --precision int8-fp32 --reference torch --margin 3 -q
step fmmt profile-data -b demo-out/bundle --data demo-out --split test --buckets 3 -o demo-out/profile.toml -q
step fmmt build -b demo-out/bundle --engine trt-rtx --precision fp16 --profile demo-out/profile.toml --require 'fp16>=0.95' -q
step fmmt bench -b demo-out/bundle --engine torch --engine ort --baseline published --dialogues 1 --allow-invalid -q
step fmmt status -b demo-out/bundle
step fmmt verify -b demo-out/bundle -q
step fmmt report -b demo-out/bundle -o demo-out/report.html --card demo-out/card.md --data demo-out -q
