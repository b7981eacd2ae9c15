#include "plugins/exporters/c_header_read.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>

#include "core/base/files.h"
#include "core/quant/dynamic.h"
#include "plugins/exporters/c_names.h"
#include "plugins/exporters/dump.h"

namespace quanvas::c_header {
namespace {

using namespace weight_file;

constexpr std::uint64_t kMostBytes = std::uint64_t{4} << 30;

class Parser {
 public:
  Parser(const std::string& text, const std::string& path) : text_(text), path_(path) {}

  Result<std::map<std::string, TensorData>> run() {
    std::map<std::string, TensorData> out;
    while (find("static const ")) {
      const std::string type = word();
      const std::string name = word();
      if (!take('[')) continue;  // no array
      long long count = 0;
      if (!integer(count) || count < 1 || !take(']') || !take('=') || !take('{'))
        return bad("the array '" + name + "' is not declared as one");
      if (static_cast<unsigned long long>(count) > text_.size() - at_)
        return bad("the array '" + name + "' claims " + std::to_string(count) + " values");
      QUANVAS_TRY(TensorData data, values(type, name, count));
      if (!out.emplace(name, std::move(data)).second) return bad("the array '" + name + "' stands there twice");
    }
    return out;
  }

 private:
  Failure bad(const std::string& what) const {
    return fail(ErrorCode::kCorrupt, "'" + path_ + "' is no whole header: " + what.substr(0, 300) + ".",
                "Export it again.");
  }
  bool find(const char* what) {
    // Not in comments.
    const std::string wanted = what;
    while (at_ < text_.size()) {
      if (text_.compare(at_, 2, "/*") == 0) {
        const auto end = text_.find("*/", at_ + 2);
        at_ = end == std::string::npos ? text_.size() : end + 2;
      } else if (text_.compare(at_, wanted.size(), wanted) == 0) {
        at_ += wanted.size();
        return true;
      } else {
        ++at_;
      }
    }
    return false;
  }
  void space() {
    for (;;) {
      while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
      if (text_.compare(at_, 2, "/*") != 0) return;
      const auto end = text_.find("*/", at_ + 2);
      at_ = end == std::string::npos ? text_.size() : end + 2;
    }
  }
  std::string word() {
    space();
    const std::size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_')) ++at_;
    return text_.substr(begin, at_ - begin);
  }
  bool take(char c) {
    space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool take_text(const char* t) {
    space();
    const std::string wanted = t;
    if (text_.compare(at_, wanted.size(), wanted) != 0) return false;
    at_ += wanted.size();
    return true;
  }
  bool integer(long long& v) {
    space();
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), v);
    if (error != std::errc()) return false;
    at_ = static_cast<std::size_t>(end - text_.data());
    return true;
  }
  bool whole(long long& v) {
    if (take_text("INT64_C(")) return integer(v) && take(')');
    if (take_text("INT64_MIN")) return v = std::numeric_limits<long long>::min(), true;
    if (take_text("(-2147483647 - 1)")) return v = std::numeric_limits<std::int32_t>::min(), true;
    return integer(v);
  }
  bool real(float& v) {
    const bool negative = take('-');
    if (take_text("NAN")) return v = std::numeric_limits<float>::quiet_NaN(), true;
    if (take_text("HUGE_VALF")) return v = negative ? -HUGE_VALF : HUGE_VALF, true;
    if (!take_text("0x")) return false;
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), v, std::chars_format::hex);
    if (error != std::errc()) return false;
    at_ = static_cast<std::size_t>(end - text_.data());
    if (negative) v = -v;
    return take('f');
  }

  template <class T>
  Result<TensorData> integers(DataType type, const std::string& name, long long count) {
    std::vector<T> out;
    for (long long i = 0; i < count; ++i) {
      long long v = 0;
      if ((i > 0 && !take(',')) || !whole(v) || !std::in_range<T>(v))
        return bad("value " + std::to_string(i) + " of '" + name + "' is none of its type");
      out.push_back(static_cast<T>(v));
    }
    return finish(TensorData::copy_of(type, {static_cast<std::int64_t>(count)}, out.data(), out.size() * sizeof(T)), name);
  }
  Result<TensorData> values(const std::string& type, const std::string& name, long long count) {
    if (type == "int8_t") return integers<std::int8_t>(DataType::kInt8, name, count);
    if (type == "uint8_t") return integers<std::uint8_t>(DataType::kUint8, name, count);
    if (type == "int16_t") return integers<std::int16_t>(DataType::kInt16, name, count);
    if (type == "int32_t") return integers<std::int32_t>(DataType::kInt32, name, count);
    if (type == "int64_t") return integers<std::int64_t>(DataType::kInt64, name, count);
    if (type != "float") return bad("'" + name + "' has the type '" + type + "'");
    std::vector<float> out;
    for (long long i = 0; i < count; ++i) {
      float v = 0;
      if ((i > 0 && !take(',')) || !real(v))
        return bad("value " + std::to_string(i) + " of '" + name + "' is no hexadecimal float");
      out.push_back(v);
    }
    return finish(TensorData::of_floats({static_cast<std::int64_t>(count)}, std::move(out)), name);
  }
  Result<TensorData> finish(TensorData data, const std::string& name) {
    if (!take('}') || !take(';')) return bad("'" + name + "' has more values than it is declared with");
    return data;
  }

  const std::string& text_;
  const std::string& path_;
  std::size_t at_ = 0;
};

