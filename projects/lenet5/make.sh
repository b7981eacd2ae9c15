#!/bin/sh
# Makes this sample project from nothing: trains the float network that lenet5.net.yaml describes on Fashion-MNIST's
# training pictures (Debian package dataset-fashion-mnist), writes it as ONNX and puts it into a new project.
# The same command gives the same bytes of ONNX on the same machine.
#
#   projects/lenet5/make.sh        QUANVAS_CLI names the command line when it is not in build/release/bin
set -eu
cd "$(dirname "$0")"
cli=$(realpath "${QUANVAS_CLI:-../../build/release/bin/quanvas-cli}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$cli" new lenet5.net.yaml --project "$work/train.quanvas" --data-file ../fashion-mnist.json
"$cli" train "$work/train.quanvas" --float --epochs 12 --lr 0.002 --batch 128 --option validation_samples=2000 \
  --option augment_flip=true --out "$work/lenet5.onnx"
mv "$work/lenet5.onnx" lenet5.onnx
rm -rf lenet5.quanvas lenet5.quanvas.data lenet5.quanvas-wal lenet5.quanvas-shm
"$cli" new lenet5.onnx --project lenet5.quanvas --data-file ../fashion-mnist.json --recipe w8a8
"$cli" evaluate lenet5.quanvas
