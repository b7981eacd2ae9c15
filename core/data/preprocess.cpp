#include "core/data/preprocess.h"

#include <algorithm>
#include <cmath>

namespace quanvas {
namespace {

// A picture on its way: [height, width, channels], row-major.
struct Picture {
  std::int64_t height = 0, width = 0, channels = 1;
  std::vector<float> values;
};

Failure wrong(const std::string& message, const std::string& hint = {}) {
  return fail(ErrorCode::kInvalidArgument, "Preprocessing: " + message, hint);
}

// Weights of the input pixels that make one output pixel.
struct Taps {
  std::int64_t first = 0;
  std::vector<double> weights;
};

std::vector<Taps> triangle_taps(std::int64_t in, std::int64_t out) {
  const double ratio = static_cast<double>(in) / static_cast<double>(out);
  const double support = std::max(ratio, 1.0);
  std::vector<Taps> taps(static_cast<std::size_t>(out));
  for (std::int64_t i = 0; i < out; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * ratio;
    Taps& t = taps[static_cast<std::size_t>(i)];
    t.first = std::max<std::int64_t>(0, static_cast<std::int64_t>(centre - support + 0.5));
    const std::int64_t last = std::min(in, static_cast<std::int64_t>(centre + support + 0.5));
    double sum = 0;
    for (std::int64_t x = t.first; x < last; ++x) {
      const double distance = std::abs((static_cast<double>(x) - centre + 0.5) / support);
      t.weights.push_back(std::max(0.0, 1.0 - distance));
      sum += t.weights.back();
    }
    for (double& w : t.weights) w /= sum;
  }
  return taps;
}

// Resizes the middle axis of [outer, in, inner].
std::vector<float> resize_axis(const std::vector<float>& x, std::int64_t outer, std::int64_t in, std::int64_t inner,
                               std::int64_t out, bool round_levels) {
  if (in == out) return x;
  const std::vector<Taps> taps = triangle_taps(in, out);
  std::vector<float> y(static_cast<std::size_t>(outer * out * inner));
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t i = 0; i < out; ++i)
      for (std::int64_t k = 0; k < inner; ++k) {
        const Taps& t = taps[static_cast<std::size_t>(i)];
        double sum = 0;
        for (std::size_t j = 0; j < t.weights.size(); ++j)
          sum += t.weights[j] * static_cast<double>(
                                    x[static_cast<std::size_t>((o * in + t.first + static_cast<std::int64_t>(j)) * inner + k)]);
        if (round_levels) sum = std::clamp(std::floor(sum + 0.5), 0.0, 255.0);
        y[static_cast<std::size_t>((o * out + i) * inner + k)] = static_cast<float>(sum);
      }
  return y;
}

bool has_whole_levels(const std::vector<float>& x) {
  return std::all_of(x.begin(), x.end(), [](float v) { return v >= 0 && v <= 255 && v == std::floor(v); });
}

// Keeps or mixes channels: out[c] = mix(pixel).
template <class Fn>
void map_channels(Picture& p, std::int64_t channels, const Fn& mix) {
  std::vector<float> out(static_cast<std::size_t>(p.height * p.width * channels));
  for (std::int64_t i = 0; i < p.height * p.width; ++i)
    mix(&p.values[static_cast<std::size_t>(i * p.channels)], &out[static_cast<std::size_t>(i * channels)]);
  p.values = std::move(out);
  p.channels = channels;
}

Status set_channels(Picture& p, const std::string& wanted) {
  if (p.channels == 4) map_channels(p, 3, [](const float* in, float* out) { std::copy(in, in + 3, out); });
  if (wanted.empty()) return {};
  if (p.channels != 1 && p.channels != 3)
    return wrong("channels is " + wanted + ", but the pictures have " + std::to_string(p.channels) + " channels.");
  if (wanted == "rgb" && p.channels == 1)
    map_channels(p, 3, [](const float* in, float* out) { std::fill(out, out + 3, in[0]); });
  if (wanted == "grey" && p.channels == 3) {
    const bool levels = has_whole_levels(p.values);
    map_channels(p, 1, [levels](const float* in, float* out) {
      const double luma = 0.299 * in[0] + 0.587 * in[1] + 0.114 * in[2];
      out[0] = static_cast<float>(levels ? std::floor(luma + 0.5) : luma);
    });
  }
  return {};
}

Status resize_shorter(Picture& p, int target) {
  constexpr std::int64_t kMostPixels = std::int64_t{1} << 28;
  const std::int64_t shorter = std::min(p.height, p.width), longer = std::max(p.height, p.width);
  if (target == 0 || shorter == target) return {};
  const std::int64_t other = std::max<std::int64_t>(1, target * longer / shorter);
  if (other > kMostPixels / target)
    return wrong("resizing " + std::to_string(p.height) + "×" + std::to_string(p.width) + " to a shorter side of " +
                 std::to_string(target) + " would make more than " + std::to_string(kMostPixels) + " pixels.");
  const std::int64_t height = p.height <= p.width ? target : other, width = p.height <= p.width ? other : target;
  p.values = resize_bilinear(p.values, p.height, p.width, p.channels, height, width, has_whole_levels(p.values));
  p.height = height;
  p.width = width;
  return {};
}

Status crop_centre(Picture& p, std::int64_t height, std::int64_t width) {
  if (height == 0) return {};
  if (height > p.height || width > p.width)
    return wrong("the crop " + std::to_string(height) + "×" + std::to_string(width) + " is larger than the picture, " +
                     std::to_string(p.height) + "×" + std::to_string(p.width) + ".",
                 "Resize to a larger shorter side or crop less.");
  const auto top = static_cast<std::int64_t>(std::nearbyint(static_cast<double>(p.height - height) / 2));
  const auto left = static_cast<std::int64_t>(std::nearbyint(static_cast<double>(p.width - width) / 2));
  std::vector<float> out;
  out.reserve(static_cast<std::size_t>(height * width * p.channels));
  for (std::int64_t y = 0; y < height; ++y) {
    const auto row = p.values.begin() + ((top + y) * p.width + left) * p.channels;
    out.insert(out.end(), row, row + width * p.channels);
  }
  p.values = std::move(out);
  p.height = height;
  p.width = width;
  return {};
}

RawSample in_layout(Picture p, const std::string& layout, std::int64_t label) {
  RawSample out;
  out.label = label;
  if (layout == "nhwc") {
    out.shape = {p.height, p.width, p.channels};
    out.values = std::move(p.values);
    return out;
  }
  out.shape = {p.channels, p.height, p.width};
  out.values.resize(p.values.size());
  const std::int64_t area = p.height * p.width;
  for (std::int64_t i = 0; i < area; ++i)
    for (std::int64_t c = 0; c < p.channels; ++c)
      out.values[static_cast<std::size_t>(c * area + i)] = p.values[static_cast<std::size_t>(i * p.channels + c)];
  return out;
}

// Channels and the number of values that lie between two of them.
struct ChannelView {
  std::int64_t channels = 1, inner = 1;
};
ChannelView channels_of(const Shape& shape, const std::string& layout) {
  if (shape.empty()) return {};
  if (layout == "nhwc") return {shape.back(), 1};
  return {shape.front(), element_count(shape) / std::max<std::int64_t>(1, shape.front())};
}

Status check_count(const std::vector<double>& values, const char* what, const Shape& shape, std::int64_t channels) {
  if (values.size() <= 1 || static_cast<std::int64_t>(values.size()) == channels) return {};
  return wrong(std::string(what) + " has " + std::to_string(values.size()) + " entries, but samples of shape " +
                   shape_text(shape) + " have " + std::to_string(channels) + " channels.",
               "Give one entry, or one for each channel; check the layout.");
}

Status normalize(RawSample& sample, const Preprocessing& settings) {
  if (settings.scale == 1 && settings.mean.empty() && settings.std.empty()) return {};
  const ChannelView view = channels_of(sample.shape, settings.layout);
  QUANVAS_CHECK(check_count(settings.mean, "mean", sample.shape, view.channels));
  QUANVAS_CHECK(check_count(settings.std, "std", sample.shape, view.channels));
  const auto entry = [](const std::vector<double>& v, std::int64_t c, double fallback) {
    return static_cast<float>(v.empty() ? fallback : v[v.size() == 1 ? 0 : static_cast<std::size_t>(c)]);
  };
  const auto scale = static_cast<float>(settings.scale);
  const auto total = static_cast<std::int64_t>(sample.values.size());
  float* x = sample.values.data();
  for (std::int64_t at = 0, block = 0; at < total; at += view.inner, ++block) {
    const std::int64_t c = block % view.channels;
    const float mean = entry(settings.mean, c, 0), deviation = entry(settings.std, c, 1);
    for (std::int64_t i = at; i < at + view.inner; ++i) x[i] = (x[i] * scale - mean) / deviation;
  }
  return {};
}

}  // namespace

