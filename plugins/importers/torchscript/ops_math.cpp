// Arithmetic, comparisons, logic, reductions.
#include <algorithm>

#include "plugins/importers/torchscript/net.h"

namespace quanvas::torchscript {
namespace {

std::string bare(const Call& c) {
  return c.op.substr(6);
}

struct Pair {
  std::string a, b;
  DataType type;
};

Pair pair_of(Call& c, std::optional<DataType> wanted = {}) {
  const DataType type = wanted ? *wanted : promoted(c.net, {c.at(0), c.at(1)});
  return {c.net.tensor_of(c.at(0), type), c.net.tensor_of(c.at(1), type), type};
}

// x * alpha for add and sub.
std::string scaled(Call& c, const std::string& x, DataType type, std::size_t alpha) {
  if (!c.has(alpha) || (c.at(alpha)->is_known() && c.real(alpha, 1) == 1)) return x;
  return c.net.emit("Mul", {x, c.net.tensor_of(c.at(alpha), type)});
}

Results add(Call& c) {
  const Pair p = pair_of(c);
  return one(c.net.emit("Add", {p.a, scaled(c, p.b, p.type, 2)}));
}
Results subtract(Call& c) {
  const Pair p = pair_of(c);
  return one(c.net.emit("Sub", {p.a, scaled(c, p.b, p.type, 2)}));
}
Results subtract_from(Call& c) {
  const Pair p = pair_of(c);
  return one(c.net.emit("Sub", {p.b, scaled(c, p.a, p.type, 2)}));
}
Results multiply(Call& c) {
  const Pair p = pair_of(c);
  return one(c.net.emit(p.type == DataType::kBool ? "And" : "Mul", {p.a, p.b}));
}

bool is_floating(DataType t) {
  return t != DataType::kBool && !is_integer(t);
}

// Towards minus infinity; ONNX divides integers towards zero.
std::string floor_divide(Call& c, const Pair& p) {
  if (is_floating(p.type)) return c.net.emit("Floor", {c.net.emit("Div", {p.a, p.b})});
  const auto not_below_zero = [&](const Ref& v) {
    return v->is_number() && (v->is_known() ? v->integer >= 0 : c.net.nonnegative.count(v->name) > 0);
  };
  if (not_below_zero(c.at(0)) && not_below_zero(c.at(1))) {
    const std::string out = c.net.emit("Div", {p.a, p.b});
    c.net.nonnegative.insert(out);
    return out;
  }
  const std::string rest = c.net.emit("Mod", {p.a, p.b});
  return c.net.emit("Div", {c.net.emit("Sub", {p.a, rest}), p.b});
}

Results divide(Call& c) {
  const int mode_at = c.find("rounding_mode");
  const std::string mode = mode_at < 0 ? "" : c.text(static_cast<std::size_t>(mode_at));
  Pair p = pair_of(c);
  if (mode == "floor") return one(floor_divide(c, p));
  if (mode == "trunc" && !is_floating(p.type)) return one(c.net.emit("Div", {p.a, p.b}));
  if (!mode.empty()) throw Unmapped("rounding mode '" + mode + "'");
  if (!is_floating(p.type)) p = pair_of(c, DataType::kFloat);
  return one(c.net.emit("Div", {p.a, p.b}));
}
Results floor_division(Call& c) {
  return one(floor_divide(c, pair_of(c)));
}
Results remainder(Call& c) {
  const Pair p = pair_of(c);
  if (is_floating(p.type)) throw Unmapped("remainders of reals");
  return one(c.net.emit("Mod", {p.a, p.b}));
}

Results power(Call& c) {
  const Pair p = pair_of(c);
  const Ref& exponent = c.at(1);
  if (exponent->is_number() && exponent->is_known() && c.real(1) == 2) return one(c.net.emit("Mul", {p.a, p.a}));
  if (exponent->is_number() && exponent->is_known() && c.real(1) == 0.5 && is_floating(p.type))
    return one(c.net.emit("Sqrt", {p.a}));
  return one(c.net.emit("Pow", {p.a, p.b}));
}
Results square(Call& c) {
  return one(c.net.emit("Mul", {c.x(), c.x()}));
}

// What LibTorch computes in reals for integers, too.
template <bool kReal>
Results unary(Call& c) {
  static const std::map<std::string, const char*> ops = {{"sqrt", "Sqrt"},
                                                         {"exp", "Exp"},
                                                         {"log", "Log"},
                                                         {"neg", "Neg"},
                                                         {"abs", "Abs"},
                                                         {"erf", "Erf"},
                                                         {"ceil", "Ceil"},
                                                         {"floor", "Floor"},
                                                         {"round", "Round"},
                                                         {"sign", "Sign"},
                                                         {"reciprocal", "Reciprocal"},
                                                         {"sin", "Sin"},
                                                         {"cos", "Cos"},
                                                         {"tan", "Tan"},
                                                         {"asin", "Asin"},
                                                         {"acos", "Acos"},
                                                         {"atan", "Atan"},
                                                         {"sinh", "Sinh"},
                                                         {"cosh", "Cosh"},
                                                         {"asinh", "Asinh"},
                                                         {"acosh", "Acosh"},
                                                         {"atanh", "Atanh"},
                                                         {"isnan", "IsNaN"},
                                                         {"isinf", "IsInf"},
                                                         {"logical_not", "Not"},
                                                         {"__not__", "Not"}};
  std::string x = c.x();
  if (kReal && !is_floating(c.net.type(x))) x = c.net.cast(x, DataType::kFloat);
  if (bare(c) == "round" && c.overload == "decimals") throw Unmapped("rounding to decimals");
  return one(c.net.emit(ops.at(bare(c)), {x}));
}
Results logical_not(Call& c) {
  return one(c.net.emit("Not", {c.net.cast(c.x(), DataType::kBool)}));
}
Results bitwise_not(Call& c) {
  if (c.net.type(c.x()) != DataType::kBool) throw Unmapped("bits of integers");
  return one(c.net.emit("Not", {c.x()}));
}
Results rsqrt(Call& c) {
  return one(c.net.emit("Reciprocal", {c.net.emit("Sqrt", {c.x()})}));
}

Results compare(Call& c) {
  static const std::map<std::string, const char*> ops = {
      {"eq", "Equal"}, {"lt", "Less"}, {"gt", "Greater"}, {"le", "LessOrEqual"}, {"ge", "GreaterOrEqual"}};
  if (!c.at(0)->is_number() && c.at(0)->kind != Kind::kTensor)
    throw Unmapped("comparison of other things than numbers");
  const Pair p = pair_of(c);
  if (bare(c) == "ne") return one(c.net.emit("Not", {c.net.emit("Equal", {p.a, p.b})}));
  return one(c.net.emit(ops.at(bare(c)), {p.a, p.b}));
}

Results logic(Call& c) {
  const std::string op = bare(c);
  const bool on_truth = op.rfind("logical", 0) == 0;
  if (!on_truth && promoted(c.net, {c.at(0), c.at(1)}) != DataType::kBool) throw Unmapped("bits of integers");
  const Pair p = pair_of(c, DataType::kBool);
  const char* name = op.find("xor") != std::string::npos  ? "Xor"
                     : op.find("or") != std::string::npos ? "Or"
                                                          : "And";
  return one(c.net.emit(name, {p.a, p.b}));
}

Results where(Call& c) {
  if (c.in.size() < 3) throw Unmapped("the places where a condition holds depend on the data");
  const DataType type = promoted(c.net, {c.at(1), c.at(2)});
  return one(c.net.emit("Where", {c.net.cast(c.x(), DataType::kBool), c.net.tensor_of(c.at(1), type),
                                  c.net.tensor_of(c.at(2), type)}));
}
Results masked_fill(Call& c) {
  const std::string x = c.x();
  return one(
      c.net.emit("Where", {c.net.cast(c.x(1), DataType::kBool), c.net.tensor_of(c.at(2), c.net.type(x)), x}));
}

Results clamp(Call& c) {
  const std::string x = c.x();
  const auto bound = [&](std::size_t i) {
    return c.has(i) ? c.net.tensor_of(c.at(i), c.net.type(x)) : std::string();
  };
  const std::string op = bare(c);
  if (op == "clamp_min") return one(c.net.emit("Clip", {x, bound(1)}));
  if (op == "clamp_max") return one(c.net.emit("Clip", {x, "", bound(1)}));
  if (c.overload == "Tensor") throw Unmapped("bounds that are tensors");
  return one(c.net.emit("Clip", {x, bound(1), bound(2)}));
}

// --- reductions
// ---------------------------------------------------------------------------------------------------

struct Reduction {
  std::vector<std::int64_t> axes;
  bool keeps = false;
};

Reduction reduction_of(Call& c) {
  const int dim = c.find("dim"), keep = c.find("keepdim");
  Reduction r;
  if (dim >= 0) r.axes = c.ints(static_cast<std::size_t>(dim));
  if (keep >= 0) r.keeps = c.flag(static_cast<std::size_t>(keep));
  return r;
}

std::string reduce(Call& c, const std::string& op, const std::string& x, const Reduction& r) {
  Attributes attributes = {{"keepdims", std::int64_t{r.keeps}}};
  std::vector<std::string> inputs = {x};
  if (!r.axes.empty() && op == "ReduceSum")
    inputs.push_back(c.net.ints(r.axes));
  else if (!r.axes.empty())
    attributes["axes"] = r.axes;
  return c.net.emit(op, inputs, attributes);
}

Results reduction(Call& c) {
  static const std::map<std::string, const char*> ops = {{"mean", "ReduceMean"}, {"sum", "ReduceSum"},
                                                         {"amax", "ReduceMax"},  {"amin", "ReduceMin"},
                                                         {"prod", "ReduceProd"}, {"logsumexp", "ReduceLogSumExp"}};
  std::string x = c.x();
  if (const auto type = c.dtype()) x = c.net.cast(x, *type);
  const std::string op = bare(c);
  if ((op == "sum" || op == "prod") && !is_floating(c.net.type(x))) x = c.net.cast(x, DataType::kInt64);
  return one(reduce(c, ops.at(op), x, reduction_of(c)));
}

// max and min: of everything, along a dimension (with places), of two tensors.
Results extreme(Call& c) {
  const bool is_max = bare(c) == "max" || bare(c) == "maximum";
  if (c.overload == "other" || c.in.size() == 2) {
    const Pair p = pair_of(c);
    return one(c.net.emit(is_max ? "Max" : "Min", {p.a, p.b}));
  }
  const Reduction r = reduction_of(c);
  const std::string values = reduce(c, is_max ? "ReduceMax" : "ReduceMin", c.x(), r);
  if (c.overload != "dim") return one(values);
  const Attributes attributes = {{"axis", r.axes.at(0)}, {"keepdims", std::int64_t{r.keeps}}};
  return {make_tensor(values), make_tensor(c.net.emit(is_max ? "ArgMax" : "ArgMin", {c.x()}, attributes))};
}

Results place_of_extreme(Call& c) {
  const std::string op = bare(c) == "argmax" ? "ArgMax" : "ArgMin";
  const Reduction r = reduction_of(c);
  if (r.axes.empty()) {
    const std::string flat = c.net.emit("Reshape", {c.x(), c.net.ints({-1})});
    return one(c.net.emit(op, {flat}, {{"axis", std::int64_t{0}}, {"keepdims", std::int64_t{0}}}));
  }
  return one(c.net.emit(op, {c.x()}, {{"axis", r.axes[0]}, {"keepdims", std::int64_t{r.keeps}}}));
}

// Mean of the squared distance from the mean, over n - correction.
Results variance(Call& c) {
  const std::string x = c.x();
  const Reduction r = reduction_of(c);
  const int unbiased = c.find("unbiased"), correction = c.find("correction");
  double less = 1;
  if (unbiased >= 0) less = c.flag(static_cast<std::size_t>(unbiased), true) ? 1 : 0;
  if (correction >= 0) less = c.real(static_cast<std::size_t>(correction), 1);
  const std::string mean = reduce(c, "ReduceMean", x, {r.axes, true});
  const std::string away = c.net.emit("Sub", {x, mean});
  std::string out = reduce(c, "ReduceMean", c.net.emit("Mul", {away, away}), r);
  if (less != 0) {
    double n = 1;
    std::vector<std::int64_t> axes = r.axes;
    for (std::int64_t i = 0; r.axes.empty() && i < c.net.rank(x); ++i) axes.push_back(i);
    for (const std::int64_t a : axes) {
      if (c.net.dimension(x, a) < 0) throw Unmapped("the variance of a dimension of unknown size");
      n *= static_cast<double>(c.net.dimension(x, a));
    }
    out = c.net.emit("Mul", {out, c.net.scalar(n / (n - less), c.net.type(x))});
  }
  return one(bare(c) == "std" ? c.net.emit("Sqrt", {out}) : out);
}

Results cumulative_sum(Call& c) {
  std::string x = c.x();
  if (const auto type = c.dtype())
    x = c.net.cast(x, *type);
  else if (!is_floating(c.net.type(x)))
    x = c.net.cast(x, DataType::kInt64);
  return one(c.net.emit("CumSum", {x, c.net.tensor_of(make_int(c.integer(1)))}));
}

// --- numbers
// ------------------------------------------------------------------------------------------------------

Results to_integer(Call& c) {
  return one(c.net.cast(c.x(), DataType::kInt64));
}
Results to_real(Call& c) {
  return one(c.net.cast(c.x(), DataType::kFloat));
}
Results to_truth(Call& c) {
  return one(c.net.cast(c.x(), DataType::kBool));
}
Results same_number(Call& c) {
  return {c.at(0)};
}

}  // namespace

const Handlers& math_handlers() {
  static const Handlers table = {{"add", add},
                                 {"sub", subtract},
                                 {"subtract", subtract},
                                 {"rsub", subtract_from},
                                 {"mul", multiply},
                                 {"multiply", multiply},
                                 {"div", divide},
                                 {"divide", divide},
                                 {"true_divide", divide},
                                 {"floordiv", floor_division},
                                 {"floor_divide", floor_division},
                                 {"remainder", remainder},
                                 {"pow", power},
                                 {"square", square},
                                 {"rsqrt", rsqrt},
                                 {"sqrt", unary<true>},
                                 {"exp", unary<true>},
                                 {"log", unary<true>},
                                 {"erf", unary<true>},
                                 {"reciprocal", unary<true>},
                                 {"sin", unary<true>},
                                 {"cos", unary<true>},
                                 {"tan", unary<true>},
                                 {"asin", unary<true>},
                                 {"acos", unary<true>},
                                 {"atan", unary<true>},
                                 {"sinh", unary<true>},
                                 {"cosh", unary<true>},
                                 {"asinh", unary<true>},
                                 {"acosh", unary<true>},
                                 {"atanh", unary<true>},
                                 {"neg", unary<false>},
                                 {"abs", unary<false>},
                                 {"ceil", unary<false>},
                                 {"floor", unary<false>},
                                 {"round", unary<false>},
                                 {"sign", unary<false>},
                                 {"isnan", unary<false>},
                                 {"isinf", unary<false>},
                                 {"logical_not", logical_not},
                                 {"__not__", logical_not},
                                 {"bitwise_not", bitwise_not},
                                 {"eq", compare},
                                 {"ne", compare},
                                 {"lt", compare},
                                 {"gt", compare},
                                 {"le", compare},
                                 {"ge", compare},
                                 {"logical_and", logic},
                                 {"logical_or", logic},
                                 {"logical_xor", logic},
                                 {"bitwise_and", logic},
                                 {"bitwise_or", logic},
                                 {"bitwise_xor", logic},
                                 {"__and__", logic},
                                 {"__or__", logic},
                                 {"__xor__", logic},
                                 {"where", where},
                                 {"masked_fill", masked_fill},
                                 {"clamp", clamp},
                                 {"clip", clamp},
                                 {"clamp_min", clamp},
                                 {"clamp_max", clamp},
                                 {"mean", reduction},
                                 {"sum", reduction},
                                 {"amax", reduction},
                                 {"amin", reduction},
                                 {"prod", reduction},
                                 {"logsumexp", reduction},
                                 {"max", extreme},
                                 {"min", extreme},
                                 {"maximum", extreme},
                                 {"minimum", extreme},
                                 {"argmax", place_of_extreme},
                                 {"argmin", place_of_extreme},
                                 {"var", variance},
                                 {"std", variance},
                                 {"cumsum", cumulative_sum},
                                 {"Int", to_integer},
                                 {"IntImplicit", to_integer},
                                 {"Float", to_real},
                                 {"FloatImplicit", to_real},
                                 {"Bool", to_truth},
                                 {"ScalarImplicit", same_number},
                                 {"item", same_number}};
  return table;
}

}  // namespace quanvas::torchscript
