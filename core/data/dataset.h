// Quanvas - data sets: samples as float32 in the layout the model wants, labels where there are any.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/graph/graph.h"
#include "core/report/report.h"

namespace quanvas {

// A window of tokens, one sample of a text. Inputs 0 .. length-1 are tokens (of the text, maybe behind a token that
// begins every window); a data set gives windows of one size, so those that the end of the text cuts short are filled up
// with their last token, which a causal network does not see. What is scored is how well the network foretold the
// inputs `first` .. length-1: input p by row p-1 of its output, which has read the inputs 0 .. p-1. Every token of the
// text is scored at most once, in the first window that holds it and something before it (core/data/token_windows.h).
struct TokenWindow {
  std::int64_t length = 0;
  std::int64_t first = 1;  // 1 .. length
};

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual std::int64_t size() const = 0;
  virtual Shape sample_shape() const = 0;  // without the batch, after preprocessing: {1,28,28}
  virtual bool has_labels() const = 0;
  virtual std::vector<std::string> class_names() const { return {}; }
  // Samples are windows of tokens, ids from 0 as whole numbers; they have no labels.
  virtual bool has_tokens() const { return false; }
  virtual TokenWindow token_window(std::int64_t /*index*/) const { return {}; }
  // Writes the samples `indices` one after the other to `out` (element_count(sample_shape()) floats each) and
  // their labels (may be null). Thread-safe: chunk workers read at the same time.
  virtual Status read(const std::vector<std::int64_t>& indices, float* out, std::int64_t* labels) const = 0;
  // Of the raw data and of how it is preprocessed.
  virtual std::string hash() const = 0;
};
using DatasetPtr = std::shared_ptr<const Dataset>;

class RawDataset;
// Data that is already open, by reader and options, so that splits of the same files share their memory.
using OpenRawDatasets = std::map<std::string, std::shared_ptr<const RawDataset>>;

// Opens a source with its reader plug-in, limits it to [begin, end) and applies the preprocessing. Relative
// paths start at `base`. expected: shape of the model's input with batch (unknown dimensions fit anything);
// a data set that does not fit is refused with both shapes. Readers that give [H,W] or [H,W,C] are brought
// to `layout`. open: used and added to.
Result<DatasetPtr> open_dataset(const DataSource& source, const Preprocessing& preprocessing,
                                const std::string& base, const Shape& expected, OpenRawDatasets* open = nullptr);

// What a reader plug-in gives: raw values before preprocessing.
struct RawSample {
  Shape shape;                 // e.g. {28,28} or {256,256,3}
  std::vector<float> values;
  std::int64_t label = -1;     // -1: none
};
class RawDataset {
 public:
  virtual ~RawDataset() = default;
  virtual std::int64_t size() const = 0;
  virtual bool has_labels() const = 0;
  virtual bool is_image() const = 0;  // HW or HWC; else the shape is taken as it is
  virtual std::vector<std::string> class_names() const { return {}; }
  virtual bool has_tokens() const { return false; }
  virtual TokenWindow token_window(std::int64_t /*index*/) const { return {}; }
  virtual Result<RawSample> read(std::int64_t index) const = 0;  // thread-safe
  // Of all samples and labels; computed once.
  const std::string& hash() const {
    std::call_once(hashed_, [this] { hash_ = content_hash(); });
    return hash_;
  }

 protected:
  virtual std::string content_hash() const = 0;

 private:
  mutable std::once_flag hashed_;
  mutable std::string hash_;
};

// `count` indices of [0, size) without repetition in the order of a generator seeded with `seed` (the first
// `count` in order when count >= size or count == 0). Same result on every platform.
std::vector<std::int64_t> choose_samples(std::int64_t size, std::int64_t count, std::int64_t seed);

}  // namespace quanvas
