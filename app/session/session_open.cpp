// Session: opening projects and what is known of the one that is open.
#include <algorithm>

#include <QFileInfo>

#include "app/session/session_impl.h"

namespace quanvas {
namespace {

constexpr std::size_t kMostIssues = 1000;

// A project names files of the engine's machine and is opened there; a model may lie on ours.
bool needs_upload(const QString& path) {
  return QFileInfo(path).isFile() && !path.endsWith(QStringLiteral(".quanvas"));
}

struct History {
  struct Step {
    Recipe before, after;
    std::string label;
  };
  std::vector<Step> steps;
  std::size_t done = 0;  // steps[done] and later were undone
};

// What the undo stack looked like when these edits had been made: an undo goes back a step and a redo goes forth again,
// instead of being a further edit.
History history_of(const std::vector<RecipeEdit>& edits) {
  History h;
  for (std::size_t i = 1; i < edits.size(); ++i) {
    const auto& [id, label, time, after] = edits[i];
    if (after == edits[i - 1].after) continue;
    if (const auto undone = undone_label(label)) {
      // A drag that rested was stored in parts and is undone as one.
      std::size_t first = h.done;
      while (first > 0 && h.steps[first - 1].label == *undone && !(first < h.done && h.steps[first].before == after))
        --first;
      if (first < h.done && h.steps[first].before == after) {
        h.steps[first].after = edits[i - 1].after;
        h.steps.erase(h.steps.begin() + static_cast<std::ptrdiff_t>(first) + 1,
                      h.steps.begin() + static_cast<std::ptrdiff_t>(h.done));
        h.done = first;
        continue;
      }
      if (h.done == 0) {  // of an edit before those that are known
        h.steps.clear();
        continue;
      }
    }
    if (h.done < h.steps.size() && h.steps[h.done].label == label && h.steps[h.done].after == after) {
      ++h.done;
      continue;
    }
    h.steps.resize(h.done);
    h.steps.push_back({edits[i - 1].after, after, label});
    ++h.done;
  }
  return h;
}

}  // namespace

void Session::Impl::open(const QString& path, const ImportOptions& import, const QString& project) {
  wanted_path = path;
  wanted_project = project;
  wanted_import = import;
  // Edits of the project that is open go to it before it is left.
  if (client && !reopening) after_edits([this] { open_wanted(); });
}

void Session::Impl::open_wanted() {
  if (!wanted_path.isEmpty())
    send_open(std::exchange(wanted_path, {}), false, std::exchange(wanted_import, {}), std::exchange(wanted_project, {}));
}

void Session::Impl::send_open(const QString& path, bool again, const ImportOptions& import, const QString& project) {
  opening.request_stop();
  opening = std::stop_source();
  opening_path = path;
  reopening = again;
  const bool upload = remote && !again && project.isEmpty() && needs_upload(path);
  link_lane.post([this, path, project, again, upload, import, asked = client, stop = opening.get_token(), prepare = preparation, kept = recipe] {
    JobEvents events;
    events.progress = [this, stop](const Progress& p) {
      on_gui([this, p, stop] {
        if (stop.stop_requested()) return;
        const std::string text = p.detail.empty() ? p.phase : p.phase + ": " + p.detail;
        Q_EMIT q->open_progress(QString::fromStdString(text), p.fraction);
      });
    };
    const auto opened = [&]() -> Result<std::shared_ptr<Opened>> {
      if (stop.stop_requested()) return fail(ErrorCode::kCancelled, "Stopped on request.");
      std::string there = path.toStdString();
      if (upload) {
        QUANVAS_TRY(there, asked->upload(there, stop));
      }
      QUANVAS_TRY(auto project, asked->open(there, import, events, stop, project.toStdString()));
      return make_ready(std::move(project), again ? &kept : nullptr, prepare);
    }();
    on_gui([this, path, again, opened, asked, stop] {
      if (stop.stop_requested()) return;  // a newer one is on its way, or the engine is gone
      if (!opened && is_loss(asked, opened.error())) return;
      opening_path.clear();
      reopening = false;
      if (opened) return adopt_project(path, **opened, again);
      if (opened.error().code == ErrorCode::kNeedsTrust) Q_EMIT q->trust_wanted(path, QString::fromStdString(opened.error().message));
      else Q_EMIT q->open_failed(path, to_text(opened.error()));
      send_edits();  // the project that was open before still is
      send_facts();
      send_histogram();
      send_recipe_check();
      send_look();
    });
  });
}

// Everything of a project that takes a while for large networks, made on the lane's thread.
struct Session::Impl::Opened {
  protocol::OpenedProject project;
  std::vector<Layer> layers;
  std::unordered_set<NodeId> layer_nodes;
  Recipe recipe;   // the plan's
  Plan plan;
  std::shared_ptr<void> prepared;
};

// keep: the recipe that the window goes on with instead of the project's.
Result<std::shared_ptr<Session::Impl::Opened>> Session::Impl::make_ready(protocol::OpenedProject project, const Recipe* keep,
                                                                         const Preparation& preparation) {
  auto out = std::make_shared<Opened>();
  out->project = std::move(project);
  const Graph& graph = *out->project.graph;
  out->recipe = keep ? *keep : out->project.state.recipe;
  QUANVAS_TRY(out->plan, resolve(graph, out->recipe, PresetLibrary::builtin()));
  out->layers = find_layers(graph);
  for (const Layer& layer : out->layers) out->layer_nodes.insert(layer.node);
  if (preparation) out->prepared = preparation(graph, out->layers, out->plan);
  return out;
}

void Session::Impl::adopt_project(const QString& path, Opened& ready, bool again) {
  auto& opened = ready.project;
  if (again && !(ready.recipe == recipe)) {  // edited meanwhile
    auto fresh_plan = resolve(*opened.graph, recipe, PresetLibrary::builtin());
    if (!fresh_plan) {
      Q_EMIT q->open_failed(path, to_text(fresh_plan.error()));
      return;
    }
    ready.plan = std::move(*fresh_plan);
  }
  graph = opened.graph;
  layers = std::move(ready.layers);
  layer_nodes = std::move(ready.layer_nodes);
  prepared = std::move(ready.prepared);
  runs = std::move(opened.runs);
  plan = std::move(ready.plan);
  has_project = true;
  project_path = QString::fromStdString(opened.state.project_path);
  if (!again) {
    recipe = opened.state.recipe;
    pending.clear();
    edits_stored();
    facts.clear();
    changed_at.clear();
    answered_at.clear();
    told_read_only = false;
    told_facts_errors.clear();
    wanted_histogram.reset();
    issues = opened.state.issues;
    restore_history(opened.edits);
  }
  state = std::move(opened.state);
  state.recipe = recipe;
  mark_changed(all_layers());
  Q_EMIT q->project_opened(again);
  Q_EMIT q->issues_changed();
  wanted_facts.clear();
  send_edits();
  ask_facts(all_layers());
  recipe_issues.clear();  // of another project, as what a target refuses
  if (!again) forget_look();
  Q_EMIT q->recipe_checked();
  ask_checks();
  send_histogram();
  if (!wanted_path.isEmpty()) after_edits([this] { open_wanted(); });
}

void Session::Impl::restore_history(const std::vector<RecipeEdit>& edits) {
  undo.clear();
  const auto apply_edit = [this](const Recipe& after, const QString& label, const QString& key) {
    if (!restoring) apply(after, label, key);
  };
  const History history = history_of(edits);
  restoring = true;
  for (const auto& step : history.steps)
    undo.push(new EditRecipe(step.before, step.after, QString::fromStdString(step.label), {}, apply_edit,
                             /*done=*/true));
  undo.setIndex(static_cast<int>(history.done));
  restoring = false;
  undo.setClean();
}

bool Session::Impl::left_alone(const std::string& what) {
  if (!opening_another()) return false;
  add_issue({Severity::kWarning, what, "Another project is being opened; this one is left as it is.", {}});
  return true;
}

bool Session::Impl::is_ours(const ProjectState& answer) const {
  return answer.project_path == state.project_path;
}

void Session::Impl::set_state(ProjectState fresh) {
  state = std::move(fresh);
  state.recipe = recipe;
  Q_EMIT q->state_changed();
}

void Session::Impl::remove_issue(const Issue& issue) {
  const auto last = std::find_if(issues.rbegin(), issues.rend(), [&](const Issue& i) {
    return i.where == issue.where && i.message == issue.message && i.severity == issue.severity;
  });
  if (last == issues.rend()) return;
  issues.erase(std::next(last).base());
  Q_EMIT q->issues_changed();
}

void Session::Impl::add_issue(Issue issue) {
  issues.push_back(std::move(issue));
  if (issues.size() > kMostIssues) issues.erase(issues.begin());
  Q_EMIT q->issues_changed();
}

}  // namespace quanvas
