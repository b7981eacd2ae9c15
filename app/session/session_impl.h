// Quanvas - the inside of Session. Everything here belongs to the GUI thread; what the lanes' threads do gets
// copies, and answers come back through on_gui().
#pragma once

#include <chrono>
#include <deque>
#include <optional>
#include <set>
#include <thread>
#include <unordered_set>

#include <QElapsedTimer>
#include <QTimer>

#include "app/session/client.h"
#include "app/session/edit_recipe.h"
#include "app/session/engine_process.h"
#include "app/session/session.h"
#include "core/base/lane.h"

namespace quanvas {

using ClientPtr = std::shared_ptr<EngineClient>;
QString to_text(const Error& error);

struct Session::Impl {
  Impl(Session* session, const QString& address);
  ~Impl();

  // fn runs on the GUI thread when the event loop comes to it; never after the session is gone.
  template <class Fn>
  void on_gui(Fn fn) {
    QMetaObject::invokeMethod(q, std::move(fn), Qt::QueuedConnection);
  }

  // session_engine.cpp: start, loss, restart
  void start();
  void launch();
  void connect_engine();
  void connect_failed(const Error& error);
  void make_process();
  void adopt_engine(ClientPtr fresh, const EngineHello& hello, json fresh_catalog);
  void lose_engine(const QString& sentence, bool again);
  void check_connection();
  // True when the error is the loss of the engine; it is dealt with elsewhere, once.
  bool is_loss(const ClientPtr& asked, const Error& error);

  // session_open.cpp
  void open(const QString& path, const ImportOptions& import, const QString& project);
  void open_wanted();
  bool opening_another() const { return !opening_path.isEmpty() && !reopening; }
  bool left_alone(const std::string& what);  // true: another one is being opened, which was said
  bool is_ours(const ProjectState& answer) const;  // of the project that is shown, not of one opened meanwhile
  void send_open(const QString& path, bool again, const ImportOptions& import = {}, const QString& project = {});
  struct Opened;
  static Result<std::shared_ptr<Opened>> make_ready(protocol::OpenedProject project, const Recipe* keep, const Preparation& preparation);
  void adopt_project(const QString& path, Opened& opened, bool again);
  void restore_history(const std::vector<RecipeEdit>& edits);
  void set_state(ProjectState fresh);
  void add_issue(Issue issue);
  void remove_issue(const Issue& issue);

  // session_recipe.cpp
  void edit(const Recipe& after, const QString& label, const QString& merge_key);
  void apply(const Recipe& after, const QString& label, const QString& merge_key);
  void queue_edit(const QString& label, const QString& merge_key);
  void send_edits();
  void edit_answered(std::int64_t serial, const Status& status, const ClientPtr& asked);
  void after_edits(std::function<void()> fn);
  Status flush_edits_now();  // waits; the lane is empty afterwards, unless the engine hangs
  void edits_failed(const Error& error);
  void edits_stored();
  void refresh_state();

  // session_questions.cpp
  void ask_facts(const std::vector<NodeId>& nodes);
  void send_facts();
  void take_facts(const std::vector<LayerFacts>& answers, std::uint64_t asked_at);
  void ask_trust(const std::optional<std::vector<std::string>>& revoke);
  void ask_histogram(const Site& site, int bins);
  void send_histogram();
  void ask_checks();  // of what depends on the recipe, beside its facts
  void ask_recipe_check();
  void send_recipe_check();
  void take_recipe_check(std::vector<RecipeIssue> issues);
  void ask_look();
  void send_look();
  void forget_look();
  void send_numbers();  // once edits rest
  void show_look(std::vector<Refusal> refusals, const QString& trouble, bool is_whole);
  void mend(const QString& layer, const QString& label);
  void mark_changed(const std::vector<NodeId>& nodes);
  std::vector<NodeId> all_layers() const;

  // session_jobs.cpp
  QString start_job(const std::string& verb, const QString& title, json argument);
  void launch_job(const QString& id, const json& argument);
  void job_progress(const QString& id, const Progress& progress);
  void job_partial(const QString& id, const std::string& kind, const std::string& text);
  void job_ended(const QString& id, const Result<std::string>& result, const std::optional<ProjectState>& fresh_state,
                 const std::optional<std::vector<Run>>& fresh_runs, std::uint64_t question);
  void end_job(JobStatus& job, JobStatus::Phase phase, const QString& sentence);
  void fail_active_jobs(const QString& sentence);
  void cancel(const QString& id);
  void watch_stopping(const QString& id, const ClientPtr& asked);
  void end_by_force(const JobStatus& job);
  JobStatus* find_job(const QString& id);
  std::string wire_id(const QString& id) const;

