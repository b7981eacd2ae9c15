#!/usr/bin/env node
// Holds an exported ONNX file in onnxruntime against what Quanvas computes of the same samples: equal predictions, accuracy,
// largest difference of an output and, for QDQ files, bit-equal codes at each activation quantizer.
//   quanvas-cli dump PROJECT --run N --out DUMP;  quanvas-cli export PROJECT --target onnx-qdq --run N --out M.onnx
//   compare_dump.js M.onnx DUMP [--threads N] [--batch N]
// Exit codes: 0 compared, 1 failed, 2 wrong usage, 77 onnxruntime-node is not installed.
'use strict';

const fs = require('fs');
const { parseArgs } = require('util');
const { Dump, runSession } = require('./dump.js');
const { loadOrt, moduleFolders, openModel } = require('./ort.js');

const percent = (part, whole) => `${(100 * part / whole).toFixed(2)} %`;

async function main() {
  const { values, positionals } = parseArgs({ allowPositionals: true,
    options: { threads: { type: 'string', default: '2' }, batch: { type: 'string', default: '50' } } });
  if (positionals.length !== 2) { console.error('usage: compare_dump.js MODEL.onnx DUMP_FOLDER [--threads N] [--batch N]'); return 2; }
  const ort = loadOrt();
  if (!ort) { console.error(`onnxruntime-node is not installed in any of: ${moduleFolders().join(', ')}`); return 77; }
  const [model, folder] = positionals;
  const dump = new Dump(folder);
  // Names that the exporter gives to the codes of tensor T: with a Clip behind them where the width is narrower.
  const file = fs.readFileSync(model).toString('latin1');
  const wanted = [...new Set(dump.codeList.map((q) => [`${q.tensor}_dequantized_clipped`, `${q.tensor}_dequantized_codes`]
    .find((name) => file.includes(name))))].filter(Boolean);
  const session = await openModel(ort, model, wanted, Number(values.threads));
  const { logits, tensors } = await runSession(ort, session, dump, { extra: wanted, most: dump.code_samples, batch: Number(values.batch) });
  const r = dump.compare(logits);
  const accuracy = r.right === null ? '' : `, top-1 ${percent(r.right, r.rows)} (here ${percent(r.rightHere, r.rows)})`;
  console.log(`${model}: ${dump.samples} samples${accuracy}, ${percent(r.same, r.rows)} equal predictions, ` +
              `largest difference of an output ${r.largest.toExponential(2)} of ${r.scale.toPrecision(3)}`);
  for (const q of dump.codeList) {
    const name = wanted.find((w) => w.startsWith(`${q.tensor}_dequantized`));
    if (!name) { console.log(`  ${q.layer} ${q.site}: not in the file`); continue; }
    const ours = dump.codesOf(q), theirs = tensors.get(name);
    let same = 0, steps = 0;
    for (let i = 0; i < ours.length; ++i) { same += ours[i] === theirs[i] ? 1 : 0; steps = Math.max(steps, Math.abs(ours[i] - theirs[i])); }
    console.log(`  ${q.layer} ${q.site}, ${q.bits} bit: ${same} of ${ours.length} codes equal (${(100 * same / ours.length).toFixed(4)} %), largest difference ${steps} step(s)`);
  }
  return 0;
}

main().then((code) => { process.exitCode = code; }, (error) => { console.error(String(error.message || error)); process.exitCode = 1; });
