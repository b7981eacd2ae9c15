// quanvas-cli dump: samples, and what the screen's network computes of them, for other programs.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "tests/app/cli/workflow.h"

namespace quanvas {
namespace {

using testing::HasSubstr;

template <class T>
std::vector<T> raw(const fs::path& path) {
  const std::string bytes = slurp(path);
  std::vector<T> out(bytes.size() / sizeof(T));
  std::copy_n(bytes.data(), out.size() * sizeof(T), reinterpret_cast<char*>(out.data()));
  return out;
}

std::vector<int> numbers(const fs::path& path) {
  std::ifstream in(path);
  return {std::istream_iterator<int>(in), {}};
}

TEST_F(Workflow, ADumpHoldsTheSamplesAndWhatBecomesOfThem) {
  const json quantized = run_json({"quantize", "p.quanvas", "--weights", "8", "--activations", "4"});
  const json index = run_json({"dump", "p.quanvas", "--run", "1", "--out", "d", "--code-samples", "40"});  // more than a chunk
  const fs::path dump = folder_ / "d";
  EXPECT_EQ(json::parse(slurp(dump / "dump.json")), index);
  EXPECT_EQ(index["samples"], 64);
  EXPECT_EQ(index["code_samples"], 40);
  EXPECT_EQ(index["inputs"][0]["type"], "float32");
  EXPECT_EQ(index["inputs"][0]["shape"], (json{64, 1, 8, 8}));
  EXPECT_EQ(index["outputs"][0]["shape"], (json{64, 4}));

  const auto x = raw<float>(dump / index["inputs"][0]["file"]);
  const std::string images = slurp(folder_ / "images.idx").substr(16);
  ASSERT_EQ(x.size(), images.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    ASSERT_FLOAT_EQ(x[i], static_cast<float>(static_cast<unsigned char>(images[i])) / 255) << i;
  const auto labels = numbers(dump / index["labels"]["file"]), predictions = numbers(dump / index["predictions"]["file"]);
  const auto logits = raw<float>(dump / index["outputs"][0]["file"]);
  ASSERT_EQ(labels.size(), 64u);
  ASSERT_EQ(predictions.size(), 64u);
  ASSERT_EQ(logits.size(), 64u * 4);
  int right = 0;
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(labels[i], i % 4);
    EXPECT_EQ(predictions[i], std::max_element(&logits[i * 4], &logits[i * 4] + 4) - &logits[i * 4]);
    right += labels[i] == predictions[i];
  }
  EXPECT_DOUBLE_EQ(quantized["accuracy"]["top1"].get<double>(), right / 64.0);

  const json codes = json::parse(slurp(dump / index["codes"]));
  ASSERT_EQ(codes.size(), 2u);
  for (const json& q : codes) EXPECT_EQ(fs::file_size(dump / q["file"]), q["values"].get<std::size_t>() * 4);
  ASSERT_EQ(codes[0]["values"], 40 * 64);
  std::map<float, int> by_value;  // the codes of the network's input are those of these very samples
  const auto first = raw<std::int32_t>(dump / codes[0]["file"]);
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_EQ(by_value.emplace(x[i], first[i]).first->second, first[i]);
  EXPECT_TRUE(std::is_sorted(by_value.begin(), by_value.end(), [](const auto& a, const auto& b) { return a.second < b.second; }));
  EXPECT_GT(by_value.rbegin()->second, by_value.begin()->second + 10);

  const auto names = [&] {
    std::set<std::string> all;
    for (const auto& entry : fs::directory_iterator(dump)) all.insert(entry.path().filename());
    return all;
  };
  const auto whole = names();
  const json weights = json::parse(slurp(dump / index["weights"]));
  ASSERT_GE(weights.size(), 2u);
  for (const json& w : weights) {
    const auto values = raw<float>(dump / w["file"]);
    std::size_t count = 1;
    for (const std::size_t d : w["shape"]) count *= d;
    ASSERT_EQ(values.size(), count) << w;
    if (w["site"] != "weight") continue;
    const std::size_t channels = w["shape"][0], each = count / channels;
    for (std::size_t c = 0; c < channels; ++c) {  // whole multiples of one scale
      float largest = 0;
      for (std::size_t i = 0; i < each; ++i) largest = std::max(largest, std::abs(values[c * each + i]));
      ASSERT_GT(largest, 0);
      const float scale = largest / 127;
      for (std::size_t i = 0; i < each; ++i)
        EXPECT_NEAR(values[c * each + i] / scale, std::round(values[c * each + i] / scale), 1e-3) << w;
    }
  }
  EXPECT_EQ(whole.size(), 7 + codes.size() + weights.size()) << "nothing unfinished is left";
  ASSERT_EQ(run({"dump", "p.quanvas", "--run", "1", "--out", "e", "--code-samples", "40", "--threads", "1"}).code, 0);
  for (const std::string& name : whole) EXPECT_TRUE(slurp(dump / name) == slurp(folder_ / "e" / name)) << name;

  // A dump that fails leaves the one that was there.
  fs::create_directory(dump / "logits.f32.part");
  const Answer failed = run({"dump", "p.quanvas", "--run", "1", "--out", "d", "--samples", "16"});
  EXPECT_EQ(failed.code, 6) << failed.err;
  EXPECT_THAT(failed.err, HasSubstr("logits.f32'"));
  fs::remove(dump / "logits.f32.part");
  EXPECT_EQ(names(), whole);
  EXPECT_EQ(json::parse(slurp(dump / "dump.json")), index);
  EXPECT_EQ(run_json({"dump", "p.quanvas", "--run", "1", "--out", "d", "--samples", "16"})["samples"], 16);
  EXPECT_EQ(raw<float>(dump / "input-0.bin").size(), 16u * 64);
  EXPECT_EQ(run({"dump", "p.quanvas", "--run", "1", "--out", "images.idx"}).code, 6);
  EXPECT_EQ(run({"dump", "p.quanvas", "--run", "9", "--out", "d"}).code, 3);
  EXPECT_THAT(run({"dump", "p.quanvas", "--run", "1", "--out", "f", "--samples", "16"}).out, HasSubstr("labels of 16 samples"));
}

}  // namespace
}  // namespace quanvas
