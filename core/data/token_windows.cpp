#include "core/data/token_windows.h"

#include <algorithm>

#include "core/base/hash.h"

namespace quanvas {
namespace {

constexpr std::int64_t kDefaultWindow = 512;
constexpr double kLongestWindow = 1 << 20;
constexpr std::int32_t kMostIds = 1 << 24;

class TokenDataset final : public RawDataset {
 public:
  // Settings with the stride filled in, checked by token_windows.
  TokenDataset(std::vector<std::int32_t> ids, const WindowSettings& settings)
      : ids_(std::move(ids)), s_(settings), held_(s_.window - (s_.bos >= 0)), count_(windows()) {}

  std::int64_t size() const override { return count_; }
  bool has_labels() const override { return false; }
  bool is_image() const override { return false; }
  bool has_tokens() const override { return true; }

  TokenWindow token_window(std::int64_t index) const override {
    const std::int64_t extra = s_.bos >= 0;
    TokenWindow w;
    w.length = extra + tokens_in(index);
    // Those that the window before holds too are its first held_ - stride.
    w.first = std::max<std::int64_t>(1, extra + (index > 0 ? held_ - s_.stride : 0));
    return w;
  }

  Result<RawSample> read(std::int64_t index) const override {
    if (index < 0 || index >= count_)
      return fail(ErrorCode::kInvalidArgument, "There is no window " + std::to_string(index) + " of tokens.");
    RawSample sample;
    sample.shape = {s_.window};
    sample.values.reserve(static_cast<std::size_t>(s_.window));
    if (s_.bos >= 0) sample.values.push_back(static_cast<float>(s_.bos));
    const auto begin = ids_.begin() + index * s_.stride;
    sample.values.insert(sample.values.end(), begin, begin + tokens_in(index));
    sample.values.resize(static_cast<std::size_t>(s_.window), sample.values.back());
    return sample;
  }

  std::string content_hash() const override {
    Hasher hasher;
    hasher.bytes(ids_.data(), ids_.size() * sizeof(std::int32_t));
    return hasher.number(s_.window).number(s_.stride).number(s_.bos).number(s_.keep_last).hex();
  }

 private:
  std::int64_t total() const { return static_cast<std::int64_t>(ids_.size()); }
  std::int64_t tokens_in(std::int64_t index) const { return std::min(held_, total() - index * s_.stride); }
  std::int64_t windows() const {
    const std::int64_t beyond = std::max<std::int64_t>(0, total() - held_);
    const std::int64_t whole = total() >= held_ ? 1 + beyond / s_.stride : 0;
    if (!s_.keep_last || (whole > 0 && beyond % s_.stride == 0)) return whole;
    // A last window of one token foretells nothing.
    const TokenWindow last = token_window(whole);
    return last.first < last.length ? whole + 1 : whole;
  }

  std::vector<std::int32_t> ids_;
  WindowSettings s_;
  std::int64_t held_, count_;
};

Status check_settings(const WindowSettings& s, const std::string& name) {
  const std::int64_t held = s.window - (s.bos >= 0);
  if (s.window < 2 || s.window > static_cast<std::int64_t>(kLongestWindow))
    return fail(ErrorCode::kInvalidArgument, name + ": a window of " + std::to_string(s.window) + " tokens foretells nothing.",
                "Windows have 2 to " + std::to_string(static_cast<std::int64_t>(kLongestWindow)) + " tokens.");
  if (s.stride < 0 || s.stride > held)
    return fail(ErrorCode::kInvalidArgument,
                name + ": a stride of " + std::to_string(s.stride) + " would leave tokens out, because a window of " +
                    std::to_string(s.window) + " holds " + std::to_string(held) + " tokens of the text.",
                "Give at most " + std::to_string(held) + ", or 0 for windows that do not overlap.");
  if (s.bos >= kMostIds)
    return fail(ErrorCode::kInvalidArgument, name + ": the token that begins each window has the id " + std::to_string(s.bos) +
                                                 "; ids lie below " + std::to_string(kMostIds) + ".");
  return {};
}

Status check_ids(const std::vector<std::int32_t>& ids, const std::string& name) {
  const auto bad = std::find_if(ids.begin(), ids.end(), [](std::int32_t id) { return id < 0 || id >= kMostIds; });
  if (bad == ids.end()) return {};
  return fail(ErrorCode::kInvalidArgument,
              name + ": token " + std::to_string(bad - ids.begin()) + " has the id " + std::to_string(*bad) + "; ids lie between 0 and " +
                  std::to_string(kMostIds - 1) + ".",
              "Check the file and the type of its numbers.");
}

}  // namespace

std::vector<Field> window_fields() {
  return {integer_field("window", "Window", "Tokens that the network reads at once; 0: as many as its input says, else 512.", 0, 0,
                        kLongestWindow, "tokens"),
          integer_field("stride", "Stride",
                        "Tokens from the beginning of a window to that of the next; less than the window: the tokens that two "
                        "windows share are context in the second and are scored once. 0: windows do not overlap.",
                        0, 0, kLongestWindow, "tokens"),
          bool_field("keep_last", "Short last window", "Keep the last window when the text ends within it.", true),
          integer_field("max_tokens", "Most tokens", "Only the beginning of the text; 0: all.", 0, 0, 2e9, "tokens")};
}

WindowSettings window_settings(const json& options) {
  WindowSettings s;
  s.window = options["window"];
  if (s.window == 0) s.window = kDefaultWindow;
  s.stride = options["stride"];
  s.keep_last = options["keep_last"];
  s.max_tokens = options["max_tokens"];
  return s;
}

json window_options_for(json options, const Shape& expected) {
  const bool open = options.is_object() && (!options.contains("window") || options["window"] == 0);
  if (open && expected.size() == 2 && expected[1] > 0) options["window"] = expected[1];
  return options;
}

Result<std::unique_ptr<RawDataset>> token_windows(std::vector<std::int32_t> ids, const WindowSettings& settings,
                                                  const std::string& name) {
  QUANVAS_CHECK(check_settings(settings, name));
  if (settings.max_tokens > 0 && static_cast<std::uint64_t>(settings.max_tokens) < ids.size())
    ids.resize(static_cast<std::size_t>(settings.max_tokens));
  QUANVAS_CHECK(check_ids(ids, name));
  WindowSettings s = settings;
  if (s.stride == 0) s.stride = s.window - (s.bos >= 0);
  const std::size_t count = ids.size();
  auto data = std::make_unique<TokenDataset>(std::move(ids), s);
  if (data->size() > 0) return std::unique_ptr<RawDataset>(std::move(data));
  return fail(ErrorCode::kInvalidArgument,
              name + " gives " + std::to_string(count) + " tokens, too few for " +
                  (s.keep_last ? "one to be foretold." : "a window of " + std::to_string(s.window) + "."),
              s.keep_last ? "Give a longer text." : "Give a longer text or a shorter window, or keep the short last window.");
}

}  // namespace quanvas
