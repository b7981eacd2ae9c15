// Session: opening projects and what is known of the one that is open.
#include <QFileInfo>

#include "app/session/session_impl.h"

namespace quanvas {
namespace {

constexpr std::size_t kMostIssues = 1000;

// A project names files of the engine's machine and is opened there; a model may lie on ours.
bool needs_upload(const QString& path) {
  return QFileInfo(path).isFile() && !path.endsWith(QStringLiteral(".quanvas"));
}

}  // namespace

void Session::Impl::open(const QString& path) {
  wanted_path = path;
  // Edits of the project that is open go to it before it is left.
  if (client && !reopening) after_edits([this] { open_wanted(); });
}

void Session::Impl::open_wanted() {
  if (!wanted_path.isEmpty()) send_open(std::exchange(wanted_path, {}), false);
}

void Session::Impl::send_open(const QString& path, bool again) {
  opening.request_stop();
  opening = std::stop_source();
  opening_path = path;
  reopening = again;
  const bool upload = remote && !again && needs_upload(path);
  link_lane.post([this, path, again, upload, asked = client, stop = opening.get_token()] {
    JobEvents events;
    events.progress = [this, stop](const Progress& p) {
      on_gui([this, p, stop] {
        if (stop.stop_requested()) return;
        const std::string text = p.detail.empty() ? p.phase : p.phase + ": " + p.detail;
        Q_EMIT q->open_progress(QString::fromStdString(text), p.fraction);
      });
    };
    const auto opened = [&]() -> Result<protocol::OpenedProject> {
      if (stop.stop_requested()) return fail(ErrorCode::kCancelled, "Stopped on request.");
      std::string there = path.toStdString();
      if (upload) {
        QUANVAS_TRY(there, asked->upload(there, stop));
      }
      return asked->open(there, events, stop);
    }();
    on_gui([this, path, again, opened, asked, stop] {
      if (stop.stop_requested()) return;  // a newer one is on its way, or the engine is gone
      if (!opened && is_loss(asked, opened.error())) return;
      opening_path.clear();
      reopening = false;
      if (opened) return adopt_project(path, *opened, again);
      Q_EMIT q->open_failed(path, to_text(opened.error()));
      send_edits();  // the project that was open before still is
      send_facts();
      send_histogram();
    });
  });
}

void Session::Impl::adopt_project(const QString& path, protocol::OpenedProject opened, bool again) {
  auto fresh_plan = resolve(*opened.graph, again ? recipe : opened.state.recipe, PresetLibrary::builtin());
  if (!fresh_plan) {
    Q_EMIT q->open_failed(path, to_text(fresh_plan.error()));
    return;
  }
  graph = opened.graph;
  layers = find_layers(*graph);
  runs = std::move(opened.runs);
  plan = std::move(*fresh_plan);
  has_project = true;
  project_path = QString::fromStdString(opened.state.project_path);
  if (!again) {
    recipe = opened.state.recipe;
    pending.clear();
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
  send_histogram();
  if (!wanted_path.isEmpty()) after_edits([this] { open_wanted(); });
}

void Session::Impl::restore_history(const std::vector<RecipeEdit>& edits) {
  undo.clear();
  const auto apply_edit = [this](const Recipe& after, const QString& label, const QString& key) {
    apply(after, label, key);
  };
  for (std::size_t i = 1; i < edits.size(); ++i) {
    if (edits[i].after == edits[i - 1].after) continue;
    undo.push(new EditRecipe(edits[i - 1].after, edits[i].after, QString::fromStdString(edits[i].label), {},
                             apply_edit, /*done=*/true));
  }
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

void Session::Impl::add_issue(Issue issue) {
  issues.push_back(std::move(issue));
  if (issues.size() > kMostIssues) issues.erase(issues.begin());
  Q_EMIT q->issues_changed();
}

}  // namespace quanvas
