#include "plugins/importers/gguf_contents.h"

#include <algorithm>
#include <bit>
#include <set>

#include "core/base/json.h"
#include "plugins/importers/gguf_values.h"

namespace quanvas::gguf_in {

struct HeldJson {
  std::string tensor, of, file, key;
  std::vector<NodeId> readers;
  Shape shape;
  int type = 0, heads = 0;
  std::vector<int> order;
};
template <class V>
void visit_fields(V& v, HeldJson& h) {
  v("tensor", h.tensor);
  v("of", h.of);
  v("file", h.file);
  v("key", h.key);
  v("readers", h.readers);
  v("shape", h.shape);
  v("type", h.type);
  v("heads", h.heads);
  v("order", h.order);
}

namespace {

constexpr std::size_t kMostAxes = 64;

Failure corrupt(const std::string& tensor, const std::string& what) {
  return fail(ErrorCode::kCorrupt, "The list of tensors (quanvas.tensors) names '" + tensor + "', " + what + ".",
              "Export the file again.");
}

Result<json> parsed(const File& file, const std::string& key) {
  json out = json::parse(file.text(key), nullptr, false);
  if (out.is_discarded())
    return fail(ErrorCode::kCorrupt, "The text of the key '" + key + "' is no JSON.", "Export the file again.");
  return out;
}

bool is_order(const std::vector<int>& order, std::size_t rank) {
  std::set<int> seen(order.begin(), order.end());
  return order.size() == rank && seen.size() == rank &&
         (rank == 0 || (*seen.begin() == 0 && *seen.rbegin() == static_cast<int>(rank) - 1));
}

Result<Held> held_of(const File& file, const HeldJson& in) {
  Held out{in.tensor, in.of, in.readers, in.shape, static_cast<DataType>(in.type), nullptr, in.order, in.heads, in.key};
  if (in.shape.size() > kMostAxes) return corrupt(in.tensor, "which has " + std::to_string(in.shape.size()) + " axes");
  std::uint64_t count = 1;
  for (const std::int64_t d : in.shape)
    if (d < 0 || __builtin_mul_overflow(count, static_cast<std::uint64_t>(d), &count))
      return corrupt(in.tensor, "whose shape is none");
  if (in.file.empty() == in.key.empty()) return corrupt(in.tensor, "without saying where it is");
  if (in.file.empty()) return out;
  out.in_file = file.find(in.file);
  if (!out.in_file) return corrupt(in.tensor, "but the file has no tensor '" + in.file + "'");
  if (out.in_file->columns() * out.in_file->rows() != count)
    return corrupt(in.tensor, "which has another number of elements than '" + in.file + "'");
  if (!is_order(in.order, in.shape.size())) return corrupt(in.tensor, "whose order of axes is none");
  if (out.type != DataType::kFloat && out.type != DataType::kFloat16 && out.type != DataType::kBfloat16)
    return corrupt(in.tensor, "whose element type is none of a tensor");
  if (in.shape.size() == 1 && out.rows() != 1) return corrupt(in.tensor, "which is a vector, but '" + in.file + "' has rows");
  const std::int64_t lines = in.shape.size() == 1 ? out.columns() : out.rows();
  if (in.heads < 0 || (in.heads > 0 && (lines % in.heads != 0 || lines / in.heads % 2 != 0)))
    return corrupt(in.tensor, "whose rows are no " + std::to_string(in.heads) + " heads");
  return out;
}

std::uint64_t bytes_for(DataType type, std::int64_t count) {
  if (is_small_type(type)) return bytes_of(type, count);
  std::uint64_t size = 0;
  return __builtin_mul_overflow(static_cast<std::uint64_t>(count), std::uint64_t{element_size(type)}, &size) ? UINT64_MAX
                                                                                                             : size;
}

}  // namespace

std::int64_t Held::rows() const {
  return in_file ? static_cast<std::int64_t>(in_file->rows()) : 1;
}

std::vector<std::size_t> Held::positions(std::int64_t row) const {
  // Row 2j of a head of the file is row j of its first half, row 2j + 1 that of its second. So are a vector's elements.
  const bool is_vector = shape.size() == 1;
  const std::int64_t lines = is_vector ? columns() : rows();
  const auto unpaired = [&](std::int64_t line) {
    if (heads == 0) return line;
    const std::int64_t size = lines / heads, within = line % size;
    return line - within + within / 2 + (within % 2 ? size / 2 : 0);
  };
  std::vector<std::size_t> out(static_cast<std::size_t>(columns()));
  if (is_vector) {
    for (std::size_t c = 0; c < out.size(); ++c) out[c] = static_cast<std::size_t>(unpaired(static_cast<std::int64_t>(c)));
    return out;
  }
  row = unpaired(row);
  std::vector<std::uint64_t> index(shape.size());
  for (std::size_t c = 0; c < out.size(); ++c) {
    auto rest = static_cast<std::uint64_t>(row) * out.size() + c;
    for (std::size_t k = order.size(); k-- > 0;) {
      const auto axis = static_cast<std::size_t>(order[k]);
      index[axis] = rest % static_cast<std::uint64_t>(shape[axis]);
      rest /= static_cast<std::uint64_t>(shape[axis]);
    }
    std::uint64_t at = 0;
    for (std::size_t a = 0; a < shape.size(); ++a) at = at * static_cast<std::uint64_t>(shape[a]) + index[a];
    out[c] = static_cast<std::size_t>(at);
  }
  return out;
}

Result<std::vector<Held>> contents(const File& file) {
  std::vector<Held> out;
  if (file.text("quanvas.tensors").empty()) return out;
  QUANVAS_TRY(const json list, parsed(file, "quanvas.tensors"));
  if (!list.is_array()) return json_type_error("quanvas.tensors", "a list", list);
  std::set<std::string> names;
  std::set<const Tensor*> read;
  for (const json& entry : list) {
    QUANVAS_TRY(const HeldJson one, from_json_value<HeldJson>(entry, "quanvas.tensors"));
    if (one.tensor.empty() || !names.insert(one.tensor).second) return corrupt(one.tensor, "which is empty or named twice");
    QUANVAS_TRY(Held held, held_of(file, one));
    // Else a small file would name one large tensor as often as it likes.
    if (held.in_file && !read.insert(held.in_file).second)
      return corrupt(one.tensor, "which is in '" + one.file + "' as another is");
    out.push_back(std::move(held));
  }
  return out;
}

Result<TensorData> data_of(const File& file, const Held& held) {
  if (!held.in_file) {
    const auto it = file.values.find(held.key);
    if (it == file.values.end())
      return fail(ErrorCode::kNotFound, "The file has no key '" + held.key + "', which should hold '" + held.tensor + "'.",
                  "Export it with the graph.");
    const auto* array = std::get_if<Array>(&it->second);
    const std::int64_t count = element_count(held.shape);
    if (!array || array->type != 0 || array->bytes.size() != bytes_for(held.type, count) || (array->bytes.empty() && count > 0))
      return corrupt(held.tensor, "whose bytes at '" + held.key + "' are not those of " + shape_text(held.shape) + " " +
                                      type_name(held.type));
    return TensorData::copy_of(held.type, held.shape, array->bytes.data(), array->bytes.size());
  }
  const Tensor& t = *held.in_file;
  std::vector<float> values(static_cast<std::size_t>(element_count(held.shape)));
  const std::size_t row_bytes = t.bytes.size() / static_cast<std::size_t>(held.rows());
  Row row;
  for (std::int64_t r = 0; r < held.rows(); ++r) {
    decode(t.type, t.bytes.substr(static_cast<std::size_t>(r) * row_bytes, row_bytes), t.columns(), row);
    const std::vector<std::size_t> at = held.positions(r);
    for (std::size_t c = 0; c < at.size(); ++c) values[at[c]] = row.values[c];
  }
  if (held.type == DataType::kFloat) return TensorData::of_floats(held.shape, std::move(values));
  std::vector<std::uint16_t> halves;
  for (const float v : values)
    halves.push_back(held.type == DataType::kFloat16 ? float_to_half(v)
                                                     : static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(v) >> 16));
  return TensorData::copy_of(held.type, held.shape, halves.data(), halves.size() * sizeof(std::uint16_t));
}

