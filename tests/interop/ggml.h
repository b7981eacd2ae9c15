// ggml and llama.cpp as readers of our files: the shared libraries that the npm package @node-llama-cpp/linux-x64 carries,
// through their C interfaces (ggml.h, gguf.h, llama.h of the release that the package names). Declared here, because the
// package has no headers.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

namespace quanvas::interop {

inline std::string llama_folder() {
  namespace fs = std::filesystem;
  const char* given = std::getenv("QUANVAS_INTEROP_DIR");
  for (const fs::path& root : {fs::path(given ? given : ""), fs::path(QUANVAS_SOURCE_DIR) / "build" / "interop"}) {
    const fs::path folder = root / "node_modules" / "@node-llama-cpp" / "linux-x64" / "bins" / "linux-x64";
    if (!root.empty() && fs::exists(folder / "libggml-base.so")) return folder.string();
  }
  return {};
}
// The file in the folder that begins so, whatever version its name carries.
inline std::string library(const std::string& folder, const std::string& prefix) {
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename().string().starts_with(prefix) && entry.path().extension() == ".so") return entry.path().string();
  return {};
}

template <class F>
F* symbol(void* handle, const char* name) {
  return reinterpret_cast<F*>(dlsym(handle, name));
}

// A GGUF file as gguf.h reads it.
class GgmlFile {
 public:
  struct Params {
    bool no_alloc;
    void** context;
  };
  GgmlFile(void* handle, const std::string& path) : handle_(handle) {
    auto* open = symbol<void*(const char*, Params)>(handle, "gguf_init_from_file");
    file_ = open ? open(path.c_str(), {true, nullptr}) : nullptr;
  }
  ~GgmlFile() {
    if (auto* close = symbol<void(void*)>(handle_, "gguf_free"); close && file_) close(file_);
  }
  GgmlFile(const GgmlFile&) = delete;
  GgmlFile& operator=(const GgmlFile&) = delete;

  explicit operator bool() const { return file_ != nullptr; }
  std::int64_t tensors() const { return call<std::int64_t(const void*)>("gguf_get_n_tensors")(file_); }
  std::int64_t find(const std::string& name) const {
    return call<std::int64_t(const void*, const char*)>("gguf_find_tensor")(file_, name.c_str());
  }
  int type(std::int64_t i) const { return call<int(const void*, std::int64_t)>("gguf_get_tensor_type")(file_, i); }
  std::string name(std::int64_t i) const {
    return call<const char*(const void*, std::int64_t)>("gguf_get_tensor_name")(file_, i);
  }
  std::vector<std::int64_t> dims(std::int64_t i) const {
    const std::int64_t* ne = call<const std::int64_t*(const void*, std::int64_t)>("gguf_get_tensor_ne")(file_, i);
    return {ne, ne + 4};
  }
  std::size_t offset(std::int64_t i) const {
    return call<std::size_t(const void*)>("gguf_get_data_offset")(file_) +
           call<std::size_t(const void*, std::int64_t)>("gguf_get_tensor_offset")(file_, i);
  }
  std::size_t bytes(std::int64_t i) const {
    return call<std::size_t(const void*, std::int64_t)>("gguf_get_tensor_size")(file_, i);
  }
  std::string text(const char* key) const {
    const std::int64_t id = call<std::int64_t(const void*, const char*)>("gguf_find_key")(file_, key);
    return id < 0 ? "" : call<const char*(const void*, std::int64_t)>("gguf_get_val_str")(file_, id);
  }
  std::int64_t u32(const char* key) const {
    const std::int64_t id = call<std::int64_t(const void*, const char*)>("gguf_find_key")(file_, key);
    return id < 0 ? -1
                  : static_cast<std::int64_t>(call<std::uint32_t(const void*, std::int64_t)>("gguf_get_val_u32")(file_, id));
  }

 private:
  template <class F>
  F& call(const char* name) const {
    F* found = symbol<F>(handle_, name);
    if (!found) throw std::runtime_error(std::string("libggml-base has no ") + name);
    return *found;
  }
  void* handle_;
  void* file_ = nullptr;
};

// A model in llama.cpp. Its parameters are structures by value whose members change from release to release: they are
// taken and given as they are, in room that is larger than they (System V x86-64: in memory).
class LlamaModel {
 public:
  struct Room {
    alignas(16) unsigned char bytes[1024];
  };
  struct Batch {
    std::int32_t n_tokens;
    std::int32_t* token;
    float* embd;
    std::int32_t* pos;
    std::int32_t* n_seq_id;
    std::int32_t** seq_id;
    std::int8_t* logits;
  };

