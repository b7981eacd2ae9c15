#!/usr/bin/env node
// Holds an exported QDQ file in onnxruntime against what Quanvas computes: equal predictions, largest logit
// difference, and bit-equal codes at each activation quantizer.
//   quanvas-cli dump PROJECT --run N --out DUMP;  quanvas-cli export PROJECT --target onnx-qdq --run N --out M.onnx
//   compare_dump.js M.onnx DUMP [--images FILE] [--scale S] [--shape 1,28,28] [--code-samples 100]
// Exit codes: 0 compared, 1 failed, 2 wrong usage, 77 onnxruntime-node is not installed.
'use strict';

const fs = require('fs');
const path = require('path');
const { parseArgs } = require('util');
const { readArray } = require('./data_files.js');
const { loadOrt, moduleFolders, openModel } = require('./ort.js');

const options = {
  images: { type: 'string', default: '/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz' },
  scale: { type: 'string', default: String(1 / 255) },
  shape: { type: 'string', default: '1,28,28' },
  'code-samples': { type: 'string', default: '100' },
};

const floats = (file) => { const b = fs.readFileSync(file); return new Float32Array(b.buffer, b.byteOffset, b.length / 4); };
const ints = (file) => { const b = fs.readFileSync(file); return new Int32Array(b.buffer, b.byteOffset, b.length / 4); };

function argmax(values, begin, end) {
  let best = begin;
  for (let i = begin + 1; i < end; ++i) if (values[i] > values[best]) best = i;
  return best - begin;
}

async function main() {
  const { values, positionals } = parseArgs({ allowPositionals: true, options });
  if (positionals.length !== 2) { console.error('usage: compare_dump.js MODEL.onnx DUMP_FOLDER'); return 2; }
  const ort = loadOrt();
  if (!ort) { console.error(`onnxruntime-node is not installed in any of: ${moduleFolders().join(', ')}`); return 77; }
  const [model, folder] = positionals;
  const logits = floats(path.join(folder, 'logits.f32'));
  const index = JSON.parse(fs.readFileSync(path.join(folder, 'codes.json')));
  const images = readArray(values.images);
  const shape = values.shape.split(',').map(Number);
  const size = shape.reduce((a, b) => a * b, 1);
  const count = images.shape[0], classes = logits.length / count, most = Number(values['code-samples']);
  const scale = Math.fround(Number(values.scale));
  // Names that the exporter gives to the codes of tensor T: with a Clip behind them where the width is narrower.
  const file = fs.readFileSync(model).toString('latin1');
  const wanted = [...new Set(index.map((q) => [`${q.tensor}_dequantized_clipped`, `${q.tensor}_dequantized_codes`]
    .find((name) => file.includes(name))))].filter(Boolean);
  const session = await openModel(ort, model, wanted, 2);
  const output = session.outputNames[0];
  let equal = 0, largest = 0;
  const codes = new Map(wanted.map((name) => [name, []]));
  for (let begin = 0; begin < count; begin += 100) {
    const n = Math.min(100, count - begin);
    const input = new Float32Array(n * size);
    for (let i = 0; i < input.length; ++i) input[i] = Math.fround(images.data[begin * size + i] * scale);
    const results = await session.run({ [session.inputNames[0]]: new ort.Tensor('float32', input, [n, ...shape]) });
    const mine = results[output].data;
    for (let i = 0; i < n; ++i) {
      const a = (begin + i) * classes;
      equal += argmax(logits, a, a + classes) === argmax(mine, i * classes, (i + 1) * classes) ? 1 : 0;
      for (let c = 0; c < classes; ++c) largest = Math.max(largest, Math.abs(logits[a + c] - mine[i * classes + c]));
    }
    if (begin < most)
      for (const name of wanted) {
        const data = results[name].data, keep = (data.length / n) * Math.min(n, most - begin);
        for (let i = 0; i < keep; ++i) codes.get(name).push(Number(data[i]));
      }
  }
  console.log(`${model}: ${count} samples, ${(100 * equal / count).toFixed(2)} % equal predictions, largest logit difference ${largest.toExponential(2)}`);
  for (const q of index) {
    const name = wanted.find((w) => w.startsWith(`${q.tensor}_dequantized`));
    if (!name) { console.log(`  ${q.layer} ${q.site}: not in the file`); continue; }
    const ours = ints(path.join(folder, q.file)), theirs = codes.get(name);
    let same = 0, steps = 0;
    for (let i = 0; i < ours.length; ++i) { same += ours[i] === theirs[i] ? 1 : 0; steps = Math.max(steps, Math.abs(ours[i] - theirs[i])); }
    console.log(`  ${q.layer} ${q.site}, ${q.bits} bit: ${same} of ${ours.length} codes equal (${(100 * same / ours.length).toFixed(4)} %), largest difference ${steps} step(s)`);
  }
  return 0;
}

main().then((code) => { process.exitCode = code; }, (error) => { console.error(String(error.message || error)); process.exitCode = 1; });
