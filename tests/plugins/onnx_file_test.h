// A folder of its own, and one target that writes ONNX files into it: what the tests of these targets share.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include "core/plugin/registry.h"

namespace quanvas {

class OnnxFileTest : public ::testing::Test {
 protected:
  explicit OnnxFileTest(std::string target)
      : target_(std::move(target)),
        folder_(std::filesystem::temp_directory_path() / ("quanvas-" + target_ + "-" + std::to_string(getpid()))) {}
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name = "out.onnx") const { return (folder_ / name).string(); }
  const Exporter& exporter() const { return **Registry<Exporter>::instance().get(target_, "target"); }
  void write(const QuantizedModel& model, const json& options = json::object()) const {
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

  const std::string target_;
  const std::filesystem::path folder_;
};

}  // namespace quanvas
