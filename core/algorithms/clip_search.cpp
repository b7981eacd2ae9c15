#include "core/algorithms/clip_search.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/algorithms/panel.h"
#include "core/algorithms/rounding.h"

namespace quanvas::algorithms {
namespace {

using quant::ColumnQuantizer;
using quant::QuantParams;

// Rows of a task: products of few rows are slow, and layers of few outputs shall have work for all threads.
constexpr std::int64_t kRows = 32;

QuantParams shrunk(const QuantParams& params, const std::vector<double>& factors) {
  QuantParams out = params;
  for (std::size_t p = 0; p < out.scale.size(); ++p) {
    if (factors[p] == 1) continue;
    out.scale[p] = static_cast<float>(static_cast<double>(out.scale[p]) * factors[p]);
    if (params.spec.zero_point == ZeroPointType::kOffset)
      out.zero_point[p] = static_cast<float>(static_cast<double>(out.zero_point[p]) * factors[p]);
  }
  return out;
}

// The tr(D H D') alone.
Moments without_mismatch(const Moments& moments) {
  Moments out;
  out.inputs = moments.inputs;
  out.order = moments.order;
  out.h = moments.h;
  return out;
}

class Search {
 public:
  Search(const std::vector<ClipMatrix>& matrices, const QuantParams& params, const ClipOptions& options)
      : matrices_(matrices), params_(params), o_(options), best_(params.scale.size(), 1.0) {}

  Result<ClipReport> run(QuantParams& result) {
    bool whole_rows = true;
    for (const ClipMatrix& matrix : matrices_) {
      QUANVAS_TRY(const ColumnQuantizer own, ColumnQuantizer::create(params_, matrix.view));
      QUANVAS_CHECK(check_layer(matrix.view.rows, matrix.view.columns, matrix.w, *matrix.moments, &own));
      whole_rows = whole_rows && sets_of(own) == 1;
    }
    if (!whole_rows) QUANVAS_CHECK(check_owners());
    QUANVAS_TRY(const std::vector<double> before, errors_of(params_));
    if (whole_rows) {
      QUANVAS_CHECK(search_rows(before));
    } else {
      for (const ClipMatrix& matrix : matrices_) QUANVAS_CHECK(search_groups(matrix));
    }
    QuantParams found = shrunk(params_, best_);
    QUANVAS_TRY(std::vector<double> after, errors_of(found));
    if (!whole_rows && give_back(before, after)) {
      found = shrunk(params_, best_);
      QUANVAS_TRY(after, errors_of(found));
    }
    ClipReport report;
    for (const double e : before) report.before += e;
    for (const double e : after) report.after += e;
    for (const double f : best_) report.changed += f < 1;
    result = std::move(found);
    return report;
  }

 private:
  static std::int64_t sets_of(const ColumnQuantizer& quantizer) {
    std::int64_t last = 0;
    for (std::int64_t c = 0; c < quantizer.columns(); ++c) last = std::max(last, quantizer.set_of(c));
    return last + 1;
  }
  double factor(int k) const { return 1 - o_.max_shrink * k / o_.steps; }
  std::int64_t parameter(const ClipMatrix& matrix, std::int64_t r, std::int64_t c) const {
    return quant::parameter_of(params_.layout, matrix.view.element(r, c));
  }
  QuantParams candidate(int k) const {
    return shrunk(params_, std::vector<double>(params_.scale.size(), factor(k)));
  }

  // With several scales in a row each must serve that row alone.
  Status check_owners() const {
    std::vector<std::int64_t> owner(params_.scale.size(), -1);
    std::int64_t row = 0;
    for (const ClipMatrix& matrix : matrices_)
      for (std::int64_t r = 0; r < matrix.view.rows; ++r, ++row)
        for (std::int64_t c = 0; c < matrix.view.columns; ++c) {
          std::int64_t& who = owner[static_cast<std::size_t>(parameter(matrix, r, c))];
          if (who >= 0 && who != row)
            return fail(ErrorCode::kUnsupported,
                        "A scale serves parts of several outputs, whose ranges cannot be chosen apart.");
          who = row;
        }
    return {};
  }

