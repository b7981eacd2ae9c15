// Quanvas - ONNX QOperator: QLinearConv, QLinearMatMul and onnxruntime's operators on codes; what has no such form runs
// in float between DequantizeLinear and QuantizeLinear.
#include "plugins/exporters/onnx_qoperator.h"

#include "core/base/guarded.h"
#include "core/plugin/registry.h"
#include "plugins/exporters/onnx_write.h"

namespace quanvas {
namespace {

using namespace onnx_file;

class OnnxQOperatorExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"onnx-qoperator", "ONNX QOperator",
            "ONNX with operators on 8 bit codes: QLinearConv, QLinearMatMul, and onnxruntime's own for sums, pools and "
            "curves. Runs in onnxruntime; the portable part wherever ONNX's integer operators do."};
  }
  std::string extension() const override { return ".onnx"; }
  Schema schema() const override {
    return {{choice_field("gemm", "Products with a bias", "How Gemm, and MatMul with a bias, are written.", "qlinearconv",
                          {{"qlinearconv", "QLinearConv", "As a convolution of one pixel: portable."},
                           {"qgemm", "QGemm", "An operator of onnxruntime."},
                           {"qlinearmatmul", "QLinearMatMul", "Portable; layers with a bias are refused."}}),
             bool_field(
                 "mixed", "Float where a quantizer is missing",
                 "Layers that lack a quantizer compute in float from stored codes, as in ONNX QDQ, instead of being refused.",
                 false),
             external_field()}};
  }

  TargetTable table(const json&) const override { return qoperator_table(); }
  std::vector<std::string> files(const std::string& path, const json& options) const override {
    return onnx_files(path, qoperator_options(options).external);
  }
  std::vector<Refusal> check(const QuantizedModel& model, const json& options) const override {
    return check_qoperator(model, qoperator_options(options));
  }
  Status write(const QuantizedModel& model, const std::string& path, const json& options, JobContext& job) const override {
    return guarded("Export to ONNX QOperator", [&] { return write_qoperator(model, qoperator_options(options), path, job); });
  }
  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path, const json&) const override {
    return guarded("Audit of '" + path + "'", [&] { return audit_qoperator(model, path); });
  }
  Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json&, JobContext& job) const override {
    return guarded("Reading '" + path + "' again", [&]() -> Result<ReadBack> {
      QUANVAS_TRY(Model written, import_model(path, job));
      ReadBack back;
      back.model = std::make_shared<const Model>(std::move(written));
      QUANVAS_CHECK(find_codes(model, path, back));
      return back;
    });
  }
};
QUANVAS_PLUGIN(Exporter, OnnxQOperatorExporter)

}  // namespace
}  // namespace quanvas
