#!/bin/sh
# Makes this sample project from nothing: trains the float network that dscnn.net.yaml describes on Fashion-MNIST's
# training pictures (Debian package dataset-fashion-mnist), writes it as ONNX and puts it into a new project.
# The same command gives the same bytes of ONNX on the same machine.
#
#   projects/dscnn/make.sh        QUANVAS_CLI names the command line when it is not in build/release/bin
set -eu
cd "$(dirname "$0")"
cli=$(realpath "${QUANVAS_CLI:-../../build/release/bin/quanvas-cli}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$cli" new dscnn.net.yaml --project "$work/train.quanvas" --data-file ../fashion-mnist.json
"$cli" train "$work/train.quanvas" --float --epochs 10 --lr 0.004 --batch 128 --option validation_samples=2000 \
  --option augment_flip=true --out "$work/dscnn.onnx"
mv "$work/dscnn.onnx" dscnn.onnx
rm -rf dscnn.quanvas dscnn.quanvas.data dscnn.quanvas-wal dscnn.quanvas-shm
"$cli" new dscnn.onnx --project dscnn.quanvas --data-file ../fashion-mnist.json --recipe w8a8
"$cli" evaluate dscnn.quanvas
