// For clang alone, which lacks this built-in function of g++: core/algorithms' loops are compiled with it in front.
// Slow, and of no consequence: readers run no Hadamard transform.
#pragma once

template <class V, class I>
inline V quanvas_shuffle(V x, I from) {
  V out{};
  for (unsigned i = 0; i < sizeof(V) / sizeof(out[0]); ++i) out[i] = x[from[i]];
  return out;
}
#define __builtin_shuffle quanvas_shuffle
