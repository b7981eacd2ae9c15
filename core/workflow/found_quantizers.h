// Quanvas - quantizers that quick questions have found in weights and statistics: an edit of one layer searches no
// scales for the others. Those that follow from other quantizers (biases at the accumulator's scale, truncated
// outputs) are not kept.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/quant/params.h"

namespace quanvas {

// Thread-safe. Of each site the newest one.
class FoundQuantizers {
 public:
  // What a quantizer is found from: `values` names all weights and statistics (values found from others are
  // forgotten with the first of these), mates are the sites of the group that shares it, in any order; empty: it is
  // on its own.
  struct Question {
    std::string values;
    Site site;
    QuantSpec spec;
    std::vector<Site> mates;
  };
  std::optional<quant::QuantParams> find(Question question) const;
  // More than kMostBytes of parameters are not kept.
  void keep(Question question, const quant::QuantParams& params);
  static constexpr std::size_t kMostBytes = std::size_t{256} << 20;

 private:
  struct Found {
    QuantSpec spec;
    std::vector<Site> mates;
    quant::QuantParams params;
  };
  mutable std::mutex mutex_;
  std::string values_;
  std::map<Site, Found> found_;
  std::size_t bytes_ = 0;
};

}  // namespace quanvas
