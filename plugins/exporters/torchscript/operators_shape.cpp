// Operators that move elements, and the integers of shapes.
#include <algorithm>

#include "plugins/exporters/torchscript/operators.h"

namespace quanvas::torchscript_file {
namespace {

std::vector<std::string> one(std::string expression) { return {std::move(expression)}; }
std::string text(std::int64_t v) { return std::to_string(v); }

// A list of numbers that only a run knows.
std::string run_time_list(Saying& s, std::size_t input) {
  const std::string name = s.variable("sizes");
  s.lines.push_back(name + " : List[int] = " + s.x(input) + ".tolist()");
  return name;
}

std::vector<std::string> reshape(Saying& s) {
  if (!s.node.attributes.count("shape") && !s.constant(1))
    return one("torch.reshape(" + s.x() + ", " + run_time_list(s, 1) + ")");
  const auto target = s.ints("shape", 1);
  if (!target) throw Unsaid("its target is missing");
  // A batch that the file has fixed follows the input.
  const TensorInfo& result = s.graph().tensor(s.node.outputs.at(0));
  const bool open = result.shape && !result.shape->empty() && (*result.shape)[0] < 0;
  std::string list;
  for (std::size_t i = 0; i < target->size(); ++i) {
    const std::int64_t d = (*target)[i];
    const bool from_input = (d == 0 && !s.node.integer("allowzero", 0)) || (i == 0 && d > 0 && open);
    list += (i ? ", " : "") + (from_input ? s.x() + ".size(" + text(static_cast<std::int64_t>(i)) + ")" : text(d));
  }
  return one("torch.reshape(" + s.x() + ", [" + list + "])");
}

std::vector<std::string> flatten(Saying& s) {
  const std::int64_t axis = s.node.integer("axis", 1);
  if (axis == 1) return one("torch.flatten(" + s.x() + ", 1)");
  const std::int64_t rank = s.rank(), a = axis < 0 ? axis + rank : axis;
  if (a == 0) return one("torch.reshape(" + s.x() + ", [1, -1])");
  if (a == rank) return one("torch.reshape(" + s.x() + ", [-1, 1])");
  return one("torch.flatten(torch.flatten(" + s.x() + ", 0, " + text(a - 1) + "), 1)");
}

std::vector<std::string> squeeze(Saying& s) {
  auto axes = s.ints("axes", 1);
  if (!axes) throw Unsaid("the axes that it drops are not given");
  for (std::int64_t& a : *axes) a = s.axis(a, s.rank());
  std::sort(axes->rbegin(), axes->rend());
  std::string out = s.x();
  for (const std::int64_t a : *axes) out = "torch.squeeze(" + out + ", " + text(a) + ")";
  return one(out);
}

std::vector<std::string> unsqueeze(Saying& s) {
  auto axes = s.ints("axes", 1);
  if (!axes) throw Unsaid("'axes' is missing");
  const bool negative = std::any_of(axes->begin(), axes->end(), [](std::int64_t a) { return a < 0; });
  const std::int64_t rank = negative ? s.rank() + static_cast<std::int64_t>(axes->size()) : 0;
  for (std::int64_t& a : *axes) a = a < 0 ? a + rank : a;
  std::sort(axes->begin(), axes->end());
  std::string out = s.x();
  for (const std::int64_t a : *axes) out = "torch.unsqueeze(" + out + ", " + text(a) + ")";
  return one(out);
}

std::vector<std::string> transpose(Saying& s) {
  Ints perm = s.node.integers("perm");
  if (perm.empty())
    for (std::int64_t i = s.rank(); i-- > 0;) perm.push_back(i);
  return one("torch.permute(" + s.x() + ", " + literal(perm) + ")");
}

std::vector<std::string> concat(Saying& s) {
  std::string list;
  for (std::size_t i = 0; i < s.in.size(); ++i) list += (i ? ", " : "") + s.x(i);
  return one("torch.cat([" + list + "], " + text(s.node.integer("axis", 1)) + ")");
}

std::vector<std::string> split(Saying& s) {
  const std::int64_t axis = s.node.integer("axis", 0);
  auto sizes = s.ints("split", 1);
  if (!sizes) {
    const std::int64_t rank = s.rank(),
                       length = s.info().shape ? (*s.info().shape)[static_cast<std::size_t>(s.axis(axis, rank))] : -1;
    if (length < 0) throw Unsaid("the size of what it splits is not known");
    const auto parts = static_cast<std::int64_t>(s.node.outputs.size()), each = (length + parts - 1) / parts;
    sizes = Ints{};
    for (std::int64_t i = 0, left = length; i < parts; ++i, left -= each)
      sizes->push_back(std::clamp<std::int64_t>(left, 0, each));
  }
  const std::string list =
      s.kept("parts", "torch.split_with_sizes(" + s.x() + ", " + literal(*sizes) + ", " + text(axis) + ")");
  std::vector<std::string> out;
  for (std::size_t i = 0; i < sizes->size(); ++i) out.push_back(list + "[" + std::to_string(i) + "]");
  return out;
}

// Where a slice begins or ends: numbers, or for one axis the number that a run gives. None: not given.
std::optional<std::vector<std::string>> bounds(Saying& s, const char* attribute, std::size_t input) {
  if (!s.node.attributes.count(attribute) && s.node.input(input) != kNoTensor && !s.constant(input)) {
    const auto& shape = s.info(input).shape;
    if (!shape || element_count(*shape) != 1) throw Unsaid("where it begins or ends along several axes is computed at run time");
    return std::vector<std::string>{"int(" + s.x(input) + ")"};
  }
  const auto numbers = s.ints(attribute, input);
  if (!numbers) return std::nullopt;
  std::vector<std::string> out;
  for (const std::int64_t n : *numbers) out.push_back(text(n));
  return out;
}

std::vector<std::string> slice(Saying& s) {
  const auto starts = bounds(s, "starts", 1), ends = bounds(s, "ends", 2);
  if (!starts || !ends || starts->size() != ends->size()) throw Unsaid("'starts' and 'ends' have different lengths");
  Ints every;
  for (std::size_t i = 0; i < starts->size(); ++i) every.push_back(static_cast<std::int64_t>(i));
  const Ints axes = s.ints("axes", 3).value_or(every), steps = s.ints("steps", 4).value_or(Ints(starts->size(), 1));
  if (axes.size() != starts->size() || steps.size() != starts->size())
    throw Unsaid("'axes' and 'steps' have another length than 'starts'");
  std::string out = s.x();
  for (std::size_t i = 0; i < axes.size(); ++i) {
    if (steps[i] < 1) throw Unsaid("a step below 1");
    out = "torch.slice(" + out + ", " + text(axes[i]) + ", " + (*starts)[i] + ", " + (*ends)[i] + ", " + text(steps[i]) + ")";
  }
  return one(out);
}

std::vector<std::string> pad(Saying& s) {
  const std::string mode = s.node.text("mode", "constant");
  if (mode != "constant") throw Unsaid("mode '" + mode + "'");
  const auto given = s.ints(s.node.attributes.count("paddings") ? "paddings" : "pads", 1);
  if (!given) throw Unsaid("'pads' is missing");
  const std::int64_t rank = s.rank();
  Ints begin(static_cast<std::size_t>(rank), 0), end = begin, axes;
  if (const auto some = s.ints(nullptr, 3))
    axes = *some;
  else
    for (std::int64_t i = 0; i < rank; ++i) axes.push_back(i);
  if (given->size() != 2 * axes.size()) throw Unsaid("'pads' has " + std::to_string(given->size()) + " values");
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto a = static_cast<std::size_t>(s.axis(axes[i], rank));
    begin[a] = (*given)[i];
    end[a] = (*given)[i + axes.size()];
  }
  return one("torch.constant_pad_nd(" + s.x() + ", " + literal(flat_pads(begin, end)) + ", " +
             literal(s.number("value", 2).value_or(0)) + ")");
}

std::vector<std::string> expand(Saying& s) {
  if (!s.constant(1)) {
    // Sizes of 1 in the target leave the input's: those of both are needed.
    return one("torch.mul(" + s.x() + ", torch.ones(" + run_time_list(s, 1) + ", dtype=" + s.x() + ".dtype))");
  }
  Ints target = *s.ints(nullptr, 1);
  const std::int64_t rank = s.rank(), more = static_cast<std::int64_t>(target.size()) - rank;
  // An expanded size of 1 stays what the input has; fewer sizes than the input has stand for its last ones.
  while (static_cast<std::int64_t>(target.size()) < rank) target.insert(target.begin(), -1);
  for (std::int64_t i = std::max<std::int64_t>(more, 0); i < static_cast<std::int64_t>(target.size()); ++i)
    if (target[static_cast<std::size_t>(i)] == 1) target[static_cast<std::size_t>(i)] = -1;
  return one(s.x() + ".expand(" + literal(target) + ")");
}

// Indices along one axis: a constant number, a constant list, or whole numbers that a run gives (at least 0, as TorchScript
// counts them).
std::vector<std::string> gather(Saying& s) {
  const std::int64_t rank = s.rank(), axis = s.axis(s.node.integer("axis", 0), rank);
  if (const TensorData* data = s.constant(1)) {
    const Ints index = data->to_int64();
    if (data->shape.empty()) return one("torch.select(" + s.x() + ", " + text(axis) + ", " + text(index.at(0)) + ")");
    const auto& shape = s.info(0).shape;
    const TensorData* table = s.constant(0);
    const std::int64_t length = table   ? table->shape[static_cast<std::size_t>(axis)]
                                : shape ? (*shape)[static_cast<std::size_t>(axis)]
                                        : -1;
    const bool negative = std::any_of(index.begin(), index.end(), [](std::int64_t i) { return i < 0; });
    if (data->shape.size() != 1 || (negative && length < 0)) throw Unsaid("its indices are no list");
    Ints list = index;
    for (std::int64_t& i : list) i = i < 0 ? i + length : i;
    return one("torch.index_select(" + s.x() + ", " + text(axis) + ", torch.tensor(" + literal(list) + "))");
  }
  if (axis == 0 && rank == 2 && s.constant(0)) return one("torch.embedding(" + s.x() + ", " + s.x(1) + ")");
  const std::string x = s.x(), i = s.x(1);
  return one("torch.reshape(torch.index_select(" + x + ", " + text(axis) + ", torch.flatten(" + i + ")), " + x +
             ".size()[:" + text(axis) + "] + " + i + ".size() + " + x + ".size()[" + text(axis + 1) + ":])");
}

// Numbers of c10::ScalarType.
std::vector<std::string> cast(Saying& s) {
  static const std::map<DataType, int> types = {
      {DataType::kUint8, 0},   {DataType::kInt8, 1},  {DataType::kInt16, 2},  {DataType::kInt32, 3}, {DataType::kInt64, 4},
      {DataType::kFloat16, 5}, {DataType::kFloat, 6}, {DataType::kDouble, 7}, {DataType::kBool, 11}, {DataType::kBfloat16, 15}};
  const auto it = types.find(static_cast<DataType>(s.node.integer("to", 1)));
  if (it == types.end()) throw Unsaid("it casts to a type that TorchScript does not have");
  return one(s.x() + ".to(dtype=" + std::to_string(it->second) + ")");
}

std::vector<std::string> shape(Saying& s) {
  if (s.node.attributes.count("start") || s.node.attributes.count("end")) throw Unsaid("a part of a shape");
  return one("torch.tensor(" + s.x() + ".size(), dtype=4)");
}

}  // namespace

const Says& shape_says() {
  static const Says table = {{"Reshape", reshape},     {"Flatten", flatten},     {"Squeeze", squeeze},
                             {"Unsqueeze", unsqueeze}, {"Transpose", transpose}, {"Concat", concat},
                             {"Split", split},         {"Slice", slice},         {"Pad", pad},
                             {"Expand", expand},       {"Gather", gather},       {"Cast", cast},
                             {"Shape", shape}};
  return table;
}

}  // namespace quanvas::torchscript_file
