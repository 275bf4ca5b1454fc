#!/usr/bin/env bash
# Does the paper's claim hold on the embedded data? Every student at one budget, three seeds:
# pretrained, then probed by a linear SVM, fine-tuned from five shapes of five classes, and
# fine-tuned on the train split; beside training from scratch. Ends with a table, written to
# docs/results/claims.md too. Runs that finished are kept: start it again to go on.
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

run() {  # folder, options: one training, unless it has finished
  [ -f "$1/results.json" ] || [ -f "$1/sweep.json" ] && return
  echo "$1"
  mkdir -p "$1"
  "$python" -m recon.train output_dir="$1" "${@:2}" >"$1/screen.txt" 2>&1 ||
    { tail -n 5 "$1/screen.txt"; exit 1; }
}

downstream() {  # name, seed, options of the student: few-shot and fine-tuning
  local common=("seed=$2" eval.votes=0 "${@:3}")
  common+=(trainer.max_epochs="$tuned")
  run "$out/few_shot/$1/$2" hydra.mode=MULTIRUN experiment=fewshot_furniture data.fold=0,1,2,3,4 "${common[@]}"
  run "$out/finetune/$1/$2" experiment=finetune_furniture "${common[@]}"
}

for seed in $seeds; do
  for student in recon generative contrastive multitask two_towers; do
    checkpoint=$out/pretrain/$student/$seed
    run "$pretrained" experiment=pretrain_furniture student=$student seed="$seed" \
      trainer.max_epochs="$epochs"
    classifier=classifier
    [ $student = two_towers ] && classifier=classifier_two_towers
    downstream $student "$seed" student=$classifier checkpoint="$pretrained/checkpoints/last.ckpt"
  done
  downstream scratch "$seed"
done
"$python" scripts/reproduce/claims_table.py "$out" docs/results/claims.md
