#!/bin/sh
# The table of the README: float, quantization to nearest at five widths, one epoch of quantization-aware training, and two
# recipes of post-training algorithms, on copies of both sample projects, with Fashion-MNIST's 10,000 test pictures.
#
#   projects/measure.sh [lenet5] [dscnn]       QUANVAS_CLI names the command line elsewhere than build/release/bin
set -eu
cd "$(dirname "$0")"
cli=$(realpath "${QUANVAS_CLI:-../build/release/bin/quanvas-cli}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
top1() { sed -n 's/^top-1 \([0-9.]*\) .*/\1/p'; }

for project in ${*:-lenet5 dscnn}; do
  cp -R "$project" "$work/"
  p=$work/$project/$project.quanvas
  row="| $project | $("$cli" -q evaluate "$p" | top1)"
  for width in 8:8 4:8 4:4 3:4 2:2; do
    row="$row | $("$cli" -q quantize "$p" --recipe "w${width%:*}a${width#*:}" | top1)"
  done
  for width in 4:4 3:4 2:2; do
    row="$row | $("$cli" -q train "$p" --recipe "w${width%:*}a${width#*:}" --epochs 1 | top1)"
  done
  for recipe in cnn-w4a8 cnn-w4a4; do
    row="$row | $("$cli" -q quantize "$p" --recipe "$recipe" | top1)"
  done
  echo "$row |"
done