  // tr(D H D') of each row of all matrices, one after the other.
  Result<std::vector<double>> errors_of(const QuantParams& params) const {
    std::vector<double> out;
    for (const ClipMatrix& matrix : matrices_) {
      QUANVAS_TRY(const ColumnQuantizer quantizer, ColumnQuantizer::create(params, matrix.view));
      std::vector<float> q(static_cast<std::size_t>(matrix.view.rows * matrix.view.columns));
      quantizer.fake_matrix(matrix.w, q.data());
      QUANVAS_TRY(const std::vector<double> rows, row_objectives(matrix.view.rows, matrix.view.columns, matrix.w,
                                                                 q.data(), *matrix.moments, o_.stop));
      out.insert(out.end(), rows.begin(), rows.end());
    }
    return out;
  }

  // Every row has one scale, which may serve others, too: all candidates of all rows at once.
  Status search_rows(const std::vector<double>& before) {
    std::vector<std::size_t> parameter_of_row;
    for (const ClipMatrix& matrix : matrices_)
      for (std::int64_t r = 0; r < matrix.view.rows; ++r)
        parameter_of_row.push_back(static_cast<std::size_t>(parameter(matrix, r, 0)));
    const auto sums = [&](const std::vector<double>& rows) {
      std::vector<double> out(params_.scale.size());
      for (std::size_t i = 0; i < rows.size(); ++i) out[parameter_of_row[i]] += rows[i];
      return out;
    };
    std::vector<double> least = sums(before);
    for (int k = 1; k <= o_.steps; ++k) {
      QUANVAS_TRY(const std::vector<double> rows, errors_of(candidate(k)));
      const std::vector<double> now = sums(rows);
      for (std::size_t p = 0; p < now.size(); ++p)
        if (now[p] < least[p]) least[p] = now[p], best_[p] = factor(k);
    }
    return {};
  }

  Status search_groups(const ClipMatrix& matrix) {
    std::vector<ColumnQuantizer> candidates;
    for (int k = 0; k <= o_.steps; ++k) {
      QUANVAS_TRY(ColumnQuantizer quantizer, ColumnQuantizer::create(candidate(k), matrix.view));
      candidates.push_back(std::move(quantizer));
    }
    std::vector<std::vector<std::int64_t>> groups(static_cast<std::size_t>(sets_of(candidates[0])));
    for (std::int64_t c = 0; c < matrix.view.columns; ++c)
      groups[static_cast<std::size_t>(candidates[0].set_of(c))].push_back(c);
    const std::int64_t m = matrix.view.rows, n = matrix.view.columns;
    return for_each_task((m + kRows - 1) / kRows, o_.stop,
                         [&](std::int64_t s) {
                           search_stripe(matrix, candidates, groups, s * kRows, std::min(kRows, m - s * kRows));
                         },
                         m * n * n);
  }

