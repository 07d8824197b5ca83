#!/usr/bin/env bash
# One run of every built-in data set, one after the other, every setting at its default unless the line says otherwise:
#
#     TRAINCTL_DATA=... CLOTHING=.../clothing_small bash experiments/datasets/run.sh OUT
#
# CLOTHING is the unpacked image folder (train, validation, test). OUT keeps the runs; table.py makes the table of them.
set -uo pipefail
out=${1:?a folder for the runs}
: "${TRAINCTL_DATA:?the folder of the data sets}" "${CLOTHING:?the unpacked clothing images}"
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"

train() {  # NAME OVERRIDES...
    local name=$1
    shift
    nice trainctl train "$@" --quiet --json --runs-dir "$out/$name" >"$out/$name.json" 2>"$out/$name.err" ||
        { echo "$name: exit $?"; tail -1 "$out/$name.err"; }
}

for data in tabular wine_quality wine_quality_red fraud_handbook california_housing house_16h bike_sharing \
    synthetic synthetic_images synthetic_sequences digits; do
    train "$data-mlp" data="$data" model=mlp
done
train wine_quality-number-mlp data=wine_quality data.target_kind=number model=mlp
train wine_quality_red-number-mlp data=wine_quality_red data.target_kind=number model=mlp
train fashion_mnist-mlp data=fashion_mnist model=mlp
train digits-cnn data=digits model=cnn
train synthetic_images-cnn data=synthetic_images model=cnn trainer.max_epochs=15
train image_folder-mlp data=image_folder data.path="$CLOTHING" data.size=64 model=mlp
train image_folder-cnn data=image_folder data.path="$CLOTHING" data.size=64 model=cnn trainer.max_epochs=15
train fashion_mnist-cnn data=fashion_mnist model=cnn trainer.max_epochs=8
python3 "$here/table.py" "$out"
