#include "core/report/report.h"

namespace quanvas {

std::string Refusal::text() const {
  std::string out = layer.empty() ? std::string("The model") : layer;
  if (!quantizer.empty()) out += (layer.empty() ? ", " : " ") + quantizer;
  out += ": " + rule;
  if (!got.empty()) out += ", but it is " + got;
  if (!allowed.empty()) out += " (allowed: " + allowed + ")";
  if (!suggestion.empty()) out += "; " + suggestion;
  if (out.back() != '.') out += ".";
  return out;
}

}  // namespace quanvas
