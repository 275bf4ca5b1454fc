#!/usr/bin/env bash
# Compare all students of the paper on the bundled data at one budget, with three seeds. Each is
# pretrained, evaluated by a linear SVM, fine-tuned on 5-way 5-shot episodes and fine-tuned on the
# train split. Training from scratch is the baseline. The tables are printed and written to
# docs/results/claims.md. Finished runs are kept: run it again to continue.
#
#   scripts/reproduce/claims.sh                      # about two hours on two CPU cores
#   EPOCHS=70 TUNED=60 SEEDS="0 1" OUT=outputs/long scripts/reproduce/claims.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
out=${OUT:-outputs/claims}
epochs=${EPOCHS:-35}
tuned=${TUNED:-30}
seeds=${SEEDS:-0 1 2}

run() {  # folder, options: train once, unless it is finished
  [ -f "$1/results.json" ] || [ -f "$1/sweep.json" ] && return
  echo "$1"
  mkdir -p "$1"
  "$python" -m recon.train output_dir="$1" "${@:2}" >"$1/screen.txt" 2>&1 ||
    { tail -n 5 "$1/screen.txt"; exit 1; }
}

downstream() {  # name, seed, options: few-shot and fine-tuning
  local common=("seed=$2" eval.votes=0 "${@:3}")
  common+=(trainer.max_epochs="$tuned")
  run "$out/few_shot/$1/$2" hydra.mode=MULTIRUN experiment=fewshot_furniture data.fold=0,1,2,3,4 "${common[@]}"
  run "$out/finetune/$1/$2" experiment=finetune_furniture "${common[@]}"
}

for seed in $seeds; do
  for student in recon generative contrastive multitask two_towers; do
    pretrained=$out/pretrain/$student/$seed
    run "$pretrained" experiment=pretrain_furniture student=$student seed="$seed" \
      trainer.max_epochs="$epochs"
    classifier=classifier
    [ $student = two_towers ] && classifier=classifier_two_towers
    downstream $student "$seed" student=$classifier checkpoint="$pretrained/checkpoints/last.ckpt"
  done
  downstream scratch "$seed"
done
"$python" scripts/reproduce/claims_table.py "$out" docs/results/claims.md
