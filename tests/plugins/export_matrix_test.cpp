// Every combination of what a quantizer can be against the table of every export target: legal, or refused by a
// named rule with a repair that is legal; and one file for each class of legal ones, written, read again, audited,
// run.
#include <filesystem>
#include <iostream>
#include <map>
#include <set>
#include <tuple>

#include <gtest/gtest.h>

#include "core/report/target_lens.h"
#include "core/workflow/export_proof.h"
#include "tests/plugins/export_fit.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using namespace export_fit;

// --- all that a quantizer can be ---

QuantSpec minifloat(int e, int m, FloatSpecials specials) {
  QuantSpec s;
  s.format = "float";
  s.exponent_bits = e;
  s.mantissa_bits = m;
  s.specials = specials;
  return s;
}

std::vector<QuantSpec> formats() {
  std::vector<QuantSpec> out;
  for (const int bits : {1, 2, 3, 4, 5, 7, 8, 9, 16, 32})
    for (const bool is_signed : {true, false})
      for (const bool narrow : {false, true}) {
        QuantSpec s;
        s.bits = bits;
        s.is_signed = is_signed;
        s.narrow = narrow;
        out.push_back(s);
      }
  out.push_back(minifloat(4, 3, FloatSpecials::kNan));
  out.push_back(minifloat(5, 2, FloatSpecials::kIeee));
  out.push_back(minifloat(4, 3, FloatSpecials::kFnuz));
  out.push_back(minifloat(5, 2, FloatSpecials::kFnuz));
  out.push_back(minifloat(2, 1, FloatSpecials::kNone));
  out.push_back(minifloat(3, 2, FloatSpecials::kNone));
  out.push_back(minifloat(4, 3, FloatSpecials::kNone));
  std::vector<std::string> ids = {"ternary", "binary"};
  for (const Codebook& book : codebooks()) ids.push_back(book.id);
  for (const std::string& id : ids) {
    QuantSpec s;
    s.format = id;
    out.push_back(s);
  }
  return out;
}

// Legal on sites of this kind, whatever the target.
const std::vector<QuantSpec>& combinations(SiteKind kind) {
  static std::map<SiteKind, std::vector<QuantSpec>> all;
  std::vector<QuantSpec>& out = all[kind];
  if (!out.empty()) return out;
  struct Zero {
    ZeroPointType type;
    bool inside;
  };
  struct Scales {
    Granularity granularity;
    int group;
  };
  const bool bias = kind == SiteKind::kBias;
  for (const QuantSpec& format : formats())
    for (const Zero zero : {Zero{ZeroPointType::kNone, false},
                            {ZeroPointType::kInteger, false},
                            {ZeroPointType::kInteger, true},
                            {ZeroPointType::kFloat, true},
                            {ZeroPointType::kOffset, false}})
      for (const Scales scales : {Scales{Granularity::kTensor, 32},
                                  {Granularity::kChannel, 32},
                                  {Granularity::kGroup, 32},
                                  {Granularity::kGroup, 16},
                                  {Granularity::kGroup, 256},
                                  {Granularity::kRow, 32}})
        for (const Rounding rounding :
             {Rounding::kHalfEven, Rounding::kHalfUp, Rounding::kHalfAway, Rounding::kCeil, Rounding::kFloor,
              Rounding::kTowardZero, Rounding::kDpu, Rounding::kStochastic})
          for (const ScaleType type : {ScaleType::kFloat32, ScaleType::kPowerOfTwo, ScaleType::kFloat16,
                                       ScaleType::kFloat8, ScaleType::kQuantized})
            for (const bool last : {false, true}) {  // dynamic activations; biases with the accumulator's scale
              if (last && kind == SiteKind::kWeight) continue;
              QuantSpec s = format;
              s.zero_point = zero.type;
              s.zero_point_inside = zero.inside;
              s.granularity = scales.granularity;
              s.group_size = scales.group;
              s.rounding = rounding;
              s.scale = type;
              s.statistic = zero.type == ZeroPointType::kNone ? Statistic::kAbsMax : Statistic::kMinMax;
              if (last && bias) s.scale_from_accumulator = true;
              if (last && !bias) s.source = ScaleSource::kDynamic;
              if (check(s, kind).empty()) out.push_back(s);
            }
  return out;
}

