// Quanvas - a stream of tokens as samples of one length: what readers of texts share. Torch-free.
//
// A stream is cut for itself. Let x_0 .. x_{N-1} be it, T the window and C the tokens of the stream that a window holds:
// T - 1 when every window begins with an extra token (BOS), else T. Window k holds x_{kS} .. x_{kS+C-1}, S being the
// stride, 1 <= S <= C; the last window is the first that reaches x_{N-1} and may be shorter. Window k scores x_j when
//   - window k holds it and window k - 1 does not (k = 0: always), and
//   - something stands before it in the window: the BOS, or another token.
// So the first window scores all it holds (without BOS: all but its first token), later ones with S < C only their S new
// tokens, each with at least C - S tokens of context. No token is scored twice. With BOS, or with S < C, none but x_0 is
// left out; without BOS and with S = C the first token of every window is, because nothing in the window foretells it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/schema.h"
#include "core/data/dataset.h"

namespace quanvas {

struct WindowSettings {
  std::int64_t window = 512;    // T
  std::int64_t stride = 0;      // S; 0: C, so that windows do not overlap
  std::int64_t bos = -1;        // id of the token before each window; -1: none
  bool keep_last = true;        // a last window that is shorter
  std::int64_t max_tokens = 0;  // of all streams together; 0: all
};

// The options that readers of tokens share: window, stride, keep_last, max_tokens. Settings from them; BOS is the reader's.
std::vector<Field> window_fields();
WindowSettings window_settings(const json& options);
// window: the length that the model's input has, when the options leave it open and the model says one.
json window_options_for(json options, const Shape& expected);

// streams: documents that know nothing of each other. Ids are 0 .. 2^24 - 1 (samples are float32, which holds no larger
// ones exactly). `name` opens the sentences. kInvalidArgument for ids beyond, settings that make no sense and streams in
// which nothing is scored.
Result<std::unique_ptr<RawDataset>> token_windows(const std::vector<std::vector<std::int32_t>>& streams, const WindowSettings& settings,
                                                  const std::string& name);

}  // namespace quanvas
