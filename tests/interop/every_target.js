#!/usr/bin/env node
// Exports one project to every target that can hold it, runs each file in a reader that is not Quanvas on all samples of the
// run, and prints what came of it as a table in Markdown. The project is left as it is: each target works on a copy of it,
// with its own recipe below, mended with the target's own repairs.
//   every_target.js PROJECT OUT_FOLDER [--cli PROGRAM] [--target ID]... [--recipe FILE|ID] [--samples N] [--batch N]
// Readers: onnxruntime (QONNX, FINN and PyXIR after standard_onnx.py), PyTorch; files of weights are not run, but NumPy or a C compiler
// reads their numbers.
// Without labels accuracies are agreement with the float network.
// Exit codes: 0 done, 1 a file was written that is not what was asked or that its reader computes otherwise, 2 wrong usage.
'use strict';

const fs = require('fs');
const path = require('path');
const { spawnSync } = require('child_process');
const { parseArgs } = require('util');
const { Dump, runSession, typed } = require('./dump.js');
const { loadOrt, openModel } = require('./ort.js');

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
// Options of a second line, beside that without.
const forms = { finn: ['profile=multithreshold'], pyxir: ['generation=1'] };
const leastSame = 0.999;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    cli: { type: 'string', default: path.join(__dirname, '../../build/release/bin/quanvas-cli') },
    target: { type: 'string', multiple: true, default: [] },
    recipe: { type: 'string' },
    samples: { type: 'string', default: '0' },
    batch: { type: 'string', default: '50' },
    option: { type: 'string', multiple: true, default: [] },
  },
});
if (positionals.length !== 2) {
  console.error('usage: every_target.js PROJECT OUT_FOLDER [--cli PROGRAM] [--target ID] [--recipe FILE|ID] [--samples N] [--batch N] [--option KEY=VALUE]');
  process.exit(2);
}
const [project, out] = positionals.map((p) => path.resolve(p));
const stem = path.basename(project, '.quanvas');
const batch = Number(options.batch);
fs.mkdirSync(out, { recursive: true });

function cli(...args) {
  const done = spawnSync(options.cli, [...args, '--json', '--quiet'], { encoding: 'utf8', maxBuffer: 1 << 30 });
  let value = null;
  try { value = JSON.parse(done.stdout); } catch { /* the sentence is in stderr */ }
  return { code: done.status, value, error: value && value.error ? value.error.message : String(done.stderr).trim() };
}

// Logits of all samples, or why there are none.
async function inOnnxruntime(file, dump) {
  const ort = loadOrt();
  if (!ort) return { why: 'onnxruntime-node is not installed' };
  const session = await openModel(ort, file, [], 2);
  const { logits } = await runSession(ort, session, dump, { batch });
  await session.release();
  return { logits, by: 'onnxruntime' };
}

function python(script, ...args) {
  const interpreter = process.env.QUANVAS_PYTHON || '/usr/bin/python3';
  const done = spawnSync(interpreter, [path.join(__dirname, script), ...args], { encoding: 'utf8', maxBuffer: 1 << 28 });
  return { code: done.error ? 77 : done.status, out: done.stdout, error: String(done.stderr).trim().split('\n').pop() };
}

async function inStandardOnnx(file, dump) {
  const plain = file.replace(/\.onnx$/, '.standard.onnx');
  const done = python('standard_onnx.py', file, plain);
  if (done.code === 77) return { why: 'python3-onnx is not installed' };
  if (done.code !== 0) throw new Error(done.error);
  const result = await inOnnxruntime(plain, dump);
  return result.logits ? { ...result, by: 'definitions, onnxruntime' } : result;
}

async function inPytorch(file, dump) {
  const { type, shape, file: source } = dump.inputs[0];
  const results = path.join(dump.folder, 'pytorch');
  const done = python('run_torch.py', file, path.join(dump.folder, source), shape.join(','), results, '-',
                      '--type', type, '--batch', String(batch));
  if (done.code === 77) return { why: 'python3-torch is not installed' };
  if (done.code !== 0) throw new Error(done.error);
  return { logits: typed(Float32Array, fs.readFileSync(`${results}0`)), by: 'PyTorch' };
}

const readers = {
  'onnx-qdq': inOnnxruntime,
  'onnx-qoperator': inOnnxruntime,
  'tvm-relax-qdq': inOnnxruntime,
  'tvm-relay-qoperator': inOnnxruntime,
  'torchscript-quantized': inPytorch,
  'torchscript-qcdq': inPytorch,
  'tvm-relay-pytorch': inPytorch,
  qonnx: inStandardOnnx,
  finn: inStandardOnnx,
  pyxir: inStandardOnnx,
};

// Files of weights: whether another reader finds the network's, bit for bit.
const weightReaders = { npz: 'NumPy', safetensors: 'NumPy', 'compressed-tensors': 'NumPy', 'c-header': 'C compiler' };

function weightsBy(target, file, dump) {
  const done = python('read_numbers.py', file, dump.folder);
  if (done.code === 77) return [`${weightReaders[target]} is not installed`, '–', '–', '–'];
  if (done.code !== 0) throw new Error(done.error);
  const r = JSON.parse(done.out);
  if (r.differing > 0 || r.tensors === 0) failed = true;
  return [`${weightReaders[target]}: ${r.values - r.differing} of ${r.values} weights equal`, '–', '–', '–'];
}

const percent = (part, whole) => (100 * part / whole).toFixed(2);
let failed = false;
let reference = null;  // classes of the float network, where there are no labels

const removals = new Set();
process.once('exit', () => removals.forEach((remove) => remove()));

