#include "core/workflow/found_quantizers.h"

#include <algorithm>
#include <utility>

namespace quanvas {
namespace {

std::size_t bytes_of(const quant::QuantParams& p) {
  return sizeof(p) + sizeof(float) * (p.scale.size() + p.zero_point.size() + p.code_scale.size() + p.center.size() +
                                      p.rounding.size() + p.super_scale.size() + p.super_offset.size());
}

}  // namespace

std::optional<quant::QuantParams> FoundQuantizers::find(Question question) const {
  std::sort(question.mates.begin(), question.mates.end());
  std::lock_guard lock(mutex_);
  if (question.values != values_) return std::nullopt;
  const auto found = found_.find(question.site);
  if (found == found_.end() || found->second.spec != question.spec || found->second.mates != question.mates)
    return std::nullopt;
  return found->second.params;
}

void FoundQuantizers::keep(Question question, const quant::QuantParams& params) {
  std::sort(question.mates.begin(), question.mates.end());
  std::lock_guard lock(mutex_);
  if (question.values != values_) {
    values_ = std::move(question.values);
    found_.clear();
    bytes_ = 0;
  }
  if (const auto before = found_.find(question.site); before != found_.end()) {
    bytes_ -= bytes_of(before->second.params);
    found_.erase(before);
  }
  if (bytes_ + bytes_of(params) > kMostBytes) return;
  bytes_ += bytes_of(params);
  found_.emplace(question.site, Found{std::move(question.spec), std::move(question.mates), params});
}

}  // namespace quanvas
