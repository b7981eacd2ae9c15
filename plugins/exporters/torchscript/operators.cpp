// What all operators share, and those that work element by element.
#include "plugins/exporters/torchscript/operators.h"

#include <algorithm>

namespace quanvas::torchscript_file {

const std::string& Saying::x(std::size_t i) const {
  if (!has(i)) throw Unsaid("its input " + std::to_string(i + 1) + " is missing");
  return in[i];
}

const TensorInfo& Saying::info(std::size_t i) const {
  const TensorId t = node.input(i);
  if (t == kNoTensor) throw Unsaid("its input " + std::to_string(i + 1) + " is missing");
  return graph().tensor(t);
}

const TensorData* Saying::constant(std::size_t i) const {
  const TensorId t = node.input(i);
  return t == kNoTensor || !graph().tensor(t).is_initializer ? nullptr : model.weights->find(graph().tensor(t).name);
}

std::int64_t Saying::rank(std::size_t i) const {
  if (const TensorData* data = constant(i)) return static_cast<std::int64_t>(data->shape.size());
  if (!info(i).shape) throw Unsaid("the number of dimensions of '" + info(i).name + "' is not known");
  return static_cast<std::int64_t>(info(i).shape->size());
}

std::int64_t Saying::axis(std::int64_t a, std::int64_t rank) const {
  const std::int64_t out = a < 0 ? a + rank : a;
  if (out < 0 || out >= std::max<std::int64_t>(rank, 1))
    throw Unsaid("axis " + std::to_string(a) + " of a tensor of rank " + std::to_string(rank));
  return out;
}

std::optional<Ints> Saying::ints(const char* attribute, std::size_t input) const {
  if (attribute && node.attributes.count(attribute)) return node.integers(attribute);
  if (node.input(input) == kNoTensor) return std::nullopt;
  const TensorData* data = constant(input);
  if (!data) throw Unsaid("its input '" + info(input).name + "' is computed at run time");
  return data->to_int64();
}

std::optional<double> Saying::number(const char* attribute, std::size_t input) const {
  if (attribute && node.attributes.count(attribute)) return node.real(attribute, 0);
  if (node.input(input) == kNoTensor) return std::nullopt;
  const TensorData* data = constant(input);
  if (!data) throw Unsaid("its input '" + info(input).name + "' is computed at run time");
  const std::vector<float> values = data->to_floats();
  if (values.empty()) return std::nullopt;
  return values[0];
}

std::string Saying::kept(const std::string& base, const std::string& expression) {
  const std::string name = variable(base);
  lines.push_back(name + " = " + expression);
  return name;
}

namespace {

std::vector<std::string> one(std::string expression) { return {std::move(expression)}; }

bool is_float(DataType t) {
  return t == DataType::kFloat || t == DataType::kDouble || t == DataType::kFloat16 || t == DataType::kBfloat16;
}

// torch.NAME(x) of operators whose names are those of ONNX in small letters.
template <const char* const& kName>
std::vector<std::string> plain(Saying& s) {
  return one(std::string("torch.") + kName + "(" + s.x() + ")");
}
#define QUANVAS_PLAIN(id, name) const char* const k##id = name;
QUANVAS_PLAIN(Relu, "relu")
QUANVAS_PLAIN(Sigmoid, "sigmoid") QUANVAS_PLAIN(Tanh, "tanh") QUANVAS_PLAIN(Exp, "exp") QUANVAS_PLAIN(Log, "log")
    QUANVAS_PLAIN(Sqrt, "sqrt") QUANVAS_PLAIN(Neg, "neg") QUANVAS_PLAIN(Abs, "abs") QUANVAS_PLAIN(Erf, "erf")
        QUANVAS_PLAIN(Ceil, "ceil") QUANVAS_PLAIN(Floor, "floor") QUANVAS_PLAIN(Round, "round") QUANVAS_PLAIN(Sign, "sign")
            QUANVAS_PLAIN(Reciprocal, "reciprocal") QUANVAS_PLAIN(Sin, "sin") QUANVAS_PLAIN(Cos, "cos")
                QUANVAS_PLAIN(Not, "logical_not") QUANVAS_PLAIN(HardSwish, "hardswish") QUANVAS_PLAIN(Mish, "mish")
                    QUANVAS_PLAIN(Selu, "selu") QUANVAS_PLAIN(Softplus, "softplus")
#undef QUANVAS_PLAIN

