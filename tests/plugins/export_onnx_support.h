// What the tests of ONNX QDQ files share.
#pragma once

#include <filesystem>
#include <fstream>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include "tests/plugins/export_onnx_cases.h"

namespace quanvas {

namespace fs = std::filesystem;
using namespace export_net;
constexpr auto kNone = ZeroPointType::kNone;
constexpr auto kInteger = ZeroPointType::kInteger;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;
constexpr auto kGroup = Granularity::kGroup;

class QdqExport : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("quanvas-qdq-" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name = "out.onnx") const { return (folder_ / name).string(); }
  static const Exporter& exporter() { return **Registry<Exporter>::instance().get("onnx-qdq", "target"); }

  void write(const QuantizedModel& model, const json& options = json::object()) {
    const auto refusals = exporter().check(model, options);
    ASSERT_TRUE(refusals.empty()) << refusals[0].text();
    JobContext job;
    const Status written = exporter().write(model, path(), options, job);
    ASSERT_TRUE(written) << written.error().text();
  }
  onnx::ModelProto load() const {
    onnx::ModelProto proto;
    std::ifstream in(path(), std::ios::binary);
    EXPECT_TRUE(proto.ParseFromIstream(&in));
    return proto;
  }
  void store(const onnx::ModelProto& proto) const {
    std::ofstream out(path(), std::ios::binary);
    proto.SerializeToOstream(&out);
  }
  // Empty: every row is equal.
  std::string unequal(const QuantizedModel& model) const {
    const auto rows = exporter().audit(model, path(), json::object());
    if (!rows) return rows.error().text();
    std::string out = rows->size() < model.quantizers.size() ? "too few rows" : "";
    for (const AuditRow& r : *rows)
      if (!r.equal || r.bytes < 0) out += r.layer + " " + r.quantizer + ": " + r.requested + " | " + r.written + "\n";
    return out;
  }
  fs::path folder_;
};

inline at::Tensor input(std::int64_t n) {
  at::manual_seed(3);
  return at::rand({n, 3, 7, 5}) * 5 - 2.5;
}

inline std::size_t nodes_of(const onnx::ModelProto& proto, const std::string& op) {
  std::size_t n = 0;
  for (const auto& node : proto.graph().node()) n += node.op_type() == op;
  return n;
}

inline const onnx::TensorProto* find_tensor(const onnx::ModelProto& proto, const std::string& name) {
  for (const auto& t : proto.graph().initializer())
    if (t.name() == name) return &t;
  return nullptr;
}

}  // namespace quanvas
