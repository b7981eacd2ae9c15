// Exported ONNX files in onnxruntime: the integers at every quantizer.
#include <cmath>
#include <set>

#include <onnx/onnx_pb.h>

#include "tests/interop/runtime_support.h"
#include "tests/plugins/export_code_nets.h"
#include "tests/plugins/export_dynamic_nets.h"
#include "tests/plugins/export_onnx_cases.h"

namespace quanvas::interop {
namespace {

using namespace export_net;

const onnx::NodeProto* producer(const onnx::ModelProto& proto, const std::string& tensor) {
  for (const auto& n : proto.graph().node())
    for (const auto& t : n.output())
      if (t == tensor) return &n;
  return nullptr;
}

// One quantizer of a file, by the tensors around it.
struct Place {
  const quant::QuantParams* params;
  std::string source, codes, values;  // real numbers, their codes (empty: too narrow for an output), what these stand for
};

class ExportedFiles : public RuntimeTest {
 protected:
  static const Exporter& exporter(const char* id) { return **Registry<Exporter>::instance().get(id, "target"); }

  // A copy of the file in which these tensors are outputs as well; gives the names of all outputs.
  std::vector<std::string> expose(const std::string& from, const std::string& to, const std::set<std::string>& tensors) const {
    onnx::ModelProto proto;
    std::ifstream in(from, std::ios::binary);
    EXPECT_TRUE(proto.ParseFromIstream(&in));
    std::set<std::string> there;
    std::vector<std::string> names;
    for (const auto& o : proto.graph().output()) there.insert(o.name()), names.push_back(o.name());
    for (const std::string& t : tensors)
      if (there.insert(t).second) {
        proto.mutable_graph()->add_output()->set_name(t);
        names.push_back(t);
      }
    std::ofstream out(to, std::ios::binary);
    proto.SerializeToOstream(&out);
    return names;
  }
};

// Quantized inputs on ties and as near to them as float32 has numbers, and anything else.
at::Tensor near_ties(const Shape& shape, float scale) {
  at::manual_seed(7);
  at::Tensor x = at::rand(shape) * 5 - 2.5;
  float* p = x.data_ptr<float>();
  for (std::int64_t i = 0; i < x.numel(); i += 2) {
    const float tie = (std::nearbyint(p[i] / scale) + 0.5f) * scale;
    p[i] = i % 6 == 0 ? tie : std::nextafter(tie, i % 6 == 2 ? 10.0f : -10.0f);
  }
  return x;
}

std::int64_t unequal(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() ? a.ne(b).sum().item<std::int64_t>() : a.numel();
}

TEST_F(ExportedFiles, QdqQuantizersGiveTheCodesOfTheScreen) {
  JobContext job;
  std::vector<Job> jobs;
  std::vector<QuantizedModel> models;
  std::vector<std::vector<Place>> places;
  std::vector<std::vector<std::string>> names;
  std::vector<const QdqCase*> of;
  const std::vector<QdqCase> cases = qdq_cases();
  models.reserve(cases.size());
  for (const QdqCase& c : cases) {
    SCOPED_TRACE(c.name);
    if (!c.in_ort) continue;
    models.push_back(quantize_all(odd_net(), c.weight, c.activation, true));
    const QuantizedModel& model = models.back();
    const std::string file = path(std::to_string(models.size()) + ".onnx"),
                      shown = path(std::to_string(models.size()) + "-shown.onnx");
    ASSERT_TRUE(exporter("onnx-qdq").check(model, qdq_json(c)).empty());
    ASSERT_TRUE(exporter("onnx-qdq").write(model, file, qdq_json(c), job));
    const auto back = exporter("onnx-qdq").read(model, file, qdq_json(c), job);
    ASSERT_TRUE(back) << back.error().text();
    onnx::ModelProto proto;
    std::ifstream in(file, std::ios::binary);
    ASSERT_TRUE(proto.ParseFromIstream(&in));
    std::map<std::string, int> types;
    for (const auto& t : proto.graph().initializer()) types[t.name()] = t.data_type();
    std::set<std::string> tensors = {"conv.weight_dequantized", "fc.weight_dequantized"};
    places.emplace_back();
    for (const auto& [site, held] : back->sites) {
      const onnx::NodeProto* last = producer(proto, held.tensor);
      ASSERT_TRUE(last) << held.tensor;
      Place place{&model.quantizers.at(site), {}, last->input(0), held.tensor};
      const onnx::NodeProto* n = producer(proto, place.codes);
      while (n && n->op_type() == "Clip") n = producer(proto, n->input(0));
      ASSERT_TRUE(n);
      place.source = n->input(0);
      if (const onnx::NodeProto* limit = producer(proto, place.source); limit && limit->op_type() == "Clip")
        place.source = limit->input(0);
      const int type = n->op_type() == "DynamicQuantizeLinear" ? 2 : types[n->input(2)];
      if (type > 6) place.codes.clear();
      for (const std::string* t : {&place.source, &place.codes, &place.values})
        if (!t->empty()) tensors.insert(*t);
      places.back().push_back(place);
    }
    names.push_back(expose(file, shown, tensors));
    of.push_back(&c);
    const bool one = c.activation.source == ScaleSource::kDynamic;
    float scale = 0.02f;
    for (const auto& [site, p] : model.quantizers)
      if (site.kind == SiteKind::kInput && !p.scale.empty() && model.model->graph->find(site.node)->name == "conv")
        scale = p.scale[0];
    // A file for one sample is run on many.
    const at::Tensor all = near_ties({one ? 270 : 400, 3, 7, 5}, scale);
    for (std::int64_t i = 0; i < (one ? all.size(0) : 1); ++i)
      jobs.push_back({c.name, shown, {{"x", one ? all.narrow(0, i, 1) : all}}});
  }
  const std::vector<Answer> answers = onnxruntime(jobs);
  if (answers.empty()) GTEST_SKIP() << "onnxruntime-node is not installed; packaging/test does it";
  ASSERT_EQ(answers.size(), jobs.size());
  std::size_t job_index = 0;
  for (std::size_t m = 0; m < models.size(); ++m) {
    SCOPED_TRACE(of[m]->name);
    std::int64_t compared = 0, codes_differ = 0, values_differ = 0;
    for (; job_index < jobs.size() && jobs[job_index].name == of[m]->name; ++job_index) {
      ASSERT_EQ(answers[job_index].error, "");
      ASSERT_EQ(answers[job_index].outputs.size(), names[m].size());
      std::map<std::string, at::Tensor> got;
      for (std::size_t i = 0; i < names[m].size(); ++i) got[names[m][i]] = answers[job_index].outputs[i];
      for (const Place& place : places[m]) {
        const at::Tensor x = got.at(place.source).contiguous();
        const Shape shape = x.sizes().vec();
        at::Tensor codes = at::empty(shape, at::kInt), values = at::empty(shape);
        if (quant::is_dynamic(*place.params)) {
          ASSERT_TRUE(quant::quantize_codes_samples(*place.params, shape, x.data_ptr<float>(), codes.data_ptr<std::int32_t>()));
          ASSERT_TRUE(quant::fake_quantize_samples(*place.params, shape, x.data_ptr<float>(), values.data_ptr<float>()));
        } else {
          const auto layout = quant::rebatch(*place.params, shape);
          ASSERT_TRUE(layout);
          quant::quantize_codes(*place.params, *layout, x.data_ptr<float>(), codes.data_ptr<std::int32_t>());
          quant::fake_quantize(*place.params, *layout, x.data_ptr<float>(), values.data_ptr<float>());
        }
        compared += x.numel();
        if (!place.codes.empty()) codes_differ += unequal(got.at(place.codes).to(at::kInt), codes);
        values_differ += unequal(got.at(place.values), values);
      }
      for (const auto& [site, params] : models[m].quantizers) {
        if (site.kind != SiteKind::kWeight) continue;
        const Graph& graph = *models[m].model->graph;
        const std::string& name = graph.tensor(graph.find(site.node)->input(1)).name;
        const std::vector<float> x = models[m].model->weights->find(name)->to_floats();
        at::Tensor want = at::empty(*graph.tensor(graph.find(site.node)->input(1)).shape);
        quant::fake_quantize(params, params.layout, x.data(), want.data_ptr<float>());
        EXPECT_EQ(unequal(got.at(name + "_dequantized"), want), 0) << name;
      }
    }
    std::cout << of[m]->name << ": " << codes_differ << " codes and " << values_differ << " values of " << compared
              << " differ\n";
    EXPECT_EQ(codes_differ, 0);
    EXPECT_EQ(values_differ, 0);
    EXPECT_GE(compared, 100000);
  }
}

// At every site the codes of the file against those of the screen. With powers of two as scales all sums and quotients are
// exact, so that every code must be the same; else a sum may fall to the other side of a tie.
TEST_F(ExportedFiles, QOperatorCodesAreThoseOfTheScreen) {
  const c10::InferenceMode no_gradient;
  JobContext job;
  std::vector<Job> jobs;
  std::vector<QuantizedModel> models;
  std::vector<ReadBack> backs;
  std::vector<std::vector<std::string>> names;
  const std::vector<CodeCase> cases = code_cases();
  for (const CodeCase& c : cases) {
    SCOPED_TRACE(c.name);
    models.push_back(quantize_codes_of(c.net(), c.formats));
    const std::string file = path("q" + std::to_string(models.size()) + ".onnx"),
                      shown = path("q" + std::to_string(models.size()) + "-shown.onnx");
    const auto refusals = exporter("onnx-qoperator").check(models.back(), c.options);
    ASSERT_TRUE(refusals.empty()) << refusals[0].text();
    ASSERT_TRUE(exporter("onnx-qoperator").write(models.back(), file, c.options, job));
    auto back = exporter("onnx-qoperator").read(models.back(), file, c.options, job);
    ASSERT_TRUE(back) << back.error().text();
    backs.push_back(std::move(*back));
    std::set<std::string> tensors;
    for (const auto& [site, held] : backs.back().sites) tensors.insert(held.tensor);
    names.push_back(expose(file, shown, tensors));
    jobs.push_back({c.name, shown, {{"x", code_input(*models.back().model, 600, 21)}}});
  }
  const std::vector<Answer> answers = onnxruntime(jobs);
  if (answers.empty()) GTEST_SKIP() << "onnxruntime-node is not installed; packaging/test does it";
  ASSERT_EQ(answers.size(), jobs.size());
  for (std::size_t m = 0; m < jobs.size(); ++m) {
    SCOPED_TRACE(jobs[m].name);
    EXPECT_EQ(answers[m].error, "");
    if (!answers[m].error.empty()) continue;
    std::map<std::string, at::Tensor> got;
    for (std::size_t i = 0; i < names[m].size(); ++i) got[names[m][i]] = answers[m].outputs[i];
    std::map<Site, at::Tensor> seen;
    exec::RunHooks hooks;
    hooks.quantize = [&](const Site& site, const at::Tensor& v) {
      const auto q = models[m].quantizers.find(site);
      return seen[site] = q == models[m].quantizers.end() ? v : exec::fake_quantize(v, q->second);
    };
    ASSERT_TRUE((*exec::Runner::create(models[m].model, &models[m].quantizers))->run({jobs[m].inputs[0].tensor}, hooks));
    std::int64_t compared = 0, differ = 0;
    double most = 0;
    std::set<std::string> counted;
    for (const auto& [site, held] : backs[m].sites) {
      const at::Tensor values = (got.at(held.tensor).to(at::kFloat) - held.zero_point[0]) * held.scale[0];
      const at::Tensor steps = ((values - seen.at(site).reshape(values.sizes())) / held.scale[0]).abs().round();
      most = std::max(most, steps.max().item<double>());
      EXPECT_TRUE(!cases[m].exact || steps.max().item<double>() == 0)
          << models[m].model->graph->find(site.node)->name << " " << enum_text(site.kind) << ", " << held.tensor;
      if (!counted.insert(held.tensor).second) continue;
      compared += steps.numel();
      differ += steps.ne(0).sum().item<std::int64_t>();
    }
    std::cout << jobs[m].name << ": " << differ << " of " << compared << " codes differ, by " << most << " at most\n";
    EXPECT_GE(compared, 100000);
    if (cases[m].exact) {
      EXPECT_EQ(differ, 0);
    } else {
      EXPECT_LE(most, cases[m].most);
      EXPECT_LE(static_cast<double>(differ), cases[m].share * static_cast<double>(compared));
    }
  }
}

// A layer whose input finds its scale at run time, in the file.
struct SumsOfCodes {
  std::string codes, scale, zero, source, sums, result, weight, weight_zero;
  const quant::QuantParams* params = nullptr;
  const Node* node = nullptr;
};

at::Tensor initializer(const onnx::ModelProto& proto, const std::string& name) {
  for (const auto& t : proto.graph().initializer())
    if (t.name() == name)
      return exec::to_tensor(TensorData::copy_of(static_cast<DataType>(t.data_type()), Shape(t.dims().begin(), t.dims().end()),
                                                 t.raw_data().data(), t.raw_data().size()));
  ADD_FAILURE() << "no initializer " << name;
  return {};
}

// The integers of ConvInteger and MatMulInteger, in double, where they are exact.
at::Tensor integer_sums(const Node& node, const at::Tensor& x, const at::Tensor& w) {
  if (node.op != "Conv") return at::matmul(x, w);
  const std::vector<std::int64_t> pads = node.integers("pads"), strides = node.integers("strides");
  const std::int64_t pad = pads.empty() ? 0 : pads[0], stride = strides.empty() ? 1 : strides[0];
  return at::conv2d(x, w, {}, stride, pad, 1, node.integer("group", 1));
}

// Sample by sample: the codes are those of the quantizer here, the sums are the integers, and what they are scaled to is
// float32 to the bit.
TEST_F(ExportedFiles, QOperatorScalesOfEachRun) {
  const c10::InferenceMode no_gradient;
  JobContext job;
  std::vector<Job> jobs;
  const std::vector<RunTimeCase> cases = run_time_cases();
  std::vector<std::vector<SumsOfCodes>> layers(cases.size());
  std::vector<std::vector<std::string>> names;
  std::vector<onnx::ModelProto> protos(cases.size());
  constexpr std::int64_t kSamples = 120;
  for (std::size_t m = 0; m < cases.size(); ++m) {
    SCOPED_TRACE(cases[m].name);
    const QuantizedModel& model = cases[m].model;
    const std::string file = path("d" + std::to_string(m) + ".onnx"), shown = path("d" + std::to_string(m) + "-shown.onnx");
    const auto refusals = exporter("onnx-qoperator").check(model, json::object());
    ASSERT_TRUE(refusals.empty()) << refusals[0].text();
    ASSERT_TRUE(exporter("onnx-qoperator").write(model, file, json::object(), job));
    std::ifstream in(file, std::ios::binary);
    ASSERT_TRUE(protos[m].ParseFromIstream(&in));
    std::set<std::string> tensors;
    for (const auto& [site, p] : model.quantizers) {
      if (!quant::is_dynamic(p)) continue;
      SumsOfCodes l;
      l.params = &p;
      l.node = model.model->graph->find(site.node);
      for (const auto& n : protos[m].graph().node()) {
        if (n.name() == l.node->name) {
          ASSERT_EQ(n.op_type(), l.node->op == "Conv" ? "ConvInteger" : "MatMulInteger");
          l.codes = n.input(0), l.weight = n.input(1), l.zero = n.input(2), l.weight_zero = n.input(3), l.sums = n.output(0);
        }
        if (n.name() == l.node->name + "_result") l.result = n.output(0);
      }
      const onnx::NodeProto* quantize = producer(protos[m], l.codes);
      ASSERT_TRUE(quantize);
      l.source = quantize->input(0), l.scale = quantize->output(1);
      for (const std::string& t : {l.codes, l.scale, l.zero, l.source, l.sums, l.result}) tensors.insert(t);
      layers[m].push_back(std::move(l));
    }
    ASSERT_FALSE(layers[m].empty());
    tensors.erase("x");
    names.push_back(expose(file, shown, tensors));
    at::Tensor all = code_input(*model.model, kSamples, 33);
    all.narrow(0, 0, 1).zero_();         // no range at all
    all.narrow(0, 1, 1).abs_().add_(1);  // one that does not reach 0
    for (std::int64_t i = 0; i < kSamples; ++i) jobs.push_back({cases[m].name, shown, {{"x", all.narrow(0, i, 1)}}});
  }
  const std::vector<Answer> answers = onnxruntime(jobs);
  if (answers.empty()) GTEST_SKIP() << "onnxruntime-node is not installed; packaging/test does it";
  ASSERT_EQ(answers.size(), jobs.size());
  std::int64_t total = 0;
  std::size_t j = 0;
  for (std::size_t m = 0; m < cases.size(); ++m) {
    SCOPED_TRACE(cases[m].name);
    const Graph& graph = *cases[m].model.model->graph;
    std::int64_t compared = 0, codes_differ = 0, sums_differ = 0, results_differ = 0;
    double most = 0;
    for (std::int64_t i = 0; i < kSamples; ++i, ++j) {
      ASSERT_EQ(answers[j].error, "");
      std::map<std::string, at::Tensor> got = {{"x", jobs[j].inputs[0].tensor.contiguous()}};
      for (std::size_t k = 0; k < names[m].size(); ++k) got[names[m][k]] = answers[j].outputs[k];
      for (const SumsOfCodes& l : layers[m]) {
        const at::Tensor x = got.at(l.source).contiguous();
        const Shape shape = x.sizes().vec();
        at::Tensor codes = at::empty(shape, at::kInt), values = at::empty(shape);
        ASSERT_TRUE(quant::quantize_codes_samples(*l.params, shape, x.data_ptr<float>(), codes.data_ptr<std::int32_t>()));
        ASSERT_TRUE(quant::fake_quantize_samples(*l.params, shape, x.data_ptr<float>(), values.data_ptr<float>()));
        const at::Tensor real = got.at(l.codes).to(at::kFloat) - got.at(l.zero).to(at::kFloat);
        codes_differ += unequal(got.at(l.codes).to(at::kInt), codes) + unequal(real * got.at(l.scale), values);
        const at::Tensor weight =
            initializer(protos[m], l.weight).to(at::kDouble) - initializer(protos[m], l.weight_zero).to(at::kDouble);
        const at::Tensor sums = integer_sums(*l.node, real.to(at::kDouble), weight);
        sums_differ += unequal(got.at(l.sums).to(at::kDouble), sums);
        // The scale and the bias as the file has them.
        const onnx::NodeProto* last = producer(protos[m], l.result);
        const onnx::NodeProto* product = last->op_type() == "Add" ? producer(protos[m], last->input(0)) : last;
        const onnx::NodeProto* scale = producer(protos[m], product->input(1));
        at::Tensor want = sums.to(at::kFloat) * (got.at(l.scale) * initializer(protos[m], scale->input(1)));
        if (last->op_type() == "Add") want = want + initializer(protos[m], last->input(1));
        results_differ += unequal(got.at(l.result), want);
        // What the screen computes from the same numbers.
        const auto& w = cases[m].model.quantizers.at({l.node->id, SiteKind::kWeight, 0});
        const TensorData* data = cases[m].model.model->weights->find(graph.tensor(l.node->input(1)).name);
        at::Tensor shown = at::empty(data->shape);
        quant::fake_quantize(w, w.layout, data->to_floats().data(), shown.data_ptr<float>());
        if (l.node->op == "Gemm" && l.node->integer("transB", 0) != 0) shown = shown.t();
        at::Tensor screen = integer_sums(*l.node, values, shown);
        if (last->op_type() == "Add") screen = screen + initializer(protos[m], last->input(1));
        if (screen.abs().max().item<float>() > 0) most = std::max(most, relative_difference(got.at(l.result), screen));
        compared += codes.numel() + sums.numel();
      }
    }
    std::cout << cases[m].name << ": " << codes_differ << " codes, " << sums_differ << " sums and " << results_differ
              << " results differ of " << compared << " integers; from float sums by " << most << " of the largest at most\n";
    EXPECT_EQ(codes_differ, 0);
    EXPECT_EQ(sums_differ, 0);
    EXPECT_EQ(results_differ, 0);
    EXPECT_LT(most, 2e-6);
    EXPECT_GE(compared, 10000);
    total += compared;
  }
  EXPECT_GE(total, 100000);
}

}  // namespace
}  // namespace quanvas::interop