std::vector<const Exporter*> targets() {
  std::vector<const Exporter*> out;
  for (const Exporter* e : Registry<Exporter>::instance().all())
    if (e->unavailable().empty() && e->needs_quantizers()) out.push_back(e);
  return out;
}

// The defaults, and each other choice and switch of an option once.
std::vector<json> option_sets(const Exporter& e) {
  const Schema schema = e.schema();
  const json defaults = *schema.complete(json::object(), "options");
  std::vector<json> out = {defaults};
  for (const Field& field : schema.fields) {
    std::vector<json> values;
    if (field.type == FieldType::kBool) values = {!defaults[field.key].get<bool>()};
    if (field.type == FieldType::kChoice)
      for (const Choice& choice : field.choices) values.push_back(choice.value);
    for (const json& value : values) {
      json set = defaults;
      set[field.key] = value;
      if (set != defaults) out.push_back(std::move(set));
    }
  }
  return out;
}

// Plain numbers are plain numbers.
const std::set<std::string> kTakeEverything = {"c-header", "npz", "safetensors"};

const std::set<std::string> kAreCode = {"torchscript-qcdq", "torchscript-quantized", "tvm-relay-pytorch"};

const SiteKind kKinds[] = {SiteKind::kWeight, SiteKind::kBias, SiteKind::kInput, SiteKind::kOutput};

TEST(ExportMatrix, EveryCombinationIsLegalOrRefusedByANamedRule) {
  for (const Exporter* e : targets()) {
    std::set<std::string> seen;  // options that change nothing of the table
    for (const json& options : option_sets(*e)) {
      const std::string id = e->info().id + " " + options.dump();
      SCOPED_TRACE(id);
      const TargetTable table = e->table(options);
      ASSERT_FALSE(table.rows.empty()) << "a target without a table";
      if (!seen.insert(table_json(table).dump()).second) continue;
      std::set<std::string> forms;
      for (const TargetRow& row : table.rows) {
        EXPECT_TRUE(forms.insert(row.form).second) << "two rows are called " << row.form;
        EXPECT_FALSE(row.sites.empty());
        EXPECT_FALSE(describe(row).empty());
      }
      std::size_t legal = 0, refused = 0, repaired = 0;
      std::set<const TargetRow*> used;
      for (const SiteKind kind : kKinds)
        for (const QuantSpec& s : combinations(kind))
          for (const char* op : {"Conv", "Gemm"}) {
            const TargetVerdict v = judge(table, op, kind, s);
            if (v.row) {
              ++legal;
              used.insert(v.row);
              ASSERT_TRUE(v.refusals.empty());
              continue;
            }
            ++refused;
            ASSERT_FALSE(v.refusals.empty()) << describe(s);
            for (const Refusal& r : v.refusals)
              ASSERT_FALSE(r.rule.empty() || r.got.empty() || r.allowed.empty() || r.suggestion.empty())
                  << describe(s);
            // The table promises a form for the site: then there is a way to it.
            ASSERT_EQ(v.fix.has_value(), v.refusals[0].rule != "place of a quantizer") << describe(s) << ": " << v.refusals[0].text();
            if (!v.fix) continue;
            ++repaired;
            ASSERT_EQ(check(*v.fix, kind), "") << describe(*v.fix);
            ASSERT_NE(judge(table, op, kind, *v.fix).row, nullptr)
                << describe(s) << " was repaired to " << describe(*v.fix);
          }
      EXPECT_GT(legal, 0u);
      EXPECT_EQ(refused == 0, kTakeEverything.count(e->info().id) > 0);
      std::cout << id << ": " << legal << " legal, " << refused << " refused, " << repaired
                << " of these with a repair, " << used.size() << " of " << table.rows.size() << " rows met\n";
    }
  }
}

// --- files ---

