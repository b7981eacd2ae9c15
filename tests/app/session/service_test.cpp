// The engine's service, asked by the window's client over a real socket.
#include <sys/stat.h>

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "app/engine/service_jobs.h"
#include "app/session/client.h"
#include "core/protocol/wire.h"
#include "tests/app/session/fake_engine.h"

namespace quanvas {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

class ServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    server_ = std::make_unique<Server>(test::fake_backend(world_), [this] { ++shutdowns_; });
    const auto status = server_->listen(folder_.address());
    ASSERT_TRUE(status) << status.error().text();
    auto client = EngineClient::connect(folder_.address(), 5s, {});
    ASSERT_TRUE(client) << client.error().text();
    client_ = *client;
  }
  void open() {
    const auto opened = client_->open("net.onnx", {}, {}, {});
    ASSERT_TRUE(opened) << opened.error().text();
  }

  test::FakeWorld world_;
  test::SocketFolder folder_;
  std::atomic<int> shutdowns_ = 0;
  std::unique_ptr<Server> server_;
  std::shared_ptr<EngineClient> client_;
};

TEST_F(ServiceTest, SaysHelloAndOpens) {
  const auto hello = client_->hello();
  ASSERT_TRUE(hello) << hello.error().text();
  EXPECT_EQ(hello->versions.at("quanvas"), "test");
  const auto opened = client_->open("net.onnx", {}, {}, {});
  ASSERT_TRUE(opened) << opened.error().text();
  EXPECT_EQ(opened->graph->hash(), test::small_graph()->hash());
  EXPECT_EQ(opened->state.project_path, "net.onnx");
}

TEST(Refusals, TravelPackedAndComeBackAsTheyWere) {
  QuantSpec four;
  four.bits = 4;
  std::vector<Refusal> all = {{"", "", "calibration", "none", "some", "Calibrate.", {}, {}, false}};
  for (int i = 0; i < 1000; ++i)
    all.push_back({"layer" + std::to_string(i), "weight", "bits", i % 2 ? "8 bit" : "7 bit", "4 bit", "Use 4 bits.", Site{i, SiteKind::kWeight, 0},
                   i % 3 ? std::optional(four) : std::nullopt, i % 5 == 0});
  all.push_back({"fc", "input 2", "bits", "8 bit", "4 bit", "Use 4 bits.", Site{3, SiteKind::kInput, 1}, four, false});
  const std::string text = protocol::refusals_to_text(all);
  const auto back = protocol::refusals_from_text(text);
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_EQ(*back, all);
  EXPECT_LT(text.size(), 100 * all.size()) << "thousands of layers for the same few reasons";
  EXPECT_EQ(*protocol::refusals_from_text(protocol::refusals_to_text({})), std::vector<Refusal>{});
  for (const char* bad : {"", "[]", "{}", R"({"reasons":[],"rows":[["a",0,0]]})", R"({"reasons":[{}],"rows":[["a",0,0]]})", R"({"reasons":[{}],"rows":[["a",null]]})",
                          R"({"reasons":[{}],"rows":[["a",null,-1]]})", R"({"reasons":[{}],"rows":[[1,null,0]]})", R"({"reasons":[{}],"rows":7})"})
    EXPECT_FALSE(protocol::refusals_from_text(bad)) << bad;
}

TEST_F(ServiceTest, AnExportCheckIsStoppedWithItsCall) {
  open();
  world_.numbers_ms = 60000;
  std::stop_source stop;
  std::jthread later([&] {
    while (world_.exports_checked < 1) std::this_thread::sleep_for(2ms);
    stop.request_stop();
  });
  const auto answer = client_->check_export({}, "onnx-qdq", json::object(), stop.get_token());
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kCancelled);
  const auto declared = client_->check_declarations({}, "onnx-qdq", json::object());
  ASSERT_TRUE(declared) << declared.error().text();
  EXPECT_EQ(declared->size(), 1u);
  world_.numbers_ms = 0;
  const auto whole = client_->check_export({}, "onnx-qdq", json::object());
  ASSERT_TRUE(whole) << whole.error().text();
  EXPECT_EQ(whole->size(), 2u);
  EXPECT_EQ(world_.checks_stopped, 1);
}

