// The descent, and how its result is kept. The loss is in rotation_loss.cpp.
#include "plugins/passes/learn_rotations.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numbers>

#include "core/algorithms/cayley.h"
#include "core/algorithms/orthogonal.h"

namespace quanvas {
namespace {

constexpr double kOrthogonal = 1e-6;
constexpr char kMagic[8] = {'r', 'o', 't', 'a', 't', 'e', '0', '1'};

// Endless walks over the samples, each in an order of its own.
class Batches {
 public:
  Batches(std::vector<std::int64_t> samples, std::uint64_t seed) : samples_(std::move(samples)), random_(seed) {}
  std::vector<std::int64_t> next(int count) {
    std::vector<std::int64_t> out;
    const std::size_t n = std::min(samples_.size(), static_cast<std::size_t>(count));
    while (out.size() < n) {
      if (at_ == 0)
        for (std::size_t i = samples_.size(); i > 1; --i)
          std::swap(samples_[i - 1], samples_[static_cast<std::size_t>(random_.bits() % i)]);
      out.push_back(samples_[at_]);
      at_ = (at_ + 1) % samples_.size();
    }
    return out;
  }

 private:
  std::vector<std::int64_t> samples_;
  algorithms::SeededRandom random_;
  std::size_t at_ = 0;
};

std::string loss_text(double loss) {
  char text[48];
  std::snprintf(text, sizeof text, "loss %.4f", loss);
  return text;
}

// |R'R v - v| for a few directions v, which a damaged matrix does not pass; all columns would take n^3 products.
bool is_orthogonal(std::int64_t n, const std::vector<double>& r) {
  algorithms::SeededRandom random(n);
  std::vector<double> v(static_cast<std::size_t>(n)), y(v.size()), z(v.size());
  for (int time = 0; time < 4; ++time) {
    for (double& x : v) x = random.normal();
    std::fill(z.begin(), z.end(), 0.0);
    for (std::int64_t i = 0; i < n; ++i) {
      const double* row = r.data() + i * n;
      double sum = 0;
      for (std::int64_t j = 0; j < n; ++j) sum += row[j] * v[static_cast<std::size_t>(j)];
      for (std::int64_t j = 0; j < n; ++j) z[static_cast<std::size_t>(j)] += sum * row[j];
    }
    for (std::size_t i = 0; i < v.size(); ++i)
      if (!(std::fabs(z[i] - v[i]) <= kOrthogonal * std::sqrt(static_cast<double>(n)))) return false;
  }
  return true;
}

}  // namespace

Result<LearnedRotations> learn_rotations(RotationLoss& loss, const LearnOptions& options, JobContext& job) {
  constexpr const char* kPhase = "learn rotations";
  LearnedRotations out;
  job.progress(kPhase, 0);
  QUANVAS_CHECK(loss.calibrate(job));
  QUANVAS_TRY(out.before, loss.loss(loss.kept_samples(), job));
  if (!std::isfinite(out.before))
    return fail(ErrorCode::kInvalidArgument,
                "The loss of the rotated network in the recipe's formats is not finite on the calibration samples.",
                "Look for NaN in weights and samples, or switch the learning off.");
  out.after = out.before;
  std::vector<std::vector<double>> matrices, gradients, velocities;
  for (const Rotation& r : loss.rotations()) matrices.push_back(r.matrix());
  const std::vector<Rotation> start = loss.rotations();
  velocities.resize(start.size());
  Batches batches(loss.learned_samples(), options.seed);
  // Static formats of activations follow the rotations, and the loss is looked at, ten times or every ten steps.
  const int every = std::clamp(options.steps / 10, 1, 10);
  for (int step = 1; step <= options.steps; ++step) {
    QUANVAS_TRY(const double now, loss.gradient(batches.next(options.batch), gradients, job));
    if (!std::isfinite(now)) break;  // the best so far stays
    const double rate = options.rate * 0.5 * (1 + std::cos(std::numbers::pi * (step - 1) / options.steps));
    std::vector<Rotation> next;
    for (std::size_t i = 0; i < matrices.size(); ++i) {
      QUANVAS_CHECK(job.check());
      QUANVAS_CHECK(algorithms::cayley_step(start[i].size(), matrices[i], gradients[i], rate, job.stop_token(), &velocities[i],
                                            options.momentum));
      next.push_back(Rotation::of(start[i].size(), matrices[i]));
    }
    QUANVAS_CHECK(loss.set(std::move(next), job));
    job.progress(kPhase, static_cast<double>(step) / options.steps, loss_text(now));
    if (step % every != 0 && step != options.steps) continue;
    QUANVAS_CHECK(loss.calibrate(job));
    QUANVAS_TRY(const double kept, loss.loss(loss.kept_samples(), job));
    if (!(kept < out.after)) continue;
    out.after = kept;
    out.step = step;
    out.matrices = matrices;
  }
  return out;
}

std::string to_bytes(const LearnedRotations& learned) {
  std::string out(kMagic, sizeof kMagic);
  const auto put = [&](const void* data, std::size_t bytes) { out.append(static_cast<const char*>(data), bytes); };
  const std::int64_t step = learned.step;
  put(&learned.before, sizeof(double));
  put(&learned.after, sizeof(double));
  put(&step, sizeof step);
  for (const auto& m : learned.matrices) put(m.data(), m.size() * sizeof(double));
  return out;
}

bool from_bytes(const std::string& bytes, const std::vector<Rotation>& rotations, LearnedRotations& out) {
  std::size_t at = 0;
  const auto take = [&](void* data, std::size_t count) {
    if (bytes.size() - at < count) return false;
    std::memcpy(data, bytes.data() + at, count);
    at += count;
    return true;
  };
  out = {};
  char magic[sizeof kMagic];
  std::int64_t step = 0;
  if (!take(magic, sizeof magic) || std::memcmp(magic, kMagic, sizeof magic) != 0) return false;
  if (!take(&out.before, sizeof(double)) || !take(&out.after, sizeof(double)) || !take(&step, sizeof step)) return false;
  if (!std::isfinite(out.before) || !std::isfinite(out.after) || out.after > out.before || step < 0 || step > 1000000)
    return false;
  out.step = static_cast<int>(step);
  for (std::size_t i = 0; i < rotations.size() && step > 0; ++i) {
    const std::int64_t n = rotations[i].size();
    std::vector<double> m(static_cast<std::size_t>(n * n));
    if (!take(m.data(), m.size() * sizeof(double)) || !is_orthogonal(n, m)) return false;
    out.matrices.push_back(std::move(m));
  }
  return at == bytes.size();
}

}  // namespace quanvas
