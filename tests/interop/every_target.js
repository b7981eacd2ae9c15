#!/usr/bin/env node
// Exports one project to every target that can hold it and prints what came of it as a table in Markdown: the accuracy on
// the screen, the audit, the proof, the sizes. The project is left as it is: each target works on a copy of it, with its own
// recipe below, mended with the target's own repairs.
//   every_target.js PROJECT OUT_FOLDER [--cli PROGRAM] [--target ID]... [--recipe FILE|ID] [--samples N]
// Exit codes: 0 done, 1 a file was written that is not what was asked, 2 wrong usage.
'use strict';

const fs = require('fs');
const path = require('path');
const { spawnSync } = require('child_process');
const { parseArgs } = require('util');

// What a user of the target would begin with; others begin with w8a8.
const recipes = {
  'onnx-qoperator': 'w8a8-integer',
  'torchscript-quantized': 'w8a8-integer',
  'tvm-relay-pytorch': 'w8a8-integer',
  'tvm-relay-qoperator': 'w8a8-integer',
  qonnx: 'w4a4',
  finn: 'finn-w4a4',
  pyxir: 'dpu-int8',
  gguf: 'gguf-q8_0',
  gptq: 'llm-w4',
  awq: 'llm-w4',
  'c-header': 'w8a8-integer',
};

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    cli: { type: 'string', default: path.join(__dirname, '../../build/release/bin/quanvas-cli') },
    target: { type: 'string', multiple: true, default: [] },
    recipe: { type: 'string' },
    samples: { type: 'string', default: '0' },
    option: { type: 'string', multiple: true, default: [] },
  },
});
if (positionals.length !== 2) {
  console.error('usage: every_target.js PROJECT OUT_FOLDER [--cli PROGRAM] [--target ID] [--recipe FILE|ID] [--samples N] [--option KEY=VALUE]');
  process.exit(2);
}
const [project, out] = positionals;
fs.mkdirSync(out, { recursive: true });

function cli(...args) {
  const done = spawnSync(options.cli, [...args, '--json', '--quiet'], { encoding: 'utf8', maxBuffer: 1 << 30 });
  let value = null;
  try { value = JSON.parse(done.stdout); } catch { /* the sentence is in stderr */ }
  return { code: done.status, value, error: value && value.error ? value.error.message : done.stderr.trim() };
}

const catalog = cli('catalog').value;
const targets = catalog.exporters.filter((e) => e.needs_quantizers && !e.unavailable &&
                                         (options.target.length === 0 || options.target.includes(e.id)));
let failed = false;
console.log('| target | recipe | accuracy | file | float | codes and scales | quantizers equal | tensors equal | most steps | same class |');
console.log('|---|---|---|---|---|---|---|---|---|---|');
for (const target of targets) {
  // Beside the project, whose model and data are named from there.
  const copy = path.join(path.dirname(project), `.${path.basename(project, '.quanvas')}-${target.id}.quanvas`);
  const parts = ['', '-wal', '-shm', '.data'];
  const remove = () => parts.forEach((suffix) => fs.rmSync(copy + suffix, { recursive: true, force: true }));
  remove();
  for (const suffix of parts)
    if (fs.existsSync(project + suffix)) fs.cpSync(project + suffix, copy + suffix, { recursive: true });
  process.once('exit', remove);
  const given = options.option.flatMap((o) => ['--option', o]);
  const recipe = options.recipe || recipes[target.id] || 'w8a8';
  const line = (...cells) => console.log(`| ${[target.id, recipe, ...cells].join(' | ')} |`);
  cli('recipe', copy, '--set', recipe);
  cli('calibrate', copy);
  const fit = cli('export', copy, '--target', target.id, '--fix', ...given);
  if (fit.code !== 0) {
    const refusal = Array.isArray(fit.value) && fit.value.length ? fit.value[0] : null;
    line(refusal ? `refused: ${refusal.layer} ${refusal.quantizer}: ${refusal.rule}: ${refusal.got}` : `refused: ${fit.error}`);
    continue;
  }
  const run = cli('quantize', copy, '--samples', options.samples);
  if (run.code !== 0) {
    line(`not quantized: ${run.error}`);
    failed = true;
    continue;
  }
  const file = path.join(out, `${path.basename(project, '.quanvas')}-${target.id}${target.extension}`);
  const done = cli('export', copy, '--target', target.id, '--run', String(run.value.id), '--out', file, ...given);
  const report = done.value;
  if (!report || !report.audit) {
    line(`not written: ${done.error}`);
    failed = true;
    continue;
  }
  const a = run.value.accuracy;
  const accuracy = a.perplexity > 0 ? a.perplexity.toFixed(3) : (100 * a.top1).toFixed(2);
  const equal = report.audit.filter((r) => r.equal).length;
  const same = report.nodes.filter((n) => n.differing === 0).length;
  const steps = Math.max(0, ...report.nodes.map((n) => (n.quantized ? n.max_steps : 0)));
  if (done.code !== 0 || equal < report.audit.length) failed = true;
  line(accuracy, report.file_bytes, report.float_bytes, Math.round(report.ideal_bytes), `${equal} of ${report.audit.length}`,
       report.nodes.length ? `${same} of ${report.nodes.length}` : '–', steps.toFixed(2),
       report.checked_samples > 0 ? `${(100 * report.equal_predictions).toFixed(2)} %` : '–');
}
process.exit(failed ? 1 : 0);
