// The TorchScript importer under AFL++, LibTorch's reader of archives included (docs/fuzzing.md). An input is a list of
// members, "@@@ NAME" on a line of its own before the bytes of each: packed with the right checksums, so that a changed
// byte of code or of the pickle is not the end of it. Other inputs are archives as they are.
//
//   fuzz_torchscript < INPUT          fuzz_torchscript --seeds FOLDER          fuzz_torchscript --say < INPUT
#include <ATen/Parallel.h>
#include <torch/script.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/plugin/registry.h"
#include "plugins/importers/torchscript_archive.h"
#include "tests/fuzz/stored_zip.h"

// AFL++'s runtime (afl-compiler-rt.o).
extern "C" int __afl_persistent_loop(unsigned int);
extern "C" unsigned char* __afl_area_ptr;
// What g++ calls at each edge (-fsanitize-coverage=trace-pc): counts pairs of edges, as AFL's own instrumentation does.
extern "C" void __sanitizer_cov_trace_pc() {
  static thread_local std::uintptr_t before = 0;
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  ++__afl_area_ptr[((here >> 2) * 0x9e3779b97f4a7c15ull >> 48 ^ before) & 0xffff];
  before = ((here >> 2) * 0x9e3779b97f4a7c15ull >> 49) & 0xffff;
}
// afl-fuzz looks for this text in the program before it runs many inputs in one process.
[[gnu::used]] static const char kPersistent[] = "##SIG_AFL_PERSISTENT##";

namespace quanvas::fuzz {
namespace {

constexpr char kMark[] = "@@@ ";
constexpr std::size_t kMarkLength = sizeof(kMark) - 1;

Members members_of(const std::string& text) {
  Members out;
  for (std::size_t at = 0; text.compare(at, kMarkLength, kMark) == 0;) {
    const std::size_t name_end = text.find('\n', at);
    if (name_end == std::string::npos) break;
    const std::size_t next = text.find(std::string("\n") + kMark, name_end);
    const std::size_t end = next == std::string::npos ? text.size() : next;
    out.emplace_back(text.substr(at + kMarkLength, name_end - at - kMarkLength).substr(0, 1000),
                     end > name_end ? text.substr(name_end + 1, end - name_end - 1) : "");
    if (next == std::string::npos) break;
    at = next + 1;
  }
  return out;
}

std::string read_all() {
  std::string out;
  char buffer[1 << 16];
  for (ssize_t n = 0; (n = ::read(0, buffer, sizeof buffer)) > 0;) out.append(buffer, static_cast<std::size_t>(n));
  return out;
}

std::string scratch() { return "/dev/shm/quanvas-fuzz-" + std::to_string(::getpid()) + ".ts.pt"; }

// What LibTorch itself refuses or crashes on never comes to the importer: it reads each file in another process first.
bool libtorch_reads(const std::string& path) {
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit seconds{5, 5};
    ::setrlimit(RLIMIT_CPU, &seconds);
    try {
      torch::jit::load(path, at::kCPU);
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = -1;
  return child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void import_bytes(const std::string& bytes, bool say = false) {
  const std::string path = scratch();
  std::ofstream(path, std::ios::binary) << (bytes.compare(0, kMarkLength, kMark) == 0 ? stored_zip(members_of(bytes)) : bytes);
  if (!libtorch_reads(path)) {
    if (say) std::printf("LibTorch does not read it\n");
    ::unlink(path.c_str());
    return;
  }
  ImportOptions options;
  const auto archive = torchscript::read_archive(path);
  options.trusted = archive ? archive->hash : "";
  JobContext job;
  const Importer* const importer = Registry<Importer>::instance().find("torchscript");
  auto imported = importer->load(path, options, job);
  if (imported) (void)graph_from_json(graph_to_json(*imported->model.graph));
  if (say) std::printf("%s\n", imported ? "imported" : imported.error().text().c_str());
  ::unlink(path.c_str());
}

std::string unpacked(std::string bytes, const torchscript::Member& m) {
  if (!m.deflated) return bytes;
  std::string out(m.size, '\0');
  z_stream stream{};
  inflateInit2(&stream, -MAX_WBITS);
  stream.next_in = reinterpret_cast<Bytef*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  inflate(&stream, Z_FINISH);
  inflateEnd(&stream);
  return out;
}

std::string text_of(const torch::jit::Module& module) {
  const std::string path = scratch();
  module.save(path);
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::string out;
  if (const auto archive = torchscript::read_archive(path))
    for (const auto& m : archive->members)
      if (m.name.find(".debug_pkl") == std::string::npos)
        out += (out.empty() ? "" : "\n") + std::string(kMark) + "m" + m.name.substr(archive->root.size()) + "\n" + unpacked(bytes.substr(m.begin, m.packed), m);
  ::unlink(path.c_str());
  return out;
}

void write_seeds(const std::filesystem::path& folder) {
  const char* const codes[] = {
      "return torch.relu(torch.conv2d(x, self.w, self.b, [1, 1], [1, 1], [1, 1], 1))",
      "return torch.softmax(torch.matmul(x, self.w.reshape(3, 12)), -1) + self.b.sum()",
      "y = x\n  for i in range(3):\n    y = y * 2 + i\n  return y",
      "if bool(x.sum() > 0):\n    y = x + 1\n  else:\n    y = x.transpose(0, 1)\n  return y",
      "a, b = torch.split(x, 2, 1)\n  return torch.cat([a, b.permute([0, 2, 1, 3])[:, :, 0:1].reshape(2, -1)], 0)",
      "return [x, x.mean([2, 3]), torch.layer_norm(x, [6], None, None, 1e-5)]",
  };
  std::filesystem::create_directories(folder);
  for (std::size_t i = 0; i < std::size(codes); ++i) {
    torch::jit::Module m("Net");
    m.register_parameter("w", at::ones({4, 3, 1, 3}), false);
    m.register_buffer("b", at::zeros({4}));
    m.define(std::string("def forward(self, x):\n  ") + codes[i] + "\n");
    m.eval();
    std::ofstream(folder / ("seed-" + std::to_string(i)), std::ios::binary) << text_of(m);
  }
}

}  // namespace
}  // namespace quanvas::fuzz

int main(int argc, char** argv) {
  at::set_num_threads(1);
  if (argc == 3 && std::string(argv[1]) == "--seeds") return quanvas::fuzz::write_seeds(argv[2]), 0;
  if (argc == 2 && std::string(argv[1]) == "--say") return quanvas::fuzz::import_bytes(quanvas::fuzz::read_all(), true), 0;
  while (__afl_persistent_loop(1000)) quanvas::fuzz::import_bytes(quanvas::fuzz::read_all());
  return 0;
}
