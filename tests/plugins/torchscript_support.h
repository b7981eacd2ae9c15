// TorchScript files made in the test, imported, and run beside the module itself.
#pragma once

#include <torch/script.h>

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/exec/runner.h"
#include "core/plugin/registry.h"
#include "plugins/importers/torchscript_archive.h"

namespace quanvas::torchscript_test {

using Tensors = std::vector<at::Tensor>;

class TempFile {
 public:
  explicit TempFile(const std::string& name) {
    std::string pattern = (std::filesystem::temp_directory_path() / "quanvas-ts-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    path_ = (folder_ / name).string();
  }
  ~TempFile() {
    std::error_code ec;
    std::filesystem::remove_all(folder_, ec);
  }
  const std::string& path() const { return path_; }

 private:
  std::filesystem::path folder_;
  std::string path_;
};

struct Read {
  Result<quanvas::Imported> imported;
  std::vector<Issue> issues;
  const Graph& graph() const { return *imported->model.graph; }
  std::vector<std::string> ops() const {
    std::vector<std::string> out;
    for (const Node& n : graph().nodes()) out.push_back(n.op);
    return out;
  }
  int count(const std::string& op) const {
    const auto all = ops();
    return static_cast<int>(std::count(all.begin(), all.end(), op));
  }
};

inline Read read(const std::string& path, const ImportOptions& options) {
  Read out{fail(ErrorCode::kInternal, "not run"), {}};
  JobContext job({}, {}, [&](const Issue& i) { out.issues.push_back(i); });
  out.imported = quanvas::import_file(path, options, job);
  return out;
}

inline Read read_trusted(const std::string& path, const std::map<std::string, Shape>& shapes = {}) {
  ImportOptions options;
  options.shapes = shapes;
  // By the hash, as a file that was opened before.
  const auto archive = torchscript::read_archive(path);
  options.trusted = archive ? archive->hash : kTrustAny;
  return read(path, options);
}

inline Result<Tensors> run(const Model& model, const Tensors& inputs) {
  QUANVAS_TRY(const auto runner, exec::Runner::create(std::make_shared<const Model>(model), nullptr));
  return runner->run(inputs);
}

// What a module gives, as the list of its tensors.
inline void flatten(const c10::IValue& v, Tensors& out) {
  if (v.isTensor())
    out.push_back(v.toTensor());
  else if (v.isInt())
    out.push_back(at::scalar_tensor(v.toInt(), at::kLong));
  else if (v.isDouble())
    out.push_back(at::scalar_tensor(v.toDouble(), at::kFloat));
  else if (v.isBool())
    out.push_back(at::scalar_tensor(v.toBool(), at::kBool));
  else if (v.isTuple())
    for (const auto& item : v.toTupleRef().elements()) flatten(item, out);
  else if (v.isList())
    for (const c10::IValue& item : v.toListRef()) flatten(item, out);
}

// max|a-b| / max|b|; infinite when shapes or types differ.
inline double difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return INFINITY;
  if (b.numel() == 0) return 0;
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  if (!at::equal(at::isfinite(x), at::isfinite(y))) return INFINITY;
  const at::Tensor finite = at::isfinite(y);
  const double largest = at::where(finite, y.abs(), at::zeros_like(y)).max().item<double>();
  const double apart = at::where(finite, (x - y).abs(), at::zeros_like(y)).max().item<double>();
  return apart == 0 ? 0 : apart / std::max(largest, 1e-30);
}

inline double largest_difference(const Tensors& ours, const Tensors& theirs) {
  if (ours.size() != theirs.size()) return INFINITY;
  double out = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) out = std::max(out, difference(ours[i], theirs[i]));
  return out;
}

}  // namespace quanvas::torchscript_test