class RandomData final : public Dataset {
 public:
  explicit RandomData(Shape shape) : shape_(std::move(shape)) {}
  std::int64_t size() const override { return 16; }
  Shape sample_shape() const override { return shape_; }
  bool has_labels() const override { return false; }
  Status read(const std::vector<std::int64_t>& indices, float* out, std::int64_t*) const override {
    for (const std::int64_t i : indices) {
      const TensorData t = export_net::random_floats(shape_, static_cast<std::uint32_t>(100 + i), 2.0f);
      const std::vector<float> values = t.to_floats();
      out = std::copy(values.begin(), values.end(), out);
    }
    return {};
  }
  std::string hash() const override { return "random"; }

 private:
  Shape shape_;
};

// A bias with the accumulator's scale needs an input and a weight of integers: 8 bit ones where they are float.
void add_factors(const TargetTable& table, const std::string& op, const Layer& layer, QuantizedModel& network) {
  for (const SiteKind kind : {SiteKind::kInput, SiteKind::kWeight}) {
    const Site site{layer.node, kind, 0};
    if (quantizer_at(network, site)) continue;
    for (const QuantSpec& s : combinations(kind)) {
      if (s.format != "int" || s.bits != 8 || s.granularity != Granularity::kTensor ||
          s.source == ScaleSource::kDynamic)
        continue;
      if (!judge(table, op, kind, s).row) continue;
      if (const auto p = quantizer(network, layer, site, s)) network.quantizers[site] = *p;
      break;
    }
  }
}

class ExportFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("quanvas-matrix-" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  // Written, read again, audited, run: an empty text, or what was wrong.
  std::string prove(const Exporter& e, const json& options, const TargetTable& table, const QuantizedModel& network,
                    const Dataset& data) {
    const std::string path = (folder_ / ("net" + e.extension())).string();
    JobContext job;
    if (const Status written = e.write(network, path, options, job); !written)
      return "write: " + written.error().text();
    const auto rows = e.audit(network, path, options);
    if (!rows) return "audit: " + rows.error().text();
    for (const AuditRow& row : *rows)
      if (!row.equal && table.exactness != Exactness::kNear)
        return row.layer + " " + row.quantizer + ": asked " + row.requested + ", written " + row.written;
    // Of what the file holds: some leave activations to whoever runs them.
    const auto held = std::count_if(network.quantizers.begin(), network.quantizers.end(), [&](const auto& q) {
      const TargetRow* row = judge(table, network.model->graph->find(q.first.node)->op, q.first.kind, q.second.spec).row;
      return !row || row->form != "not written";
    });
    if (static_cast<std::ptrdiff_t>(rows->size()) < held && table.exactness != Exactness::kWeights)
      return "the audit has too few rows";
    auto back = e.read(network, path, options, job);
    if (!back) return "read: " + back.error().text();
    ExportReport report;
    if (const Status proved = prove_export(network, true, *back, data, 256, "cpu", report, job); !proved)
      return "proof: " + proved.error().text();
    if (report.nodes.empty()) {
      // Names of float tensors may be others in the file; quantized ones are always found.
      const bool activations = std::any_of(network.quantizers.begin(), network.quantizers.end(),
                                           [](const auto& q) { return is_activation(q.first.kind); });
      if (activations || report.checked_samples == 0 || !(report.max_output_difference < 1e-4))
        return "nothing was compared";
    }
    const double allowed = table.exactness == Exactness::kModel || table.exactness == Exactness::kNear ? 1.001 : 0;
    for (const NodeAudit& n : report.nodes)
      if (n.is_quantized && !(n.max_steps <= allowed))
        return n.layer + " " + n.what + " is " + std::to_string(n.max_steps) + " steps off";
    // Codes of few bits make ties between classes, which one step decides.
    const double least = table.exactness == Exactness::kNear ? 0 : table.exactness == Exactness::kModel ? 0.9 : 1;
    if (report.equal_predictions < least) return "other classes";
    return {};
  }

  fs::path folder_;
};