  void search_stripe(const ClipMatrix& matrix, const std::vector<ColumnQuantizer>& candidates,
                     const std::vector<std::vector<std::int64_t>>& groups, std::int64_t first, std::int64_t rows) {
    const std::int64_t n = matrix.view.columns;
    const float* h = matrix.moments->h.data();
    Panel w(n, first, rows), delta(n, first, rows), residual(n, first, rows);
    w.load(matrix.w, natural_order(n));
    for (std::int64_t c = 0; c < n; ++c) candidates[0].fake(c, first, rows, w.at(c), delta.at(c));
    difference(delta.elements(), delta.data(), w.data(), delta.data());
    gemm(false, false, n, rows, n, 1.0f, h, n, delta.data(), rows, 0.0f, residual.data(), rows);
    std::vector<float> part, lines, change, chosen;
    std::vector<double> sums(static_cast<std::size_t>(rows)), least(sums.size());
    for (const std::vector<std::int64_t>& columns : groups) {
      if (o_.stop.stop_requested()) return;
      const auto g = static_cast<std::int64_t>(columns.size());
      part.resize(static_cast<std::size_t>(g * g));
      lines.resize(static_cast<std::size_t>(g * n));
      for (std::int64_t i = 0; i < g; ++i) {
        const float* line = h + columns[static_cast<std::size_t>(i)] * n;
        std::copy_n(line, n, lines.begin() + i * n);
        for (std::int64_t j = 0; j < g; ++j)
          part[static_cast<std::size_t>(i * g + j)] = line[columns[static_cast<std::size_t>(j)]];
      }
      const auto size = static_cast<std::size_t>(g * rows);
      change.resize(size);
      chosen.assign(size, 0.0f);
      std::vector<float> product(size);
      std::vector<int> best(static_cast<std::size_t>(rows));
      std::fill(least.begin(), least.end(), 0.0);
      for (int k = 1; k <= o_.steps; ++k) {
        // The change e of the errors changes the row's error by 2 e'R + e'He.
        for (std::int64_t i = 0; i < g; ++i) {
          const std::int64_t c = columns[static_cast<std::size_t>(i)];
          float* e = change.data() + i * rows;
          candidates[static_cast<std::size_t>(k)].fake(c, first, rows, w.at(c), e);
          for (std::int64_t r = 0; r < rows; ++r) e[r] = (e[r] - w.at(c)[r]) - delta.at(c)[r];
        }
        gemm(false, false, g, rows, g, 1.0f, part.data(), g, change.data(), rows, 0.0f, product.data(), rows);
        std::fill(sums.begin(), sums.end(), 0.0);
        for (std::int64_t i = 0; i < g; ++i) {
          add_products(rows, 1, change.data() + i * rows, product.data() + i * rows, sums.data());
          add_products(rows, 2, change.data() + i * rows, residual.at(columns[static_cast<std::size_t>(i)]),
                       sums.data());
        }
        for (std::size_t r = 0; r < sums.size(); ++r) {
          if (!(sums[r] < least[r])) continue;
          least[r] = sums[r], best[r] = k;
          for (std::int64_t i = 0; i < g; ++i)
            chosen[static_cast<std::size_t>(i * rows) + r] = change[static_cast<std::size_t>(i * rows) + r];
        }
      }
      for (std::int64_t i = 0; i < g; ++i) {
        float* d = delta.at(columns[static_cast<std::size_t>(i)]);
        for (std::int64_t r = 0; r < rows; ++r) d[r] += chosen[static_cast<std::size_t>(i * rows + r)];
      }
      gemm(true, false, n, rows, g, 1.0f, lines.data(), n, chosen.data(), rows, 1.0f, residual.data(), rows);
      for (std::int64_t r = 0; r < rows; ++r)
        best_[static_cast<std::size_t>(parameter(matrix, first + r, columns[0]))] =
            factor(best[static_cast<std::size_t>(r)]);
    }
  }

  // Rows that have not become better keep their scales. Whether there are any.
  bool give_back(const std::vector<double>& before, const std::vector<double>& after) {
    bool any = false;
    std::size_t row = 0;
    for (const ClipMatrix& matrix : matrices_)
      for (std::int64_t r = 0; r < matrix.view.rows; ++r, ++row) {
        if (after[row] < before[row]) continue;
        for (std::int64_t c = 0; c < matrix.view.columns; ++c) {
          double& f = best_[static_cast<std::size_t>(parameter(matrix, r, c))];
          any = any || f < 1;
          f = 1;
        }
      }
    return any;
  }

  const std::vector<ClipMatrix>& matrices_;
  const QuantParams& params_;
  const ClipOptions& o_;
  std::vector<double> best_;  // factor of each scale
};

}  // namespace

Result<ClipReport> search_clip(const std::vector<ClipMatrix>& matrices, QuantParams& params,
                               const ClipOptions& options) {
  if (options.steps < 1 || !(options.max_shrink > 0 && options.max_shrink < 1))
    return fail(ErrorCode::kInvalidArgument, "A search for ranges has " + std::to_string(options.steps) +
                                                 " steps down to 1 - " + std::to_string(options.max_shrink) +
                                                 "; it needs 1 at least, and a largest shrink between 0 and 1.");
  // tr(D H D') alone: what else the moments hold says nothing about ranges.
  std::vector<Moments> plain;
  plain.reserve(matrices.size());
  std::vector<ClipMatrix> own = matrices;
  for (ClipMatrix& matrix : own)
    if (!matrix.moments->mismatch.empty()) matrix.moments = &plain.emplace_back(without_mismatch(*matrix.moments));
  return Search(own, params, options).run(params);
}

}  // namespace quanvas::algorithms
