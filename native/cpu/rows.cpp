// Gathering and scattering rows, in parallel over the index. A row of 48 floats is three vectors:
// the time is that of reading one side out of order, which no machine foresees: rows are asked for
// some rows ahead.
#include "simd.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int64_t kRowsPerChunk = 1024;  // rows a task moves: about 200 KB at 48 channels

constexpr int64_t kAhead = 12;           // rows between asking for one and copying it
constexpr int64_t kLine = 16;            // floats of a cache line

inline void copy_row(const float* from, float* to, int64_t channels) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) store(to + c, load(from + c));
  if (c < channels) {
    const int rest = static_cast<int>(channels - c);
    store_first(to + c, load_first(from + c, rest), rest);
  }
}

}  // namespace

void gather_rows(const GatherRows& a) {
  const int64_t count = a.x.size / a.channels;
  parallel_for(a.rows, kRowsPerChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) {
        const float* later = a.x.data + a.index.data[i + kAhead] * a.channels;
        for (int64_t c = 0; c < a.channels; c += kLine) __builtin_prefetch(later + c);
      }
      const int64_t from = a.index.data[i];
      if (from < 0 || from >= count) continue;
      copy_row(a.x.data + from * a.channels, a.y.data + i * a.channels, a.channels);
    }
  });
}

// Two equal indices would make two threads write one row; an index is a permutation, by contract.
void scatter_rows(const ScatterRows& a) {
  const int64_t count = a.y.size / a.channels;
  parallel_for(a.rows, kRowsPerChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t to = a.index.data[i];
      if (to < 0 || to >= count) continue;
      copy_row(a.x.data + i * a.channels, a.y.data + to * a.channels, a.channels);
    }
  });
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
