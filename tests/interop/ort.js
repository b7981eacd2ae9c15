// onnxruntime as an exact reader: no graph optimization, few threads, and any tensor of the model as an output.
'use strict';

const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');

// Where onnxruntime-node may be: QUANVAS_INTEROP_DIR, the build folder that packaging/test fills, here.
function moduleFolders() {
  const root = path.resolve(__dirname, '..', '..');
  return [process.env.QUANVAS_INTEROP_DIR, path.join(root, 'build', 'interop'), __dirname].filter(Boolean);
}

function loadOrt() {
  for (const folder of moduleFolders()) {
    try {
      return createRequire(path.join(path.resolve(folder), 'package.json'))('onnxruntime-node');
    } catch (error) {
      if (error.code !== 'MODULE_NOT_FOUND') throw error;
    }
  }
  return null;
}

function varint(value) {
  const bytes = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 128) | 0x80);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}

function field(number, payload) {
  return Buffer.concat([varint(number * 8 + 2), varint(payload.length), payload]);
}

// Makes tensors outputs of a serialized ModelProto. Parsers merge a repeated occurrence of a message field, so
// graph(7) { output(12) { name(1) } } at the end of the file adds outputs to the graph that is there.
function withOutputs(model, names) {
  const outputs = names.map((name) => field(12, field(1, Buffer.from(name, 'utf8'))));
  return Buffer.concat([model, ...outputs.map((output) => field(7, output))]);
}

async function openModel(ort, file, extraOutputs = [], threads = 1) {
  let bytes = fs.readFileSync(file);
  const options = {
    graphOptimizationLevel: 'disabled',
    executionMode: 'sequential',
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
  };
  if (extraOutputs.length) {
    const plain = await ort.InferenceSession.create(bytes, options);
    bytes = withOutputs(bytes, extraOutputs.filter((name) => !plain.outputNames.includes(name)));
  }
  return ort.InferenceSession.create(bytes, options);
}

function rawBytes(tensor) {
  const data = tensor.data;
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

module.exports = { loadOrt, moduleFolders, openModel, rawBytes };