TEST_F(ServiceTest, TheSocketIsPrivate) {
  struct stat info {};
  ASSERT_EQ(::stat((folder_.path() / "engine.sock").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(ServiceTest, RemovesItsSocket) {
  EXPECT_TRUE(server_->stop(1s));
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "engine.sock"));
}

TEST_F(ServiceTest, ErrorsTravelWhole) {
  const auto opened = client_->open("missing.onnx", {}, {}, {});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(opened.error().message, "There is no file 'missing.onnx'.");
  const auto state = client_->state();
  ASSERT_FALSE(state);
  EXPECT_EQ(state.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(state.error().text(), HasSubstr("Open a model"));
}

TEST_F(ServiceTest, AFailedOpenKeepsTheProjectThatIsOpen) {
  open();
  EXPECT_FALSE(client_->open("missing.onnx", {}, {}, {}));
  EXPECT_TRUE(client_->state());
}

TEST_F(ServiceTest, TheOpenProjectCanBeOpenedAgainWhateverWaits) {
  world_.exclusive = true;
  open();
  world_.deaf = true;
  world_.job_ms = 1000;
  std::jthread long_job([&] { (void)client_->run_job("long", "calibrate", {}, {}); });
  std::this_thread::sleep_for(200ms);
  Result<protocol::OpenedProject> again = fail(ErrorCode::kInternal, "not asked");
  std::jthread opening([&] { again = client_->open("net.onnx", {}, {}, {}); });
  std::this_thread::sleep_for(200ms);
  const auto late = client_->run_job("late", "calibrate", {}, {});  // behind the opening
  opening.join();
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_FALSE(again->state.read_only);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::kCancelled);
  EXPECT_THAT(late.error().message, HasSubstr("was closed"));
}

TEST_F(ServiceTest, AProjectThatCannotBeOpenedAgainStaysOpenForReading) {
  world_.exclusive = true;
  open();
  world_.fail_open_at = 3;  // the second one finds the lock taken, the third one is for writing
  const auto again = client_->open("net.onnx", {}, {}, {});
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_TRUE(again->state.read_only);
  EXPECT_EQ(world_.opened, 3);
  EXPECT_TRUE(client_->state());
}

TEST_F(ServiceTest, ExceptionsBecomeErrorsWithOneLine) {
  open();
  world_.throw_in_facts = true;
  const auto status = client_->layer_facts({}, {0}, [](LayerFacts) {});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kInternal);
  EXPECT_EQ(status.error().message, "a tensor went wrong");
}

struct BadJob {
  const char* id;
  const char* verb;
  json argument;
  const char* says;
};
TEST_F(ServiceTest, RefusesJobsThatMakeNoSense) {
  open();
  const BadJob rows[] = {
      {"a", "fly", json::object(), "There is no verb 'fly'"},
      {"", "calibrate", json::object(), "no id"},
      {"b", "run", {{"sample", 1}}, "Unknown key 'sample'"},
      {"c", "sweep", {{"settings", {{"bits", "all"}}}}, "'settings.bits' must be a list"},
      {"d", "run", json::array(), "must be a map"},
  };
  for (const auto& row : rows) {
    const auto result = client_->run_job(row.id, row.verb, row.argument, {});
    ASSERT_FALSE(result) << row.verb;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument) << row.verb;
    EXPECT_THAT(result.error().text(), HasSubstr(row.says));
  }
}

TEST_F(ServiceTest, RefusesHistogramsOfNoOrTooManyBins) {
  open();
  for (const int bins : {0, -1, 65537}) EXPECT_FALSE(client_->histogram({}, {}, bins)) << bins;
  const auto histogram = client_->histogram({}, {}, 16);
  ASSERT_TRUE(histogram) << histogram.error().text();
  EXPECT_EQ(histogram->counts.size(), 16u);
}

TEST_F(ServiceTest, AnswersQuestionsWhileAJobRuns) {
  open();
  world_.job_ms = 3000;
  std::jthread job([&] { (void)client_->run_job("long", "calibrate", {}, {}); });
  std::this_thread::sleep_for(100ms);
  const auto begin = Clock::now();
  EXPECT_TRUE(client_->histogram({}, {}, 8));
  EXPECT_TRUE(client_->layer_facts({}, {0, 1, 2}, [](LayerFacts) {}));
  EXPECT_LT(Clock::now() - begin, 1s);
  EXPECT_TRUE(client_->cancel_job("long"));
}

TEST_F(ServiceTest, CancelsARunningJobAndOneThatWaits) {
  open();
  world_.job_ms = 10000;
  Result<std::string> running = std::string(), waiting = std::string();
  std::atomic<bool> told_to_wait = false;
  JobEvents events;
  events.progress = [&](const Progress& p) { told_to_wait = told_to_wait || p.phase == "waiting"; };
  std::jthread first([&] { running = client_->run_job("a", "calibrate", {}, {}); });
  std::this_thread::sleep_for(100ms);
  std::jthread second([&] { waiting = client_->run_job("b", "calibrate", {}, events); });
  while (!told_to_wait) std::this_thread::sleep_for(5ms);
  const auto begin = Clock::now();
  EXPECT_TRUE(client_->cancel_job("b"));
  EXPECT_LT(Clock::now() - begin, 200ms);
  second.join();
  ASSERT_FALSE(waiting);
  EXPECT_EQ(waiting.error().code, ErrorCode::kCancelled);
  EXPECT_TRUE(client_->cancel_job("a"));
  first.join();
  ASSERT_FALSE(running);
  EXPECT_EQ(running.error().code, ErrorCode::kCancelled);
  EXPECT_LT(Clock::now() - begin, 2s);
  EXPECT_FALSE(client_->cancel_job("a"));
}

