// Shapes: views, joins, cuts, padding.
#include <algorithm>
#include <limits>

#include "plugins/importers/torchscript/net.h"

namespace quanvas::torchscript {
namespace {

using Ints = std::vector<std::int64_t>;
constexpr std::int64_t kFar = std::numeric_limits<std::int64_t>::max();

std::string unsqueezed(Call& c, const std::string& t, std::int64_t axis) {
  return c.net.emit("Unsqueeze", {t, c.net.ints({axis})});
}

Results view(Call& c) {
  if (c.at(1)->kind == Kind::kInt && c.overload == "dtype") throw Unmapped("bits seen as another type");
  return one(c.net.emit("Reshape", {c.x(), c.net.sizes(c.list(1))}));
}
Results like_other(Call& c) {
  return one(c.net.emit("Reshape", {c.x(), c.net.shape_of(c.x(1))}));
}

Results flatten(Call& c) {
  const std::string x = c.x();
  std::int64_t start = c.integer(1), end = c.integer(2, -1);
  if (start == 1 && end == -1) return one(c.net.emit("Flatten", {x}, {{"axis", std::int64_t{1}}}));
  start = c.net.axis(x, start);
  end = c.net.axis(x, end);
  Refs sizes;
  for (std::int64_t i = 0; i < start; ++i) sizes.push_back(make_int(0));  // as it is
  sizes.push_back(make_int(-1));
  for (std::int64_t i = end + 1; i < c.net.rank(x); ++i) sizes.push_back(c.net.size(x, i));
  return one(c.net.emit("Reshape", {x, c.net.sizes(sizes)}));
}

Results unflatten(Call& c) {
  const std::string x = c.x();
  const std::int64_t dim = c.net.axis(x, c.integer(1));
  Refs sizes;
  for (std::int64_t i = 0; i < dim; ++i) sizes.push_back(make_int(0));
  for (const Ref& v : c.list(2)) sizes.push_back(v);
  for (std::int64_t i = dim + 1; i < c.net.rank(x); ++i) sizes.push_back(c.net.size(x, i));
  return one(c.net.emit("Reshape", {x, c.net.sizes(sizes)}));
}

Results permute(Call& c) {
  const std::string x = c.x();
  Ints perm = c.ints(1);
  for (std::int64_t& d : perm) d = d < 0 ? d + static_cast<std::int64_t>(perm.size()) : d;
  return one(c.net.emit("Transpose", {x}, {{"perm", perm}}));
}
Results transpose(Call& c) {
  const std::string x = c.x();
  Ints perm;
  for (std::int64_t i = 0; i < c.net.rank(x); ++i) perm.push_back(i);
  std::swap(perm.at(static_cast<std::size_t>(c.net.axis(x, c.integer(1)))),
            perm.at(static_cast<std::size_t>(c.net.axis(x, c.integer(2)))));
  return one(c.net.emit("Transpose", {x}, {{"perm", perm}}));
}
Results turned(Call& c) {
  const std::string x = c.x();
  return one(c.net.rank(x) < 2 ? x : c.net.emit("Transpose", {x}, {{"perm", Ints{1, 0}}}));
}

Results unsqueeze(Call& c) {
  return one(unsqueezed(c, c.x(), c.integer(1)));
}
Results squeeze(Call& c) {
  const std::string x = c.x();
  Ints axes;
  if (c.in.size() > 1) {
    for (const std::int64_t dim : c.ints(1)) {
      const std::int64_t d = c.net.dimension(x, dim);
      if (d < 0)
        throw Unmapped("whether the dimension " + std::to_string(dim) + " is 1 depends on the network's input");
      if (d == 1) axes.push_back(c.net.axis(x, dim));
    }
  } else {
    for (std::int64_t i = 0; i < c.net.rank(x); ++i)
      if (c.net.dimension(x, i) == 1) axes.push_back(i);
  }
  return one(axes.empty() ? x : c.net.emit("Squeeze", {x, c.net.ints(axes)}));
}

Results expand(Call& c) {
  Refs sizes;
  for (const Ref& v : c.list(1))
    sizes.push_back(v->kind == Kind::kInt && v->is_known() && v->integer == -1 ? make_int(1) : v);
  return one(c.net.emit("Expand", {c.x(), c.net.sizes(sizes)}));
}
Results expand_as(Call& c) {
  return one(c.net.emit("Expand", {c.x(), c.net.shape_of(c.x(1))}));
}

Results repeat(Call& c) {
  std::string x = c.x();
  const Refs times = c.list(1);
  const std::int64_t more = static_cast<std::int64_t>(times.size()) - c.net.rank(x);
  Ints axes;
  for (std::int64_t i = 0; i < more; ++i) axes.push_back(i);
  if (!axes.empty()) x = c.net.emit("Unsqueeze", {x, c.net.ints(axes)});
  return one(c.net.emit("Tile", {x, c.net.sizes(times)}));
}

// An empty vector among the parts is left out, as LibTorch does.
Results cat(Call& c) {
  Refs parts;
  for (const Ref& v : c.list(0)) {
    const Shape* s = c.net.shape(c.net.tensor_of(v));
    if (!s || s->size() != 1 || (*s)[0] != 0) parts.push_back(v);
  }
  if (parts.empty()) throw Unmapped("nothing is joined");
  const DataType type = promoted(c.net, parts);
  std::vector<std::string> names;
  for (const Ref& v : parts) names.push_back(c.net.tensor_of(v, type));
  return one(names.size() == 1 ? names[0] : c.net.emit("Concat", names, {{"axis", c.integer(1)}}));
}
Results stack(Call& c) {
  const Refs parts = c.list(0);
  if (parts.empty()) throw Unmapped("nothing is joined");
  const DataType type = promoted(c.net, parts);
  std::vector<std::string> names;
  for (const Ref& v : parts) names.push_back(unsqueezed(c, c.net.tensor_of(v, type), c.integer(1)));
  return one(c.net.emit("Concat", names, {{"axis", c.integer(1)}}));
}

Results pieces(Call& c, const Ints& sizes, std::int64_t dim) {
  if (sizes.size() == 1) return {make_list({make_tensor(c.x())})};
  const auto names = c.net.emit_many("Split", {c.x(), c.net.ints(sizes)}, sizes.size(), {{"axis", dim}});
  Refs out;
  for (const std::string& n : names) out.push_back(make_tensor(n));
  return {make_list(out)};
}

std::int64_t known_dimension(Call& c, std::int64_t dim) {
  const std::int64_t d = c.net.dimension(c.x(), dim);
  if (d < 0) throw Unmapped("into how many parts it is cut depends on the network's input");
  return d;
}
Ints equal_parts(std::int64_t whole, std::int64_t each) {
  if (each <= 0 || whole / each > 4096) throw Unmapped("the size of its parts makes no sense");
  Ints out;
  for (std::int64_t left = whole; left > 0; left -= each) out.push_back(std::min(left, each));
  return out;
}
Results split(Call& c) {
  const std::int64_t dim = c.integer(2);
  if (c.at(1)->is_list()) return pieces(c, c.ints(1), dim);
  return pieces(c, equal_parts(known_dimension(c, dim), c.integer(1)), dim);
}
Results chunk(Call& c) {
  const std::int64_t n = c.integer(1), dim = c.integer(2), whole = known_dimension(c, dim);
  if (n <= 0) throw Unmapped("no parts");
  return pieces(c, equal_parts(whole, (whole + n - 1) / n), dim);
}
Results unbind(Call& c) {
  const std::int64_t dim = c.integer(1), whole = known_dimension(c, dim);
  if (whole > 4096) throw Unmapped("too many parts");
  Refs out;
  for (std::int64_t i = 0; i < whole; ++i)
    out.push_back(make_tensor(c.net.emit("Gather", {c.x(), c.net.tensor_of(make_int(i))}, {{"axis", dim}})));
  return {make_list(out)};
}

Results slice(Call& c) {
  const std::string x = c.x();
  const Ref start = c.has(2) ? c.at(2) : make_int(0), end = c.has(3) ? c.at(3) : make_int(kFar),
            step = c.has(4) ? c.at(4) : make_int(1);
  const auto is = [](const Ref& v, std::int64_t n) { return v->is_known() && v->integer == n; };
  if (is(start, 0) && is(step, 1) && end->is_known() && end->integer >= kFar) return one(x);
  return one(c.net.emit(
      "Slice", {x, c.net.sizes({start}), c.net.sizes({end}), c.net.ints({c.integer(1)}), c.net.sizes({step})}));
}
Results narrow(Call& c) {
  const Ref &start = c.at(2), &length = c.at(3);
  const std::string from = c.net.sizes({start});
  return one(c.net.emit(
      "Slice", {c.x(), from, c.net.emit("Add", {from, c.net.sizes({length})}), c.net.ints({c.integer(1)})}));
}

Results flip(Call& c) {
  const Ints axes = c.ints(1);
  const std::size_t n = axes.size();
  return one(c.net.emit("Slice", {c.x(), c.net.ints(Ints(n, -1)), c.net.ints(Ints(n, -kFar)), c.net.ints(axes),
                                  c.net.ints(Ints(n, -1))}));
}

// LibTorch lists pads from the last axis on, each as (begin, end).
Results padded(Call& c, const std::string& mode, const Ref& value) {
  const std::string x = c.x();
  const Refs given = c.list(1);
  const auto rank = static_cast<std::size_t>(c.net.rank(x));
  if (given.size() % 2 || given.size() / 2 > rank) throw Unmapped("its pads do not fit the input");
  Refs pads(2 * rank, make_int(0));
  for (std::size_t i = 0; i < given.size() / 2; ++i) {
    pads[rank - 1 - i] = given[2 * i];
    pads[2 * rank - 1 - i] = given[2 * i + 1];
  }
  std::vector<std::string> inputs = {x, c.net.sizes(pads)};
  if (value) inputs.push_back(c.net.tensor_of(value, c.net.type(x)));
  return one(c.net.emit("Pad", inputs, {{"mode", mode}}));
}
Results constant_pad(Call& c) {
  return padded(c, "constant", c.has(2) ? c.at(2) : make_int(0));
}
Results reflection_pad(Call& c) {
  return padded(c, "reflect", nullptr);
}
Results replication_pad(Call& c) {
  return padded(c, "edge", nullptr);
}
Results pad(Call& c) {
  const std::string mode = c.text(2, "constant");
  if (mode == "constant") return padded(c, mode, c.has(3) ? c.at(3) : make_int(0));
  if (mode == "reflect") return padded(c, mode, nullptr);
  if (mode == "replicate") return padded(c, "edge", nullptr);
  throw Unmapped("padding of mode '" + mode + "'");
}

Results pixel_shuffle(Call& c) {
  if (c.net.rank(c.x()) != 4) throw Unmapped("pictures without a batch");
  return one(c.net.emit("DepthToSpace", {c.x()}, {{"blocksize", c.integer(1)}, {"mode", std::string("CRD")}}));
}

Results triangle(Call& c) {
  std::string diagonal;
  if (c.has(1) && !(c.at(1)->is_known() && c.integer(1) == 0))
    diagonal = c.net.tensor_of(c.at(1), DataType::kInt64);
  return one(c.net.emit("Trilu", {c.x(), diagonal}, {{"upper", std::int64_t{c.op == "aten::triu"}}}));
}

}  // namespace

const Handlers& shape_handlers() {
  static const Handlers table = {{"view", view},
                                 {"reshape", view},
                                 {"_unsafe_view", view},
                                 {"_reshape_alias", view},
                                 {"view_as", like_other},
                                 {"reshape_as", like_other},
                                 {"flatten", flatten},
                                 {"unflatten", unflatten},
                                 {"permute", permute},
                                 {"transpose", transpose},
                                 {"swapaxes", transpose},
                                 {"t", turned},
                                 {"numpy_T", turned},
                                 {"unsqueeze", unsqueeze},
                                 {"squeeze", squeeze},
                                 {"expand", expand},
                                 {"expand_as", expand_as},
                                 {"repeat", repeat},
                                 {"cat", cat},
                                 {"concat", cat},
                                 {"stack", stack},
                                 {"split", split},
                                 {"split_with_sizes", split},
                                 {"chunk", chunk},
                                 {"unbind", unbind},
                                 {"slice", slice},
                                 {"narrow", narrow},
                                 {"flip", flip},
                                 {"constant_pad_nd", constant_pad},
                                 {"pad", pad},
                                 {"reflection_pad1d", reflection_pad},
                                 {"reflection_pad2d", reflection_pad},
                                 {"reflection_pad3d", reflection_pad},
                                 {"replication_pad1d", replication_pad},
                                 {"replication_pad2d", replication_pad},
                                 {"replication_pad3d", replication_pad},
                                 {"pixel_shuffle", pixel_shuffle},
                                 {"tril", triangle},
                                 {"triu", triangle}};
  return table;
}

bool is_view(const std::string& op) {
  static const std::set<std::string> views = {"view",
                                              "reshape",
                                              "_unsafe_view",
                                              "_reshape_alias",
                                              "view_as",
                                              "reshape_as",
                                              "flatten",
                                              "unflatten",
                                              "permute",
                                              "transpose",
                                              "swapaxes",
                                              "t",
                                              "numpy_T",
                                              "unsqueeze",
                                              "squeeze",
                                              "expand",
                                              "expand_as",
                                              "split",
                                              "split_with_sizes",
                                              "chunk",
                                              "unbind",
                                              "slice",
                                              "narrow",
                                              "select",
                                              "contiguous",
                                              "detach",
                                              "alias",
                                              "to",
                                              "type_as",
                                              "cpu",
                                              "data",
                                              "dropout",
                                              "feature_dropout",
                                              "alpha_dropout",
                                              "lift_fresh",
                                              "diagonal",
                                              "unfold"};
  return op.rfind("aten::", 0) == 0 && views.count(op.substr(6)) > 0;
}

}  // namespace quanvas::torchscript
