// What quanvas-cli dump writes: samples as a network gets them, labels, logits, predictions, codes; and how the results of
// another program compare with those.
'use strict';

const fs = require('fs');
const path = require('path');

const arrays = { float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array,
  uint16: Uint16Array, int32: Int32Array, int64: BigInt64Array, bool: Uint8Array, float16: Uint16Array };

function typed(Type, bytes) {
  return new Type(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

function argmax(values, begin, end) {
  let best = begin;
  for (let i = begin + 1; i < end; ++i) if (values[i] > values[best]) best = i;
  return best - begin;
}

class Dump {
  constructor(folder) {
    this.folder = folder;
    Object.assign(this, JSON.parse(fs.readFileSync(path.join(folder, 'dump.json'), 'utf8')));
    this.codeList = JSON.parse(this.bytes(this.codes));
  }

  bytes(file) { return fs.readFileSync(path.join(this.folder, file)); }

  logits() { return typed(Float32Array, this.bytes(this.outputs[0].file)); }

  codesOf(entry) { return typed(Int32Array, this.bytes(entry.file)); }

  // The samples [begin, begin + count) of an input, as onnxruntime takes them.
  input(index, begin, count) {
    const { type, shape, file } = this.inputs[index];
    const Type = arrays[type];
    if (!Type) throw new Error(`inputs of type ${type} are not read here`);
    const size = shape.slice(1).reduce((a, b) => a * b, Type.BYTES_PER_ELEMENT);
    const bytes = Buffer.alloc(count * size);
    const handle = fs.openSync(path.join(this.folder, file), 'r');
    const got = fs.readSync(handle, bytes, 0, bytes.length, begin * size);
    fs.closeSync(handle);
    if (got !== bytes.length) throw new Error(`${file} is too short`);
    return { type, data: typed(Type, bytes), dims: [count, ...shape.slice(1)] };
  }

  classes() { return this.bytes(this.predictions.file).toString().trim().split('\n').map(Number); }

  // The other program's logits against those here: counts of predictions, of those that are right (by the labels, else by
  // `reference` if given), the largest difference of an output and the largest output.
  compare(theirs, reference = null) {
    const ours = this.logits();
    if (theirs.length !== ours.length) throw new Error(`${theirs.length} numbers instead of ${ours.length}`);
    const rows = this.predictions.count, classes = ours.length / rows;
    const labels = this.labels && this.labels.count === rows
      ? this.bytes(this.labels.file).toString().trim().split('\n').map(Number) : reference;
    const result = { rows, same: 0, right: labels ? 0 : null, rightHere: labels ? 0 : null, largest: 0, scale: 0, equalBits: 0 };
    for (let r = 0; r < rows; ++r) {
      const a = argmax(ours, r * classes, (r + 1) * classes), b = argmax(theirs, r * classes, (r + 1) * classes);
      result.same += a === b ? 1 : 0;
      if (labels) {
        result.right += b === labels[r] ? 1 : 0;
        result.rightHere += a === labels[r] ? 1 : 0;
      }
    }
    for (let i = 0; i < ours.length; ++i) {
      const difference = Math.abs(ours[i] - theirs[i]);
      if (!(difference <= result.largest)) result.largest = difference;
      result.scale = Math.max(result.scale, Math.abs(ours[i]));
      result.equalBits += ours[i] === theirs[i] ? 1 : 0;
    }
    return result;
  }
}

// An ONNX session over all samples: its first output, and of the first `most` samples the tensors `extra`. A session whose
// input has room for a number of samples gets that many.
async function runSession(ort, session, dump, { extra = [], most = 0, batch = 50 } = {}) {
  const metadata = session.inputMetadata && session.inputMetadata[0];
  const fixed = metadata && metadata.shape && typeof metadata.shape[0] === 'number' && metadata.shape[0] > 0 ? metadata.shape[0] : 0;
  if (fixed > 1 && dump.samples % fixed) throw new Error(`the file takes ${fixed} samples at once`);
  const step = fixed || batch;
  const logits = new Float32Array(dump.logits().length);
  const tensors = new Map(extra.map((name) => [name, []]));
  let at = 0;
  for (let begin = 0; begin < dump.samples; begin += step) {
    const n = Math.min(step, dump.samples - begin);
    const feed = {};
    dump.inputs.forEach((input, i) => {
      const { type, data, dims } = dump.input(i, begin, n);
      const name = session.inputNames.includes(input.name) ? input.name : session.inputNames[i];
      feed[name] = new ort.Tensor(type, data, dims);
    });
    const results = await session.run(feed);
    const out = results[session.outputNames[0]].data;
    if (at + out.length > logits.length) throw new Error('more outputs than the dump has');
    logits.set(out, at);
    at += out.length;
    for (const name of extra) {
      const data = results[name].data, keep = (data.length / n) * Math.max(0, Math.min(n, most - begin));
      for (let i = 0; i < keep; ++i) tensors.get(name).push(Number(data[i]));
    }
  }
  return { logits: logits.subarray(0, at), tensors };
}

module.exports = { Dump, runSession, typed };
