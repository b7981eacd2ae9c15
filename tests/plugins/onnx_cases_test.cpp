// The conformance cases of the ONNX standard (Debian package libonnx-testdata), each through the importer and the
// executor as a user's file would go. Prints what passed, what was refused and what failed, by operator.
#include <ATen/ATen.h>
#include <onnx/onnx-data_pb.h>

#include <cmath>

#include <condition_variable>
#include <limits>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "core/exec/runner.h"
#include "core/exec/worker.h"
#include "tests/plugins/import_support.h"

namespace quanvas::import_test {
namespace {

namespace fs = std::filesystem;

const fs::path kCases = "/usr/share/libonnx-testdata/data";

// Cases whose operators are left out on purpose. Everything else must pass.
const std::map<std::string, std::string>& known_refusals() {
  static const std::map<std::string, std::string> names = {
      {"test_adagrad", "training"},
      {"test_adagrad_multiple", "training"},
      {"test_adam", "training"},
      {"test_adam_multiple", "training"},
      {"test_momentum", "training"},
      {"test_momentum_multiple", "training"},
      {"test_nesterov_momentum", "training"},
      {"test_gradient_of_add", "training"},
      {"test_gradient_of_add_and_mul", "training"},
      {"test_cast_FLOAT_to_STRING", "texts"},
      {"test_cast_STRING_to_FLOAT", "texts"},
      {"test_castlike_FLOAT_to_STRING", "texts"},
      {"test_castlike_FLOAT_to_STRING_expanded", "texts"},
      {"test_castlike_STRING_to_FLOAT", "texts"},
      {"test_castlike_STRING_to_FLOAT_expanded", "texts"},
      {"test_strnormalizer_export_monday_casesensintive_lower", "texts"},
      {"test_strnormalizer_export_monday_casesensintive_nochangecase", "texts"},
      {"test_strnormalizer_export_monday_casesensintive_upper", "texts"},
      {"test_strnormalizer_export_monday_empty_output", "texts"},
      {"test_strnormalizer_export_monday_insensintive_upper_twodim", "texts"},
      {"test_strnormalizer_nostopwords_nochangecase", "texts"},
      {"test_strnorm_model_monday_casesensintive_lower", "texts"},
      {"test_strnorm_model_monday_casesensintive_nochangecase", "texts"},
      {"test_strnorm_model_monday_casesensintive_upper", "texts"},
      {"test_strnorm_model_monday_empty_output", "texts"},
      {"test_strnorm_model_monday_insensintive_upper_twodim", "texts"},
      {"test_strnorm_model_nostopwords_nochangecase", "texts"},
  };
  return names;
}

// Cases whose data are not what the standard says or what runtimes compute.
const std::map<std::string, std::string>& known_differences() {
  static const char* const length = "the length is divided by before it is rounded, in no runtime";
  static const char* const cut = "the data are cut off, the standard rounds to the nearest";
  static const std::map<std::string, std::string> names = {
      {"test_resize_downsample_scales_cubic_align_corners", length},
      {"test_resize_downsample_scales_linear_align_corners", length},
      {"test_cast_FLOAT_to_BFLOAT16", cut},
      {"test_castlike_FLOAT_to_BFLOAT16", cut},
      {"test_castlike_FLOAT_to_BFLOAT16_expanded", cut},
  };
  return names;
}

// The numbers come from a generator that the standard leaves open: type and shape are compared.
bool is_random(const std::string& name) {
  if (name.starts_with("test_bernoulli")) return true;
  return name.starts_with("test_training_dropout") && name.find("zero_ratio") == std::string::npos;
}

std::string bytes_of_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Elements of a tensor of the cases in their own type, row-major.
template <class T, class Field>
TensorData typed(const onnx::TensorProto& t, const Shape& shape, const Field& field) {
  const auto type = static_cast<DataType>(t.data_type());
  if (t.has_raw_data()) return TensorData::copy_of(type, shape, t.raw_data().data(), t.raw_data().size());
  std::vector<T> values;
  for (const auto v : field) values.push_back(static_cast<T>(v));
  return TensorData::copy_of(type, shape, values.data(), values.size() * sizeof(T));
}

// `declared`: of the model's input or output. Cases of bfloat16 are stored as uint16 with the same bits.
TensorData data_of_case(onnx::TensorProto t, int declared) {
  const Shape shape(t.dims().begin(), t.dims().end());
  if (declared == onnx::TensorProto::BFLOAT16 && t.data_type() == onnx::TensorProto::UINT16)
    t.set_data_type(declared);
  switch (static_cast<DataType>(t.data_type())) {
    case DataType::kFloat:
      return typed<float>(t, shape, t.float_data());
    case DataType::kDouble:
      return typed<double>(t, shape, t.double_data());
    case DataType::kInt64:
      return typed<std::int64_t>(t, shape, t.int64_data());
    case DataType::kUint64:
      return typed<std::uint64_t>(t, shape, t.uint64_data());
    case DataType::kUint32:
      return typed<std::uint32_t>(t, shape, t.uint64_data());
    case DataType::kInt32:
      return typed<std::int32_t>(t, shape, t.int32_data());
    case DataType::kInt16:
    case DataType::kUint16:
    case DataType::kFloat16:
    case DataType::kBfloat16:
      return typed<std::uint16_t>(t, shape, t.int32_data());
    default:
      return typed<std::uint8_t>(t, shape, t.int32_data());
  }
}

// A tensor, a sequence or an optional of a case. kinds: of the file, or of what an optional holds.
struct CaseValue {
  bool is_sequence = false, is_absent = false, is_text = false;
  std::vector<TensorData> tensors;  // one unless it is a sequence
};

CaseValue tensor_case(const onnx::TensorProto& t, int declared = 0) {
  CaseValue v;
  v.is_text = t.data_type() == onnx::TensorProto::STRING;
  v.tensors.push_back(v.is_text ? TensorData{} : data_of_case(t, declared));
  return v;
}

CaseValue sequence_case(const onnx::SequenceProto& s) {
  CaseValue v;
  v.is_sequence = true;
  for (const auto& t : s.tensor_values()) {
    v.is_text = v.is_text || t.data_type() == onnx::TensorProto::STRING;
    v.tensors.push_back(v.is_text ? TensorData{} : data_of_case(t, 0));
  }
  return v;
}

CaseValue read_case(const fs::path& path, const onnx::TypeProto& type) {
  const std::string bytes = bytes_of_file(path);
  if (type.has_optional_type()) {
    onnx::OptionalProto o;
    EXPECT_TRUE(o.ParseFromString(bytes)) << path;
    if (o.has_tensor_value()) return tensor_case(o.tensor_value());
    if (o.has_sequence_value()) return sequence_case(o.sequence_value());
    CaseValue v;
    v.is_absent = true;
    return v;
  }
  if (type.has_sequence_type()) {
    onnx::SequenceProto s;
    EXPECT_TRUE(s.ParseFromString(bytes)) << path;
    return sequence_case(s);
  }
  onnx::TensorProto t;
  EXPECT_TRUE(t.ParseFromString(bytes)) << path;
  return tensor_case(t, type.tensor_type().elem_type());
}

exec::Value given(const CaseValue& v) {
  exec::Value out;
  out.is_absent = v.is_absent;
  if (v.is_absent) return out;
  if (!v.is_sequence) return exec::Value::of(exec::to_tensor(v.tensors[0]));
  std::vector<at::Tensor> tensors;
  for (const TensorData& t : v.tensors) tensors.push_back(exec::to_tensor(t));
  return exec::Value::of(std::move(tensors));
}

// What is wrong with a result; empty: nothing. Reals within the tolerances of ONNX's own runner, integers exactly.
std::string difference(const at::Tensor& got, const TensorData& expected, bool only_shape) {
  if (!got.defined()) return "no tensor";
  if (got.sizes() != at::IntArrayRef(expected.shape))
    return "shape " + shape_text(got.sizes().vec()) + ", expected " + shape_text(expected.shape);
  const at::Tensor want = exec::to_tensor(expected);
  const at::Tensor wide =
      want.scalar_type() == at::kHalf || want.scalar_type() == at::kBFloat16 ? want.to(at::kFloat) : want;
  if (got.scalar_type() != wide.scalar_type())
    return std::string("computed as ") + c10::toString(got.scalar_type()) + ", expected " +
           c10::toString(wide.scalar_type());
  const TensorData said = exec::to_data(got, expected.type);
  if (said.type != expected.type || said.bytes != expected.bytes)
    return "it cannot be given as " + std::string(type_name(expected.type));
  if (only_shape) return {};
  if (!wide.is_floating_point())
    return at::equal(got, wide) && std::memcmp(said.data, expected.data, said.bytes) == 0 ? "" : "other integers";
  const at::Tensor a = got.to(at::kDouble), b = wide.to(at::kDouble);
  if (at::allclose(a, b, 1e-3, 1e-7, /*equal_nan=*/true)) return {};
  return "largest difference " + std::to_string((a - b).abs().max().item().toDouble());
}

struct Outcome {
  enum Kind { kPassed, kRefused, kFailed } kind = kPassed;
  std::string what;
};

bool is_sentence(const std::string& text) {
  return text.size() > 20 && text.find(' ') != std::string::npos && text.back() == '.';
}

Outcome from_error(const Error& e) {
  const bool refused = e.code == ErrorCode::kUnsupported && is_sentence(e.message);
  return {refused ? Outcome::kRefused : Outcome::kFailed, e.message};
}

Outcome compare(const exec::Values& got, const std::vector<CaseValue>& expected, bool only_shape) {
  if (got.size() < expected.size()) return {Outcome::kFailed, "results are missing"};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const CaseValue& want = expected[i];
    const exec::Value& v = got[i];
    if (want.is_absent != v.is_absent || want.is_sequence != (v.sequence != nullptr))
      return {Outcome::kFailed, "another kind of value"};
    if (want.is_absent) continue;
    const std::vector<at::Tensor> tensors = v.sequence ? *v.sequence : std::vector<at::Tensor>{v.tensor};
    if (tensors.size() != want.tensors.size())
      return {Outcome::kFailed, "a sequence of " + std::to_string(tensors.size()) + ", expected " +
                                    std::to_string(want.tensors.size())};
    for (std::size_t k = 0; k < tensors.size(); ++k)
      if (const std::string why = difference(tensors[k], want.tensors[k], only_shape); !why.empty())
        return {Outcome::kFailed, "output " + std::to_string(i) + ": " + why};
  }
  return {};
}

Outcome run_case(const fs::path& folder) {
  const std::string path = (folder / "model.onnx").string();
  onnx::ModelProto proto;
  if (!proto.ParseFromString(bytes_of_file(path))) return {Outcome::kFailed, "the case cannot be read"};
  const Imported imported = import_file(path);
  if (!imported.model) return {Outcome::kFailed, "does not open: " + imported.model.error().message};
  for (const Node& node : imported.graph().nodes())
    if (const std::string why = exec::unsupported_reason(node); !why.empty())
      return {is_sentence(why + ".") ? Outcome::kRefused : Outcome::kFailed, node.op + ": " + why + "."};
  auto runner = exec::Runner::create(std::make_shared<const Model>(*imported.model), nullptr);
  if (!runner) return from_error(runner.error());
  std::set<std::string> constants;
  for (const auto& t : proto.graph().initializer()) constants.insert(t.name());
  int sets = 0;
  for (; fs::exists(folder / ("test_data_set_" + std::to_string(sets))); ++sets) {
    const fs::path data = folder / ("test_data_set_" + std::to_string(sets));
    exec::Values inputs;
    int k = 0;
    for (const auto& input : proto.graph().input()) {
      if (constants.count(input.name())) continue;
      const CaseValue v = read_case(data / ("input_" + std::to_string(k++) + ".pb"), input.type());
      if (v.is_text) return {Outcome::kFailed, "it reads texts"};
      inputs.push_back(given(v));
    }
    std::vector<CaseValue> expected;
    for (k = 0; k < proto.graph().output_size(); ++k)
      expected.push_back(read_case(data / ("output_" + std::to_string(k) + ".pb"), proto.graph().output(k).type()));
    const auto got = (*runner)->run_values(inputs);
    if (!got) return from_error(got.error());
    const Outcome outcome = compare(*got, expected, is_random(folder.filename()));
    if (outcome.kind != Outcome::kPassed) return outcome;
  }
  return sets > 0 ? Outcome{} : Outcome{Outcome::kFailed, "it has no data"};
}

// One number, name or dimension of the model is changed, or something is taken away.
void damage(onnx::ModelProto& model, std::uint64_t& state) {
  const auto pick = [&](int n) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<int>((state >> 33) % static_cast<std::uint64_t>(std::max(1, n)));
  };
  constexpr std::int64_t kOdd[] = {
      -1, 0, -7, 3, 100, std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()};
  const std::int64_t odd = kOdd[pick(7)];
  auto& graph = *model.mutable_graph();
  if (graph.node_size() == 0) return;
  auto& node = *graph.mutable_node(pick(graph.node_size()));
  switch (pick(7)) {
    case 0:
      if (node.input_size() > 0) node.mutable_input()->RemoveLast();
      return;
    case 1:
      if (node.input_size() > 0) node.set_input(pick(node.input_size()), node.input(pick(node.input_size())));
      return;
    case 2:
      if (node.input_size() > 0) node.set_input(pick(node.input_size()), "");
      return;
    case 3:
      model.mutable_opset_import(0)->set_version(1 + pick(24));
      return;
    case 4:
      if (node.attribute_size() > 0) node.mutable_attribute()->DeleteSubrange(pick(node.attribute_size()), 1);
      return;
    default:
      break;
  }
  if (node.attribute_size() == 0) return;
  auto& a = *node.mutable_attribute(pick(node.attribute_size()));
  if (a.ints_size() > 0)
    a.set_ints(pick(a.ints_size()), odd);
  else if (a.floats_size() > 0)
    a.set_floats(0, static_cast<float>(odd));
  else if (a.has_i())
    a.set_i(odd);
  else if (a.has_f())
    a.set_f(static_cast<float>(odd));
  else if (a.has_s())
    a.set_s("nothing");
  else if (a.has_g() && a.g().output_size() > 0)
    a.mutable_g()->mutable_output()->RemoveLast();
}

