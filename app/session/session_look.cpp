// Session: the look at an export target. Declarations answer at once; numbers (searched scales, weights) are asked
// for when edits rest, and the next edit stops that.
#include <algorithm>
#include <set>
#include <tuple>

#include "app/session/session_impl.h"

namespace quanvas {
namespace {

auto reason_of(const Refusal& r) {
  return std::make_tuple(r.layer, r.quantizer, r.rule);
}

// Both stages in one order, so that nothing moves when the second has nothing to add: what concerns no layer, then
// the layers as they stand in the network, each with its quantizers in order.
void sort_by_place(std::vector<Refusal>& refusals, const Graph& graph) {
  struct Place {
    std::ptrdiff_t position;
    Site site;
    std::size_t index;
  };
  std::vector<Place> places;
  places.reserve(refusals.size());
  for (std::size_t i = 0; i < refusals.size(); ++i) {
    const Refusal& r = refusals[i];
    const Node* node = r.layer.empty() ? nullptr : graph.find(r.layer);
    const auto last = static_cast<std::ptrdiff_t>(graph.nodes().size());  // layers that passes made
    places.push_back({r.layer.empty() ? -1
                      : node          ? static_cast<std::ptrdiff_t>(graph.position(node->id))
                                      : last,
                      r.site.value_or(Site{}), i});
  }
  std::stable_sort(places.begin(), places.end(), [&](const Place& a, const Place& b) {
    return std::tie(a.position, refusals[a.index].layer, a.site.kind, a.site.operand) <
           std::tie(b.position, refusals[b.index].layer, b.site.kind, b.site.operand);
  });
  std::vector<Refusal> sorted;
  sorted.reserve(refusals.size());
  for (const Place& p : places) sorted.push_back(std::move(refusals[p.index]));
  refusals = std::move(sorted);
}

// Those of `all` for whose reason there is none in `known`.
std::vector<Refusal> beyond(const std::vector<Refusal>& all, const std::vector<Refusal>& known) {
  std::set<decltype(reason_of(all.front()))> reasons;
  for (const Refusal& r : known) reasons.insert(reason_of(r));
  std::vector<Refusal> out;
  for (const Refusal& r : all)
    if (reasons.count(reason_of(r)) == 0) out.push_back(r);
  return out;
}

}  // namespace

void Session::Impl::ask_look() {
  if (look.target.isEmpty() || !has_project) return forget_look();
  ++look.question;
  look.is_wanted = true;
  look.is_whole = false;
  look.rest.stop();
  look.numbers.request_stop();
  send_look();
}

void Session::Impl::forget_look() {
  ++look.question;
  look.rest.stop();
  look.numbers.request_stop();
  look.by_numbers.clear();
  if (!look.is_known) return;
  look.is_known = look.is_whole = false;
  look.refusals.clear();
  look.declared.clear();
  look.trouble.clear();
  Q_EMIT q->target_looked();
}

void Session::Impl::show_look(std::vector<Refusal> refusals, const QString& trouble, bool is_whole) {
  sort_by_place(refusals, *graph);
  look.refusals = std::move(refusals);
  look.trouble = trouble;
  look.is_known = true;
  look.is_whole = is_whole;
  Q_EMIT q->target_looked();
}

void Session::Impl::send_look() {
  if (!client || look.is_asking || !look.is_wanted || !opening_path.isEmpty()) return;
  look.is_wanted = false;
  look.is_asking = true;
  look_lane.post([this, asked = client, recipe = recipe, target = look.target, options = look.options,
                  question = look.question] {
    auto answer = asked->check_declarations(recipe, target.toStdString(), options);
    on_gui([this, asked, question, answer = std::move(answer)]() mutable {
      look.is_asking = false;
      if (asked != client || (!answer && is_loss(asked, answer.error()))) {
        look.is_wanted = true;  // of the engine that comes
      } else if (question == look.question && !answer) {
        look.declared.clear();
        show_look({}, to_text(answer.error()), true);
      } else if (question == look.question) {
        look.declared = std::move(*answer);
        std::vector<Refusal> all = look.declared;
        for (Refusal& r : beyond(look.by_numbers, all)) all.push_back(std::move(r));
        show_look(std::move(all), {}, false);
        look.rest.start();
      }
      send_look();
    });
  });
}

void Session::Impl::send_numbers() {
  if (!client || !look.is_known || look.is_whole || !opening_path.isEmpty()) return;
  look.numbers = std::stop_source();
  numbers_lane.post([this, asked = client, recipe = recipe, target = look.target, options = look.options,
                     question = look.question, stop = look.numbers.get_token()] {
    if (stop.stop_requested()) return;
    auto answer = asked->check_export(recipe, target.toStdString(), options, stop);
    on_gui([this, asked, question, answer = std::move(answer)]() mutable {
      // A lost engine is asked again from the beginning.
      if (question != look.question || asked != client || (!answer && is_loss(asked, answer.error()))) return;
      if (!answer) return show_look({}, to_text(answer.error()), true);
      look.by_numbers = beyond(*answer, look.declared);
      show_look(std::move(*answer), {}, true);
    });
  });
}

void Session::Impl::mend(const QString& layer, const QString& label) {
  if (!client) return;
  std::vector<Refusal> refusals = look.refusals;
  if (!layer.isEmpty())
    std::erase_if(refusals, [&](const Refusal& r) { return QString::fromStdString(r.layer) != layer; });
  look_lane.post([this, asked = client, recipe = recipe, refusals = std::move(refusals), layer, label,
                  project = project_path] {
    const auto mended = asked->mend_recipe(recipe, refusals, layer.toStdString());
    on_gui([this, asked, recipe, label, project, mended] {
      if (asked != client || project != project_path || !(recipe == this->recipe)) return;
      if (mended) return q->edit_recipe(*mended, label);
      if (!is_loss(asked, mended.error()))
        add_issue({Severity::kError, label.toStdString(), mended.error().message, mended.error().hint});
    });
  });
}

}  // namespace quanvas