struct Opened {
  std::map<std::string, TensorData> arrays;
  Contents contents;
  Identifiers ids;

  const TensorData* array(const std::string& name) const {
    const auto it = arrays.find(name);
    return it == arrays.end() ? nullptr : &it->second;
  }
  Result<described::Held> held(const QuantizedModel& model, const Coded& c, bool dense) const {
    described::Weight w;
    w.initializer = c.initializer;
    w.tensor = ids.coded.at(c.name);
    w.form = dense ? "dense" : "codes";
    w.bits = code_bits(c.params().spec);
    w.spec = stored_spec(c.params(), SiteKind::kWeight);
    w.shape = model.model->weights->find(c.initializer)->shape;
    const std::string codes = w.tensor + ".codes";
    return described::decode(
        [&](const std::string& name) -> Result<TensorData> {
          std::string id = name;
          std::replace(id.begin(), id.end(), '.', '_');
          const TensorData* found = array(id);
          TensorData out;
          if (found)
            out = *found;
          else if (element_count(w.shape) != 0)
            return fail(ErrorCode::kNotFound, "The header has no array '" + id + "'.");
          else
            out.type = DataType::kInt8, out.shape = {0};  // C has no empty arrays
          if (name == codes && !dense && out.count() == element_count(w.shape)) out.shape = w.shape;
          return out;
        },
        w);
  }
};

Result<Opened> open(const QuantizedModel& model, const std::string& path, const std::string& prefix) {
  QUANVAS_TRY(const std::string text, read_file(path, kMostBytes));
  Opened out;
  QUANVAS_TRY(out.arrays, parse_header(text, path));
  out.contents = contents_of(model);
  out.ids = identifiers(model, out.contents, prefix);
  return out;
}

bool has_codes(const quant::QuantParams& p) {
  return p.spec.format == "int" && p.spec.zero_point != ZeroPointType::kFloat &&
         p.spec.zero_point != ZeroPointType::kOffset && p.hi <= std::numeric_limits<std::int32_t>::max();
}

AuditRow activation_row(const Opened& file, const PlacedQuantizer& q) {
  const quant::QuantParams& p = *q.params;
  AuditRow row{q.node->name, q.name, p.spec.format != "int" || quant::is_dynamic(p) ? describe(p.spec) : quantizer_text(p),
               "nothing",    0,      false};
  const std::string& id = file.ids.sites.at(q.site);
  const TensorData* scale = file.array(id + "_scale");
  if (quant::is_dynamic(p)) {
    row.equal = !scale;
    row.written = scale ? "a scale" : "a remark: found at run time";
    return row;
  }
  if (!scale) return row;
  row.bytes = static_cast<double>(scale->bytes);
  row.written = std::to_string(scale->count()) + " scales";
  row.equal = scale->type == DataType::kFloat && same_bits(scale->to_floats(), p.scale);
  if (!has_codes(p)) {
    const TensorData* zero = file.array(id + "_zero_point");
    row.equal = row.equal &&
                (p.spec.format != "int" || p.zero_point.empty() || (zero && same_numbers(zero->to_floats(), p.zero_point)));
    return row;
  }
  const TensorData* range = file.array(id + "_zero_lo_hi");
  std::vector<std::int64_t> wanted;
  for (const std::int64_t z : zero_points(p)) wanted.insert(wanted.end(), {z, p.lo, p.hi});
  row.equal = row.equal && range && range->type == DataType::kInt32 && range->to_int64() == wanted;
  if (range) row.bytes += static_cast<double>(range->bytes), row.written += ", zero points and ranges of codes";
  return row;
}

}  // namespace

Result<std::map<std::string, TensorData>> parse_header(const std::string& text, const std::string& path) {
  return Parser(text, path).run();
}

