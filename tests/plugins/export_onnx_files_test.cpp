// ONNX files on the disk: weights beside the model, writes that fail, damaged files.
#include <sys/resource.h>

#include <csignal>
#include <random>

#include "core/base/files.h"
#include "plugins/exporters/onnx_write.h"
#include "tests/plugins/export_onnx_support.h"

namespace quanvas {
namespace {

class QdqFiles : public QdqExport {};

TEST_F(QdqFiles, WeightsBesideTheFile) {
  const QuantizedModel model =
      quantize_all(odd_net(), spec(16, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor));
  const json options = {{"external_data", "always"}};
  EXPECT_EQ(exporter().files(path(), json::object()), std::vector<std::string>{path()});
  ASSERT_NO_FATAL_FAILURE(write(model));
  const auto whole = fs::file_size(path());
  ASSERT_NO_FATAL_FAILURE(write(model, options));
  const std::vector<std::string> files = exporter().files(path(), options);
  ASSERT_EQ(files.size(), 2u);
  ASSERT_TRUE(fs::exists(files[1]));
  EXPECT_EQ(fs::file_size(files[1]), 7u * 140u * 2u) << "what is smaller than 1 KiB stays in the file";
  EXPECT_LT(fs::file_size(path()), whole - 1700);
  EXPECT_EQ(unequal(model), "");
  JobContext job;
  const auto back = import_model(path(), job);
  ASSERT_TRUE(back) << back.error().text();
  // Beyond 2 GiB of a file that has holes before it.
  {
    const onnx::ModelProto proto = load();
    onnx::ModelProto far = proto;
    constexpr std::uint64_t kFar = (std::uint64_t{3} << 30) + 4096;
    for (auto& t : *far.mutable_graph()->mutable_initializer())
      for (auto& e : *t.mutable_external_data())
        if (e.key() == "offset") e.set_value(std::to_string(kFar));
    store(far);
    const std::string bytes = *read_file(files[1]);
    std::ofstream holes(files[1], std::ios::binary);
    holes.seekp(static_cast<std::streamoff>(kFar));
    holes << bytes;
    holes.close();
    EXPECT_EQ(fs::file_size(files[1]), kFar + bytes.size());
    EXPECT_EQ(unequal(model), "");
    const auto distant = import_model(path(), job);
    EXPECT_TRUE(distant) << distant.error().text();
    std::ofstream(files[1], std::ios::binary) << bytes;
    store(proto);
  }
  // One code changed, a truncated and a missing data file: all seen.
  const std::string good = *read_file(files[1]);
  std::string bad = good;
  bad[500] ^= 1;
  std::ofstream(files[1], std::ios::binary) << bad;
  EXPECT_NE(unequal(model), "");
  std::ofstream(files[1], std::ios::binary) << good.substr(0, 100);
  EXPECT_NE(unequal(model), "");
  EXPECT_FALSE(import_model(path(), job));
  fs::remove(files[1]);
  EXPECT_NE(unequal(model), "");
}

// What one file does not hold goes beside it by itself; the sizes are those of more than 2 GiB, seen through a small limit.
TEST_F(QdqFiles, TooMuchForOneFileGoesBesideIt) {
  const ModelPtr model = odd_net();
  for (const std::size_t most : {std::size_t{1} << 30, std::size_t{2000}}) {
    onnx_file::ModelWriter writer(*model, 13);
    for (const Node& n : model->graph->nodes()) ASSERT_TRUE(writer.copy(onnx_file::draft_of(*model->graph, n)));
    ASSERT_TRUE(writer.save(path(), false, most));
    EXPECT_EQ(fs::exists(onnx_file::data_path(path())), most == 2000);
    JobContext job;
    const auto back = import_model(path(), job);
    ASSERT_TRUE(back) << back.error().text();
    EXPECT_EQ(back->weights->find("fc.weight")->to_floats(), model->weights->find("fc.weight")->to_floats());
  }
}

TEST_F(QdqFiles, AFailedWriteBesideLeavesBothFiles) {
  const QuantizedModel model =
      quantize_all(odd_net(), spec(16, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor));
  ASSERT_TRUE(write_file_atomically(path(), "old"));
  fs::create_directories(onnx_file::data_path(path()));  // no file can take its place
  JobContext job;
  EXPECT_FALSE(exporter().write(model, path(), {{"external_data", "always"}}, job));
  EXPECT_EQ(*read_file(path()), "old");
}

// The disk is full at the beginning and in the middle.
TEST_F(QdqFiles, AFullDiskLeavesTheOldFiles) {
  const QuantizedModel model =
      quantize_all(odd_net(), spec(16, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor));
  const json beside = {{"external_data", "always"}};
  ASSERT_NO_FATAL_FAILURE(write(model, beside));
  const std::string data = onnx_file::data_path(path()), old_data = *read_file(data);
  ASSERT_TRUE(write_file_atomically(path(), "old"));
  struct rlimit before {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto was = std::signal(SIGXFSZ, SIG_IGN);
  for (const rlim_t most : {rlim_t{100}, rlim_t{1000}}) {
    struct rlimit small = before;
    small.rlim_cur = most;
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    JobContext job;
    const Status full = exporter().write(model, path(), beside, job);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_FALSE(full);
    EXPECT_EQ(*read_file(path()), "old");
    EXPECT_EQ(*read_file(data), old_data);
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 2) << "no temporary file stays";
  }
  std::signal(SIGXFSZ, was);
}

TEST_F(QdqFiles, DamagedFilesAreErrorsOrUnequalNeverACrash) {
  std::mt19937 generator(5);
  JobContext job;
  for (const char* name : {"native uint2 in groups", "MXFP4", "dynamic", "uint12"}) {
    const auto cases = qdq_cases();
    const auto c = std::find_if(cases.begin(), cases.end(), [&](const QdqCase& q) { return std::string(q.name) == name; });
    ASSERT_NE(c, cases.end()) << name;
    const QuantizedModel model = quantize_all(odd_net(), c->weight, c->activation);
    ASSERT_NO_FATAL_FAILURE(write(model, qdq_json(*c)));
    const std::string good = *read_file(path());
    for (std::size_t keep = 0; keep < good.size(); keep += good.size() / 23) {
      std::ofstream(path(), std::ios::binary) << good.substr(0, keep);
      EXPECT_NE(unequal(model), "") << keep;
      (void)exporter().read(model, path(), json::object(), job);
    }
    for (int i = 0; i < 60; ++i) {
      std::string bad = good;
      for (int k = 0; k < 6; ++k) bad[generator() % bad.size()] = static_cast<char>(generator());
      std::ofstream(path(), std::ios::binary) << bad;
      (void)unequal(model);
      (void)exporter().read(model, path(), json::object(), job);
    }
  }
}

// Dimensions and lengths that the data does not have are held against it before memory is taken.
TEST_F(QdqFiles, HugeClaimsReadAsNothing) {
  const QuantizedModel model =
      quantize_all(odd_net(), spec(4, true, false, kNone, kChannel), spec(8, false, false, kNone, kTensor));
  ASSERT_NO_FATAL_FAILURE(write(model, {{"native", true}}));
  const onnx::ModelProto good = load();
  for (const std::int64_t huge : {std::int64_t{-1}, std::int64_t{1} << 40, std::int64_t{1} << 62}) {
    onnx::ModelProto proto = good;
    for (auto& t : *proto.mutable_graph()->mutable_initializer())
      if (t.name() == "conv.weight_codes") t.set_dims(0, huge);
    store(proto);
    EXPECT_NE(unequal(model), "");
    for (auto& t : *proto.mutable_graph()->mutable_initializer())
      if (t.name() == "conv.weight_codes") {
        t.clear_raw_data();
        t.set_data_location(onnx::TensorProto::EXTERNAL);
        auto* e = t.add_external_data();
        e->set_key("location");
        e->set_value("../../etc/passwd");
      }
    store(proto);
    EXPECT_NE(unequal(model), "");
  }
}

}  // namespace
}  // namespace quanvas
