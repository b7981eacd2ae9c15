// QONNX, FINN and PyXIR files in onnxruntime, after standard_onnx.py has spelled their operators out from the public
// definitions: what stands at every quantizer. Needs Debian's python3-onnx (packaging/test installs it); skipped with a message
// without it. QUANVAS_PYTHON names another interpreter.
#include <c10/core/InferenceMode.h>
#include <onnx/onnx_pb.h>

#include <cmath>
#include <cstdlib>
#include <set>

#include "tests/interop/runtime_support.h"
#include "tests/plugins/export_site_support.h"

namespace quanvas::interop {
namespace {

using namespace export_site;

struct Case {
  std::string name, target;
  json options;
  QuantizedModel model;
  double most;  // of all values at quantizers, how many may be another code
  double largest = 1e-5;  // relative difference of an output, where no code differs
};

QuantSpec with(QuantSpec s, Rounding r) {
  s.rounding = r;
  return s;
}
QuantSpec inside(QuantSpec s) {
  s.zero_point_inside = true;
  return s;
}
QuantSpec format(const char* name, Granularity granularity) {
  QuantSpec s;
  s.format = name;
  s.granularity = granularity;
  return s;
}
QuantSpec minifloat(int exponent, int mantissa, FloatSpecials specials, Granularity granularity) {
  QuantSpec s = format("float", granularity);
  s.exponent_bits = exponent;
  s.mantissa_bits = mantissa;
  s.specials = specials;
  return s;
}

QuantizedModel for_finn(const QuantSpec& weight, const QuantSpec& act, const QuantSpec& relu) {
  QuantizedModel model = quantize(small_net(), {weight, act});
  set_activation(model, "conv2", SiteKind::kInput, 0, relu, 1.5f);  // what a MaxPool makes of a ReLU
  set_activation(model, "add", SiteKind::kInput, 1, relu, 1.5f);
  for (auto& [site, p] : model.quantizers)
    if (site.kind == SiteKind::kBias) p.spec.scale_from_accumulator = false;
  return model;
}

// Every layer's input and output in 8 bits with powers of two; biases in 8 bits, too.
QuantizedModel for_dpu(Rounding rounding) {
  const ModelPtr net = small_net();
  QuantSpec s;
  s.scale = ScaleType::kPowerOfTwo;
  QuantizedModel out;
  out.model = net;
  for (const Layer& layer : find_layers(*net->graph))
    for (const Site& site : layer.sites()) {
      const Node& node = *net->graph->find(layer.node);
      const TensorInfo& tensor = net->graph->tensor(site_tensor(layer, site));
      if (!is_activation(site.kind)) {
        const auto values = net->weights->find(tensor.name)->to_floats();
        out.quantizers[site] = *quant::find_params(s, *tensor.shape, values.data(), layer.channel_axis);
        continue;
      }
      const bool read = site.kind == SiteKind::kInput && node.op != "Relu" && node.op != "MaxPool";
      if (!read && !(site.kind == SiteKind::kOutput && node.name == "fc")) continue;
      const QuantSpec act = with(s, rounding);
      const float range = node.name == "fc" ? 4.0f : 1.9f;
      out.quantizers[site] = quant::params_from_range(act, *quant::make_layout(act, *tensor.shape, 1), {-range}, {range});
    }
  return out;
}

std::vector<Case> cases() {
  std::vector<Case> out;
  const QuantSpec w8 = spec(8, true, true, kNone, kChannel), a8 = spec(8, true, false, kNone, kTensor);
  const std::pair<const char*, Formats> qonnx[] = {
      {"int8", {w8, a8, true}},
      {"int4 and uint4 narrow", {spec(4, true, false, kNone, kTensor), spec(4, false, true, kNone, kTensor), true}},
      {"int2 narrow and uint1", {spec(2, true, true, kNone, kChannel), spec(1, false, false, kNone, kTensor)}},
      {"uint3 with zero points", {spec(3, false, false, kInteger, kChannel), inside(spec(5, false, false, kInteger, kTensor))}},
      {"int12, int16", {spec(12, true, false, kNone, kChannel), spec(16, true, false, kNone, kTensor)}},
      {"activations per channel", {w8, spec(7, true, true, kNone, kChannel)}},
      {"ternary weights", {format("ternary", kChannel), a8}},
      {"binary weights", {format("binary", kChannel), a8}},
      {"binary activations", {w8, format("binary", kTensor)}},
      {"e4m3fn", {minifloat(4, 3, FloatSpecials::kNan, kChannel), minifloat(4, 3, FloatSpecials::kNan, kTensor)}},
      {"e5m2", {minifloat(5, 2, FloatSpecials::kIeee, kTensor), minifloat(5, 2, FloatSpecials::kIeee, kTensor)}},
      {"e3m2, e2m3", {minifloat(3, 2, FloatSpecials::kNone, kTensor), minifloat(2, 3, FloatSpecials::kNone, kTensor)}},
      {"half away", {with(w8, Rounding::kHalfAway), with(a8, Rounding::kHalfAway)}},
      {"up", {with(w8, Rounding::kCeil), with(a8, Rounding::kCeil)}},
      {"down", {with(w8, Rounding::kFloor), with(spec(4, false, false, kNone, kTensor), Rounding::kFloor)}},
      {"toward zero", {with(w8, Rounding::kTowardZero), with(a8, Rounding::kTowardZero)}},
  };
  for (const auto& [name, formats] : qonnx) {
    // |x| + 0.5 in float32 makes 1 of the number below a half, which is what QONNX does.
    const double most = formats.activation.rounding == Rounding::kHalfAway ? 0.01 : 0.002;
    out.push_back({name, "qonnx", json::object(), quantize(small_net(), formats), most});
    if (formats.weight.format == "int" && formats.activation.format == "int" && most < 0.01) {
      QuantizedModel exact = quantize(small_net(), formats);
      round_scales(exact);
      out.push_back({std::string(name) + ", powers of two", "qonnx", json::object(), std::move(exact), 0});
    }
  }
  const QuantSpec channel = spec(4, true, true, kNone, kChannel), a4 = spec(4, true, false, kNone, kTensor);
  const QuantSpec u4 = spec(4, false, false, kNone, kTensor), u1 = spec(1, false, false, kNone, kTensor);
  for (const json& form : {json::object(), json{{"profile", "multithreshold"}}})
    for (const bool powers : {true, false})
      for (const auto& [name, weight, act, relu] :
           {std::tuple{"W4A4", channel, a4, u4}, {"W8A8", spec(8, true, false, kNone, kTensor), a8, spec(8, false, false, kNone, kTensor)},
            {"ternary, one bit behind the ReLU", format("ternary", kChannel), spec(6, true, false, kNone, kTensor), u1}}) {
        QuantizedModel model = for_finn(weight, act, relu);
        if (powers) round_scales(model);
        out.push_back({std::string(name) + (powers ? ", powers of two" : ""), "finn", form, std::move(model), powers ? 0 : 0.002});
      }
  for (const json& form : {json::object(), json{{"generation", "1"}}, json{{"domain", "pyxir.onnx"}}})
    for (const Rounding r : {Rounding::kHalfEven, Rounding::kDpu})
      out.push_back({enum_text(r), "pyxir", form, for_dpu(r), 0, 0});
  return out;
}

// Half of the numbers halfway between two codes of this scale, or next to it.
at::Tensor near_ties(const Shape& shape, float scale) {
  at::Tensor x = noise(shape, 3, 2.2f);
  float* p = x.data_ptr<float>();
  for (std::int64_t i = 0; i < x.numel(); i += 2) {
    const float tie = (std::nearbyint(p[i] / scale) + 0.5f) * scale;
    p[i] = i % 6 == 0 ? tie : std::nextafter(tie, i % 6 == 2 ? 10.0f : -10.0f);
  }
  return x;
}

// A copy of the file for any number of samples with those of these tensors as outputs, too, that it has; the names of all.
std::vector<std::string> expose(const std::string& from, const std::string& to, const std::set<std::string>& tensors) {
  onnx::ModelProto proto;
  std::ifstream in(from, std::ios::binary);
  EXPECT_TRUE(proto.ParseFromIstream(&in)) << from;
  std::vector<std::string> names;
  std::set<std::string> there;
  for (auto& i : *proto.mutable_graph()->mutable_input())
    i.mutable_type()->mutable_tensor_type()->mutable_shape()->mutable_dim(0)->set_dim_param("N");
  for (auto& o : *proto.mutable_graph()->mutable_output()) {
    o.mutable_type()->mutable_tensor_type()->clear_shape();
    there.insert(o.name()), names.push_back(o.name());
  }
  std::vector<std::string> made;
  for (const auto& n : proto.graph().node())
    for (const std::string& t : n.output())
      if (tensors.count(t) && there.insert(t).second) made.push_back(t);
  for (const std::string& t : made) {
    proto.mutable_graph()->add_output()->set_name(t);
    names.push_back(t);
  }
  std::ofstream out(to, std::ios::binary);
  proto.SerializeToOstream(&out);
  return names;
}

class StandardOperators : public RuntimeTest {
 protected:
  // Exit code of standard_onnx.py on these arguments.
  int standard(const std::string& arguments, std::string* said = nullptr) const {
    const char* python = std::getenv("QUANVAS_PYTHON");
    const std::string command = std::string(python ? python : "/usr/bin/python3") +
                                " '" QUANVAS_SOURCE_DIR "/tests/interop/standard_onnx.py'" + arguments + " 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    std::string text;
    char buffer[4096];
    for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
    const int status = pclose(pipe);
    if (said) *said = text;
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return code == 127 ? kNotInstalled : code;
  }
};

TEST_F(StandardOperators, GiveTheNumbersOfTheScreenAtEveryQuantizer) {
  const c10::InferenceMode no_gradient;
  const std::vector<Case> list = cases();
  std::string arguments;
  std::vector<std::map<Site, std::string>> held(list.size());
  JobContext context;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Case& c = list[i];
    SCOPED_TRACE(c.target + " " + c.options.dump() + " " + c.name);
    const Exporter& exporter = **Registry<Exporter>::instance().get(c.target, "target");
    const json options = *exporter.schema().complete(c.options, c.target);
    const auto refused = exporter.check(c.model, options);
    ASSERT_TRUE(refused.empty()) << refused[0].text();
    const std::string file = path("file" + std::to_string(i) + ".onnx");
    const Status written = exporter.write(c.model, file, options, context);
    ASSERT_TRUE(written) << written.error().text();
    const auto back = exporter.read(c.model, file, options, context);
    ASSERT_TRUE(back) << back.error().text();
    for (const auto& [site, place] : back->sites)
      if (is_activation(site.kind)) held[i][site] = place.tensor;
    arguments += " '" + file + "' '" + path("plain" + std::to_string(i) + ".onnx") + "'";
  }
  std::string said;
  const int code = standard(arguments, &said);
  if (code == kNotInstalled) GTEST_SKIP() << "onnx for Python is not installed (apt-get install python3-onnx)";
  ASSERT_EQ(code, 0) << said;

