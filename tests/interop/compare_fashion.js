#!/usr/bin/env node
// Measures ONNX files on a whole data set with onnxruntime, by default the 10,000 test pictures of
// Fashion-MNIST: top-1, agreement between the files, and logits, predictions and inner tensors as raw files.
//   compare_fashion.js MODEL... [--images FILE] [--labels FILE] [--count N] [--batch N] [--shape 1,28,28]
//     [--scale 0.00392156862745098 --mean 0 --std 1] [--dump FOLDER] [--tensor NAME]... [--tensor-count N]
// Images and labels: idx, idx.gz or .npy. A value is (x * scale - mean) / std. --dump writes per model
// <name>.logits.f32, <name>.predictions.txt and <name>.<tensor>.<type> of the first --tensor-count pictures.
// Exit codes: 0 done, 1 failed, 2 wrong usage, 77 onnxruntime-node is not installed.
'use strict';

const fs = require('fs');
const path = require('path');
const { parseArgs } = require('util');
const { readArray } = require('./data_files.js');
const { loadOrt, moduleFolders, openModel, rawBytes } = require('./ort.js');

const folder = '/usr/share/datasets/fashion-mnist';
const options = {
  images: { type: 'string', default: `${folder}/t10k-images-idx3-ubyte.gz` },
  labels: { type: 'string', default: `${folder}/t10k-labels-idx1-ubyte.gz` },
  count: { type: 'string' },
  batch: { type: 'string', default: '100' },
  shape: { type: 'string' },
  scale: { type: 'string', default: String(1 / 255) },
  mean: { type: 'string', default: '0' },
  std: { type: 'string', default: '1' },
  dump: { type: 'string' },
  tensor: { type: 'string', multiple: true, default: [] },
  'tensor-count': { type: 'string', default: '100' },
  threads: { type: 'string', default: '2' },
};

// In single precision, step by step, as the engine does.
function preprocess(data, begin, end, scale, mean, std) {
  const out = new Float32Array(end - begin);
  for (let i = 0; i < out.length; ++i)
    out[i] = Math.fround(Math.fround(Math.fround(data[begin + i] * scale) - mean) / std);
  return out;
}

function argmax(values, begin, end) {
  let best = begin;
  for (let i = begin + 1; i < end; ++i) if (values[i] > values[best]) best = i;
  return best - begin;
}

class Dump {
  constructor(target, model, tensors, most) {
    this.base = target && path.join(target, path.basename(model, '.onnx'));
    this.tensors = tensors;
    this.left = most;
    this.files = new Map();
    if (target) fs.mkdirSync(target, { recursive: true });
  }

  append(suffix, bytes) {
    if (!this.base) return;
    if (!this.files.has(suffix)) this.files.set(suffix, fs.openSync(`${this.base}.${suffix}`, 'w'));
    fs.writeSync(this.files.get(suffix), bytes);
  }

  addTensors(results, batch) {
    const take = Math.min(this.left, batch);
    if (take <= 0) return;
    for (const name of this.tensors) {
      const tensor = results[name];
      const bytes = rawBytes(tensor);
      this.append(`${name.replace(/[^\w.-]/g, '_')}.${tensor.type}`, bytes.subarray(0, (bytes.length / batch) * take));
    }
    this.left -= take;
  }

  close() {
    for (const file of this.files.values()) fs.closeSync(file);
  }
}

async function measure(ort, model, data, values) {
  const session = await openModel(ort, model, values.tensor, Number(values.threads));
  const logitsName = session.outputNames[0];
  const dump = new Dump(values.dump, model, values.tensor, Number(values['tensor-count']));
  const predictions = [];
  for (let begin = 0; begin < data.count; begin += data.batch) {
    const n = Math.min(data.batch, data.count - begin);
    const input = preprocess(data.images.data, begin * data.size, (begin + n) * data.size, data.scale, data.mean, data.std);
    const results = await session.run({ [session.inputNames[0]]: new ort.Tensor('float32', input, [n, ...data.shape]) });
    const logits = results[logitsName].data;
    const classes = logits.length / n;
    for (let i = 0; i < n; ++i) predictions.push(argmax(logits, i * classes, (i + 1) * classes));
    dump.append('logits.f32', rawBytes(results[logitsName]));
    dump.addTensors(results, n);
  }
  dump.append('predictions.txt', Buffer.from(predictions.join('\n') + '\n'));
  dump.close();
  return predictions;
}

function share(a, b) {
  let equal = 0;
  for (let i = 0; i < a.length; ++i) equal += a[i] === b[i] ? 1 : 0;
  return equal / a.length;
}

async function main() {
  const { values, positionals: models } = parseArgs({ allowPositionals: true, options });
  if (!models.length) {
    console.error('usage: compare_fashion.js MODEL... [--count N] [--dump FOLDER] [--tensor NAME]... (see the file)');
    return 2;
  }
  const ort = loadOrt();
  if (!ort) {
    console.error(`onnxruntime-node is not installed in any of: ${moduleFolders().join(', ')}`);
    return 77;
  }
  const images = readArray(values.images);
  const labels = values.labels ? readArray(values.labels).data : null;
  const shape = values.shape ? values.shape.split(',').map(Number)
    : images.shape.length === 3 ? [1, ...images.shape.slice(1)] : images.shape.slice(1);
  const count = Math.min(values.count ? Number(values.count) : Infinity, images.shape[0]);
  const data = { images, shape, count, size: shape.reduce((a, b) => a * b, 1), batch: Number(values.batch),
    scale: Number(values.scale), mean: Number(values.mean), std: Number(values.std) };
  let first = null;
  for (const model of models) {
    const predictions = await measure(ort, model, data, values);
    let line = `${model}: ${count} samples`;
    if (labels) line += `, top-1 ${(100 * share(predictions, labels)).toFixed(2)} %`;
    if (first) line += `, ${(100 * share(predictions, first)).toFixed(2)} % of predictions equal to the first model's`;
    first = first || predictions;
    console.log(line);
  }
  return 0;
}

main().then(
  (code) => { process.exitCode = code; },
  (error) => {
    console.error(String(error.message || error));
    process.exitCode = 1;
  },
);
