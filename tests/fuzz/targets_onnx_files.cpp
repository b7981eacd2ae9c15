// Targets: ONNX files of the export targets, as their audits and ReadBack read them, and what lies beside them.
#include "core/graph/layers.h"
#include "plugins/exporters/torchscript/exporters.h"
#include "tests/fuzz/exported.h"

namespace quanvas::fuzz {
namespace {

constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;
constexpr auto kGroup = Granularity::kGroup;

const QuantSpec& w8() {
  static const QuantSpec s = ints(8, true, kChannel);
  return s;
}
const QuantSpec& u8() {
  static const QuantSpec s = ints(8, false, kTensor);
  return s;
}
QuantizedModel inputs_only(const QuantSpec& weight, const QuantSpec& activation) {
  Specs specs{weight, activation};
  specs.limits = false;
  return with_specs(picture_model(), specs);
}

// Every audit, and the first one's file as a network: the importer has a target of its own.
void look_at(const std::vector<Exported>& all, const std::string& path) {
  for (const Exported& e : all) audit_file(e, path);
  read_file_again(all.front(), path);
}

const std::vector<Exported>& qdq_files() {
  static const std::vector<Exported> all = {
      {"onnx-qdq", json::object(), inputs_only(w8(), u8())},
      {"onnx-qdq", {{"native", true}}, inputs_only(ints(4, true, kGroup, 2), ints(4, false, kTensor))},
      {"onnx-qdq", json::object(),
       inputs_only(minifloat(4, 3, FloatSpecials::kNan, kChannel), minifloat(4, 3, FloatSpecials::kNan, kTensor))}};
  return all;
}
void read_qdq(const std::string& bytes) {
  look_at(qdq_files(), scratch_file("m.onnx", bytes));
}
Bytes qdq_seeds() {
  return written(qdq_files(), "m.onnx");
}

// Weights in a second file: the first one names it.
const std::vector<Exported>& external_files() {
  static const std::vector<Exported> all = {{"onnx-qdq", {{"external_data", "always"}}, inputs_only(w8(), u8())},
                                            {"onnx", {{"external_data", "always"}}, {picture_model(), {}, {}}}};
  return all;
}
void read_external(const std::string& bytes) {
  static const bool there = (written(external_files(), "external/m.onnx"), true);
  (void)there;
  look_at(external_files(), scratch_file("external/m.onnx", bytes));
}
Bytes external_seeds() {
  return written(external_files(), "external/m.onnx");
}

QuantizedModel everywhere(const QuantSpec& weight, const QuantSpec& activation) {
  Specs specs{weight, activation, true};
  specs.limits = false;
  return with_specs(picture_model(), specs);
}
const std::vector<Exported>& qoperator_files() {
  static const std::vector<Exported> all = {
      {"onnx-qoperator", json::object(), everywhere(w8(), ints(8, true, kTensor))},
      {"onnx-qoperator", {{"gemm", "qgemm"}}, everywhere(w8(), u8())}};
  return all;
}
void read_qoperator(const std::string& bytes) {
  look_at(qoperator_files(), scratch_file("m.onnx", bytes));
}
Bytes qoperator_seeds() {
  return written(qoperator_files(), "m.onnx");
}

const std::vector<Exported>& qonnx_files() {
  static const std::vector<Exported> all = [] {
    QuantSpec inside = ints(5, false, kTensor), binary;
    inside.zero_point_inside = true;
    binary.format = "binary";
    binary.statistic = Statistic::kMean;
    return std::vector<Exported>{
        {"qonnx", json::object(), inputs_only(ints(3, false, kChannel), inside)},
        {"qonnx", json::object(),
         inputs_only(minifloat(4, 3, FloatSpecials::kNan, kChannel),
                     minifloat(5, 2, FloatSpecials::kIeee, kTensor))},
        {"qonnx", {{"groups", "reshape"}}, with_weights(linear_model(4, 4), ints(4, true, kGroup, 2))},
        {"qonnx", json::object(), inputs_only(binary, ints(4, true, kTensor))}};
  }();
  return all;
}
void read_qonnx(const std::string& bytes) {
  look_at(qonnx_files(), scratch_file("m.onnx", bytes));
}
Bytes qonnx_seeds() {
  return written(qonnx_files(), "m.onnx");
}

const std::vector<Exported>& finn_files() {
  static const std::vector<Exported> all = [] {
    const QuantizedModel model = inputs_only(ints(4, true, kChannel), ints(4, true, kTensor));
    return std::vector<Exported>{{"finn", json::object(), model}, {"finn", {{"profile", "multithreshold"}}, model}};
  }();
  return all;
}
void read_finn(const std::string& bytes) {
  look_at(finn_files(), scratch_file("m.onnx", bytes));
}
Bytes finn_seeds() {
  return written(finn_files(), "m.onnx");
}

const std::vector<Exported>& dpu_files() {
  static const std::vector<Exported> all = [] {
    QuantSpec s;
    s.scale = ScaleType::kPowerOfTwo;
    Specs specs{s, s};
    specs.limits = specs.biases = false;
    QuantizedModel model = with_specs(picture_model(), specs);
    for (const Layer& layer : find_layers(*model.model->graph)) {
      if (layer.bias == kNoTensor) continue;
      const TensorData& bias = *model.model->weights->find(model.model->graph->tensor(layer.bias).name);
      model.quantizers[{layer.node, SiteKind::kBias, 0}] =
          *quant::find_params(s, bias.shape, bias.to_floats().data(), 0);
    }
    return std::vector<Exported>{{"pyxir", json::object(), model}, {"pyxir", {{"generation", "1"}}, model}};
  }();
  return all;
}
void read_dpu(const std::string& bytes) {
  static const bool there = (written(dpu_files(), "dpu/m.onnx"), true);  // and the text beside it
  (void)there;
  look_at(dpu_files(), scratch_file("dpu/m.onnx", bytes));
}
Bytes dpu_seeds() {
  return written(dpu_files(), "dpu/m.onnx");
}

constexpr const char* kText = "dputext/m_quantize_info.txt";
void read_dpu_text(const std::string& bytes) {
  static const bool there = (write(dpu_files().front(), scratch_path("dputext/m.onnx")), true);
  (void)there;
  (void)scratch_file(kText, bytes);
  audit_file(dpu_files().front(), scratch_path("dputext/m.onnx"));
}
Bytes dpu_text_seeds() {
  Bytes out;
  for (const Exported& e : dpu_files()) {
    write(e, scratch_path("dputext/m.onnx"));
    out.push_back(contents(scratch_path(kText)));
  }
  return out;
}

// TorchScript's audit looks at the graph that the importer gives it: here one of another importer, without
// LibTorch.
void read_imported(const std::string& bytes) {
  const std::string path = scratch_file("m.onnx", bytes);
  const QuantizedModel& model = qdq_files().front().model;
  (void)torchscript_file::audit_torchscript(model, path);
  JobContext job;
  (void)torchscript_file::read_torchscript(model, path, job);
}

}  // namespace

std::vector<Target> onnx_file_targets() {
  return {{"onnx-qdq", read_qdq, qdq_seeds},
          {"onnx-external", read_external, external_seeds},
          {"onnx-qoperator", read_qoperator, qoperator_seeds},
          {"qonnx", read_qonnx, qonnx_seeds},
          {"finn", read_finn, finn_seeds},
          {"pyxir", read_dpu, dpu_seeds},
          {"pyxir-text", read_dpu_text, dpu_text_seeds},
          {"torchscript-audit", read_imported, qdq_seeds}};
}

}  // namespace quanvas::fuzz
