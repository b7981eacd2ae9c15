// Data sets for the comparison scripts: idx (also .gz) and .npy, as typed arrays with a shape.
'use strict';

const fs = require('fs');
const zlib = require('zlib');

function readMaybeGzip(file) {
  const bytes = fs.readFileSync(file);
  return bytes.length > 2 && bytes[0] === 0x1f && bytes[1] === 0x8b ? zlib.gunzipSync(bytes) : bytes;
}

// http://yann.lecun.com/exdb/mnist: 0 0 type rank, rank big-endian sizes, values. Unsigned bytes only.
function readIdx(file) {
  const bytes = readMaybeGzip(file);
  if (bytes.length < 4 || bytes.readUInt16BE(0) !== 0 || bytes[2] !== 8)
    throw new Error(`${file} is not an idx file of unsigned bytes`);
  const rank = bytes[3];
  const shape = Array.from({ length: rank }, (_, i) => bytes.readUInt32BE(4 + 4 * i));
  const data = new Uint8Array(bytes.buffer, bytes.byteOffset + 4 + 4 * rank, shape.reduce((a, b) => a * b, 1));
  return { shape, data };
}

const npyTypes = { '<f4': [Float32Array, 4], '|u1': [Uint8Array, 1], '|i1': [Int8Array, 1], '<i4': [Int32Array, 4],
  '<i8': [BigInt64Array, 8], '<f8': [Float64Array, 8] };

function readNpy(file) {
  const bytes = readMaybeGzip(file);
  if (bytes.subarray(0, 6).toString('latin1') !== '\x93NUMPY') throw new Error(`${file} is not a .npy file`);
  const long = bytes[6] > 1;
  const size = long ? bytes.readUInt32LE(8) : bytes.readUInt16LE(8);
  const start = long ? 12 : 10;
  const header = bytes.subarray(start, start + size).toString('latin1');
  const type = /'descr':\s*'([^']+)'/.exec(header);
  const dims = /'shape':\s*\(([^)]*)\)/.exec(header);
  if (!type || !dims || !npyTypes[type[1]] || /'fortran_order':\s*True/.test(header))
    throw new Error(`${file}: only C-ordered ${Object.keys(npyTypes).join(', ')} arrays are read`);
  const shape = dims[1].split(',').map((s) => s.trim()).filter(Boolean).map(Number);
  const [Type, width] = npyTypes[type[1]];
  const count = shape.reduce((a, b) => a * b, 1);
  const copy = bytes.buffer.slice(bytes.byteOffset + start + size, bytes.byteOffset + start + size + count * width);
  const data = new Type(copy);
  return { shape, data: data instanceof BigInt64Array ? Float64Array.from(data, Number) : data };
}

function readArray(file) {
  return /\.npy(\.gz)?$/.test(file) ? readNpy(file) : readIdx(file);
}

module.exports = { readArray };