  Session* const q;
  const QString given_address;
  const bool remote;

  // engine
  std::unique_ptr<EngineProcess> process;
  ClientPtr client;               // null while no engine is ready
  std::stop_source connecting;
  std::deque<std::chrono::steady_clock::time_point> starts;
  bool unreachable = false;       // when it was looked at last
  std::map<std::string, std::string> versions;
  json catalog = json::object();
  QTimer watch;                   // looks after the connection

  // project
  QString wanted_path;            // asked for, not opened yet
  ImportOptions wanted_import;    // of it
  QString wanted_project;         // for it
  QString opening_path;           // sent to the engine
  bool reopening = false;         // opening_path is the project that we show already
  std::stop_source opening;
  bool has_project = false;
  QString project_path;           // what a restarted engine opens
  GraphPtr graph;
  std::vector<Layer> layers;
  std::unordered_set<NodeId> layer_nodes;  // of them
  Preparation preparation;
  std::shared_ptr<void> prepared;
  ProjectState state;
  Recipe recipe;
  Plan plan;
  std::vector<Run> runs;
  std::vector<Issue> issues;
  QUndoStack undo;

  // edits that the engine has not confirmed
  struct PendingEdit {
    std::int64_t serial = 0;
    Recipe recipe;
    QString label, merge_key;
  };
  std::deque<PendingEdit> pending;
  std::int64_t next_serial = 1;
  std::atomic<std::int64_t> confirmed_serial = 0;  // written by the lane
  bool sending = false;
  QTimer settle;                  // a drag is sent when it rests
  QTimer retry;                   // what could not be stored is tried again
  std::optional<Issue> unstored;  // what is said of it
  bool abandoned = false;
  std::vector<std::function<void()>> waiting_for_edits;
  bool told_read_only = false;
  bool restoring = false;         // the undo stack takes the place it had; nothing changes
  std::optional<Plan> prepared_plan;  // of the edit that is being pushed

  // facts
  std::map<NodeId, LayerFacts> facts;
  std::map<NodeId, std::uint64_t> changed_at, answered_at;  // generations
  std::uint64_t generation = 1;   // rises with every change of the plan
  std::vector<NodeId> wanted_facts;  // next one last
  bool asking_facts = false;
  std::set<std::string> told_facts_errors;

  // histogram
  struct HistogramQuestion {
    Site site;
    int bins = 0;
  };
  std::optional<HistogramQuestion> wanted_histogram;
  bool asking_histogram = false;
  int check_serial = 0;           // newest export check

  // what the engine says of the recipe's passes
  std::vector<RecipeIssue> recipe_issues;
  bool wants_recipe_check = false, asking_recipe_check = false;
  struct Look {
    QString target, trouble;
    json options = json::object();
    std::vector<Refusal> refusals;
    bool is_wanted = false, is_asking = false, is_known = false;  // known: there is an answer for the open project
    bool is_whole = false;                // with numbers
    std::uint64_t question = 0;           // rises whenever it is asked
    std::vector<Refusal> declared;        // the newest answer of declarations
    std::vector<Refusal> by_numbers;      // what numbers had to add to it, last time; of layers that edits left alone
    std::stop_source numbers;             // stops the question that is on its way
    QTimer rest;                          // until numbers are asked for
  };
  Look look;                              // at an export target

  // jobs
  std::vector<JobStatus> jobs;
  std::map<QString, std::jthread> job_threads;
  std::shared_future<void> last_queued;  // the engine has the job that was launched last
  std::map<QString, QElapsedTimer> job_clocks;
  struct Stopping {
    QElapsedTimer asked, heard;   // since it was asked to stop, since it last said anything
  };
  std::map<QString, Stopping> stopping;  // jobs being cancelled
  int next_job = 1;
  // Each ended job asks for runs and state; of answers that come in another order than they were asked for the newest counts.
  std::atomic<std::uint64_t> last_question = 0;
  std::uint64_t answered_question = 0;
  std::string job_prefix;         // makes ids unique among the windows of one engine

  // Last: their threads end before the members above.
  Lane link_lane;                 // connect, open
  Lane edit_lane;                 // everything that changes the project, in order
  Lane facts_lane, histogram_lane, check_lane, recipe_lane, control_lane, look_lane, numbers_lane;
};

}  // namespace quanvas
