// Exported ONNX files in onnxruntime: the integers at every quantizer.
#include <cmath>
#include <set>

#include <onnx/onnx_pb.h>

#include "tests/interop/runtime_support.h"
#include "tests/plugins/export_code_nets.h"
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

}  // namespace
}  // namespace quanvas::interop
