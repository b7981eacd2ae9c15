#include "plugins/passes/rotation.h"

#include <algorithm>

#include "core/algorithms/orthogonal.h"

namespace quanvas {

using algorithms::HadamardTransform;

Result<Rotation> Rotation::create(const std::string& kind, std::int64_t size, std::uint64_t seed, const std::stop_token& stop) {
  Rotation r;
  r.size_ = size;
  if (kind == "orthogonal") {
    QUANVAS_TRY(r.dense_, algorithms::random_orthogonal(size, seed, stop));
    return r;
  }
  QUANVAS_TRY(HadamardTransform t, HadamardTransform::create(size));
  r.hadamard_ = std::move(t);
  if (kind == "signs") r.signs_ = algorithms::random_signs(size, seed);
  return r;
}

Rotation Rotation::of(std::int64_t size, std::vector<double> matrix) {
  Rotation r;
  r.size_ = size;
  r.dense_ = std::move(matrix);
  return r;
}

std::vector<double> Rotation::matrix() const {
  if (!hadamard_) return dense_;
  std::vector<double> out = hadamard_->matrix();
  for (std::size_t i = 0; i < out.size() && !signs_.empty(); ++i) out[i] *= signs_[i / static_cast<std::size_t>(size_)];
  return out;
}

Status Rotation::apply(std::vector<double>& x, const std::stop_token& stop) const {
  for (std::size_t i = 0; i < x.size() && !signs_.empty(); ++i) x[i] *= signs_[i % signs_.size()];
  const auto rows = static_cast<std::int64_t>(x.size()) / size_;
  if (hadamard_) {
    hadamard_->apply(x.data(), x.data(), rows);
    return {};
  }
  std::vector<double> out(x.size());
  QUANVAS_CHECK(algorithms::multiply_rows(x.data(), out.data(), rows, dense_, size_, stop));
  x = std::move(out);
  return {};
}

std::vector<double> transposed(const std::vector<double>& x, std::int64_t rows, std::int64_t columns) {
  std::vector<double> out(x.size());
  constexpr std::int64_t kTile = 32;  // stays in the first-level cache
  for (std::int64_t top = 0; top < rows; top += kTile)
    for (std::int64_t left = 0; left < columns; left += kTile)
      for (std::int64_t r = top; r < std::min(rows, top + kTile); ++r)
        for (std::int64_t c = left; c < std::min(columns, left + kTile); ++c)
          out[static_cast<std::size_t>(c * rows + r)] = x[static_cast<std::size_t>(r * columns + c)];
  return out;
}

Status rotate_outputs(LinearWeight& w, const Rotation& r, const std::stop_token& stop) {
  QUANVAS_CHECK(r.apply(w.w, stop));
  return w.b.empty() ? Status() : r.apply(w.b, stop);
}

Status rotate_inputs(LinearWeight& w, const Rotation& r, std::int64_t inputs, const std::stop_token& stop) {
  w.w.resize(static_cast<std::size_t>(inputs * w.outputs), 0.0);
  std::vector<double> turned = transposed(w.w, inputs, w.outputs);
  QUANVAS_CHECK(r.apply(turned, stop));
  w.w = transposed(turned, w.outputs, inputs);
  w.inputs = inputs;
  return {};
}

}  // namespace quanvas