Result<std::optional<Model>> network(const File& file, const std::string& path) {
  if (file.text("quanvas.graph").empty()) return std::optional<Model>();
  QUANVAS_TRY(const json text, parsed(file, "quanvas.graph"));
  QUANVAS_TRY(GraphPtr graph, graph_from_json(text));
  QUANVAS_TRY(const std::vector<Held> list, contents(file));
  auto weights = std::make_shared<WeightStore>();
  for (const Held& held : list) {
    const TensorId id = graph->tensor(held.tensor);
    if (id == kNoTensor || !graph->tensor(id).is_initializer)
      return corrupt(held.tensor, "which is no initializer of the graph");
    const TensorInfo& info = graph->tensor(id);
    if (info.type != held.type || info.shape != held.shape)
      return corrupt(held.tensor, "whose shape or type is not that of the graph");
    QUANVAS_TRY(TensorData data, data_of(file, held));
    weights->set(held.tensor, std::move(data));
  }
  for (const TensorInfo& info : graph->tensors()) {
    if (info.is_initializer && !weights->find(info.name))
      return fail(ErrorCode::kCorrupt, "The file's graph has an initializer '" + info.name + "' that the file does not hold.",
                  "Export it again.");
    for (const std::int64_t d : info.shape.value_or(Shape{}))
      if (d < -1)
        return fail(ErrorCode::kCorrupt, "The file's graph has a tensor '" + info.name + "' with a negative dimension.",
                    "Export it again.");
  }
  return std::optional<Model>(Model{std::move(graph), std::move(weights), path});
}

}  // namespace quanvas::gguf_in
