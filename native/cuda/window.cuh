// What the attention kernels share: the geometry of one window, laid out in shared memory once a
// block. The bias of a pair is bias[place(query) - place(key)], place = y * (2w - 1) + x shifted so
// that the difference counts from 0: the table of (2w-1)^2 values per head is read, never the
// expanded one of w^4.
#pragma once
#include <initializer_list>

#include "../core/windows.hpp"
#include "device.cuh"

namespace spr2q {
namespace cuda {

// Pieces of dynamic shared memory, one after the other, each on a 16-byte boundary.
struct WindowLayout {
  int64_t positions, table, padded;  // padded: positions rounded up for whole tiles of keys
  static WindowLayout of(int64_t window, int64_t tile) {
    const int64_t side = 2 * window - 1, positions = window * window;
    return {positions, side * side, round_up(positions, tile)};
  }
  SPR2Q_BOTH static int64_t aligned(int64_t bytes) { return (bytes + 15) / 16 * 16; }
  SPR2Q_BOTH int64_t bias_at() const { return 0; }
  SPR2Q_BOTH int64_t rows_at() const { return aligned(4 * table); }
  SPR2Q_BOTH int64_t places_at() const { return rows_at() + aligned(4 * padded); }
  SPR2Q_BOTH int64_t labels_at() const { return places_at() + aligned(2 * padded); }
  SPR2Q_BOTH int64_t end() const { return labels_at() + aligned(padded); }
};

struct WindowView {
  float* bias;      // (2w-1)^2, of this head
  int* rows;        // token of each position, as a row of the tensors
  int16_t* places;  // y * (2w-1) + x
  uint8_t* labels;  // region, 0 everywhere in a window that needs no mask
  int base;         // of the bias index: (w-1) * (2w-1) + w-1
  bool masked;
};

SPR2Q_DEVICE WindowView window_view(unsigned char* shared, const WindowLayout& layout,
                                    const Windows& windows, int64_t index) {
  const int w = static_cast<int>(windows.window);
  return {reinterpret_cast<float*>(shared + layout.bias_at()),
          reinterpret_cast<int*>(shared + layout.rows_at()),
          reinterpret_cast<int16_t*>(shared + layout.places_at()),
          reinterpret_cast<uint8_t*>(shared + layout.labels_at()),
          (w - 1) * (2 * w - 1) + w - 1, windows.masked(index)};
}

// ---- One head's row of q, k, v or a gradient, in registers --------------------------------------

// kVector floats a load: 4 or 2 where head_dim is kDim exactly and rows are so aligned (the
// networks' heads of 12 and 10), else 1, with zeros past head_dim.
template <int kDim_, int kVector_>
struct Head {
  static constexpr int kDim = kDim_, kVector = kVector_;

  SPR2Q_DEVICE void load(const float* from, int64_t head_dim, float (&to)[kDim]) {
#pragma unroll
    for (int d = 0; d < kDim; d += kVector) {
      if constexpr (kVector == 4) {
        const float4 four = *reinterpret_cast<const float4*>(from + d);
        to[d] = four.x;
        to[d + 1] = four.y;
        to[d + 2] = four.z;
        to[d + 3] = four.w;
      } else if constexpr (kVector == 2) {
        const float2 two = *reinterpret_cast<const float2*>(from + d);
        to[d] = two.x;
        to[d + 1] = two.y;
      } else {
        to[d] = d < head_dim ? from[d] : 0.0f;
      }
    }
  }
  SPR2Q_DEVICE void store(float* to, const float (&from)[kDim], int64_t head_dim) {
#pragma unroll
    for (int d = 0; d < kDim; ++d) {
      if (kVector > 1 || d < head_dim) to[d] = from[d];
    }
  }
  SPR2Q_DEVICE float dot(float start, const float (&a)[kDim], const float (&b)[kDim]) {
#pragma unroll
    for (int d = 0; d < kDim; ++d) start = fmaf(a[d], b[d], start);
    return start;
  }
  SPR2Q_DEVICE void add(float (&to)[kDim], float factor, const float (&row)[kDim]) {
#pragma unroll
    for (int d = 0; d < kDim; ++d) to[d] = fmaf(factor, row[d], to[d]);
  }
};

// Calls body(Head) with the head that fits; `rows` are the tensors that are read by rows.
template <class Body>
static inline void with_head(int64_t head_dim, std::initializer_list<const float*> rows,
                             const Body& body) {
  uintptr_t addresses = 0;
  for (const float* row : rows) addresses |= reinterpret_cast<uintptr_t>(row);
  if (head_dim == 12 && addresses % 16 == 0) return body(Head<12, 4>{});
  if (head_dim == 10 && addresses % 8 == 0) return body(Head<10, 2>{});
  if (head_dim <= 12) return body(Head<12, 1>{});
  if (head_dim <= 16) return body(Head<16, 1>{});
  if (head_dim <= 32) return body(Head<32, 1>{});
  body(Head<64, 1>{});
}

// ---- The window ---------------------------------------------------------------------------------

SPR2Q_DEVICE float mask_of(int label, int other) { return label == other ? 0.0f : kWindowMask; }

// 0, 1, 2: the band of a rolled row or column, as in core/windows.hpp.
SPR2Q_DEVICE int band_of(int rolled, int extent, int window, int shift) {
  return rolled < extent - window ? 0 : rolled < extent - shift ? 1 : 2;
}

// Fills the view; the caller's __syncthreads() follows. `factor` multiplies the bias. The
// arithmetic is that of core/windows.hpp, in 32 bits and with the window's corner found once: a division of 64
// bits costs as much as the attention of a key.
SPR2Q_DEVICE void fill_window(const WindowView& view, const WindowLayout& layout,
                              const Windows& windows, int64_t index, const float* table,
                              int64_t heads, int64_t head, float factor) {
  const int entries = static_cast<int>(layout.table), step = static_cast<int>(heads);
  for (int i = static_cast<int>(threadIdx.x); i < entries; i += static_cast<int>(blockDim.x)) {
    view.bias[i] = table[i * step + head] * factor;
  }
  const int height = static_cast<int>(windows.height), width = static_cast<int>(windows.width);
  const int w = static_cast<int>(windows.window), shift = static_cast<int>(windows.shift);
  const int across = width / w, per_sample = height / w * across;
  const int sample = static_cast<int>(index) / per_sample;
  const int place = static_cast<int>(index) - sample * per_sample;
  const int top = place / across * w, left = place % across * w;
  const int positions = static_cast<int>(layout.positions);
  const int padded = static_cast<int>(layout.padded);
  for (int p = static_cast<int>(threadIdx.x); p < padded; p += static_cast<int>(blockDim.x)) {
    const int inside = p < positions ? p : 0, in_y = inside / w, in_x = inside - in_y * w;
    const int rolled_y = top + in_y, rolled_x = left + in_x;
    const int y = rolled_y + shift < height ? rolled_y + shift : rolled_y + shift - height;
    const int x = rolled_x + shift < width ? rolled_x + shift : rolled_x + shift - width;
    view.rows[p] = (sample * height + y) * width + x;
    view.places[p] = static_cast<int16_t>(in_y * (2 * w - 1) + in_x);
    view.labels[p] = static_cast<uint8_t>(
        view.masked ? 3 * band_of(rolled_y, height, w, shift) + band_of(rolled_x, width, w, shift)
                    : 0);
  }
}

}  // namespace cuda
}  // namespace spr2q
