#!/usr/bin/env node
// Runs an ONNX file on raw float32 input and writes its outputs as raw bytes.
//   run_onnx.js MODEL --input FILE --shape 4,1,28,28 --out FOLDER [--tensor NAME]... [--threads N]
// Prints {"outputs": [{"name", "type", "dims", "file"}]}. --tensor adds tensors inside the model.
// Exit codes: 0 done, 1 failed, 2 wrong usage, 77 onnxruntime-node is not installed.
'use strict';

const fs = require('fs');
const path = require('path');
const { parseArgs } = require('util');
const { loadOrt, moduleFolders, openModel, rawBytes } = require('./ort.js');

const usage = 'usage: run_onnx.js MODEL --input FILE --shape 1,3,8,8 --out FOLDER [--tensor NAME]... [--threads N]';

function readInput(file, shape) {
  const bytes = fs.readFileSync(file);
  const count = shape.reduce((a, b) => a * b, 1);
  if (bytes.length !== count * 4)
    throw new Error(`${file} has ${bytes.length} bytes; shape ${shape.join('x')} needs ${count * 4}`);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      input: { type: 'string' },
      shape: { type: 'string' },
      out: { type: 'string' },
      tensor: { type: 'string', multiple: true, default: [] },
      threads: { type: 'string', default: '1' },
    },
  });
  if (positionals.length !== 1 || !values.input || !values.shape || !values.out) {
    console.error(usage);
    return 2;
  }
  const ort = loadOrt();
  if (!ort) {
    console.error(`onnxruntime-node is not installed in any of: ${moduleFolders().join(', ')}`);
    return 77;
  }
  const shape = values.shape.split(',').map(Number);
  const session = await openModel(ort, positionals[0], values.tensor, Number(values.threads));
  const feed = { [session.inputNames[0]]: new ort.Tensor('float32', readInput(values.input, shape), shape) };
  const results = await session.run(feed);
  fs.mkdirSync(values.out, { recursive: true });
  const outputs = session.outputNames.map((name, i) => {
    const file = path.join(values.out, `output${i}.bin`);
    fs.writeFileSync(file, rawBytes(results[name]));
    return { name, type: results[name].type, dims: results[name].dims, file };
  });
  console.log(JSON.stringify({ outputs }));
  return 0;
}

main().then(
  (code) => { process.exitCode = code; },
  (error) => {
    console.error(String(error.message || error));
    process.exitCode = 1;
  },
);
