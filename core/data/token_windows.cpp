#include "core/data/token_windows.h"

#include <algorithm>

#include "core/base/hash.h"

namespace quanvas {
namespace {

constexpr std::int64_t kDefaultWindow = 512;
constexpr double kLongestWindow = 1 << 20;
constexpr std::int32_t kMostIds = 1 << 24;

struct Window {
  std::size_t begin = 0, count = 0;  // of all tokens
  std::int64_t repeated = 0;         // of them, held by the window before too
};

// Appends the windows of the stream [begin, end) of all tokens. stride is filled in.
void cut(std::size_t begin, std::size_t end, const WindowSettings& s, std::vector<Window>& out) {
  const auto held = static_cast<std::size_t>(s.window - (s.bos >= 0)), stride = static_cast<std::size_t>(s.stride);
  for (std::size_t at = begin; at < end; at += stride) {
    const bool is_first = at == begin, is_last = end - at <= held;
    const Window w{at, std::min(held, end - at), is_first ? 0 : s.window - (s.bos >= 0) - s.stride};
    // One token that nothing stands before is not scored; nor are those of a window that only repeats.
    const bool scores = static_cast<std::int64_t>(w.count) > std::max<std::int64_t>(w.repeated, s.bos < 0);
    if (scores && (w.count == held || s.keep_last)) out.push_back(w);
    if (is_last) break;
  }
}

class TokenDataset final : public RawDataset {
 public:
  TokenDataset(std::vector<std::int32_t> ids, std::vector<Window> windows, const WindowSettings& settings)
      : ids_(std::move(ids)), windows_(std::move(windows)), s_(settings) {}

  std::int64_t size() const override { return static_cast<std::int64_t>(windows_.size()); }
  bool has_labels() const override { return false; }
  bool is_image() const override { return false; }
  bool has_tokens() const override { return true; }

  TokenWindow token_window(std::int64_t index) const override {
    const Window& w = windows_.at(static_cast<std::size_t>(index));
    const std::int64_t extra = s_.bos >= 0;
    return {extra + static_cast<std::int64_t>(w.count), std::max<std::int64_t>(1, extra + w.repeated)};
  }

  Result<RawSample> read(std::int64_t index) const override {
    if (index < 0 || index >= size())
      return fail(ErrorCode::kInvalidArgument, "There is no window " + std::to_string(index) + " of tokens.");
    const Window& w = windows_[static_cast<std::size_t>(index)];
    RawSample sample;
    sample.shape = {s_.window};
    sample.values.reserve(static_cast<std::size_t>(s_.window));
    if (s_.bos >= 0) sample.values.push_back(static_cast<float>(s_.bos));
    const auto begin = ids_.begin() + static_cast<std::ptrdiff_t>(w.begin);
    sample.values.insert(sample.values.end(), begin, begin + static_cast<std::ptrdiff_t>(w.count));
    sample.values.resize(static_cast<std::size_t>(s_.window), sample.values.back());
    return sample;
  }

  std::string content_hash() const override {
    Hasher hasher;
    hasher.bytes(ids_.data(), ids_.size() * sizeof(std::int32_t)).number(s_.window).number(s_.bos);
    for (const Window& w : windows_) hasher.number(static_cast<std::int64_t>(w.begin)).number(static_cast<std::int64_t>(w.count)).number(w.repeated);
    return hasher.hex();
  }

 private:
  std::vector<std::int32_t> ids_;
  std::vector<Window> windows_;
  WindowSettings s_;
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
          bool_field("keep_last", "Short last window", "Keep the last window of a text when the text ends within it.", true),
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

Result<std::unique_ptr<RawDataset>> token_windows(const std::vector<std::vector<std::int32_t>>& streams,
                                                  const WindowSettings& settings, const std::string& name) {
  QUANVAS_CHECK(check_settings(settings, name));
  WindowSettings s = settings;
  if (s.stride == 0) s.stride = s.window - (s.bos >= 0);
  const auto most = s.max_tokens > 0 ? static_cast<std::size_t>(s.max_tokens) : SIZE_MAX;
  std::vector<std::int32_t> ids;
  std::vector<Window> windows;
  for (const auto& stream : streams) {
    const std::size_t begin = ids.size();
    ids.insert(ids.end(), stream.begin(), stream.begin() + static_cast<std::ptrdiff_t>(std::min(stream.size(), most - begin)));
    cut(begin, ids.size(), s, windows);
  }
  QUANVAS_CHECK(check_ids(ids, name));
  const std::size_t count = ids.size();
  if (!windows.empty())
    return std::unique_ptr<RawDataset>(std::make_unique<TokenDataset>(std::move(ids), std::move(windows), s));
  return fail(ErrorCode::kInvalidArgument,
              name + " gives " + std::to_string(count) + " tokens, too few for " +
                  (s.keep_last ? "one to be foretold." : "a window of " + std::to_string(s.window) + "."),
              s.keep_last ? "Give a longer text." : "Give a longer text or a shorter window, or keep the short last window.");
}

}  // namespace quanvas
