// The test program is its own engine: started with --listen it serves the fake workbench, so that the session's
// own-engine paths (crash, kill, another release) run without LibTorch. The environment says how it behaves.
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <QCoreApplication>

#include "core/protocol/protocol.h"
#include "engine.grpc.pb.h"
#include "tests/app/session/fake_engine.h"

namespace quanvas::test {
namespace {

class OtherRelease final : public protocol::Engine::Service {
  grpc::Status Hello(grpc::ServerContext*, const protocol::HelloRequest*, protocol::HelloReply* reply) override {
    reply->set_protocol_version(protocol::kVersion + 1);
    return grpc::Status::OK;
  }
};

// Keeps the recipes in the file that FAKE_ENGINE_STORE names, as a project would.
class StoringWorkbench final : public Workbench {
 public:
  StoringWorkbench(FakeWorld& world, const std::string& path) : inner_(world, path) {}
  GraphPtr graph() const override { return inner_.graph(); }
  ProjectState state() const override { return inner_.state(); }
  Result<std::vector<Run>> runs() const override { return inner_.runs(); }
  Result<std::vector<RecipeEdit>> edits(int most) const override { return inner_.edits(most); }
  Status set_recipe(const Recipe& recipe, const std::string& label) override {
    if (const char* store = std::getenv("FAKE_ENGINE_STORE")) std::ofstream(store, std::ios::app) << label << "\n";
    return inner_.set_recipe(recipe, label);
  }
  Result<ProjectState> set_data(const DataSettings& data) override { return inner_.set_data(data); }
  Status check_data(const DataSettings&) const override { return {}; }
  Status set_value(const std::string& k, const std::string& t) override { return inner_.set_value(k, t); }
  Result<std::string> value(const std::string& key) const override { return inner_.value(key); }
  Status save_copy(const std::string& path) override { return inner_.save_copy(path); }
  Result<LayerFacts> layer_facts(const Recipe& r, NodeId n) override { return inner_.layer_facts(r, n); }
  Result<Histogram> histogram(const Recipe& r, const Site& s, int b) override { return inner_.histogram(r, s, b); }
  Result<std::vector<Refusal>> check_export(const Recipe& r, const std::string& t, const json& o, std::stop_token stop) override {
    return inner_.check_export(r, t, o, stop);
  }
  Result<std::vector<Refusal>> check_declarations(const Recipe& r, const std::string& t, const json& o) override { return inner_.check_declarations(r, t, o); }
  Result<Recipe> mend_recipe(const Recipe& r, const std::vector<Refusal>& refusals, const std::string& l) override { return inner_.mend_recipe(r, refusals, l); }
  Result<std::vector<RecipeIssue>> check_recipe(const Recipe& r) override { return inner_.check_recipe(r); }
  Result<ProjectState> calibrate(JobContext& job) override { return inner_.calibrate(job); }
  Result<Run> evaluate_float(int n, JobContext& job) override { return inner_.evaluate_float(n, job); }
  Result<Run> run_recipe(const RunRequest& r, JobContext& job) override { return inner_.run_recipe(r, job); }
  Result<Run> evaluate_run(std::int64_t r, int n, JobContext& job) override { return inner_.evaluate_run(r, n, job); }
  Result<Run> sweep(const SweepSettings& s, std::int64_t r, JobContext& job) override { return inner_.sweep(s, r, job); }
  Status dump_run(std::int64_t, const DumpRequest&, JobContext&) override { return {}; }
  Result<ExportReport> export_model(const ExportRequest& r, JobContext& job) override {
    return inner_.export_model(r, job);
  }
  Result<std::vector<TrainPoint>> train_float(const TrainRequest& r, JobContext& job) override {
    return inner_.train_float(r, job);
  }

 private:
  FakeWorkbench inner_;
};

int serve_other_release(const std::string& address) {
  ::signal(SIGTERM, SIG_IGN);
  OtherRelease service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  server->Wait();
  return 0;
}

int serve(const std::string& address) {
  if (std::getenv("FAKE_ENGINE_EXIT")) {
    std::fprintf(stderr, "quanvas-engine: A library is missing.\n");
    return 6;
  }
  if (std::getenv("FAKE_ENGINE_OTHER_RELEASE")) return serve_other_release(address);
  FakeWorld world;
  Backend backend = fake_backend(world);
  backend.open = [&](const std::string& path, const std::string&, const ImportOptions&,
                     JobContext&) -> Result<std::unique_ptr<Workbench>> {
    if (path.find("crash") != std::string::npos) ::raise(SIGSEGV);
    world.deaf = path.find("deaf") != std::string::npos;
    world.finish_ms = path.find("finishes") != std::string::npos ? 4000 : 0;
    world.job_ms = world.deaf || world.finish_ms > 0 ? 60000 : 0;
    return std::make_unique<StoringWorkbench>(world, path);
  };
  Server server(backend, [] { ::_exit(0); });
  if (const auto status = server.listen(address); !status) return 1;
  ::pause();  // until a signal ends it
  return 0;
}

}  // namespace
}  // namespace quanvas::test

int main(int argc, char** argv) {
  if (argc > 2 && std::string(argv[1]) == "--listen") return quanvas::test::serve(argv[2]);
  testing::InitGoogleTest(&argc, argv);
  QCoreApplication app(argc, argv);
  qputenv("QUANVAS_ENGINE", QCoreApplication::applicationFilePath().toUtf8());
  return RUN_ALL_TESTS();
}