// Stops this thread's job after a second: a damaged loop may have no end.
class Limit {
 public:
  Limit() {
    exec::set_stop_token(stop_.get_token());
    timer_ = std::jthread([this](std::stop_token done) {
      std::mutex mutex;
      std::unique_lock lock(mutex);
      std::condition_variable_any changed;
      if (!changed.wait_for(lock, done, std::chrono::seconds(1), [&] { return done.stop_requested(); }))
        stop_.request_stop();
    });
  }
  ~Limit() { exec::set_stop_token({}); }

 private:
  std::stop_source stop_;
  std::jthread timer_;
};

// Whatever is wrong with a file, it is opened, or refused, and run, or refused.
TEST(OnnxDamage, DamagedCasesEndInSentences) {
  const fs::path root = kCases / "node";
  if (!fs::exists(root)) GTEST_SKIP() << "install libonnx-testdata: there is no " << root;
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(root)) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  const Folder folder;
  const char* rounds = std::getenv("QUANVAS_DAMAGE_ROUNDS");
  int ran = 0, refused = 0;
  for (int round = 0; round < (rounds ? std::atoi(rounds) : 2); ++round)
    for (const fs::path& one : folders) {
      onnx::ModelProto proto;
      if (!proto.ParseFromString(bytes_of_file(one / "model.onnx"))) continue;
      const onnx::ModelProto whole = proto;
      std::uint64_t state = static_cast<std::uint64_t>(round) * 100003 + std::hash<std::string>()(one.filename());
      damage(proto, state);
      const Imported m = import_bytes(proto.SerializeAsString());
      if (!m.model) {
        EXPECT_TRUE(is_sentence(m.model.error().message)) << m.model.error().message;
        continue;
      }
      auto runner = exec::Runner::create(std::make_shared<const Model>(*m.model), nullptr);
      if (!runner) continue;
      exec::Values inputs;
      bool has_texts = false;
      for (int k = 0; k < whole.graph().input_size(); ++k) {
        const CaseValue v = read_case(one / "test_data_set_0" / ("input_" + std::to_string(k) + ".pb"),
                                      whole.graph().input(k).type());
        has_texts = has_texts || v.is_text;
        if (!v.is_text) inputs.push_back(given(v));
      }
      if (has_texts) continue;
      const Limit limit;
      const auto out = (*runner)->run_values(inputs);
      ++(out ? ran : refused);
      EXPECT_TRUE(out || !out.error().message.empty()) << one;
    }
  std::cout << ran << " ran, " << refused << " were refused\n";
  EXPECT_GT(ran, 100);
  EXPECT_GT(refused, 100);
}

