// Session: quick questions. One of a kind is on its way at a time; what comes meanwhile replaces what waits,
// so a drag gets answers at the pace of the engine and never a queue of old ones.
#include <algorithm>

#include "app/session/session_impl.h"

namespace quanvas {
namespace {

// A click during a long list is answered after at most so many layers.
constexpr std::size_t kFactsBatch = 8;
constexpr auto kFactsPace = std::chrono::milliseconds(30);

}  // namespace

std::vector<NodeId> Session::Impl::all_layers() const {
  std::vector<NodeId> nodes;
  nodes.reserve(layers.size());
  for (const auto& layer : layers) nodes.push_back(layer.node);
  return nodes;
}

void Session::Impl::mark_changed(const std::vector<NodeId>& nodes) {
  ++generation;
  for (const NodeId node : nodes) changed_at[node] = generation;
  // What numbers said of them holds no longer; of the model as a whole it is asked again.
  const std::unordered_set<NodeId> changed(nodes.begin(), nodes.end());
  std::erase_if(look.by_numbers, [&](const Refusal& r) {
    const Node* node = graph ? graph->find(r.layer) : nullptr;
    return node ? changed.count(node->id) > 0 : r.site && nodes.size() == layers.size();
  });
}

void Session::Impl::ask_facts(const std::vector<NodeId>& nodes) {
  if (!has_project) return;
  std::vector<NodeId> fresh;
  std::unordered_set<NodeId> known;
  for (const NodeId node : nodes)
    if (layer_nodes.count(node) > 0 && known.insert(node).second) fresh.push_back(node);
  std::erase_if(wanted_facts, [&](NodeId node) { return known.count(node) > 0; });
  wanted_facts.insert(wanted_facts.end(), fresh.rbegin(), fresh.rend());  // asked last, answered first
  send_facts();
}

void Session::Impl::send_facts() {
  if (!client || asking_facts || wanted_facts.empty() || !opening_path.isEmpty()) return;
  asking_facts = true;
  const auto count = std::min(kFactsBatch, wanted_facts.size());
  std::vector<NodeId> batch(wanted_facts.rbegin(), wanted_facts.rbegin() + static_cast<std::ptrdiff_t>(count));
  wanted_facts.resize(wanted_facts.size() - count);
  facts_lane.post([this, asked = client, batch, recipe = recipe, asked_at = generation] {
    using Clock = std::chrono::steady_clock;
    std::vector<LayerFacts> ready;
    std::size_t answered = 0;
    auto last = Clock::now();
    const auto hand_over = [&] {
      on_gui([this, asked, asked_at, answers = std::exchange(ready, {})] {
        if (asked == client) take_facts(answers, asked_at);
      });
      last = Clock::now();
    };
    const Status status = asked->layer_facts(recipe, batch, [&](LayerFacts facts) {
      ready.push_back(std::move(facts));
      ++answered;
      if (Clock::now() - last > kFactsPace) hand_over();
    });
    if (!ready.empty()) hand_over();
    on_gui([this, asked, status, batch, answered] {
      if (asked != client) return;
      asking_facts = false;
      if (!status && is_loss(asked, status.error())) return;
      if (!status && answered < batch.size()) {
        // The layer that failed is told once and dropped; those behind it are asked again.
        const Node* node = graph->find(batch[answered]);
        if (told_facts_errors.insert(status.error().message).second)
          add_issue({Severity::kWarning, node ? node->name : "", status.error().message, status.error().hint});
        for (std::size_t i = batch.size(); i-- > answered + 1;) {
          const bool again = std::find(wanted_facts.begin(), wanted_facts.end(), batch[i]) == wanted_facts.end();
          if (again) wanted_facts.push_back(batch[i]);
        }
      }
      send_facts();
    });
  });
}

void Session::Impl::take_facts(const std::vector<LayerFacts>& answers, std::uint64_t asked_at) {
  std::vector<NodeId> nodes;
  for (const auto& answer : answers) {
    if (layer_nodes.count(answer.node) == 0) continue;
    facts[answer.node] = answer;
    answered_at[answer.node] = asked_at;
    nodes.push_back(answer.node);
  }
  if (!nodes.empty()) Q_EMIT q->facts_changed(nodes);
}

void Session::Impl::ask_trust(const std::optional<std::vector<std::string>>& revoke) {
  if (!client) {
    Q_EMIT q->trust_failed(QStringLiteral("The engine is not ready."));
    return;
  }
  control_lane.post([this, asked = client, revoke] {
    const auto models = revoke ? asked->revoke_trust(*revoke) : asked->trust();
    on_gui([this, asked, models] {
      if (asked != client) return;
      if (models) Q_EMIT q->trust_listed(*models);
      else if (!is_loss(asked, models.error())) Q_EMIT q->trust_failed(to_text(models.error()));
    });
  });
}

void Session::Impl::ask_histogram(const Site& site, int bins) {
  if (!has_project) return;
  wanted_histogram = HistogramQuestion{site, bins};
  send_histogram();
}

void Session::Impl::send_histogram() {
  if (!client || asking_histogram || !wanted_histogram || !opening_path.isEmpty()) return;
  asking_histogram = true;
  const auto question = *std::exchange(wanted_histogram, std::nullopt);
  histogram_lane.post([this, asked = client, question, recipe = recipe] {
    const auto answer = asked->histogram(recipe, question.site, question.bins);
    on_gui([this, asked, question, answer] {
      if (asked != client) {
        // The engine is another one now; ask it, unless something newer waits.
        if (!wanted_histogram && !answer) wanted_histogram = question;
        return send_histogram();
      }
      asking_histogram = false;
      // During a drag the next question is of the same site: each answer is a frame. Another site overtakes.
      const bool overtaken = wanted_histogram && wanted_histogram->site != question.site;
      if (!overtaken && answer) Q_EMIT q->histogram_ready(*answer);
      if (!overtaken && !answer && !is_loss(asked, answer.error()))
        Q_EMIT q->histogram_failed(question.site, to_text(answer.error()));
      if (!answer && is_loss(asked, answer.error()) && !wanted_histogram) wanted_histogram = question;
      send_histogram();
    });
  });
}

void Session::Impl::ask_checks() {
  ask_recipe_check();
  ask_look();
}

// A recipe without passes has nothing to ask about.
void Session::Impl::ask_recipe_check() {
  if (!has_project) return;
  wants_recipe_check = true;
  send_recipe_check();
}

void Session::Impl::send_recipe_check() {
  if (!client || asking_recipe_check || !wants_recipe_check || !opening_path.isEmpty()) return;
  wants_recipe_check = false;
  if (recipe.passes.empty()) return take_recipe_check({});
  asking_recipe_check = true;
  recipe_lane.post([this, asked = client, recipe = recipe] {
    const auto answer = asked->check_recipe(recipe);
    on_gui([this, asked, recipe, answer] {
      asking_recipe_check = false;
      if (asked != client || (!answer && is_loss(asked, answer.error()))) {
        wants_recipe_check = true;  // of the engine that comes
      } else if (recipe == this->recipe) {
        take_recipe_check(answer ? *answer
                                 : std::vector<RecipeIssue>{{-1, {Severity::kWarning, "", "The passes could not be checked: " + answer.error().message, answer.error().hint}}});
      }
      send_recipe_check();
    });
  });
}

void Session::Impl::take_recipe_check(std::vector<RecipeIssue> issues) {
  const auto pending = [](const std::vector<RecipeIssue>& list) { return std::count_if(list.begin(), list.end(), [](const RecipeIssue& i) { return i.is_pending; }); };
  // A pass that has measured meanwhile changes what every layer sees.
  if (pending(issues) < pending(recipe_issues)) {
    mark_changed(all_layers());
    ask_facts(all_layers());
  }
  recipe_issues = std::move(issues);
  Q_EMIT q->recipe_checked();
}

}  // namespace quanvas
