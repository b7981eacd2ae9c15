// Quanvas - what a .pt file is, found out without LibTorch: the list of a ZIP archive is checked before anything
// that could run code sees the file. Reads no more than the file holds; safe on any bytes.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "core/base/result.h"

namespace quanvas::torchscript {

struct Member {
  std::string name;          // with the archive's top folder
  std::uint64_t header = 0;  // byte of its local header
  std::uint64_t begin = 0;   // byte of its data
  std::uint64_t packed = 0;  // bytes in the file
  std::uint64_t size = 0;    // bytes of what is packed
  std::uint32_t crc = 0;
  bool deflated = false;
};

struct Archive {
  std::string root;             // the top folder, without '/'
  std::string hash;             // of the whole file, 32 hex digits
  std::string version;          // of the archive's format, as written in it; may be empty
  std::vector<Member> members;  // in the order of the list
  std::vector<std::string> code_files;
  std::int64_t code_lines = 0;
  std::int64_t tensors = 0;
  std::uint64_t tensor_bytes = 0;
  std::set<std::string> operators;  // "name::operator" of others than LibTorch's own, from the code's text
  std::set<std::string> classes;    // of classes that a program must bring

  // "3 code files with 120 lines, 12 tensors of 1.2 MB, archive format 3"
  std::string content() const;
};

// kCorrupt: damaged or hostile; kUnsupported: another kind of file (a checkpoint, an old pickle), with what to do.
Result<Archive> read_archive(const std::string& path);

// How sure the first bytes and the name make it that this is a TorchScript file, as Importer::probe.
int probe(const std::string& path, const std::string& head);

}  // namespace quanvas::torchscript