  std::vector<Job> jobs;
  std::vector<std::vector<std::string>> names;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string file = path("all" + std::to_string(i) + ".onnx");
    std::set<std::string> tensors;
    for (const auto& [site, tensor] : held[i]) tensors.insert(tensor);
    names.push_back(expose(path("plain" + std::to_string(i) + ".onnx"), file, tensors));
    const auto& q = list[i].model.quantizers.at({list[i].model.model->graph->find("conv1")->id, SiteKind::kInput, 0});
    jobs.push_back({list[i].name, file, {{"x", near_ties({32, 1, 8, 8}, q.scale[0])}}});
  }
  const auto answers = onnxruntime(jobs);
  if (answers.empty()) GTEST_SKIP() << "onnxruntime-node is not installed (packaging/test installs it)";
  ASSERT_EQ(answers.size(), list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Case& c = list[i];
    SCOPED_TRACE(c.target + " " + c.options.dump() + " " + c.name);
    ASSERT_EQ(answers[i].error, "");
    std::map<std::string, at::Tensor> got;
    for (std::size_t k = 0; k < names[i].size(); ++k) got[names[i][k]] = answers[i].outputs.at(k);
    std::map<Site, at::Tensor> seen;
    exec::RunHooks hooks;
    hooks.quantize = [&](const Site& site, const at::Tensor& v) {
      const auto it = c.model.quantizers.find(site);
      return it == c.model.quantizers.end() ? v : seen[site] = exec::fake_quantize(v, it->second);
    };
    const auto runner = exec::Runner::create(c.model.model, &c.model.quantizers);
    ASSERT_TRUE(runner) << runner.error().text();
    const auto wanted = (*runner)->run({jobs[i].inputs[0].tensor}, hooks);
    ASSERT_TRUE(wanted) << wanted.error().text();
    double values = 0, differing = 0;
    std::size_t sites = 0;
    for (const auto& [site, tensor] : held[i]) {
      if (!seen.count(site) || !got.count(tensor)) continue;
      const at::Tensor &a = seen.at(site), &b = got.at(tensor);
      ASSERT_EQ(a.sizes(), b.sizes()) << tensor;
      ++sites;
      values += static_cast<double>(a.numel());
      differing += a.ne(b).logical_and(a.isnan().logical_and(b.isnan()).logical_not()).sum().item<double>();
    }
    EXPECT_GE(sites, c.target == "pyxir" ? 1u : 3u);  // PyXIR's importer names what lies between layers itself
    EXPECT_LE(differing, c.most * values) << "of " << values;
    if (differing == 0) {
      EXPECT_LE(relative_difference(got.at(names[i][0]), (*wanted)[0]), c.largest);
    }
    std::printf("  %s %s %s: %.0f of %.0f differ\n", c.target.c_str(), c.options.dump().c_str(), c.name.c_str(), differing, values);
  }
}

// What has no definition is said, not guessed.
TEST_F(StandardOperators, RefuseWhatTheyDoNotKnow) {
  onnx::ModelProto proto;
  proto.set_ir_version(8);
  auto* opset = proto.add_opset_import();
  opset->set_version(13);
  auto* node = proto.mutable_graph()->add_node();
  node->set_op_type("Im2Col");
  node->set_domain("qonnx.custom_op.general");
  node->add_input("x");
  node->add_output("y");
  std::ofstream(path("a.onnx"), std::ios::binary) << proto.SerializeAsString();
  std::string said;
  const int code = standard(" '" + path("a.onnx") + "' '" + path("b.onnx") + "'", &said);
  if (code == kNotInstalled) GTEST_SKIP() << "onnx for Python is not installed (apt-get install python3-onnx)";
  EXPECT_EQ(code, 1);
  EXPECT_NE(said.find("Im2Col"), std::string::npos) << said;
  EXPECT_FALSE(fs::exists(path("b.onnx")));
}

}  // namespace
}  // namespace quanvas::interop