Result<std::vector<AuditRow>> audit_header(const QuantizedModel& model, const std::string& path, const std::string& prefix,
                                           bool dense) {
  QUANVAS_TRY(const Opened file, open(model, path, prefix));
  std::vector<AuditRow> rows;
  for (const PlacedQuantizer& q : place(model).quantizers) {
    if (is_activation(q.site.kind)) {
      rows.push_back(activation_row(file, q));
      continue;
    }
    for (const Coded& c : file.contents.coded)
      if (std::any_of(c.sites.begin(), c.sites.end(), [&](const PlacedQuantizer& s) { return s.site == q.site; }))
        rows.push_back(coded_row(model, q, file.held(model, c, dense)));
  }
  for (const TensorId id : file.contents.plain) {
    const TensorData& wanted = *model.model->weights->find(model.model->graph->tensor(id).name);
    const TensorData* data = file.array(file.ids.plain.at(id) + "_values");
    const bool empty = wanted.count() == 0;
    const bool same = data && (wanted.type == DataType::kFloat ? same_bits(data->to_floats(), wanted.to_floats())
                                                               : data->to_int64() == wanted.to_int64());
    if (!same && !empty)
      rows.push_back({model.model->graph->tensor(id).name, "values", "float", data ? "other values" : "nothing", 0, false});
  }
  // Multipliers belong to no quantizer alone: a row only where they are wrong.
  for (const Requantization& r : requantizations(model)) {
    const std::string& id = file.ids.layers.at(r.node->id);
    const TensorData *m0 = file.array(id + "_multiplier"), *shift = file.array(id + "_shift");
    bool same =
        m0 && shift && m0->count() == shift->count() && m0->count() == static_cast<std::int64_t>(r.weight->scale.size());
    for (std::size_t i = 0; same && i < r.weight->scale.size(); ++i) {
      const double exact =
          static_cast<double>(r.input->scale[0] * r.weight->scale[i]) / static_cast<double>(r.output->scale[0]);
      const auto places = static_cast<int>(std::clamp<std::int64_t>(shift->to_int64()[i], -4096, 4096));
      const double held = std::ldexp(static_cast<double>(m0->to_int64()[i]), places - 31);
      same = std::fabs(held - exact) <= std::ldexp(exact, -30);
    }
    const TensorData* range = file.array(id + "_zero_lo_hi");
    const std::int64_t zero = zero_points(*r.output)[0];
    const std::int64_t lo = r.relu ? std::max<std::int64_t>(zero, r.output->lo) : r.output->lo;
    same = same && (r.output->hi > std::numeric_limits<std::int32_t>::max() ||
                    (range && range->to_int64() == std::vector<std::int64_t>{zero, lo, r.output->hi}));
    if (!same)
      rows.push_back(
          {r.node->name, "multiplier", "s_x s_w / s_y in 31 bits, zero point, range of codes", "another number", 0, false});
  }
  return rows;
}

Result<ReadBack> read_header(const QuantizedModel& model, const std::string& path, const std::string& prefix, bool dense) {
  QUANVAS_TRY(const Opened file, open(model, path, prefix));
  FileValues values;
  for (const Coded& c : file.contents.coded) {
    QUANVAS_TRY(described::Held held, file.held(model, c, dense));
    values.coded[c.name] = std::move(held.values);
  }
  for (const TensorId id : file.contents.plain)
    if (const TensorData* data = file.array(file.ids.plain.at(id) + "_values"); data && data->type == DataType::kFloat)
      values.plain[model.model->graph->tensor(id).name] = data->to_floats();
  std::map<Site, quant::QuantParams> quantizers;
  for (const PlacedQuantizer& q : place(model).quantizers) {
    if (!is_activation(q.site.kind)) continue;
    quant::QuantParams own = *q.params;
    const std::string& id = file.ids.sites.at(q.site);
    const TensorData* scale = file.array(id + "_scale");
    if (!quant::is_dynamic(own)) {
      if (!scale || scale->type != DataType::kFloat || scale->count() != static_cast<std::int64_t>(own.scale.size()))
        return fail(ErrorCode::kCorrupt, "'" + path + "' has no scale of the " + q.name + " of '" + q.node->name + "'.",
                    "Export it again.");
      own.scale = scale->to_floats();
      const TensorData* range = file.array(id + "_zero_lo_hi");
      if (range && !own.zero_point.empty() && range->count() == 3 * static_cast<std::int64_t>(own.zero_point.size())) {
        const std::vector<std::int64_t> r = range->to_int64();
        for (std::size_t i = 0; i < own.zero_point.size(); ++i) own.zero_point[i] = static_cast<float>(r[3 * i]);
      }
    }
    quantizers[q.site] = std::move(own);
  }
  QUANVAS_TRY(ReadBack back, read_back(model, file.contents, values, std::move(quantizers)));
  back.notes.push_back("A header holds numbers; the graph is the screen's.");
  return back;
}

}  // namespace quanvas::c_header
