#!/usr/bin/env node
// Runs many ONNX files in one process, with inputs of any number and type.
//   run_many.js JOBS.json
// JOBS: [{"model", "out": FOLDER, "inputs": {NAME: {"type", "dims", "file"}}}]. Prints {"results": [{"outputs":
// [{"name", "type", "dims", "file"}]} or {"error"}]}. Exit codes: 0 done, 1 failed, 2 wrong usage, 77 onnxruntime-node
// is not installed.
'use strict';

const fs = require('fs');
const path = require('path');
const { loadOrt, moduleFolders, openModel, rawBytes } = require('./ort.js');

const arrays = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array,
  uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array,
  bool: Uint8Array, float16: Uint16Array,
};

function readTensor(ort, { type, dims, file }) {
  const bytes = fs.readFileSync(file);
  const data = new arrays[type](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  return new ort.Tensor(type, data, dims);
}

async function run(ort, job) {
  const session = await openModel(ort, job.model);
  const feed = {};
  for (const [name, input] of Object.entries(job.inputs)) feed[name] = readTensor(ort, input);
  const results = await session.run(feed);
  fs.mkdirSync(job.out, { recursive: true });
  const outputs = session.outputNames.map((name, i) => {
    const file = path.join(job.out, `output${i}.bin`);
    fs.writeFileSync(file, rawBytes(results[name]));
    return { name, type: results[name].type, dims: results[name].dims, file };
  });
  await session.release();
  return { outputs };
}

async function main() {
  if (process.argv.length !== 3) {
    console.error('usage: run_many.js JOBS.json');
    return 2;
  }
  const ort = loadOrt();
  if (!ort) {
    console.error(`onnxruntime-node is not installed in any of: ${moduleFolders().join(', ')}`);
    return 77;
  }
  const results = [];
  for (const job of JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))) {
    try {
      results.push(await run(ort, job));
    } catch (error) {
      results.push({ error: String(error.message || error) });
    }
  }
  console.log(JSON.stringify({ results }));
  return 0;
}

main().then(
  (code) => { process.exitCode = code; },
  (error) => {
    console.error(String(error.message || error));
    process.exitCode = 1;
  },
);
