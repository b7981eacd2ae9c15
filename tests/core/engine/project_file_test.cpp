// The project file: nothing that was confirmed is lost, nothing strange is opened, one writer at a time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "core/project/project.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ProjectFile : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() / ("quanvas-project-" + std::string(info->name()) + "-" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "models");
    folder_ = fs::canonical(folder_);
    std::ofstream(folder_ / "models/net.onnx") << "model";
    path_ = (folder_ / "net.quanvas").string();
  }
  void TearDown() override {
    std::error_code ec;
    fs::permissions(folder_, fs::perms::owner_all, ec);
    fs::remove_all(folder_);
  }

  std::unique_ptr<Project> create() {
    auto project = Project::create(path_, (folder_ / "models/net.onnx").string());
    EXPECT_TRUE(project) << (project ? "" : project.error().text());
    return project ? std::move(*project) : nullptr;
  }
  std::unique_ptr<Project> open() { return open(path_); }
  static std::unique_ptr<Project> open(const std::string& path) {
    auto project = Project::open(path);
    EXPECT_TRUE(project) << (project ? "" : project.error().text());
    return project ? std::move(*project) : nullptr;
  }
  static std::string refused(const std::string& path) {
    const auto project = Project::open(path);
    return project ? "" : project.error().text();
  }
  void sql(const std::string& text) const {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db, text.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
    sqlite3_close(db);
  }

  fs::path folder_;
  std::string path_;
};

Recipe named(const std::string& name) {
  Recipe recipe = uniform_recipe(4, 8);
  recipe.name = name;
  return recipe;
}

TEST_F(ProjectFile, KeepsEverything) {
  DataSettings data;
  data.name = "Fashion-MNIST";
  data.evaluate = {"idx", {{"images", "t10k"}}, 3, 9};
  quanvas::Run run;
  run.name = "W4A8";
  run.accuracy = Accuracy{100, 0.5, 0.9, 1.25, 0.05, NAN, INFINITY};
  std::string key;
  {
    const auto project = create();
    ASSERT_NE(project, nullptr);
    EXPECT_FALSE(project->read_only());
    EXPECT_EQ(*project->recipe(), Recipe{});
    EXPECT_EQ(*project->data(), DataSettings{});
    EXPECT_EQ(*project->value("layout"), "");
    ASSERT_TRUE(project->set_recipe(named("a"), "first"));
    ASSERT_TRUE(project->set_recipe(named("b"), "second \"quoted\" '; DROP TABLE edits;"));
    ASSERT_TRUE(project->set_data(data));
    ASSERT_TRUE(project->set_value("layout", std::string("bytes\0inside", 12)));
    ASSERT_TRUE(project->set_value("layout", std::string("again\0inside", 12)));
    key = *project->put_artifact(std::string("weights\0", 8));
    run.artifact = key;
    EXPECT_EQ(*project->add_run(run), 1);
    EXPECT_EQ(*project->add_run(quanvas::Run{}), 2);
    run.id = 2;
    run.name = "changed";
    ASSERT_TRUE(project->update_run(run));
  }
  const auto project = open();
  ASSERT_NE(project, nullptr);
  EXPECT_EQ(project->model_path(), (folder_ / "models/net.onnx").string());
  EXPECT_EQ(project->recipe()->name, "b");
  EXPECT_EQ(*project->data(), data);
  EXPECT_EQ(*project->value("layout"), std::string("again\0inside", 12));
  EXPECT_EQ(*project->artifact(key), std::string("weights\0", 8));
  const auto runs = project->runs();
  ASSERT_TRUE(runs) << runs.error().text();
  ASSERT_EQ(runs->size(), 2u);
  EXPECT_EQ((*runs)[0].id, 1);
  EXPECT_EQ((*runs)[0].artifact, key);
  EXPECT_FALSE((*runs)[0].created.empty());
  EXPECT_TRUE(std::isnan((*runs)[0].accuracy->agreement));
  EXPECT_EQ((*runs)[1].name, "changed");
  EXPECT_EQ(project->run(2)->id, 2);
}