// "softmax" of "test_softmax_axis_0_expanded".
std::string operator_of(const std::string& name) {
  const std::string rest = name.substr(5);
  return rest.substr(0, rest.find('_'));
}

struct Row {
  int passed = 0, refused = 0, failed = 0;
};

class OnnxCases : public testing::TestWithParam<std::string> {};

TEST_P(OnnxCases, PassThroughImporterAndExecutor) {
  const fs::path root = kCases / GetParam();
  if (!fs::exists(root)) GTEST_SKIP() << "install libonnx-testdata: there is no " << root;
  const char* only = std::getenv("QUANVAS_ONNX_CASE");
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(root))
    if (fs::exists(entry.path() / "model.onnx") && (!only || entry.path().filename() == only))
      folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  std::map<std::string, Row> table;
  Row all;
  for (const fs::path& folder : folders) {
    const std::string name = folder.filename();
    SCOPED_TRACE(name);
    const Outcome outcome = run_case(folder);
    for (Row* row : {&table[operator_of(name)], &all})
      ++(outcome.kind == Outcome::kPassed    ? row->passed
         : outcome.kind == Outcome::kRefused ? row->refused
                                             : row->failed);
    const bool refusal = known_refusals().count(name) > 0;
    if (const auto known = known_differences().find(name); known != known_differences().end()) {
      std::cout << "differs " << name << ": " << known->second << "\n";
      EXPECT_EQ(outcome.kind, Outcome::kFailed) << "it passes now: take it off the list";
      EXPECT_TRUE(outcome.what.find("difference") != std::string::npos) << outcome.what;
    } else if (outcome.kind == Outcome::kRefused) {
      std::cout << "refused " << name << ": " << outcome.what << "\n";
      EXPECT_TRUE(refusal) << "refused: " << outcome.what;
    } else {
      EXPECT_EQ(outcome.kind, Outcome::kPassed) << outcome.what;
      EXPECT_FALSE(refusal) << "it passes now: take it off the list";
    }
  }
  for (const auto& [op, row] : table)
    if (row.refused + row.failed > 0)
      std::cout << op << ": " << row.passed << " passed, " << row.refused << " refused, " << row.failed
                << " failed\n";
  std::cout << GetParam() << ": " << all.passed << " passed, " << all.refused << " refused, " << all.failed
            << " failed\n";
  EXPECT_GE(all.passed * 100, (all.passed + all.failed) * 98);
  EXPECT_GT(all.passed, 0);
}

INSTANTIATE_TEST_SUITE_P(Standard, OnnxCases,
                         testing::Values("node", "simple", "pytorch-converted", "pytorch-operator"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace quanvas::import_test
