// The order within the rows: barycentre sweeps, then exchanges of neighbours; the best order seen is kept.
#include <algorithm>
#include <numeric>

#include "core/graph/layered.h"

namespace quanvas::layered {

namespace {

std::size_t at(int i) { return static_cast<std::size_t>(i); }

void renumber(Work& work, const std::vector<int>& row) {
  for (std::size_t i = 0; i < row.size(); ++i) work.position[at(row[i])] = static_cast<int>(i);
}

// Depth first from the top, so that a branch stays together.
void first_order(Work& work) {
  const std::size_t n = work.rank.size();
  std::vector<bool> seen(n, false);
  std::vector<int> roots(n), stack;
  std::iota(roots.begin(), roots.end(), 0);
  std::stable_sort(roots.begin(), roots.end(), [&work](int a, int b) { return work.rank[at(a)] < work.rank[at(b)]; });
  for (const int root : roots) {
    stack.push_back(root);
    while (!stack.empty()) {
      const int v = stack.back();
      stack.pop_back();
      if (seen[at(v)]) continue;
      seen[at(v)] = true;
      work.rows[at(work.rank[at(v)])].push_back(v);
      const auto& next = work.down[at(v)];
      stack.insert(stack.end(), next.rbegin(), next.rend());
    }
  }
  work.position.assign(n, 0);
  for (const auto& row : work.rows) renumber(work, row);
}

std::size_t crossings_below(const Work& work, std::size_t r, std::vector<int>& tree, std::vector<int>& ends) {
  ends.clear();
  for (const int v : work.rows[r]) {
    const auto begin = static_cast<std::ptrdiff_t>(ends.size());
    for (const int w : work.down[at(v)]) ends.push_back(work.position[at(w)]);
    std::sort(ends.begin() + begin, ends.end());
  }
  const std::size_t size = work.rows[r + 1].size();
  tree.assign(size + 1, 0);
  std::size_t crossings = 0;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    int not_right = 0;
    for (int k = ends[i] + 1; k > 0; k -= k & -k) not_right += tree[at(k)];
    crossings += i - static_cast<std::size_t>(not_right);
    for (int k = ends[i] + 1; k <= static_cast<int>(size); k += k & -k) ++tree[at(k)];
  }
  return crossings;
}

// Vertices without neighbours in that direction keep their slot; ties keep their order.
void sort_row(Work& work, std::size_t r, bool from_above) {
  auto& row = work.rows[r];
  std::vector<std::pair<double, int>> moving;
  std::vector<std::size_t> slots;
  for (std::size_t i = 0; i < row.size(); ++i) {
    const auto& neighbours = from_above ? work.up[at(row[i])] : work.down[at(row[i])];
    if (neighbours.empty()) continue;
    double sum = 0;
    for (const int w : neighbours) sum += work.position[at(w)];
    moving.emplace_back(sum / static_cast<double>(neighbours.size()), row[i]);
    slots.push_back(i);
  }
  std::stable_sort(moving.begin(), moving.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (std::size_t i = 0; i < slots.size(); ++i) row[slots[i]] = moving[i].second;
  renumber(work, row);
}

void sweep(Work& work, bool downwards) {
  const std::size_t rows = work.rows.size();
  for (std::size_t i = 1; i < rows; ++i) sort_row(work, downwards ? i : rows - 1 - i, downwards);
}

// Crossings of the edges of two neighbours on one side when `left` stands left of `right`, minus those when
// they change places. Positions are sorted.
long gain_of_exchange(const std::vector<int>& left, const std::vector<int>& right) {
  long now = 0, then = 0;
  std::size_t below = 0, equal_or_below = 0;
  for (const int p : left) {
    while (below < right.size() && right[below] < p) ++below;
    while (equal_or_below < right.size() && right[equal_or_below] <= p) ++equal_or_below;
    now += static_cast<long>(below);
    then += static_cast<long>(right.size() - equal_or_below);
  }
  return now - then;
}

std::vector<int> positions(const Work& work, const std::vector<int>& vertices) {
  std::vector<int> out;
  out.reserve(vertices.size());
  for (const int v : vertices) out.push_back(work.position[at(v)]);
  std::sort(out.begin(), out.end());
  return out;
}

bool transpose_row(Work& work, std::vector<int>& row) {
  bool better = false;
  std::vector<std::pair<std::vector<int>, std::vector<int>>> sides;
  for (const int v : row) sides.emplace_back(positions(work, work.up[at(v)]), positions(work, work.down[at(v)]));
  for (std::size_t i = 0; i + 1 < row.size(); ++i) {
    const long gain = gain_of_exchange(sides[i].first, sides[i + 1].first) +
                      gain_of_exchange(sides[i].second, sides[i + 1].second);
    if (gain <= 0) continue;
    std::swap(row[i], row[i + 1]);
    std::swap(sides[i], sides[i + 1]);
    better = true;
  }
  if (better) renumber(work, row);
  return better;
}

void transpose(Work& work, std::stop_token stop) {
  for (int round = 0; round < 6 && !stop.stop_requested(); ++round) {
    bool better = false;
    for (auto& row : work.rows)
      if (row.size() > 1) better = transpose_row(work, row) || better;
    if (!better) return;
  }
}

}  // namespace

std::size_t count_crossings(const Work& work) {
  std::vector<int> tree, ends;
  std::size_t total = 0;
  for (std::size_t r = 0; r + 1 < work.rows.size(); ++r) total += crossings_below(work, r, tree, ends);
  return total;
}

void order_rows(Work& work, std::stop_token stop) {
  first_order(work);
  auto best_rows = work.rows;
  std::size_t best = count_crossings(work);
  int without_gain = 0;
  const auto keep_if_better = [&] {
    const std::size_t now = count_crossings(work);
    ++without_gain;
    if (now >= best) return;
    best = now;
    best_rows = work.rows;
    without_gain = 0;
  };
  for (int i = 0; i < 24 && best > 0 && without_gain < 6 && !stop.stop_requested(); ++i) {
    sweep(work, i % 2 == 0);
    if (i % 4 == 3) transpose(work, stop);
    keep_if_better();
  }
  work.rows = best_rows;
  for (const auto& row : work.rows) renumber(work, row);
  if (best > 0) transpose(work, stop);
}

}  // namespace quanvas::layered
