#include "app/session/session.h"

#include <algorithm>
#include <tuple>

#include "app/session/session_impl.h"
#include "core/report/target_lens.h"

namespace quanvas {

namespace {

// Everything but the name, which alone changes nothing. Asked of every run at every repaint, so nothing is copied.
auto content(const Recipe& recipe) {
  const auto& [name, rules, passes, calibration] = recipe;
  return std::tie(rules, passes, calibration);
}

}  // namespace

QString to_text(const Error& error) { return QString::fromStdString(error.text()); }

Session::Session(const QString& engine_address, QObject* parent) : QObject(parent) {
  qRegisterMetaType<Histogram>("quanvas::Histogram");
  qRegisterMetaType<Site>("quanvas::Site");
  qRegisterMetaType<SweepCell>("quanvas::SweepCell");
  qRegisterMetaType<TrainPoint>("quanvas::TrainPoint");
  qRegisterMetaType<ExportReport>("quanvas::ExportReport");
  qRegisterMetaType<std::vector<NodeId>>("std::vector<quanvas::NodeId>");
  qRegisterMetaType<std::vector<Refusal>>("std::vector<quanvas::Refusal>");
  impl_ = std::make_unique<Impl>(this, engine_address);
}

Session::~Session() = default;

void Session::start() { impl_->start(); }

bool Session::has_project() const { return impl_->has_project; }
bool Session::engine_is_ready() const { return impl_->client != nullptr; }
bool Session::engine_is_remote() const { return impl_->remote; }
GraphPtr Session::graph() const { return impl_->graph; }
const std::vector<Layer>& Session::layers() const { return impl_->layers; }
void Session::set_preparation(Preparation preparation) { impl_->preparation = std::move(preparation); }
std::shared_ptr<void> Session::take_prepared() { return std::exchange(impl_->prepared, nullptr); }
const ProjectState& Session::state() const { return impl_->state; }
const Recipe& Session::recipe() const { return impl_->recipe; }
const Plan& Session::plan() const { return impl_->plan; }
const std::vector<Run>& Session::runs() const { return impl_->runs; }
const std::map<NodeId, LayerFacts>& Session::facts() const { return impl_->facts; }
const json& Session::catalog() const { return impl_->catalog; }
const std::vector<Issue>& Session::issues() const { return impl_->issues; }
const std::vector<RecipeIssue>& Session::recipe_issues() const { return impl_->recipe_issues; }
const QString& Session::looked_at_target() const { return impl_->look.target; }
const std::vector<Refusal>& Session::target_refusals() const { return impl_->look.refusals; }
const QString& Session::target_trouble() const { return impl_->look.trouble; }
bool Session::target_is_known() const { return impl_->look.is_known; }
bool Session::target_is_whole() const { return impl_->look.is_whole; }
const std::vector<JobStatus>& Session::jobs() const { return impl_->jobs; }
std::map<std::string, std::string> Session::engine_versions() const { return impl_->versions; }
QUndoStack* Session::undo_stack() { return &impl_->undo; }

bool Session::facts_are_stale(NodeId node) const {
  const auto changed = impl_->changed_at.find(node);
  if (changed == impl_->changed_at.end()) return false;
  const auto answered = impl_->answered_at.find(node);
  return answered == impl_->answered_at.end() || answered->second < changed->second;
}

bool Session::run_is_elsewhere(const Run& run) const {
  // An unknown hash proves nothing.
  const auto differs = [](const std::string& a, const std::string& b) { return !a.empty() && !b.empty() && a != b; };
  const auto& state = impl_->state;
  return differs(run.model_hash, state.model_hash) || differs(run.data_hash, state.data_hash);
}

bool Session::run_is_stale(const Run& run) const {
  if (run_is_elsewhere(run)) return true;
  if (run.kind == RunKind::kFloat) return false;
  const std::string& statistics = impl_->state.statistics_hash;
  if (!run.statistics_hash.empty() && !statistics.empty() && run.statistics_hash != statistics) return true;
  return content(run.recipe) != content(impl_->recipe);
}

void Session::open(const QString& path, const ImportOptions& import, const QString& project) { impl_->open(path, import, project); }
void Session::request_trust() { impl_->ask_trust(std::nullopt); }
void Session::revoke_trust(const QStringList& hashes) {
  std::vector<std::string> list;
  for (const QString& hash : hashes) list.push_back(hash.toStdString());
  impl_->ask_trust(list);
}

void Session::save_copy(const QString& path) {
  impl_->after_edits([impl = impl_.get(), path] {
    if (impl->left_alone("save a copy")) return;
    impl->edit_lane.post([impl, client = impl->client, path] {
      const Status status = client->save_copy(path.toStdString());
      if (!status) impl->on_gui([impl, error = status.error()] {
        impl->add_issue({Severity::kError, "save a copy", error.message, error.hint});
        Q_EMIT impl->q->copy_failed(QStringLiteral("The copy was not saved. ") + to_text(error));
      });
    });
  });
}

void Session::edit_recipe(const Recipe& after, const QString& label, const QString& merge_key) {
  impl_->edit(after, label, merge_key);
}

void Session::assign(const std::vector<Site>& sites, const std::optional<QuantSpec>& spec, const QString& label,
                     const QString& merge_key) {
  if (!impl_->has_project || sites.empty()) return;
  impl_->edit(with_assignment(impl_->recipe, *impl_->graph, sites, spec), label, merge_key);
}

QString Session::unstored() const {
  if (!impl_->unstored) return {};
  const auto& issue = *impl_->unstored;
  return QString::fromStdString(issue.hint.empty() ? issue.message : issue.message + " " + issue.hint);
}

void Session::retry_edits() { impl_->send_edits(); }

QString Session::store_edits() {
  if (!impl_->has_project || impl_->pending.empty()) return {};
  if (!impl_->client) return QStringLiteral("The engine is not running, so the last edits are not stored.");
  const Status status = impl_->flush_edits_now();
  return status ? QString() : to_text(status.error());
}

void Session::abandon_edits() { impl_->abandoned = true; }

void Session::set_data(const DataSettings& data) {
  impl_->after_edits([impl = impl_.get(), data] {
    if (impl->left_alone("data")) return;
    impl->edit_lane.post([impl, client = impl->client, data] {
      const auto state = client->set_data(data);
      impl->on_gui([impl, state] {
        if (!state) return impl->add_issue({Severity::kError, "data", state.error().message, state.error().hint});
        if (!impl->is_ours(*state)) return;
        impl->set_state(*state);
        impl->mark_changed(impl->all_layers());
        impl->ask_facts(impl->all_layers());
        impl->ask_checks();
      });
    });
  });
}

void Session::set_value(const QString& key, const QString& text) {
  if (!impl_->client || !impl_->has_project) return;
  impl_->edit_lane.post([impl = impl_.get(), client = impl_->client, key, text] {
    const Status status = client->set_value(key.toStdString(), text.toStdString());
    // A read-only project keeps no window layout; nobody misses it.
    if (status || status.error().code == ErrorCode::kReadOnly || client->lost()) return;
    impl->on_gui([impl, error = status.error(), key] {
      impl->add_issue({Severity::kWarning, key.toStdString(), error.message, error.hint});
    });
  });
}

void Session::request_facts(const std::vector<NodeId>& nodes) { impl_->ask_facts(nodes); }
void Session::request_histogram(const Site& site, int bins) { impl_->ask_histogram(site, bins); }

void Session::check_export(const QString& target, const json& options, const std::optional<Recipe>& recipe) {
  if (!impl_->client || !impl_->has_project) return;
  const int serial = ++impl_->check_serial;
  impl_->check_lane.post([impl = impl_.get(), client = impl_->client, target, options, serial, recipe = recipe.value_or(impl_->recipe)] {
    auto refusals = client->check_export(recipe, target.toStdString(), options);
    if (!refusals) {
      // A question without an answer bars the export as well.
      Refusal trouble;
      trouble.rule = "the check did not succeed";
      trouble.got = refusals.error().message;
      trouble.suggestion = refusals.error().hint;
      refusals = std::vector<Refusal>{trouble};
    }
    impl->on_gui([impl, target, serial, refusals, client] {
      if (serial == impl->check_serial && client == impl->client) Q_EMIT impl->q->export_checked(target, *refusals);
    });
  });
}

void Session::request_exports(std::int64_t run) {
  if (!impl_->client || !impl_->has_project) return;
  impl_->control_lane.post([impl = impl_.get(), client = impl_->client, run] {
    Result<std::vector<ExportReport>> reports = std::vector<ExportReport>();
    if (const auto text = client->value(exports_key(run)); !text) reports = Failure(text.error());
    else if (!text->empty()) reports = from_json_text<std::vector<ExportReport>>(*text, "exports");
    impl->on_gui([impl, client, run, reports = std::move(reports)] {
      if (client != impl->client) return;
      if (!reports) return impl->add_issue({Severity::kWarning, "exports", reports.error().message, reports.error().hint});
      Q_EMIT impl->q->exports_read(run, *reports);
    });
  });
}

void Session::look_at_target(const QString& target, const json& options) {
  if (impl_->look.target != target) impl_->forget_look();
  impl_->look.target = target;
  impl_->look.options = options;
  impl_->ask_look();
}

void Session::mend_target(const QString& layer, const QString& label) {
  if (impl_->has_project && impl_->look.is_known) impl_->mend(layer, label);
}

void Session::cancel(const QString& job_id) { impl_->cancel(job_id); }

void Session::clear_issues() {
  impl_->issues.clear();
  Q_EMIT issues_changed();
}

}  // namespace quanvas
