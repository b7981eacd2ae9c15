// Pooling.
#include <algorithm>

#include "plugins/importers/torchscript/net.h"

namespace quanvas::torchscript {
namespace {

using Ints = std::vector<std::int64_t>;

std::size_t spatial(const Call& c) {
  return static_cast<std::size_t>(c.op.back() == 'd' ? c.op[c.op.size() - 2] - '0' : 2);
}

// (x, kernel, stride, padding, ...): no stride is a stride of the kernel.
Attributes window(Call& c, std::size_t n) {
  const Ints kernel = c.ints(1, n), pads = c.has(3) ? c.ints(3, n) : Ints(n, 0);
  Ints both = pads;
  both.insert(both.end(), pads.begin(), pads.end());
  return {{"kernel_shape", kernel}, {"strides", c.list(2).empty() ? kernel : c.ints(2, n)}, {"pads", both}};
}

// A pool that takes [C, H, W] is run with a batch of one.
Results with_batch(Call& c, std::size_t n, const std::string& op, const Attributes& attributes) {
  const std::string x = c.x();
  if (const Shape* s = c.net.shape(x); !s || s->size() != n + 1) return one(c.net.emit(op, {x}, attributes));
  const std::string in = c.net.emit("Unsqueeze", {x, c.net.ints({0})});
  return one(c.net.emit("Squeeze", {c.net.emit(op, {in}, attributes), c.net.ints({0})}));
}

Results max_pool(Call& c) {
  const std::size_t n = spatial(c);
  Attributes attributes = window(c, n);
  if (c.has(4)) attributes["dilations"] = c.ints(4, n);
  attributes["ceil_mode"] = std::int64_t{c.flag(5)};
  return with_batch(c, n, "MaxPool", attributes);
}

Results avg_pool(Call& c) {
  const std::size_t n = spatial(c);
  if (c.has(6)) throw Unmapped("a divisor of its own");
  Attributes attributes = window(c, n);
  attributes["ceil_mode"] = std::int64_t{c.flag(4)};
  attributes["count_include_pad"] = std::int64_t{c.flag(5, true)};
  return with_batch(c, n, "AveragePool", attributes);
}

// To one value per channel, or to a size that divides the input's.
Results adaptive_pool(Call& c) {
  const std::size_t n = spatial(c);
  const bool is_max = c.op.find("max") != std::string::npos;
  const std::string x = c.x();
  const Refs wanted = c.list(1);
  const auto is_one = [](const Ref& v) { return v->kind == Kind::kInt && v->is_known() && v->integer == 1; };
  const Ref places = make_other("the places of the largest values");
  if (const Shape* s = c.net.shape(x); s && s->size() != n + 2) throw Unmapped("a pool without a batch");
  if (std::all_of(wanted.begin(), wanted.end(), is_one))
    return {make_tensor(c.net.emit(is_max ? "GlobalMaxPool" : "GlobalAveragePool", {x})), places};
  Ints kernel;
  for (std::size_t i = 0; i < n; ++i) {
    const std::int64_t have = c.net.dimension(x, static_cast<std::int64_t>(i) + 2);
    const Ref& v = wanted.size() == 1 ? wanted[0] : wanted.at(i);
    const std::int64_t want = v->kind == Kind::kNone                   ? have
                              : v->kind == Kind::kInt && v->is_known() ? v->integer
                                                                       : 0;
    if (have <= 0 || want <= 0 || have % want != 0)
      throw Unmapped("it pools " + std::to_string(have) + " values to " + std::to_string(want));
    kernel.push_back(have / want);
  }
  return {make_tensor(
              c.net.emit(is_max ? "MaxPool" : "AveragePool", {x}, {{"kernel_shape", kernel}, {"strides", kernel}})),
          places};
}

}  // namespace

const Handlers& pool_handlers() {
  static const Handlers table = {{"max_pool1d", max_pool},
                                 {"max_pool2d", max_pool},
                                 {"max_pool3d", max_pool},
                                 {"avg_pool1d", avg_pool},
                                 {"avg_pool2d", avg_pool},
                                 {"avg_pool3d", avg_pool},
                                 {"adaptive_avg_pool1d", adaptive_pool},
                                 {"adaptive_avg_pool2d", adaptive_pool},
                                 {"adaptive_avg_pool3d", adaptive_pool},
                                 {"adaptive_max_pool1d", adaptive_pool},
                                 {"adaptive_max_pool2d", adaptive_pool},
                                 {"adaptive_max_pool3d", adaptive_pool}};
  return table;
}

}  // namespace quanvas::torchscript