// What a quantizer is in each respect; the rounding of constants leaves no trace. With other options than the
// defaults only the coarser ones.
std::vector<std::string> respects(const json& options, const TargetRow& row, SiteKind kind, const QuantSpec& s) {
  const std::string format =
      format_name(s) + " " + std::to_string(code_bits(s)) + (s.is_signed ? "s" : "u") + (s.narrow ? "n" : "");
  if (!options.is_null()) return {options.dump(), row.form, format_name(s), enum_text(s.granularity)};
  std::string granularity = enum_text(s.granularity);
  if (s.granularity == Granularity::kGroup) granularity += " " + std::to_string(s.group_size);
  return {row.form,
          format,
          std::string("zero ") + enum_text(s.zero_point) + (s.zero_point_inside ? " inside" : ""),
          granularity,
          std::string("scale ") + enum_text(s.scale),
          std::string(enum_text(s.source)) + (s.scale_from_accumulator ? " accumulator" : ""),
          is_activation(kind) ? std::string("rounding ") + enum_text(s.rounding) : std::string("constant")};
}

// Every pair of respects: a set of files that holds all of them covers what two choices do to each other.
std::vector<std::string> pairs_of(const std::vector<std::string>& respects) {
  std::vector<std::string> out;
  for (std::size_t a = 0; a < respects.size(); ++a)
    for (std::size_t b = a + 1; b < respects.size(); ++b) out.push_back(respects[a] + " | " + respects[b]);
  return out;
}

// Pairs that the table takes but that no file of these two networks can hold, and the rule that says so.
struct Unwritten {
  std::string target, respect, rule;
};
const Unwritten kUnwritten[] = {
    // An int32 is what holds the codes.
    {"c-header", "int 32u", "bit width"},
    {"npz", "int 32u", "bit width"},
    {"safetensors", "int 32u", "bit width"},
    // Which of the reader's versions packs them how has to be said first.
    {"compressed-tensors", "int 3", "packing"},
    {"compressed-tensors", "int 5", "packing"},
    {"compressed-tensors", "int 7", "packing"},
    // Codes of -1 and 1 have a scale of 1; codes from 0 on stand behind a Relu, which no layer with weights gives.
    {"finn", "BipolarQuant", "scale"},
    {"finn", "binary 1s", "scale"},
    {"finn", "MultiThreshold of -1 and 1", "scale"},
    {"finn", "Relu + Quant", "sign"},
    {"finn", "MultiThreshold + Mul", "sign"},
    {"finn", "rounding half-even", "sign"},
    // Scales of super-blocks have bits and a size of their own; 8 bit less a zero point take nine; offsets are float16.
    {"gguf", "group 16", "super-block scales"},
    {"gguf", "zero offset", "blocks of scales"},
    {"gguf", "zero offset", "float16 offset"},
    {"gguf", "int 8", "codes"},
    // Files of the first version have the zero point less one, and no code for 0.
    {"gptq", "int ", "zero point"},
    {"gptq", "unsigned, ", "zero point"},
    {"gptq", "zero integer", "zero point"},
    // All quantizers of a DPU round alike, which the network's other ones do not.
    {"pyxir", "rounding dpu", "rounding"},
    // A zero point for each channel is for products whose input finds its scale at run time, and for no convolution.
    {"onnx-qoperator", "zero integer", "zero point"},
    {"tvm-relay-qoperator", "zero integer", "zero point"},
    // Input and weight change together: networks of its own test it.
    {"torchscript-quantized", "float32, which linear_dynamic makes codes of", "operator"},
};
// Whether one of the two respects of the pair begins with this one.
bool names(const std::string& pair, const std::string& respect) {
  const std::size_t second = pair.find(" | ");
  return pair.rfind(respect, 0) == 0 || pair.compare(second + 3, respect.size(), respect) == 0;
}

// What the target says against the quantizer at the site, once the others are as it wants them; else against the network.
std::set<std::string> rules_against(const Exporter& e, const json& options, QuantizedModel network, const Site& site) {
  const std::vector<Layer> layers = find_layers(*network.model->graph);
  std::set<std::string> all;
  for (int round = 0; round < 4; ++round) {
    std::set<std::string> own;
    all.clear();
    const auto refusals = e.check(network, options);
    for (const Refusal& r : refusals) {
      all.insert(r.rule);
      if (r.site == site) own.insert(r.rule);
    }
    if (!own.empty() || refusals.empty()) return own;
    for (const Refusal& r : refusals) {
      const Layer* layer = r.site ? find_layer(layers, r.site->node) : nullptr;
      if (!layer || !can_mend(r)) continue;
      network.quantizers.erase(*r.site);
      if (const auto p = r.fix ? quantizer(network, *layer, *r.site, *r.fix) : std::nullopt) network.quantizers[*r.site] = *p;
    }
  }
  return all;
}