    // torch.NAME(a, b)
    template <const char* const& kName>
    std::vector<std::string> pair(Saying& s) {
  return one(std::string("torch.") + kName + "(" + s.x(0) + ", " + s.x(1) + ")");
}
const char *const kAdd = "add", *const kSub = "sub", *const kMul = "mul", *const kPow = "pow", *const kEqual = "eq",
                  *const kGreater = "gt", *const kLess = "lt", *const kGreaterOrEqual = "ge", *const kLessOrEqual = "le",
                  *const kAnd = "logical_and", *const kOr = "logical_or", *const kXor = "logical_xor";

std::vector<std::string> divide(Saying& s) {
  if (!is_float(s.info(0).type) || !is_float(s.info(1).type)) throw Unsaid("it divides integers, which round differently");
  return one("torch.div(" + s.x(0) + ", " + s.x(1) + ")");
}

// Sum, Max, Min, Mean of one tensor or more.
std::vector<std::string> fold(Saying& s, const char* name) {
  std::string out = s.x(0);
  for (std::size_t i = 1; i < s.in.size(); ++i) out = std::string("torch.") + name + "(" + out + ", " + s.x(i) + ")";
  return one(out);
}
std::vector<std::string> maximum(Saying& s) { return fold(s, "maximum"); }
std::vector<std::string> minimum(Saying& s) { return fold(s, "minimum"); }
std::vector<std::string> sum(Saying& s) { return fold(s, "add"); }

std::vector<std::string> clip(Saying& s) {
  const auto lo = s.number("min", 1), hi = s.number("max", 2);
  if (!is_float(s.info().type)) throw Unsaid("it limits integers");
  if (!lo && !hi) return one(s.x());
  return one("torch.clamp(" + s.x() + ", " + (lo ? literal(*lo) : "None") + ", " + (hi ? literal(*hi) : "None") + ")");
}

std::vector<std::string> leaky_relu(Saying& s) {
  return one("torch.leaky_relu(" + s.x() + ", " + literal(s.node.real("alpha", 0.01f)) + ")");
}
std::vector<std::string> elu(Saying& s) { return one("torch.elu(" + s.x() + ", " + literal(s.node.real("alpha", 1)) + ")"); }
std::vector<std::string> celu(Saying& s) { return one("torch.celu(" + s.x() + ", " + literal(s.node.real("alpha", 1)) + ")"); }
std::vector<std::string> gelu(Saying& s) {
  return one("torch.gelu(" + s.x() + ", approximate=\"" + (s.node.text("approximate", "none") == "tanh" ? "tanh" : "none") +
             "\")");
}
std::vector<std::string> hard_sigmoid(Saying& s) {
  return one("torch.clamp(torch.add(torch.mul(" + s.x() + ", " + literal(s.node.real("alpha", 0.2f)) + "), " +
             literal(s.node.real("beta", 0.5f)) + "), 0., 1.)");
}
std::vector<std::string> prelu(Saying& s) {
  const std::string x = s.x();
  return one("torch.where(torch.lt(" + x + ", 0.), torch.mul(" + x + ", " + s.x(1) + "), " + x + ")");
}
std::vector<std::string> where(Saying& s) { return one("torch.where(" + s.x(0) + ", " + s.x(1) + ", " + s.x(2) + ")"); }

// Before opset 13 all axes from the given one on are one.
std::vector<std::string> soft(Saying& s, const char* name) {
  const bool joined = s.opset() < 13;
  const std::int64_t given = s.node.integer("axis", joined ? 1 : -1);
  const auto call = [&](const std::string& x, const std::string& axis) {
    return std::string("torch.") + name + "(" + x + ", " + axis + ")";
  };
  if (!joined) return one(call(s.x(), std::to_string(given)));
  const std::int64_t rank = s.rank(), axis = s.axis(given, rank);
  if (axis == rank - 1) return one(call(s.x(), std::to_string(axis)));
  return one("torch.reshape(" + call("torch.flatten(" + s.x() + ", " + std::to_string(axis) + ")", std::to_string(axis)) +
             ", " + s.x() + ".size())");
}
std::vector<std::string> softmax(Saying& s) { return soft(s, "softmax"); }
std::vector<std::string> log_softmax(Saying& s) { return soft(s, "log_softmax"); }

std::vector<std::string> same(Saying& s) { return one(s.x()); }
std::vector<std::string> dropout(Saying& s) {
  if (s.node.outputs.size() > 1 && s.node.outputs[1] != kNoTensor) throw Unsaid("its mask is read");
  return one(s.x());
}

const Says& element_says() {
  static const Says table = {{"Relu", plain<kRelu>},
                             {"Sigmoid", plain<kSigmoid>},
                             {"Tanh", plain<kTanh>},
                             {"Exp", plain<kExp>},
                             {"Log", plain<kLog>},
                             {"Sqrt", plain<kSqrt>},
                             {"Neg", plain<kNeg>},
                             {"Abs", plain<kAbs>},
                             {"Erf", plain<kErf>},
                             {"Ceil", plain<kCeil>},
                             {"Floor", plain<kFloor>},
                             {"Round", plain<kRound>},
                             {"Sign", plain<kSign>},
                             {"Reciprocal", plain<kReciprocal>},
                             {"Sin", plain<kSin>},
                             {"Cos", plain<kCos>},
                             {"Not", plain<kNot>},
                             {"HardSwish", plain<kHardSwish>},
                             {"Mish", plain<kMish>},
                             {"Selu", plain<kSelu>},
                             {"Softplus", plain<kSoftplus>},
                             {"Add", pair<kAdd>},
                             {"Sub", pair<kSub>},
                             {"Mul", pair<kMul>},
                             {"Pow", pair<kPow>},
                             {"Equal", pair<kEqual>},
                             {"Greater", pair<kGreater>},
                             {"Less", pair<kLess>},
                             {"GreaterOrEqual", pair<kGreaterOrEqual>},
                             {"LessOrEqual", pair<kLessOrEqual>},
                             {"And", pair<kAnd>},
                             {"Or", pair<kOr>},
                             {"Xor", pair<kXor>},
                             {"Div", divide},
                             {"Max", maximum},
                             {"Min", minimum},
                             {"Sum", sum},
                             {"Clip", clip},
                             {"LeakyRelu", leaky_relu},
                             {"Elu", elu},
                             {"Celu", celu},
                             {"Gelu", gelu},
                             {"HardSigmoid", hard_sigmoid},
                             {"PRelu", prelu},
                             {"Where", where},
                             {"Softmax", softmax},
                             {"LogSoftmax", log_softmax},
                             {"Identity", same},
                             {"Dropout", dropout}};
  return table;
}

}  // namespace

Result<std::vector<std::string>> express(Saying& s) {
  try {
    if (!s.node.opaque_reason.empty()) throw Unsaid(s.node.opaque_reason);
    if (!s.node.domain.empty()) throw Unsaid("it is of the domain '" + s.node.domain + "'");
    for (const Says* says : {&element_says(), &shape_says(), &layer_says()})
      if (const auto it = says->find(s.node.op); it != says->end()) return it->second(s);
    throw Unsaid("it has no expression in TorchScript here");
  } catch (const Unsaid& e) {
    return fail(ErrorCode::kUnsupported, e.what());
  }
}

std::string inexpressible(const Model& model, const Node& node) {
  std::vector<std::string> lines;
  int n = 0;
  Saying s{model, node, {}, [&](const std::string& base) { return base + std::to_string(n++); }, lines};
  for (const TensorId t : node.inputs) s.in.push_back(t == kNoTensor ? "" : "x");
  const auto said = express(s);
  if (!said) return said.error().message;
  for (std::size_t i = said->size(); i < node.outputs.size(); ++i)
    if (node.outputs[i] != kNoTensor) return "its output " + std::to_string(i + 1) + " has no expression";
  return {};
}

std::vector<std::string> expressible_operators() {
  std::vector<std::string> out;
  for (const Says* says : {&element_says(), &shape_says(), &layer_says()})
    for (const auto& [name, say] : *says) out.push_back(name);
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace quanvas::torchscript_file
