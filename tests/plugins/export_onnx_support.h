// What the tests of ONNX QDQ files share.
#pragma once

#include <filesystem>
#include <fstream>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include "tests/plugins/export_onnx_cases.h"
#include "tests/plugins/onnx_file_test.h"

namespace quanvas {

namespace fs = std::filesystem;
using namespace export_net;
constexpr auto kNone = ZeroPointType::kNone;
constexpr auto kInteger = ZeroPointType::kInteger;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;
constexpr auto kGroup = Granularity::kGroup;

class QdqExport : public OnnxFileTest {
 protected:
  QdqExport() : OnnxFileTest("onnx-qdq") {}
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
