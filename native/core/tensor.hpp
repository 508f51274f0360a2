// Views of memory that somebody else owns. A view is a pointer and a number of elements, nothing
// more: shapes travel as separate integers in each op's argument struct (ops.hpp), layouts are
// row-major and token-major (batch, height, width, channels). An absent optional operand has
// data == nullptr and size == 0. The structs are plain C: they cross the backend table by value.
#pragma once
#include <cstdint>

#include "shared.hpp"

namespace spr2q {

struct F32 {
  float* data;
  int64_t size;
  SPR2Q_BOTH explicit operator bool() const { return data != nullptr; }
};

struct U8 {
  uint8_t* data;
  int64_t size;
  SPR2Q_BOTH explicit operator bool() const { return data != nullptr; }
};

struct I32 {
  int32_t* data;
  int64_t size;
  SPR2Q_BOTH explicit operator bool() const { return data != nullptr; }
};

// Tensors of many parts of a network for one op over all of them, and numbers for the host, one for
// each: both lists lie in host memory, wherever the tensors lie.
struct F32List {
  const F32* items;
  int64_t size;
  SPR2Q_BOTH const F32& operator[](int64_t i) const { return items[i]; }
};

struct U8List {
  const U8* items;
  int64_t size;
  SPR2Q_BOTH const U8& operator[](int64_t i) const { return items[i]; }
};

struct Numbers {
  const double* data;
  int64_t size;
};

}  // namespace spr2q
