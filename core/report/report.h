// Quanvas - results as values: what the engine computes and views, tables, JSON and the project file show.
// Definitions with formulas: docs/metrics.md. SQNR in dB, +inf when nothing was lost, nan when the signal is 0.
#pragma once

#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/base/job.h"
#include "core/recipe/plan.h"
#include "core/report/exactness.h"

namespace quanvas {

// Error of y (quantized) against x (float), accumulated over elements in double.
struct TensorError {
  double sqnr_db = 0;    // 10 log10( sum x^2 / sum (x-y)^2 )
  double mse = 0;        // mean (x-y)^2
  double cosine = 0;     // x.y / (|x||y|)
  double max_abs = 0;    // max |x-y|
  double elements = 0;
};
template <class V>
void visit_fields(V& v, TensorError& e) {
  v("sqnr_db", e.sqnr_db);
  v("mse", e.mse);
  v("cosine", e.cosine);
  v("max_abs", e.max_abs);
  v("elements", e.elements);
}

// What is known of a recipe's passes before it runs.
struct RecipeIssue {
  int pass = -1;  // index into Recipe::passes; -1: of the recipe as a whole
  Issue issue;
  bool is_pending = false;  // the pass has yet to measure; figures are without it
};
template <class V>
void visit_fields(V& v, RecipeIssue& r) {
  v("pass", r.pass);
  v("issue", r.issue);
  v("is_pending", r.is_pending);
}

// Live facts of one quantizer on its tensor (weight: exact; activation: on the kept calibration sample).
struct SiteFacts {
  Site site;
  TensorError error;
  double clipped_share = 0;     // 0..1, values beyond the outermost grid points by more than half a step
  double codes_used = 0;        // distinct codes that occur
  double codes_total = 0;       // codes that the format has
  double scale_min = 0, scale_max = 0;
  double zero_point_min = 0, zero_point_max = 0;
  double bytes_float = 0, bytes_quantized = 0;  // weights: with scales (4 bytes) and zero points
  double bits_per_element = 0;
  bool from_sample = false;     // true: activation, measured on the calibration sample
  std::string missing;          // not empty: why there are no facts ("Calibrate first.")
};
template <class V>
void visit_fields(V& v, SiteFacts& f) {
  v("site", f.site);
  v("error", f.error);
  v("clipped_share", f.clipped_share);
  v("codes_used", f.codes_used);
  v("codes_total", f.codes_total);
  v("scale_min", f.scale_min);
  v("scale_max", f.scale_max);
  v("zero_point_min", f.zero_point_min);
  v("zero_point_max", f.zero_point_max);
  v("bytes_float", f.bytes_float);
  v("bytes_quantized", f.bytes_quantized);
  v("bits_per_element", f.bits_per_element);
  v("from_sample", f.from_sample);
  v("missing", f.missing);
}

// Answer to "what does the current recipe do to this layer?": facts per quantized site and the error at the
// layer's output when only this layer is quantized (isolated), on the calibration sample.
struct LayerFacts {
  NodeId node = kNoNode;
  std::vector<SiteFacts> sites;
  std::optional<TensorError> output;  // none before calibration
};
template <class V>
void visit_fields(V& v, LayerFacts& f) {
  v("node", f.node);
  v("sites", f.sites);
  v("output", f.output);
}

struct Histogram {
  Site site;
  double lo = 0, hi = 0;             // range of the bins, equal widths
  std::vector<double> counts;        // of the float values
  double total = 0, minimum = 0, maximum = 0, mean = 0, stddev = 0;
  // The quantizer that the current recipe gives (none: float). Grid points are sorted; thinned to at most
  // 4096; for per-channel and group scales they are those of the largest scale, and `grid_note` says so.
  std::vector<double> grid;
  std::optional<double> clip_lo, clip_hi;
  std::string grid_note;
  bool from_sample = false;
  std::string missing;
};
template <class V>
void visit_fields(V& v, Histogram& h) {
  v("site", h.site);
  v("lo", h.lo);
  v("hi", h.hi);
  v("counts", h.counts);
  v("total", h.total);
  v("minimum", h.minimum);
  v("maximum", h.maximum);
  v("mean", h.mean);
  v("stddev", h.stddev);
  v("grid", h.grid);
  v("clip_lo", h.clip_lo);
  v("clip_hi", h.clip_hi);
  v("grid_note", h.grid_note);
  v("from_sample", h.from_sample);
  v("missing", h.missing);
}

// Accuracy of a network on a data set: of classes where samples have labels, of the next token where they are windows
// of tokens. Which tokens of a window are scored: TokenWindow (core/data/dataset.h).
struct Accuracy {
  double samples = 0;            // or windows of tokens
  double top1 = 0, top5 = 0;     // 0..1; nan without labels
  double loss = 0;               // mean cross-entropy in nats, of samples or of scored tokens; nan without either
  double top1_stderr = 0;        // sqrt(p(1-p)/n)
  double agreement = 0;          // share of samples (or scored tokens) with the float network's argmax; nan for it
  double output_sqnr_db = 0;     // of the logits (of scored tokens) against float; nan for the float one
  // Of tokens only, else nan. Standard error of the mean loss m: with two windows and more they are its clusters,
  //   sqrt(K / (K - 1) * sum_k (L_k - m n_k)^2) / N   (K windows with loss sums L_k of n_k tokens, N = sum n_k),
  // because the tokens of one text depend on each other; in a single window tokens count as independent draws,
  // sqrt(sum_i (l_i - m)^2 / (N - 1) / N).
  double tokens = 0;             // scored ones, N
  double loss_stderr = std::nan("");
  double perplexity = std::nan("");         // exp(loss); smaller is better
  double perplexity_stderr = std::nan("");  // perplexity * loss_stderr (delta method)
};
// Whether it is told by its perplexity.
inline bool has_perplexity(const Accuracy& a) { return !std::isnan(a.perplexity); }
// "3.548 ± 0.080 ppl"; four significant digits and more. Only for those that have one.
std::string perplexity_text(const Accuracy& a);
// "3.548": the digits that a perplexity is shown with; "-" for nan.
std::string perplexity_digits(double perplexity);
template <class V>
void visit_fields(V& v, Accuracy& a) {
  v("samples", a.samples);
  v("top1", a.top1);
  v("top5", a.top5);
  v("loss", a.loss);
  v("top1_stderr", a.top1_stderr);
  v("agreement", a.agreement);
  v("output_sqnr_db", a.output_sqnr_db);
  v("tokens", a.tokens);
  v("loss_stderr", a.loss_stderr);
  v("perplexity", a.perplexity);
  v("perplexity_stderr", a.perplexity_stderr);
}

// One layer in a run.
struct LayerResult {
  NodeId node = kNoNode;
  std::string name, op;
  std::string weight_format, activation_format;  // chip texts, empty: float
  std::optional<TensorError> weight;             // against the float weight (after graph passes)
  std::optional<TensorError> isolated;           // layer output, only this layer quantized
  std::optional<TensorError> cumulative;         // layer output, whole network quantized
};
template <class V>
void visit_fields(V& v, LayerResult& l) {
  v("node", l.node);
  v("name", l.name);
  v("op", l.op);
  v("weight_format", l.weight_format);
  v("activation_format", l.activation_format);
  v("weight", l.weight);
  v("isolated", l.isolated);
  v("cumulative", l.cumulative);
}

// What a pass did to one layer.
struct PassLayer {
  std::string layer;                            // name of the node
  double before = std::nan(""), after = std::nan("");  // PassReport::measure; NaN: not measured
  std::string note;                             // "3 dead inputs", "left as it is: no weight quantizer"
};
template <class V>
void visit_fields(V& v, PassLayer& l) {
  v("layer", l.layer);
  v("before", l.before);
  v("after", l.after);
  v("note", l.note);
}

struct PassReport {
  std::string id, title, summary;  // summary: "8 layers corrected, mean shift 0.013"
  double seconds = 0;
  std::string measure = {};        // what before and after are, with the unit: "relative output error"; empty: nothing
  std::vector<PassLayer> layers = {};
};
template <class V>
void visit_fields(V& v, PassReport& p) {
  v("id", p.id);
  v("title", p.title);
  v("summary", p.summary);
  v("seconds", p.seconds);
  v("measure", p.measure);
  v("layers", p.layers);
}

// One point of a training curve.
struct TrainPoint {
  double step = 0, epoch = 0, loss = 0, learning_rate = 0;
  std::optional<double> top1;  // on the validation samples, at the end of an epoch
};
template <class V>
void visit_fields(V& v, TrainPoint& p) {
  v("step", p.step);
  v("epoch", p.epoch);
  v("loss", p.loss);
  v("learning_rate", p.learning_rate);
  v("top1", p.top1);
}

// Sweep: one cell = one layer at one width, everything else float.
struct SweepSettings {
  std::vector<NodeId> layers;               // empty: all compute layers
  std::vector<int> bits = {8, 7, 6, 5, 4, 3, 2};
  bool weights = true, activations = false;
  int samples = 1000;                       // of the evaluation split
  std::vector<PassEntry> passes;            // what rounds the weights at each width; empty: to nearest
};
template <class V>
void visit_fields(V& v, SweepSettings& s) {
  v("layers", s.layers);
  v("bits", s.bits);
  v("weights", s.weights);
  v("activations", s.activations);
  v("samples", s.samples);
  v("passes", s.passes);
}
struct SweepCell {
  NodeId node = kNoNode;
  int bits = 0;
  double layer_sqnr_db = 0, output_sqnr_db = 0;
  double top1 = 0;        // nan without labels
  double top1_drop = 0;   // float top-1 minus this, in share (0.01 = one point)
  double perplexity = std::nan("");       // of tokens, else nan
  double perplexity_rise = std::nan("");  // perplexity over that of float, minus 1 (0.01 = one per cent)
};
// What the cell costs, in share: top-1 lost, or the perplexity's rise; nan without labels and tokens.
inline double cell_loss(const SweepCell& c) { return std::isnan(c.perplexity) ? c.top1_drop : c.perplexity_rise; }
template <class V>
void visit_fields(V& v, SweepCell& c) {
  v("node", c.node);
  v("bits", c.bits);
  v("layer_sqnr_db", c.layer_sqnr_db);
  v("output_sqnr_db", c.output_sqnr_db);
  v("top1", c.top1);
  v("top1_drop", c.top1_drop);
  v("perplexity", c.perplexity);
  v("perplexity_rise", c.perplexity_rise);
}
struct SweepResult {
  SweepSettings settings;
  double float_top1 = 0;
  double float_perplexity = std::nan("");  // of tokens, else nan
  double samples = 0;
  std::vector<SweepCell> cells;
  bool complete = false;
};
template <class V>
void visit_fields(V& v, SweepResult& s) {
  v("settings", s.settings);
  v("float_top1", s.float_top1);
  v("float_perplexity", s.float_perplexity);
  v("samples", s.samples);
  v("cells", s.cells);
  v("complete", s.complete);
}

enum class RunKind { kFloat, kQuantize, kSweep };
inline const EnumNames<RunKind>& enum_names(RunKind) {
  static const EnumNames<RunKind> names = {
      {RunKind::kFloat, "float"}, {RunKind::kQuantize, "quantize"}, {RunKind::kSweep, "sweep"}};
  return names;
}
inline const EnumNames<Severity>& enum_names(Severity) {
  static const EnumNames<Severity> names = {
      {Severity::kInfo, "info"}, {Severity::kWarning, "warning"}, {Severity::kError, "error"}};
  return names;
}
template <class V>
void visit_fields(V& v, Issue& i) {
  v("severity", i.severity);
  v("where", i.where);
  v("message", i.message);
  v("hint", i.hint);
}
template <class V>
void visit_fields(V& v, Progress& p) {
  v("phase", p.phase);
  v("detail", p.detail);
  v("fraction", p.fraction);
  v("seconds_left", p.seconds_left);
}

// One execution of a recipe with its measurements. Append-only; holds everything needed to repeat it.
struct Run {
  std::int64_t id = 0;           // in the project, from 1
  RunKind kind = RunKind::kQuantize;
  std::string name;              // recipe name, "W4A4, QAT 1 epoch"
  std::string created;           // ISO 8601, UTC
  double seconds = 0;
  Recipe recipe;
  std::string model_hash, data_hash, statistics_hash;
  std::map<std::string, std::string> versions;  // quanvas, libtorch, blas, device, threads
  std::optional<Accuracy> accuracy;
  double bytes = 0;              // weights and biases as quantized, with scales
  double bytes_float = 0;
  double bops = 0;               // sum over layers, see node_cost
  std::vector<LayerResult> layers;
  std::vector<PassReport> passes;
  std::vector<TrainPoint> curve;
  std::optional<SweepResult> sweep;
  std::vector<Issue> issues;
  std::string artifact;          // key of the changed weights and quantizer parameters; empty: none
};
template <class V>
void visit_fields(V& v, Run& r) {
  v("id", r.id);
  v("kind", r.kind);
  v("name", r.name);
  v("created", r.created);
  v("seconds", r.seconds);
  v("recipe", r.recipe);
  v("model_hash", r.model_hash);
  v("data_hash", r.data_hash);
  v("statistics_hash", r.statistics_hash);
  v("versions", r.versions);
  v("accuracy", r.accuracy);
  v("bytes", r.bytes);
  v("bytes_float", r.bytes_float);
  v("bops", r.bops);
  v("layers", r.layers);
  v("passes", r.passes);
  v("curve", r.curve);
  v("sweep", r.sweep);
  v("issues", r.issues);
  v("artifact", r.artifact);
}

// Export: what a target refuses, and what the file turned out to hold.
struct Refusal {
  std::string layer, quantizer;  // names; empty: the whole model
  std::string rule, got, allowed, suggestion;
  // What would mend it: another quantizer at `site`, or none there. Without either it takes more than a recipe's rule.
  std::optional<Site> site = {};
  std::optional<QuantSpec> fix = {};
  bool float_fixes = false;
  std::string text() const;      // one sentence
  bool operator==(const Refusal&) const = default;
};
template <class V>
void visit_fields(V& v, Refusal& r) {
  v("layer", r.layer);
  v("quantizer", r.quantizer);
  v("rule", r.rule);
  v("got", r.got);
  v("allowed", r.allowed);
  v("suggestion", r.suggestion);
  v("site", r.site);
  v("fix", r.fix);
  v("float_fixes", r.float_fixes);
}
struct AuditRow {
  std::string layer, quantizer;      // "conv1", "weight"
  std::string requested, written;    // "int4 narrow, per channel (16)"
  double bytes = 0;
  bool equal = false;                // scales, zero points and codes in the file are the requested ones
};
template <class V>
void visit_fields(V& v, AuditRow& a) {
  v("layer", a.layer);
  v("quantizer", a.quantizer);
  v("requested", a.requested);
  v("written", a.written);
  v("bytes", a.bytes);
  v("equal", a.equal);
}
// One tensor of the network on the screen against the one that the file computes, over the samples of the proof.
struct NodeAudit {
  std::string layer, what;           // "conv1", "output", "input 2"; a tensor's name where no layer gives it
  double values = 0, differing = 0;  // of `values`, so many have other bits (quantized) or lie apart by more than 1e-5 of the largest
  double max_steps = 0;              // largest difference in steps of the quantizer; 0 where the tensor is float
  double max_difference = 0;         // NaN: one of the two is not a number where the other is
  bool is_quantized = false;
};
template <class V>
void visit_fields(V& v, NodeAudit& n) {
  v("layer", n.layer);
  v("what", n.what);
  v("values", n.values);
  v("differing", n.differing);
  v("max_steps", n.max_steps);
  v("max_difference", n.max_difference);
  v("quantized", n.is_quantized);
}
struct ExportReport {
  std::string target, path;
  std::optional<Exactness> exactness;  // of the target with its options; none: it writes no quantizers, or unknown
  double file_bytes = 0;             // of all files that were written
  double float_bytes = 0;            // of the network's weights as they were
  double ideal_bytes = 0;            // of the codes without gaps, their scales and zero points, and what stays float
  std::vector<std::string> files;    // that were written; `path` among them
  std::vector<NodeAudit> nodes;      // in the order of the network; empty: the file cannot be run
  int first_difference = -1;         // index in `nodes` of the first that differs; -1: none
  std::vector<Refusal> refusals;  // not empty: nothing was written
  std::vector<AuditRow> audit;
  double checked_samples = 0;     // samples on which the file read again was run against the screen's model
  double max_output_difference = 0;
  double equal_predictions = 0;   // share
  Accuracy screen, file;          // both on those samples: top1 where they have labels, loss and perplexity where they are tokens
  std::vector<std::string> notes;
};
template <class V>
void visit_fields(V& v, ExportReport& r) {
  v("target", r.target);
  v("path", r.path);
  v("exactness", r.exactness);
  v("file_bytes", r.file_bytes);
  v("float_bytes", r.float_bytes);
  v("ideal_bytes", r.ideal_bytes);
  v("files", r.files);
  v("nodes", r.nodes);
  v("first_difference", r.first_difference);
  v("refusals", r.refusals);
  v("audit", r.audit);
  v("checked_samples", r.checked_samples);
  v("max_output_difference", r.max_output_difference);
  v("equal_predictions", r.equal_predictions);
  v("screen", r.screen);
  v("file", r.file);
  v("notes", r.notes);
}

// Data set as declared in a project; the readers' options are their plug-in's schema.
struct Preprocessing {
  double scale = 1;                // x * scale, then (x - mean[c]) / std[c]
  std::vector<double> mean, std;   // empty: 0 and 1; one entry serves all channels
  int resize = 0;                  // shorter side, bilinear; 0: none
  int crop_height = 0, crop_width = 0;  // centre; 0: none
  std::string channels;            // "rgb", "grey"; empty: as the file has them
  std::string layout = "nchw";     // what the model wants: "nchw" or "nhwc"
  bool operator==(const Preprocessing&) const = default;
};
template <class V>
void visit_fields(V& v, Preprocessing& p) {
  v("scale", p.scale);
  v("mean", p.mean);
  v("std", p.std);
  v("resize", p.resize);
  v("crop_height", p.crop_height);
  v("crop_width", p.crop_width);
  v("channels", p.channels);
  v("layout", p.layout);
}
struct DataSource {
  std::string reader;                 // id of a data set plug-in: "idx", "images", "npy", "raw"
  json options = json::object();      // paths (relative to the project's folder or absolute), shapes ...
  std::int64_t begin = 0, end = -1;   // samples used, [begin, end); -1: to the last
  bool operator==(const DataSource&) const = default;
};
template <class V>
void visit_fields(V& v, DataSource& d) {
  v("reader", d.reader);
  v("options", d.options);
  v("begin", d.begin);
  v("end", d.end);
}
struct DataSettings {
  std::string name;                   // "Fashion-MNIST"
  DataSource calibrate, train, evaluate;  // reader empty: none
  Preprocessing preprocessing;
  bool operator==(const DataSettings&) const = default;
};
template <class V>
void visit_fields(V& v, DataSettings& d) {
  v("name", d.name);
  v("calibrate", d.calibrate);
  v("train", d.train);
  v("evaluate", d.evaluate);
  v("preprocessing", d.preprocessing);
}

}  // namespace quanvas