// Whoever takes scales per channel takes them on the layer's own axis; on another one they are exact or refused by name.
TEST_F(ExportFiles, ScalesOnAnotherAxisAreExactOrRefusedByName) {
  const ModelPtr model = export_net::small_net();
  const RandomData data({1, 8, 8});
  const std::vector<Layer> layers = find_layers(*model->graph);
  std::size_t exact = 0, refused = 0;
  for (const Exporter* e : targets()) {
    const json options = option_sets(*e).front();
    const TargetTable table = e->table(options);
    QuantizedModel bare;
    bare.model = model;
    const auto base = fitted(*e, options, bare);
    if (!base) continue;
    for (const char* name : {"conv1", "fc"}) {
      const Layer& layer = *find_layer(layers, model->graph->find(name)->id);
      const Site site{layer.node, SiteKind::kWeight, 0};
      const TensorData& data_of = *model->weights->find(model->graph->tensor(layer.weight).name);
      const std::vector<float> values = data_of.to_floats();
      for (const QuantSpec& s : combinations(SiteKind::kWeight)) {
        if (s.granularity != Granularity::kChannel || s.format != "int" || s.bits != 8 || !judge(table, model->graph->find(name)->op, SiteKind::kWeight, s).row) continue;
        // What the target holds with the own axis, with another one.
        QuantizedModel network = *base;
        const auto own = quantizer(network, layer, site, s);
        if (!own) continue;
        network.quantizers[site] = *own;
        const auto fits = fitted(*e, options, network);
        if (!fits || !quantizer_at(*fits, site) || quantizer_at(*fits, site)->spec != own->spec) continue;
        network = *fits;
        QuantSpec other = s;
        other.axis = 1 - layer.channel_axis;
        const auto p = quant::find_params(other, data_of.shape, values.data(), 0);
        ASSERT_TRUE(p) << p.error().text();
        network.quantizers[site] = *p;
        const std::set<std::string> rules = rules_against(*e, options, network, site);
        const std::string where = e->info().id + " " + name + ": " + describe(other);
        if (rules.empty()) {  // what follows from it, a bias, may have to change
          const auto legal = fitted(*e, options, network);
          ASSERT_TRUE(legal && quantizer_at(*legal, site)) << where;
          EXPECT_EQ(quantizer_at(*legal, site)->spec.axis, other.axis) << where;
          EXPECT_EQ(prove(*e, options, table, *legal, data), "") << where;
        } else {
          // GGUF, whose scales lie along rows only, says it of rows.
          EXPECT_TRUE(rules.count("axis of scales") || rules.count("blocks of scales")) << where << ", but '" << *rules.begin() << "'";
        }
        ++(rules.empty() ? exact : refused);
        break;  // one format says it
      }
    }
  }
  EXPECT_GT(exact, 0u);
  EXPECT_GT(refused, 0u);
}