std::vector<float> resize_bilinear(const std::vector<float>& in, std::int64_t height, std::int64_t width,
                                   std::int64_t channels, std::int64_t new_height, std::int64_t new_width,
                                   bool round_levels) {
  const auto wide = resize_axis(in, height, width, channels, new_width, round_levels);
  return resize_axis(wide, 1, height, new_width * channels, new_height, round_levels);
}

Status check_preprocessing(const Preprocessing& s) {
  constexpr int kMaxSide = 16384;
  if (s.layout != "nchw" && s.layout != "nhwc") return wrong("layout is '" + s.layout + "'.", "Use nchw or nhwc.");
  if (!s.channels.empty() && s.channels != "rgb" && s.channels != "grey")
    return wrong("channels is '" + s.channels + "'.", "Use rgb or grey, or leave it empty.");
  for (const auto& [name, value] : {std::pair{"resize", s.resize}, std::pair{"crop_height", s.crop_height},
                                    std::pair{"crop_width", s.crop_width}})
    if (value < 0 || value > kMaxSide)
      return wrong(std::string(name) + " is " + std::to_string(value) + "; it must lie between 0 and " +
                   std::to_string(kMaxSide) + ".");
  if ((s.crop_height == 0) != (s.crop_width == 0)) return wrong("a crop needs both crop_height and crop_width.");
  if (!std::isfinite(s.scale) || s.scale == 0) return wrong("scale must be a finite number other than 0.");
  for (const double v : s.mean)
    if (!std::isfinite(v)) return wrong("mean must hold finite numbers.");
  for (const double v : s.std)
    if (!std::isfinite(v) || v <= 0) return wrong("std must hold finite numbers above 0.");
  return {};
}

Result<RawSample> preprocess(RawSample sample, bool is_image, const Preprocessing& settings) {
  if (is_image) {
    const Shape& s = sample.shape;
    if (s.size() < 2 || s.size() > 3)
      return wrong("a picture has shape " + shape_text(s) + "; height × width or height × width × channels was expected.");
    Picture picture{s[0], s[1], s.size() == 3 ? s[2] : 1, std::move(sample.values)};
    if (picture.height < 1 || picture.width < 1 || picture.channels < 1)
      return wrong("a picture of shape " + shape_text(s) + " has no pixels.");
    QUANVAS_CHECK(set_channels(picture, settings.channels));
    QUANVAS_CHECK(resize_shorter(picture, settings.resize));
    QUANVAS_CHECK(crop_centre(picture, settings.crop_height, settings.crop_width));
    sample = in_layout(std::move(picture), settings.layout, sample.label);
  } else if (settings.resize || settings.crop_height || !settings.channels.empty()) {
    return wrong("resize, crop and channels need pictures; these samples have shape " + shape_text(sample.shape) + ".",
                 "Set these options to none, or declare the samples as pictures in the reader's options.");
  }
  QUANVAS_CHECK(normalize(sample, settings));
  return sample;
}

}  // namespace quanvas
