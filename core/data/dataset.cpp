#include "core/data/dataset.h"

#include <algorithm>
#include <unordered_map>

#include "core/base/hash.h"
#include "core/data/preprocess.h"
#include "core/data/sources.h"
#include "core/plugin/registry.h"

namespace quanvas {
namespace {

Shape without_ones(const Shape& shape) {
  Shape out;
  std::copy_if(shape.begin(), shape.end(), std::back_inserter(out), [](std::int64_t d) { return d != 1; });
  return out;
}

bool equal_or_unknown(const Shape& sample, const Shape& wanted) {
  return std::equal(sample.begin(), sample.end(), wanted.begin(), wanted.end(),
                    [](std::int64_t a, std::int64_t b) { return b < 0 || a == b; });
}

// The model's shape without the batch when samples of this shape fit it: the same dimensions, the same but for
// dimensions of size 1, or a plain vector of all values.
Result<Shape> fitted(const Shape& sample, const Shape& expected) {
  if (expected.empty()) return sample;
  const Shape wanted(expected.begin() + 1, expected.end());
  if (equal_or_unknown(sample, wanted)) return sample;
  const bool known = std::all_of(wanted.begin(), wanted.end(), [](std::int64_t d) { return d >= 0; });
  const bool same_count = known && element_count(wanted) == element_count(sample);
  if (same_count && (without_ones(wanted) == without_ones(sample) || without_ones(wanted).size() <= 1)) return wanted;
  return fail(ErrorCode::kInvalidArgument,
              "The data set's samples have shape " + shape_text(sample) + ", but the model takes " + shape_text(wanted) + ".",
              "Change the preprocessing (resize, crop, channels, layout) or choose another data set.");
}

class PreparedDataset final : public Dataset {
 public:
  PreparedDataset(std::shared_ptr<const RawDataset> raw, Preprocessing settings, std::int64_t begin, std::int64_t end)
      : raw_(std::move(raw)), settings_(std::move(settings)), begin_(begin), end_(end) {}

  Status find_shape(const Shape& expected) {
    QUANVAS_TRY(const RawSample first, sample(begin_));
    prepared_shape_ = first.shape;
    QUANVAS_TRY(shape_, fitted(prepared_shape_, expected));
    return {};
  }

  std::int64_t size() const override { return end_ - begin_; }
  Shape sample_shape() const override { return shape_; }
  bool has_labels() const override { return raw_->has_labels(); }
  std::vector<std::string> class_names() const override { return raw_->class_names(); }
  bool has_tokens() const override { return raw_->has_tokens(); }
  TokenWindow token_window(std::int64_t index) const override { return raw_->token_window(begin_ + index); }

  Status read(const std::vector<std::int64_t>& indices, float* out, std::int64_t* labels) const override {
    const auto count = static_cast<std::size_t>(element_count(shape_));
    for (std::size_t i = 0; i < indices.size(); ++i) {
      if (indices[i] < 0 || indices[i] >= size())
        return fail(ErrorCode::kInvalidArgument, "Sample " + std::to_string(indices[i]) + " was asked for; the data set has " +
                                                     std::to_string(size()) + ".");
      QUANVAS_TRY(const RawSample one, sample(begin_ + indices[i]));
      if (one.shape != prepared_shape_)
        return fail(ErrorCode::kInvalidArgument,
                    "Sample " + std::to_string(begin_ + indices[i]) + " has shape " + shape_text(one.shape) +
                        ", the first one " + shape_text(prepared_shape_) + ".",
                    "Set resize, crop and channels so that all samples get the same shape.");
      std::copy(one.values.begin(), one.values.end(), out + i * count);
      if (labels) labels[i] = one.label;
    }
    return {};
  }

  std::string hash() const override {
    return Hasher().text(raw_->hash()).text(to_json_text(settings_)).number(begin_).number(end_).hex();
  }

 private:
  Result<RawSample> sample(std::int64_t index) const {
    QUANVAS_TRY(RawSample raw, raw_->read(index));
    if (static_cast<std::int64_t>(raw.values.size()) != element_count(raw.shape))
      return fail(ErrorCode::kInternal, "A reader gave " + std::to_string(raw.values.size()) + " values for the shape " +
                                            shape_text(raw.shape) + ".");
    return preprocess(std::move(raw), raw_->is_image(), settings_);
  }