  LlamaModel(const std::string& folder, const std::string& path) {
    dlopen(library(folder, "libggml-base").c_str(), RTLD_NOW | RTLD_GLOBAL);
    ggml_ = dlopen(library(folder, "libggml.").c_str(), RTLD_NOW | RTLD_GLOBAL);
    llama_ = dlopen(library(folder, "libllama.").c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (!ggml_ || !llama_) return;
    get<void(void (*)(int, const char*, void*), void*)>("llama_log_set")(
        [](int level, const char* text, void* self) {
          if (level >= 3) static_cast<LlamaModel*>(self)->log_ += text;  // warnings and errors
        },
        this);
    if (auto* load = symbol<void(const char*)>(ggml_, "ggml_backend_load_all_from_path")) load(folder.c_str());
    get<void()>("llama_backend_init")();
    model_ =
        get<void*(const char*, Room)>("llama_model_load_from_file")(path.c_str(), get<Room()>("llama_model_default_params")());
    if (!model_) return;
    vocabulary_ = get<const void*(const void*)>("llama_model_get_vocab")(model_);
    context_ = get<void*(void*, Room)>("llama_init_from_model")(model_, get<Room()>("llama_context_default_params")());
    // One thread: several wait for each other in loops, which takes long where there are fewer cores.
    if (context_) get<void(void*, std::int32_t, std::int32_t)>("llama_set_n_threads")(context_, 1, 1);
  }
  ~LlamaModel() {
    if (context_) get<void(void*)>("llama_free")(context_);
    if (model_) get<void(void*)>("llama_model_free")(model_);
    if (llama_) get<void(void (*)(int, const char*, void*), void*)>("llama_log_set")([](int, const char*, void*) {}, nullptr);
  }
  LlamaModel(const LlamaModel&) = delete;
  LlamaModel& operator=(const LlamaModel&) = delete;

  explicit operator bool() const { return context_ != nullptr; }
  const std::string& log() const { return log_; }
  int tokens() const { return get<std::int32_t(const void*)>("llama_vocab_n_tokens")(vocabulary_); }

  // With BOS as the file says.
  std::vector<std::int32_t> tokenize(const std::string& text) const {
    std::vector<std::int32_t> out(text.size() + 8);
    const int n = get<std::int32_t(const void*, const char*, std::int32_t, std::int32_t*, std::int32_t, bool, bool)>(
        "llama_tokenize")(vocabulary_, text.data(), static_cast<std::int32_t>(text.size()), out.data(),
                          static_cast<std::int32_t>(out.size()), true, false);
    out.resize(static_cast<std::size_t>(std::max(n, 0)));
    return out;
  }

  // Scores [tokens, vocabulary] after each of the ids; empty when it fails.
  std::vector<float> scores(const std::vector<std::int32_t>& ids) const {
    get<void(void*, bool)>("llama_memory_clear")(get<void*(const void*)>("llama_get_memory")(context_), true);
    const auto n = static_cast<std::int32_t>(ids.size());
    Batch batch = get<Batch(std::int32_t, std::int32_t, std::int32_t)>("llama_batch_init")(n, 0, 1);
    batch.n_tokens = n;
    for (std::int32_t i = 0; i < n; ++i) {
      batch.token[i] = ids[static_cast<std::size_t>(i)];
      batch.pos[i] = i;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      batch.logits[i] = 1;
    }
    const int failed = get<std::int32_t(void*, Batch)>("llama_decode")(context_, batch);
    std::vector<float> out;
    for (std::int32_t i = 0; !failed && i < n; ++i) {
      const float* row = get<float*(void*, std::int32_t)>("llama_get_logits_ith")(context_, i);
      out.insert(out.end(), row, row + tokens());
    }
    get<void(Batch)>("llama_batch_free")(batch);
    return out;
  }

 private:
  template <class F>
  F& get(const char* name) const {
    F* found = symbol<F>(llama_, name);
    if (!found) throw std::runtime_error(std::string("libllama has no ") + name);
    return *found;
  }
  void *ggml_ = nullptr, *llama_ = nullptr, *model_ = nullptr, *context_ = nullptr;
  const void* vocabulary_ = nullptr;
  std::string log_;
};

}  // namespace quanvas::interop