TEST_F(ProjectFile, EditsAreTheLastOnesOldestFirst) {
  const auto project = create();
  for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(project->set_recipe(named(name), std::string("set ") + name));
  const auto edits = project->edits(2);
  ASSERT_TRUE(edits);
  ASSERT_EQ(edits->size(), 2u);
  EXPECT_EQ((*edits)[0].label, "set b");
  EXPECT_EQ((*edits)[1].after.name, "c");
  EXPECT_LT((*edits)[0].id, (*edits)[1].id);
  EXPECT_THAT((*edits)[1].time, ::testing::MatchesRegex("....-..-..T..:..:..Z"));
  EXPECT_EQ(project->edits(100)->size(), 3u);
  EXPECT_EQ(project->edits(0)->size(), 0u);
}

TEST_F(ProjectFile, CreateRefusesWhatIsThere) {
  create();
  EXPECT_THAT(Project::create(path_, "m.onnx").error().text(), HasSubstr("There is already a file"));
  EXPECT_THAT(Project::create((folder_ / "no/x.quanvas").string(), "m").error().text(), HasSubstr("There is no folder"));
  EXPECT_FALSE(Project::create("", "m"));
  for (const auto& entry : fs::directory_iterator(folder_)) EXPECT_THAT(entry.path().string(), ::testing::Not(HasSubstr(".new-")));
}

