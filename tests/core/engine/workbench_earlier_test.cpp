// Projects of earlier versions: statistics that were stored before batches were kept.
#include <sqlite3.h>

#include <cstring>

#include "core/project/project.h"
#include "core/workflow/state.h"
#include "tests/core/engine/workbench_support.h"

namespace quanvas {
namespace {

using testing::WorkbenchTest;

// The container with each "QVS2" as the "QVS1" that it would have been.
std::string without_batches(const std::string& bytes) {
  const auto statistics = unpack_statistics(bytes);
  EXPECT_TRUE(statistics) << statistics.error().text();
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  json header = json::parse(bytes.substr(8, length));
  std::string data;
  for (auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const auto& s = statistics->tensors.at(name.substr(std::string("statistics/").size()));
    // Batches of 60 bytes, sums of channels of 8, each after their number (a byte for so few).
    EXPECT_TRUE(s.batches().size() < 128 && !s.batches().empty() && s.channel_sums().size() < 128) << name;
    const std::size_t tail = 2 + 60 * s.batches().size() + 8 * s.channel_sums().size();
    const auto begin = entry["data_offsets"][0].get<std::size_t>(),
               end = entry["data_offsets"][1].get<std::size_t>();
    std::string own = bytes.substr(8 + length + begin, end - begin - tail);
    own[3] = '1';
    const auto read = quant::TensorStatistics::deserialize(own);
    EXPECT_TRUE(read && read->batches().empty()) << name;
    entry["shape"] = {own.size()};
    entry["data_offsets"] = {data.size(), data.size() + own.size()};
    data += own;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  length = text.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + text + data;
}

std::string statistics_key(const std::string& project) {
  sqlite3* db = nullptr;
  EXPECT_EQ(sqlite3_open(project.c_str(), &db), SQLITE_OK);
  std::string key;
  const auto take = [](void* out, int, char** values, char**) {
    *static_cast<std::string*>(out) = values[0];
    return 0;
  };
  EXPECT_EQ(sqlite3_exec(db, "SELECT key FROM texts WHERE key LIKE 'statistics/%'", take, &key, nullptr), SQLITE_OK)
      << sqlite3_errmsg(db);
  sqlite3_close(db);
  return key;
}

struct Answer {
  int again = 0;         // how often the calibration said that it was done again
  double scale = 0;      // of fc1's input
  std::string artifact;  // of the run
};

TEST_F(WorkbenchTest, StatisticsWithoutBatchesAreGatheredAgainWhereBatchesAreAskedFor) {
  const auto recipe_of = [](const std::string& batches) {
    auto recipe = parse_recipe(
        "rules:\n  - {select: {names: [fc1], sites: [input]}, set: {batches: " + batches + "}}\n", "r.yaml");
    EXPECT_TRUE(recipe) << recipe.error().text();
    return recipe.value_or(Recipe{});
  };
  const auto ask = [&](const std::string& batches) {
    Answer answer;
    JobContext job({}, {}, [&](const Issue& issue) { answer.again += issue.message.starts_with("Done again"); });
    RunRequest request;
    request.recipe = recipe_of(batches);
    const auto run = bench_->run_recipe(request, job);
    EXPECT_TRUE(run) << run.error().text();
    if (run) answer.artifact = run->artifact;
    const auto facts = bench_->layer_facts(recipe_of(batches), node("fc1"));
    EXPECT_TRUE(facts && facts->sites.size() == 1);
    if (facts && !facts->sites.empty()) answer.scale = facts->sites[0].scale_max;
    return answer;
  };
  ASSERT_NO_FATAL_FAILURE(open());
  ASSERT_TRUE(bench_->calibrate(job_));
  const Answer all = ask("all"), mean = ask("mean");
  EXPECT_EQ(all.again + mean.again, 0);
  EXPECT_NE(all.scale, mean.scale);
  bench_.reset();

  const std::string project = (dir_ / "tiny.quanvas").string(), key = statistics_key(project);
  ASSERT_FALSE(key.empty());
  {
    auto file = Project::open(project);
    ASSERT_TRUE(file) << file.error().text();
    const auto artifact = (*file)->value(key);
    ASSERT_TRUE(artifact);
    const auto bytes = (*file)->artifact(*artifact);
    ASSERT_TRUE(bytes) << bytes.error().text();
    const auto stored = (*file)->put_artifact(without_batches(*bytes));
    ASSERT_TRUE(stored) << stored.error().text();
    ASSERT_NE(*stored, *artifact);
    ASSERT_TRUE((*file)->set_value(key, *stored));
  }
  ASSERT_NO_FATAL_FAILURE(open());
  const Answer old_all = ask("all");
  EXPECT_EQ(old_all.again, 0) << "nothing asks for batches";
  EXPECT_EQ(old_all.scale, all.scale);
  EXPECT_EQ(old_all.artifact, all.artifact);
  const Answer old_mean = ask("mean");
  EXPECT_EQ(old_mean.again, 1);
  EXPECT_EQ(old_mean.scale, mean.scale);
  EXPECT_EQ(old_mean.artifact, mean.artifact);
  EXPECT_EQ(ask("mean").again, 0) << "once is enough";
  ASSERT_NO_FATAL_FAILURE(open());
  EXPECT_EQ(ask("mean").again, 0) << "what was gathered is stored";
}

}  // namespace
}  // namespace quanvas