  std::shared_ptr<const RawDataset> raw_;
  Preprocessing settings_;
  std::int64_t begin_ = 0, end_ = 0;
  Shape prepared_shape_, shape_;
};

// The range of samples, checked against what there is.
Result<std::pair<std::int64_t, std::int64_t>> checked_range(const DataSource& source, std::int64_t size) {
  const std::int64_t end = source.end < 0 ? size : source.end;
  if (size < 1) return fail(ErrorCode::kInvalidArgument, "The data set of reader '" + source.reader + "' has no samples.");
  if (source.begin < 0 || source.begin >= end || end > size)
    return fail(ErrorCode::kInvalidArgument,
                "Samples " + std::to_string(source.begin) + " to " + std::to_string(end) +
                    " (exclusive) were asked for; the data set has " + std::to_string(size) + ".",
                "Choose 'begin' and 'end' within it; end −1 means to the last.");
  return std::pair(source.begin, end);
}

// Numbers of words are no quantities.
Status check_token_preprocessing(const Preprocessing& p) {
  if (p.scale == 1 && p.mean.empty() && p.std.empty() && p.resize == 0 && p.crop_height == 0 && p.channels.empty()) return {};
  return fail(ErrorCode::kInvalidArgument, "Preprocessing: tokens are numbers of words and take no scale, mean, std, size or channels.",
              "Set the preprocessing back to its defaults.");
}

// splitmix64 (Steele, Lea and Flood 2014): small, well mixed, the same everywhere.
class SplitMix {
 public:
  explicit SplitMix(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Unbiased in [0, n): values of the incomplete last round are drawn again.
  std::uint64_t below(std::uint64_t n) {
    const std::uint64_t limit = UINT64_MAX - UINT64_MAX % n;
    std::uint64_t v = next();
    while (v >= limit) v = next();
    return v % n;
  }

 private:
  std::uint64_t state_;
};

}  // namespace

Result<DatasetPtr> open_dataset(const DataSource& source, const Preprocessing& preprocessing, const std::string& base,
                                const Shape& expected, OpenRawDatasets* open) {
  if (source.reader.empty()) return fail(ErrorCode::kInvalidArgument, "No data set is declared.", "Choose one in the project's data settings.");
  QUANVAS_CHECK(check_preprocessing(preprocessing));
  QUANVAS_TRY(const DatasetReader* reader, Registry<DatasetReader>::instance().get(source.reader, "data set reader"));
  OpenRawDatasets own;
  const json options = reader->options_for(source.options, expected);
  auto& raw = (open ? *open : own)[source.reader + ' ' + options.dump()];
  if (!raw) {
    QUANVAS_TRY(raw, reader->open(options, base));
  }
  if (raw->has_tokens()) QUANVAS_CHECK(check_token_preprocessing(preprocessing));
  QUANVAS_TRY(const auto range, checked_range(source, raw->size()));
  auto data = std::make_shared<PreparedDataset>(raw, preprocessing, range.first, range.second);
  QUANVAS_CHECK(data->find_shape(expected));
  return DatasetPtr(std::move(data));
}

std::vector<std::int64_t> choose_samples(std::int64_t size, std::int64_t count, std::int64_t seed) {
  std::vector<std::int64_t> out;
  if (size <= 0) return out;
  const bool all = count <= 0 || count >= size;
  out.reserve(static_cast<std::size_t>(all ? size : count));
  if (all) {
    for (std::int64_t i = 0; i < size; ++i) out.push_back(i);
    return out;
  }
  // Fisher-Yates that stops after `count` draws and keeps only what was swapped.
  SplitMix random(static_cast<std::uint64_t>(seed));
  std::unordered_map<std::int64_t, std::int64_t> swapped;
  const auto at = [&](std::int64_t i) {
    const auto it = swapped.find(i);
    return it == swapped.end() ? i : it->second;
  };
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t j = i + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(size - i)));
    out.push_back(at(j));
    swapped[j] = at(i);
  }
  return out;
}

}  // namespace quanvas
