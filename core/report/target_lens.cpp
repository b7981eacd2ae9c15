#include "core/report/target_lens.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>
#include <utility>

#include "core/recipe/plan.h"

namespace quanvas {

bool can_mend(const Refusal& refusal) {
  return refusal.site && (refusal.fix || refusal.float_fixes);
}

std::string summary(const ExportReport& report) {
  const auto of = [](std::ptrdiff_t part, std::size_t whole, const char* what) {
    return whole == 0 ? std::string() : ", " + std::to_string(part) + " of " + std::to_string(whole) + what;
  };
  std::string out = report.target + ": " + report.path + ", " + std::to_string(static_cast<std::int64_t>(report.file_bytes)) + " bytes";
  if (report.exactness) out += std::string(", exactness ") + enum_text(*report.exactness);
  out += of(std::count_if(report.audit.begin(), report.audit.end(), [](const AuditRow& r) { return r.equal; }), report.audit.size(),
            " quantizers as requested");
  out += of(std::count_if(report.nodes.begin(), report.nodes.end(), [](const NodeAudit& n) { return n.differing == 0; }),
            report.nodes.size(), " tensors equal");
  if (report.checked_samples > 0) {
    char share[32];
    std::snprintf(share, sizeof share, "%.2f", report.equal_predictions * 100);
    out += ", same class " + std::string(share) + " %";
  }
  return out;
}

std::string both_accuracies(const ExportReport& report) {
  const Accuracy &a = report.screen, &b = report.file;
  char text[160];
  if (a.samples > 0 && has_perplexity(a) && has_perplexity(b))
    std::snprintf(text, sizeof text, "Perplexity %s on the screen, %s of the file", perplexity_digits(a.perplexity).c_str(),
                  perplexity_digits(b.perplexity).c_str());
  else if (a.samples > 0 && !std::isnan(a.top1) && !std::isnan(b.top1))
    std::snprintf(text, sizeof text, "Top-1 %.2f %% on the screen, %.2f %% of the file", 100 * a.top1, 100 * b.top1);
  else
    return {};
  return text;
}

const char* meaning(Exactness exactness) {
  switch (exactness) {
    case Exactness::kWeights: return "the stored codes stand for the screen's very weights";
    case Exactness::kNode: return "every node gives the screen's codes for the same inputs";
    case Exactness::kModel: return "the screen's network but for the order of float sums";
    case Exactness::kNear: break;
  }
  return "not the screen's arithmetic by construction; the figures say how near it is";
}

bool falls_short(const ExportReport& report) {
  if (report.exactness == Exactness::kNear) return false;
  const auto differs = [](const AuditRow& row) { return !row.equal; };
  return std::any_of(report.audit.begin(), report.audit.end(), differs) || (report.checked_samples > 0 && report.equal_predictions < kLeastEqual);
}

std::vector<LensLayer> lens(const std::vector<Refusal>& refusals) {
  std::vector<LensLayer> out;
  std::map<std::string, std::size_t> known;
  for (const Refusal& r : refusals) {
    const auto [it, fresh] = known.emplace(r.layer, out.size());
    if (fresh) out.push_back({r.layer, LensState::kFixable, {}});
    LensLayer& layer = out[it->second];
    layer.refusals.push_back(r);
    if (!can_mend(r)) layer.state = LensState::kImpossible;
  }
  return out;
}

Recipe with_fixes(const Recipe& recipe, const Graph& graph, const std::vector<Refusal>& refusals,
                  const std::string& layer) {
  std::set<Site> done;
  // Sites that get the same quantizer become one rule.
  std::vector<std::pair<std::optional<QuantSpec>, std::vector<Site>>> groups;
  for (const Refusal& r : refusals) {
    if (!can_mend(r) || (!layer.empty() && r.layer != layer)) continue;
    const Node* node = graph.find(r.layer);
    if (!node) continue;
    const Site site{node->id, r.site->kind, r.site->operand};
    if (!done.insert(site).second) continue;
    const auto same = std::find_if(groups.begin(), groups.end(), [&](const auto& g) {
      return g.first == r.fix && g.second.front().kind == site.kind;
    });
    if (same != groups.end())
      same->second.push_back(site);
    else
      groups.push_back({r.fix, {site}});
  }
  Recipe out = recipe;
  for (const auto& [spec, sites] : groups) out = with_assignment(out, graph, sites, spec);
  return out;
}

}  // namespace quanvas