TEST_F(ExportFiles, EachClassOfLegalQuantizersIsWrittenAndExact) {
  struct Net {
    ModelPtr model;
    RandomData data;
  };
  const Net nets[] = {{export_net::small_net(), RandomData({1, 8, 8})}, {linear_net(), RandomData({256})}};
  for (const Exporter* e : targets()) {
    const std::string id = e->info().id;
    const json defaults = option_sets(*e).front();
    std::size_t files = 0, by_numbers = 0;
    std::set<std::string> proven, classes;
    std::map<std::string, std::set<std::string>> reasons;  // rules that kept a pair from being written
    std::map<std::string, int> tries;
    // Each option once more with what it alone can hold.
    for (const json& options : option_sets(*e))
      for (const Net& net : nets) {
        const TargetTable table = e->table(options);
        QuantizedModel bare;
        bare.model = net.model;
        tries.clear();  // the next network may hold what this one does not
        const auto base = fitted(*e, options, bare);
        if (!base) continue;
        std::map<std::pair<std::string, SiteKind>, std::vector<std::pair<const TargetRow*, const QuantSpec*>>>
            known;
        const auto legal = [&](const std::string& op, SiteKind kind) -> const auto& {
          const auto [it, fresh] = known.try_emplace({op, kind});
          if (fresh)
            for (const QuantSpec& s : combinations(kind))
              if (const TargetVerdict v = judge(table, op, kind, s); v.row) it->second.emplace_back(v.row, &s);
          return it->second;
        };
        for (const Layer& layer : find_layers(*net.model->graph)) {
          const std::string op = net.model->graph->find(layer.node)->op;
          if (layer.kind != LayerKind::kCompute) continue;
          for (const Site& site : layer.sites())
            for (const auto& [row, combination] : legal(op, site.kind)) {
              const QuantSpec& s = *combination;
              auto parts = respects(options == defaults ? json() : options, *row, site.kind, s);
              // Code is read in a process of its own, which takes a second for each file; their own tests have
              // more.
              if (kAreCode.count(e->info().id)) parts = {row->form, enum_text(s.granularity)};
              const std::vector<std::string> pairs = pairs_of(parts);
              classes.insert(pairs.begin(), pairs.end());
              if (std::all_of(pairs.begin(), pairs.end(),
                              [&](const std::string& p) { return proven.count(p) > 0; }))
                continue;
              std::string name;
              for (const std::string& part : parts) name += (name.empty() ? "" : ", ") + part;
              // A pair that numbers or layers forbid is tried a few times, not for every combination that it is in.
              constexpr int kTries = 6;
              if (std::all_of(pairs.begin(), pairs.end(),
                              [&](const std::string& p) { return proven.count(p) > 0 || tries[p] >= kTries; }))
                continue;
              for (const std::string& p : pairs) ++tries[p];
              QuantizedModel network = *base;
              if (s.scale_from_accumulator) add_factors(table, op, layer, network);
              const auto p = quantizer(network, layer, site, s);
              if (!p) continue;
              network.quantizers[site] = *p;
              // A new scale of input or weight is another one of the bias.
              const Site bias{layer.node, SiteKind::kBias, 0};
              if (const auto* b = quantizer_at(network, bias);
                  b && b->spec.scale_from_accumulator && site.kind != SiteKind::kBias) {
                const auto again = quantizer(network, layer, bias, b->spec);
                if (again)
                  network.quantizers[bias] = *again;
                else
                  network.quantizers.erase(bias);
              }
              const auto fits = fitted(*e, options, network);
              if (!fits || !quantizer_at(*fits, site) || quantizer_at(*fits, site)->spec != p->spec) {
                ++by_numbers;
                const std::set<std::string> rules = rules_against(*e, options, network, site);
                for (const std::string& pair : pairs) reasons[pair].insert(rules.begin(), rules.end());
                continue;
              }
              const std::string wrong = prove(*e, options, table, *fits, net.data);
              EXPECT_EQ(wrong, "") << id << ": " << name << " at " << net.model->graph->find(layer.node)->name
                                   << " " << enum_text(site.kind);
              proven.insert(pairs.begin(), pairs.end());
              ++files;
            }
        }
      }
    std::cout << id << ": " << classes.size() << " pairs, " << proven.size() << " in " << files
              << " files, each exact; " << by_numbers << " attempts refused for numbers or layers" << std::endl;
    EXPECT_GT(files, 0u) << id << " could not hold either network";
    std::set<const Unwritten*> met;
    for (const std::string& c : classes) {
      if (proven.count(c)) continue;
      bool is_known = false;
      for (const Unwritten& u : kUnwritten)
        if (u.target == id && names(c, u.respect) && reasons[c].count(u.rule)) is_known = met.insert(&u).second || true;
      std::string rules;
      for (const std::string& rule : reasons[c]) rules += " '" + rule + "'";
      EXPECT_TRUE(is_known) << id << " takes, but never holds: " << c << ";" << rules;
    }
    for (const Unwritten& u : kUnwritten)
      EXPECT_TRUE(u.target != id || met.count(&u)) << id << " holds " << u.respect << " now: strike it from the list (" << u.rule << ")";
  }
}

}  // namespace
}  // namespace quanvas
