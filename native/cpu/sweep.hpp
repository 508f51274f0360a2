// Loops over contiguous floats, one vector at a time: the body is written once and gets either
// Whole (full vectors) or Part (the last few lanes) to load and store with.
//   sweep(begin, end, [&](int64_t i, auto lanes) { lanes.store(y + i, f(lanes.load(x + i))); });
// Values per column (a scale, a mean, an offset) are repeated to a Pattern: the smallest number of
// whole rows that fills whole vectors, so that any number of columns runs at full vector width.
#pragma once
#include "simd.hpp"

namespace spr2q {
namespace SPR2Q_ISA {

// Elements per chunk of an element-wise op: 64 KB of floats, far more work than waking a thread.
// A multiple of every kLanes.
constexpr int64_t kSweepGrain = 16384;

struct Whole {
  VecF load(const float* p) const { return SPR2Q_ISA::load(p); }
  void store(float* p, VecF a) const { SPR2Q_ISA::store(p, a); }
  VecF load_codes(const uint8_t* p) const { return SPR2Q_ISA::load_codes(p); }
  void store_codes(uint8_t* p, VecF a) const { SPR2Q_ISA::store_codes(p, a); }
  void store_flags(uint8_t* p, VecF a, VecF least) const { SPR2Q_ISA::store_flags(p, a, least); }
};

struct Part {
  int n;
  VecF load(const float* p) const { return load_first(p, n); }  // lanes beyond n are 0
  void store(float* p, VecF a) const { store_first(p, a, n); }
  VecF load_codes(const uint8_t* p) const {
    uint8_t whole[kLanes] = {};
    std::memcpy(whole, p, static_cast<size_t>(n));
    return SPR2Q_ISA::load_codes(whole);
  }
  void store_codes(uint8_t* p, VecF a) const { store_codes_first(p, a, n); }
  void store_flags(uint8_t* p, VecF a, VecF least) const {
    uint8_t whole[kLanes];
    SPR2Q_ISA::store_flags(whole, a, least);
    std::memcpy(p, whole, static_cast<size_t>(n));
  }
};

template <class Body>
static inline void sweep(int64_t begin, int64_t end, Body&& body) {
  for (; begin + kLanes <= end; begin += kLanes) body(begin, Whole{});
  if (begin < end) body(begin, Part{static_cast<int>(end - begin)});
}

template <class Body>
static inline void sweep_parallel(int64_t n, Body&& body) {
  parallel_for(n, kSweepGrain, [&](int64_t begin, int64_t end) { sweep(begin, end, body); });
}

// `values` (columns) repeated over `rows` rows, size = rows * columns a multiple of kLanes.
struct Pattern {
  const float* data;
  int64_t size, rows;
};

// Smallest number of rows of `columns` that is a multiple of the vector width.
static inline int64_t pattern_rows(int64_t columns) {
  int64_t rows = 1;
  while (rows * columns % kLanes != 0) rows *= 2;  // kLanes is a power of two
  return rows;
}

// Chunk of rows for row-wise work on `columns`: about kSweepGrain elements, whole patterns.
static inline int64_t pattern_grain(int64_t columns) {
  const int64_t rows = pattern_rows(columns);
  const int64_t patterns = kSweepGrain / (rows * columns);
  return rows * (patterns > 0 ? patterns : 1);
}

// The pattern of `values`, kept in scratch `slot` of the calling thread.
static inline Pattern repeat(const float* values, int64_t columns, int slot) {
  const int64_t rows = pattern_rows(columns);
  float* data = scratch<float>(slot, rows * columns);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) data[r * columns + c] = values[c];
  }
  return {data, rows * columns, rows};
}

// Sweeps elements [begin, end), `begin` on a multiple of the pattern: body(i, j, lanes) with j the
// place of element i within the pattern.
template <class Body>
static inline void sweep_pattern(int64_t size, int64_t begin, int64_t end, Body&& body) {
  for (int64_t base = begin; base < end; base += size) {
    const int64_t limit = end - base < size ? end - base : size;
    sweep(0, limit, [&](int64_t j, auto lanes) { body(base + j, j, lanes); });
  }
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