TEST_F(ServiceTest, AJobIdIsUsedOnceAtATime) {
  open();
  world_.job_ms = 500;
  std::jthread first([&] { EXPECT_TRUE(client_->run_job("same", "calibrate", {}, {})); });
  std::this_thread::sleep_for(100ms);
  const auto second = client_->run_job("same", "calibrate", {}, {});
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("already"));
  first.join();
  EXPECT_TRUE(client_->run_job("same", "calibrate", {}, {}));
}

TEST_F(ServiceTest, AClientThatGoesAwayStopsItsJob) {
  open();
  world_.job_ms = 20000;
  std::jthread job([&] { (void)client_->run_job("long", "calibrate", {}, {}); });
  std::this_thread::sleep_for(100ms);
  client_->abort();
  job.join();
  auto other = EngineClient::connect(folder_.address(), 5s, {});
  ASSERT_TRUE(other);
  world_.job_ms = 0;
  const auto begin = Clock::now();
  EXPECT_TRUE((*other)->run_job("next", "calibrate", {}, {}));
  EXPECT_LT(Clock::now() - begin, 2s);
}

TEST_F(ServiceTest, UploadsAreStoredByContentUnderTheirPlainName) {
  const auto file = folder_.path() / "model.onnx";
  std::string bytes(3 << 20, 'x');
  bytes[1234567] = '\0';
  std::ofstream(file, std::ios::binary) << bytes;
  ::setenv("XDG_CACHE_HOME", folder_.path().c_str(), 1);
  const auto first = client_->upload(file.string(), {});
  const auto second = client_->upload(file.string(), {});
  ::unsetenv("XDG_CACHE_HOME");
  ASSERT_TRUE(first) << first.error().text();
  ASSERT_TRUE(second) << second.error().text();
  EXPECT_EQ(*first, *second);
  EXPECT_EQ(std::filesystem::path(*first).filename(), "model.onnx");
  std::ifstream in(*first, std::ios::binary);
  EXPECT_TRUE(std::string(std::istreambuf_iterator<char>(in), {}) == bytes);
}

TEST_F(ServiceTest, RefusesASecondEngineAtTheSameSocket) {
  Server second(test::fake_backend(world_), [] {});
  const auto refused = second.listen(folder_.address());
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("Another engine"));
}

TEST(ServiceAddressTest, RefusesWhatIsNoPrivateSocket) {
  test::FakeWorld world;
  test::SocketFolder folder;
  const auto open_folder = folder.path() / "open";
  std::filesystem::create_directory(open_folder);
  std::filesystem::permissions(open_folder, std::filesystem::perms::all);
  std::ofstream(folder.path() / "file") << "text";
  const std::string rows[][2] = {
      {"localhost:50051", "unix:PATH"},
      {"unix:", "unix:PATH"},
      {"unix:" + (folder.path() / std::string(120, 'x')).string(), "at most 107"},
      {"unix:" + (open_folder / "s.sock").string(), "can be written by others"},
      {"unix:" + (folder.path() / "file").string(), "is not a socket"},
  };
  for (const auto& row : rows) {
    Server server(test::fake_backend(world), [] {});
    const auto status = server.listen(row[0]);
    ASSERT_FALSE(status) << row[0];
    EXPECT_THAT(status.error().message, HasSubstr(row[1]));
  }
}

TEST(WireTest, EveryErrorCodeComesBack) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code) {
    const Error error{static_cast<ErrorCode>(code), "What happened.", "What to do.", "where"};
    const Error back = protocol::from_grpc(protocol::to_grpc(error), "a question");
    EXPECT_EQ(back.code, error.code);
    EXPECT_EQ(back.text(), error.text());
  }
}

TEST(WireTest, DamagedAnswersAreErrors) {
  for (const char* text : {"", "{", "[]", "null", "{}", R"({"graph":{},"state":7,"runs":[],"edits":[]})",
                           R"({"graph":{"nodes":3}})"})
    EXPECT_FALSE(protocol::opened_from_text(text)) << text;
}

TEST(EventQueueTest, OnlyUnreadProgressIsReplaced) {
  EventQueue queue;
  const auto progress = [](const char* text) {
    protocol::JobEvent event;
    event.set_progress(text);
    return event;
  };
  protocol::JobEvent issue;
  issue.set_issue("i");
  queue.push(progress("1"));
  queue.push(progress("2"));
  queue.push(issue);
  queue.push(progress("3"));
  EXPECT_EQ(queue.pop(1ms)->progress(), "2");
  EXPECT_EQ(queue.pop(1ms)->issue(), "i");
  EXPECT_EQ(queue.pop(1ms)->progress(), "3");
  EXPECT_FALSE(queue.pop(1ms));
}

}  // namespace
}  // namespace quanvas