TEST_F(ProjectFile, WhatIsMissingIsSaid) {
  const auto project = create();
  EXPECT_THAT(project->run(7).error().text(), HasSubstr("There is no run 7"));
  quanvas::Run run;
  run.id = 7;
  EXPECT_THAT(project->update_run(run).error().text(), HasSubstr("There is no run 7"));
  run.artifact = std::string(32, 'a');
  EXPECT_THAT(project->add_run(run).error().text(), HasSubstr("which this project does not hold"));
  EXPECT_TRUE(project->runs()->empty()) << "a refused run leaves no trace";
  for (const char* key : {"", "../net.quanvas", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"})
    EXPECT_THAT(project->artifact(key).error().text(), HasSubstr("is missing beside the project"));
  const std::string key = *project->put_artifact("abc");
  std::ofstream(path_ + ".data/" + key) << "xyz";
  EXPECT_THAT(project->artifact(key).error().text(), HasSubstr("is damaged"));
}

TEST_F(ProjectFile, DamagedArtifactsAreWrittenAnew) {
  const auto project = create();
  const std::string key = *project->put_artifact("abc"), copy_path = (folder_ / "copy.quanvas").string();
  std::ofstream(path_ + ".data/" + key) << "xyz";  // of the same size
  EXPECT_EQ(*project->put_artifact("abc"), key);
  EXPECT_EQ(*project->artifact(key), "abc");
  for (const char* damage : {"xyz", "a", ""}) {
    ASSERT_TRUE(project->save_copy(copy_path));
    std::ofstream(copy_path + ".data/" + key) << damage;
    ASSERT_TRUE(project->save_copy(copy_path));
    EXPECT_EQ(*open(copy_path)->artifact(key), "abc") << damage;
  }
}

TEST_F(ProjectFile, OtherFilesAreRefused) {
  EXPECT_THAT(refused((folder_ / "none").string()), HasSubstr("There is no project"));
  EXPECT_THAT(refused(folder_.string()), HasSubstr("is no file"));
  for (const std::string& bytes : {std::string(), std::string("x"), std::string(5000, 'x'), std::string("SQLite format 3\0", 16)}) {
    std::ofstream(path_, std::ios::trunc) << bytes;
    EXPECT_THAT(refused(path_), HasSubstr("is no Quanvas project")) << bytes.size();
    EXPECT_FALSE(fs::exists(path_ + ".lock"));
  }
  fs::remove(path_);
  sql("CREATE TABLE t (x)");
  EXPECT_THAT(refused(path_), HasSubstr("SQLite file of another program"));
}

TEST_F(ProjectFile, OtherVersionsAndDamageAreRefused) {
  create();
  sql("PRAGMA user_version = 2");
  EXPECT_THAT(refused(path_), HasSubstr("written by a newer version of Quanvas (file version 2; this program knows 1)"));
  for (const char* version : {"0", "-1"}) {
    sql(std::string("PRAGMA user_version = ") + version);
    EXPECT_THAT(refused(path_), HasSubstr("is damaged"));
  }
  sql("PRAGMA user_version = 1; DROP TABLE runs;");
  EXPECT_THAT(refused(path_), HasSubstr("tables are missing"));
}

TEST_F(ProjectFile, DamagedRowsAreSaid) {
  {
    const auto project = create();
    ASSERT_TRUE(project->set_recipe(named("a"), "x"));
    quanvas::Run run;
    run.name = "broken";
    ASSERT_TRUE(project->add_run(run));
    run.name = "whole";
    ASSERT_TRUE(project->add_run(run));
  }
  sql("UPDATE edits SET recipe = '{\"name\": 3}'; UPDATE runs SET body = 'no' WHERE id = 1; "
      "INSERT INTO settings VALUES ('data', '[]');");
  const auto project = open();
  EXPECT_THAT(project->recipe().error().text(), HasSubstr("holds a recipe that cannot be read"));
  EXPECT_TRUE(project->edits(10)->empty());
  std::vector<Issue> unreadable;
  const auto runs = project->runs(&unreadable);
  ASSERT_TRUE(runs) << "the others can be read";
  ASSERT_EQ(runs->size(), 1u);
  EXPECT_EQ(runs->front().name, "whole");
  ASSERT_EQ(unreadable.size(), 1u);
  EXPECT_THAT(unreadable[0].message, HasSubstr("Run 1 (broken) cannot be read"));
  EXPECT_THAT(project->run(1).error().text(), HasSubstr("holds a run that cannot be read"));
  EXPECT_THAT(project->data().error().text(), HasSubstr("holds a data set declaration that cannot be read"));
}

TEST_F(ProjectFile, TextsThatAreNestedTooDeepAreSaid) {
  {
    const auto project = create();
    quanvas::Run run;
    run.name = "deep";
    ASSERT_TRUE(project->add_run(run));
  }
  // As text of the project and, copied, as options in it: both would take more stack than there is.
  const std::string deep = "replace(hex(zeroblob(2000000)), '00', '[') || replace(hex(zeroblob(2000000)), '00', ']')";
  sql("UPDATE runs SET body = '{\"name\": ' || " + deep + " || '}'");
  sql("INSERT INTO settings VALUES ('data', '{\"train\": {\"options\": ' || " + deep + " || '}}')");
  const auto project = open();
  ASSERT_NE(project, nullptr);
  std::vector<Issue> unreadable;
  EXPECT_TRUE(project->runs(&unreadable)->empty());
  ASSERT_EQ(unreadable.size(), 1u);
  EXPECT_THAT(unreadable[0].message, HasSubstr("is nested more than"));
  EXPECT_THAT(project->data().error().text(), HasSubstr("is nested more than"));
}

// A schema can compute: each of these makes hundreds of megabytes of nothing, or changes what is stored.
TEST_F(ProjectFile, ForeignSchemasAreRefused) {
  const char* const rows[] = {
      "CREATE TRIGGER t AFTER INSERT ON edits BEGIN DELETE FROM runs; END",
      "CREATE VIEW v AS SELECT 1",
      "CREATE TABLE more (a)",
      "CREATE INDEX i ON runs (hex(zeroblob(400000000)))",
      "CREATE VIRTUAL TABLE v USING fts5 (a)",
      "DROP TABLE runs; CREATE TABLE runs (id INTEGER PRIMARY KEY, kind, name, created, artifact, "
      "body AS (hex(zeroblob(400000000)))); INSERT INTO runs (kind) VALUES ('float')",
      "DROP TABLE texts; CREATE TABLE texts (key, value CHECK (length(hex(zeroblob(400000000))) > 0)); INSERT INTO texts VALUES (1, 2)",
  };
  for (const char* const row : rows) {
    create().reset();
    sql(row);
    EXPECT_THAT(refused(path_), HasSubstr("that Quanvas has not made")) << row;
    fs::remove(path_);
  }
  create().reset();
  sql("INSERT INTO texts VALUES ('a', 'b'); ANALYZE;");  // what tools for SQLite do is no harm
  EXPECT_EQ(refused(path_), "");
}

TEST_F(ProjectFile, TruncatedFilesNeverCrash) {
  {
    const auto project = create();
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(project->set_recipe(named(std::string(500, 'x')), "edit"));
  }
  const std::string whole = [&] {
    std::ifstream in(path_, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }();
  ASSERT_GT(whole.size(), 20000u);
  for (std::size_t n = 0; n < whole.size(); n += whole.size() / 23) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << whole.substr(0, n);
    EXPECT_NE(refused(path_), "") << n;
  }
  int refusals = 0;
  for (std::size_t n = 0; n < whole.size(); n += 997) {
    std::string bad = whole;
    for (std::size_t i = n; i < std::min(n + 200, bad.size()); ++i) bad[i] = static_cast<char>(bad[i] ^ 0xa5);
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bad;
    const auto project = Project::open(path_);
    if (!project) {
      ++refusals;
      continue;
    }
    (void)(*project)->recipe();
    (void)(*project)->edits(100);
  }
  EXPECT_GT(refusals, 5);
}

TEST_F(ProjectFile, SecondWriterGetsItReadOnly) {
  const auto first = create();
  ASSERT_TRUE(first->set_recipe(named("a"), "x"));
  auto second = open();
  ASSERT_NE(second, nullptr);
  EXPECT_TRUE(second->read_only());
  EXPECT_THAT(second->read_only_reason(), HasSubstr("The project is open in this program"));
  const auto status = second->set_recipe(named("b"), "y");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kReadOnly);
  EXPECT_FALSE(second->set_data({}));
  EXPECT_FALSE(second->set_value("k", "v"));
  EXPECT_FALSE(second->add_run({}));
  EXPECT_FALSE(second->update_run({}));
  EXPECT_FALSE(second->put_artifact("x"));
  ASSERT_TRUE(first->set_recipe(named("c"), "z"));
  EXPECT_EQ(second->recipe()->name, "c") << "a reader sees what the writer confirms";
}

TEST_F(ProjectFile, AnotherProcessIsNamed) {
  create();
  int ready[2], done[2];
  ASSERT_EQ(pipe(ready), 0);
  ASSERT_EQ(pipe(done), 0);
  const pid_t child = fork();
  if (child == 0) {
    auto project = Project::open(path_);
    char byte = project && !(*project)->read_only();
    if (write(ready[1], &byte, 1) == 1 && read(done[0], &byte, 1) == 1) _exit(0);
    _exit(1);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  ASSERT_EQ(byte, 1);
  {
    const auto project = open();
    EXPECT_THAT(project->read_only_reason(), HasSubstr("open in process " + std::to_string(child) + " on this machine"));
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_FALSE(open()->read_only()) << "a lock goes away with its process";
}

TEST_F(ProjectFile, WriteProtectedFolder) {
  ASSERT_TRUE(create()->set_value("k", "v"));
  fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec);
  if (access(folder_.c_str(), W_OK) == 0) GTEST_SKIP() << "this user may write everywhere";
  const auto project = open();
  ASSERT_NE(project, nullptr);
  EXPECT_TRUE(project->read_only());
  EXPECT_EQ(*project->value("k"), "v");
}

// A child writes edits as fast as it can and tells each one that was confirmed; it is killed in the middle.
TEST_F(ProjectFile, AFullDiskLetsRead) {
  {
    const auto project = create();
    ASSERT_TRUE(project->set_recipe(named("a"), "x"));
  }
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit none{0, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &none);
  const auto project = Project::open(path_);
  const std::string name = project ? (*project)->recipe()->name : project.error().text();
  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(name, "a");
  ASSERT_TRUE(project);
  EXPECT_TRUE((*project)->read_only());
  EXPECT_THAT((*project)->read_only_reason(), HasSubstr("open for reading only"));
}

TEST_F(ProjectFile, KillLosesNoConfirmedEdit) {
  create();
  std::int64_t total = 0;
  for (int round = 0; round < 8; ++round) {
    int confirmed[2];
    ASSERT_EQ(pipe(confirmed), 0);
    const pid_t child = fork();
    if (child == 0) {
      auto project = Project::open(path_);
      for (std::int64_t i = total; project; ++i)
        if (!(*project)->set_recipe(named("edit " + std::to_string(i)), "e") || write(confirmed[1], &i, sizeof i) != sizeof i) break;
      _exit(1);
    }
    close(confirmed[1]);
    std::int64_t last = total - 1, value = 0;
    for (int i = 0; i < 3 + round && read(confirmed[0], &value, sizeof value) == sizeof value; ++i) last = value;
    usleep(static_cast<useconds_t>(500 * round));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    while (read(confirmed[0], &value, sizeof value) == sizeof value) last = value;
    close(confirmed[0]);
    const auto project = open();
    ASSERT_NE(project, nullptr);
    EXPECT_FALSE(project->read_only());
    const auto edits = project->edits(1000000);
    ASSERT_TRUE(edits) << edits.error().text();
    // Every confirmed one, in order; at most one more that was stored but not yet confirmed.
    const auto stored = static_cast<std::int64_t>(edits->size());
    EXPECT_GE(stored, last + 1);
    EXPECT_LE(stored, last + 2);
    for (std::int64_t i = 0; i < stored; ++i) EXPECT_EQ((*edits)[static_cast<std::size_t>(i)].after.name, "edit " + std::to_string(i));
    total = stored;
  }
  EXPECT_GE(total, 8 * 3);
}

TEST_F(ProjectFile, CopyElsewhereKeepsItsPathsValid) {
  fs::create_directories(folder_ / "data");
  std::ofstream(folder_ / "data/x.idx") << "x";
  const std::string elsewhere = (folder_ / "other/copy.quanvas").string();
  std::string key;
  {
    const auto project = create();
    DataSettings data;
    data.calibrate = {"idx", {{"images", "data/x.idx"}, {"labels", ""}, {"word", "nchw"}}, 0, -1};
    ASSERT_TRUE(project->set_data(data));
    ASSERT_TRUE(project->set_recipe(named("a"), "x"));
    key = *project->put_artifact("tensor");
    EXPECT_THAT(project->save_copy(elsewhere).error().text(), HasSubstr("There is no folder"));
    fs::create_directories(folder_ / "other");
    ASSERT_TRUE(project->save_copy(elsewhere)) << project->save_copy(elsewhere).error().text();
    EXPECT_THAT(project->save_copy(path_).error().text(), HasSubstr("would replace the project itself"));
  }
  fs::remove(path_);
  fs::remove_all(path_ + ".data");
  {
    const auto copy = open(elsewhere);
    ASSERT_NE(copy, nullptr);
    EXPECT_FALSE(copy->read_only());
    EXPECT_EQ(copy->recipe()->name, "a");
    EXPECT_EQ(*copy->artifact(key), "tensor");
    EXPECT_EQ(copy->model_path(), (folder_ / "models/net.onnx").string());
    EXPECT_EQ(copy->data()->calibrate.options["images"], (folder_ / "data/x.idx").string());
    EXPECT_EQ(copy->data()->calibrate.options["word"], "nchw");
    ASSERT_TRUE(copy->save_copy((folder_ / "back.quanvas").string()));
  }
  // Back beside its data the paths are relative again.
  EXPECT_EQ(open((folder_ / "back.quanvas").string())->data()->calibrate.options["images"], "data/x.idx");
}

TEST_F(ProjectFile, CopyReplacesOnlyProjectsThatNobodyHasOpen) {
  const auto project = create();
  ASSERT_TRUE(project->set_recipe(named("new"), "x"));
  const std::string target = (folder_ / "t.quanvas").string();
  {
    auto there = Project::create(target, "m.onnx");
    ASSERT_TRUE(there);
    ASSERT_TRUE((*there)->set_recipe(named("old"), "x"));
    EXPECT_THAT(project->save_copy(target).error().text(), HasSubstr("cannot be replaced"));
  }
  ASSERT_TRUE(project->save_copy(target));
  EXPECT_EQ(open(target)->recipe()->name, "new");
  std::ofstream(folder_ / "letter.txt") << "dear";
  EXPECT_THAT(project->save_copy((folder_ / "letter.txt").string()).error().text(), HasSubstr("is no Quanvas project"));
}

TEST_F(ProjectFile, MovedFolderStillFindsItsModel) {
  create();
  const fs::path moved = folder_.string() + "-moved";
  fs::rename(folder_, moved);
  EXPECT_EQ(open((moved / "net.quanvas").string())->model_path(), (moved / "models/net.onnx").string());
  fs::rename(moved, folder_);
}

TEST_F(ProjectFile, ManyThreadsWriteAtOnce) {
  const auto project = create();
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        EXPECT_TRUE(project->set_recipe(named(std::to_string(t)), "x"));
        EXPECT_TRUE(project->add_run({}));
        EXPECT_TRUE(project->put_artifact("same bytes"));
        EXPECT_TRUE(project->recipe());
      }
    });
  threads.clear();
  EXPECT_EQ(project->edits(1000)->size(), 80u);
  const auto runs = project->runs();
  ASSERT_EQ(runs->size(), 80u);
  for (std::size_t i = 0; i < 80; ++i) EXPECT_EQ((*runs)[i].id, static_cast<std::int64_t>(i + 1));
}

}  // namespace
}  // namespace quanvas
