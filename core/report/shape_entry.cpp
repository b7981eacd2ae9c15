#include "core/report/shape_entry.h"

#include <algorithm>
#include <charconv>

namespace quanvas {
namespace {

constexpr std::int64_t kMostElements = std::int64_t{1} << 40;

Result<std::int64_t> dimension(std::string text) {
  std::erase(text, ' ');
  if (text == "?") return -1;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size() || value < -1)
    return fail(ErrorCode::kInvalidArgument, "'" + text + "' is not a dimension",
                "Give whole numbers with commas between them, ? for one that stays open.");
  return value;
}

}  // namespace

Result<Shape> parse_shape(const std::string& given) {
  std::string text = given;
  for (std::size_t at; (at = text.find("×")) != std::string::npos;) text.replace(at, std::string("×").size(), ",");
  std::replace(text.begin(), text.end(), 'x', ',');
  Shape out;
  for (std::size_t at = 0; !text.empty() && at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    QUANVAS_TRY(const std::int64_t d, dimension(text.substr(at, end - at)));
    out.push_back(d);
    at = end + 1;
  }
  if (out.size() > 16 || element_count(out) > kMostElements)
    return fail(ErrorCode::kInvalidArgument, "'" + given + "' is larger than any tensor");
  return out;
}

std::string shape_entry(const Shape& shape) {
  std::string out;
  for (const std::int64_t d : shape) out += (out.empty() ? "" : ",") + (d < 0 ? std::string("?") : std::to_string(d));
  return out;
}

}  // namespace quanvas
