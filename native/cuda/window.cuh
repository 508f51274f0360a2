// What the attention kernels share: the geometry of one window, laid out in shared memory once a
// block. The bias of a pair is bias[place(query) - place(key)], place = y * (2w - 1) + x shifted so
// that the difference counts from 0: the table of (2w-1)^2 values per head is read, never the
// expanded one of w^4.
#pragma once
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

SPR2Q_DEVICE float mask_of(int label, int other) { return label == other ? 0.0f : kWindowMask; }

// Fills the view; the caller's __syncthreads() follows. `factor` multiplies the bias.
SPR2Q_DEVICE void fill_window(const WindowView& view, const WindowLayout& layout,
                              const Windows& windows, int64_t index, const float* table,
                              int64_t heads, int64_t head, float factor) {
  for (int64_t i = threadIdx.x; i < layout.table; i += blockDim.x) {
    view.bias[i] = table[i * heads + head] * factor;
  }
  for (int64_t p = threadIdx.x; p < layout.padded; p += blockDim.x) {
    const int64_t inside = p < layout.positions ? p : 0;
    const int64_t y = inside / windows.window, x = inside % windows.window;
    view.rows[p] = static_cast<int>(windows.token(index, inside));
    view.places[p] = static_cast<int16_t>(y * (2 * windows.window - 1) + x);
    view.labels[p] = static_cast<uint8_t>(view.masked ? windows.label(index, inside) : 0);
  }
}

}  // namespace cuda
}  // namespace spr2q