// A copy beside the project, whose model and data are named from there.
function copyOf(name) {
  const copy = path.join(path.dirname(project), `.${stem}-${name}.quanvas`);
  const parts = ['', '-wal', '-shm', '.data'];
  const remove = () => parts.forEach((suffix) => fs.rmSync(copy + suffix, { recursive: true, force: true }));
  remove();
  removals.add(remove);
  for (const suffix of parts)
    if (fs.existsSync(project + suffix)) fs.cpSync(project + suffix, copy + suffix, { recursive: true });
  return { copy, remove };
}

// The run's samples; their files take much room and are removed behind each target.
function dumpOf(copy, run, name) {
  const folder = path.join(out, `${stem}-${name}-dump`);
  const done = cli('dump', copy, '--run', String(run), '--out', folder, '--samples', options.samples, '--code-samples', '0');
  if (done.code !== 0) throw new Error(done.error);
  return new Dump(folder);
}

async function readBy(target, file, copy, run, name) {
  const reader = readers[target];
  if (!reader && !weightReaders[target]) return ['weights only', '–', '–', '–'];
  const dump = dumpOf(copy, run, name);
  try {
    if (!reader) return dump.weights ? weightsBy(target, file, dump) : ['weights only', '–', '–', '–'];
    const result = await reader(file, dump);
    if (!result.logits) return [result.why, '–', '–', '–'];
    const r = dump.compare(result.logits, reference);
    if (r.same < leastSame * r.rows) failed = true;
    return [result.by, r.right === null ? '–' : percent(r.right, r.rows), `${percent(r.same, r.rows)} %`,
            r.largest === 0 ? '0' : `${r.largest.toPrecision(2)} of ${r.scale.toPrecision(2)}`];
  } catch (error) {
    failed = true;
    return [`failed: ${String(error.message || error).split('\n')[0]}`, '–', '–', '–'];
  } finally {
    fs.rmSync(dump.folder, { recursive: true, force: true });
  }
}

async function exportTo(target, form) {
  const name = [target.id, ...form].join('-').replace(/[^\w.-]/g, '-');
  const { copy, remove } = copyOf(name);
  const given = [...form, ...options.option].flatMap((o) => ['--option', o]);
  const recipe = options.recipe || recipes[target.id] || 'w8a8';
  const line = (...cells) => console.log(`| ${[[target.id, ...form].join(', '), recipe, ...cells].join(' | ')} |`);
  cli('recipe', copy, '--set', recipe);
  cli('calibrate', copy);
  const fit = cli('export', copy, '--target', target.id, '--fix', ...given);
  if (fit.code !== 0) {
    const refusal = Array.isArray(fit.value) && fit.value.length ? fit.value[0] : null;
    line(refusal ? `refused: ${refusal.layer} ${refusal.quantizer}: ${refusal.rule}: ${refusal.got}` : `refused: ${fit.error}`);
    return remove();
  }
  const run = cli('quantize', copy, '--samples', options.samples);
  if (run.code !== 0) {
    line(`not quantized: ${run.error}`);
    failed = true;
    return remove();
  }
  const folder = path.join(out, `${stem}-${name}`);  // some targets write several files
  fs.mkdirSync(folder, { recursive: true });
  const file = path.join(folder, `${stem}${target.extension}`);
  const done = cli('export', copy, '--target', target.id, '--run', String(run.value.id), '--out', file, ...given);
  const report = done.value;
  if (!report || !report.audit) {
    line(`not written: ${done.error}`);
    failed = true;
    return remove();
  }
  const a = run.value.accuracy;
  const accuracy = a.perplexity > 0 ? a.perplexity.toFixed(3) : percent(reference ? a.agreement : a.top1, 1);
  const equal = report.audit.filter((r) => r.equal).length;
  const same = report.nodes.filter((n) => n.differing === 0).length;
  const steps = Math.max(0, ...report.nodes.map((n) => (n.quantized ? n.max_steps : 0)));
  if (done.code !== 0 || equal < report.audit.length) failed = true;
  const [by, right, agrees, largest] = await readBy(target.id, file, copy, run.value.id, name);
  line(report.file_bytes, Math.round(report.ideal_bytes), accuracy, right, agrees, largest, by, `${equal} of ${report.audit.length}`,
       report.nodes.length ? `${same} of ${report.nodes.length}${steps > 0 ? `, ${steps.toFixed(2)} steps` : ''}` : '–');
  return remove();
}

async function main() {
  const catalog = cli('catalog').value;
  const targets = catalog.exporters.filter((e) => e.needs_quantizers && !e.unavailable &&
                                           (options.target.length === 0 || options.target.includes(e.id)));
  const { copy, remove } = copyOf('float');
  const float = cli('evaluate', copy, '--samples', options.samples);
  if (float.code !== 0) throw new Error(float.error);
  if (typeof float.value.accuracy.top1 !== 'number') {  // NaN: there are no labels
    const dump = dumpOf(copy, float.value.id, 'float');
    reference = dump.classes();
    fs.rmSync(dump.folder, { recursive: true, force: true });
  }
  remove();
  const top1 = reference ? '' : `, float ${percent(float.value.accuracy.top1, 1)} %`;
  console.log(`${stem}: ${float.value.accuracy.samples} samples${top1}\n`);
  console.log(`| target | recipe | file | codes and scales | ${reference ? 'float\'s class' : 'top-1'} here | in the reader | same class | ` +
              'largest difference | reader | quantizers equal | tensors equal |');
  console.log('|---|---|---|---|---|---|---|---|---|---|---|');
  for (const target of targets) {
    await exportTo(target, []);
    if (forms[target.id] && options.option.length === 0) await exportTo(target, forms[target.id]);
  }
  return failed ? 1 : 0;
}

main().then((code) => process.exit(code), (error) => { console.error(String(error.message || error)); process.exit(1); });
