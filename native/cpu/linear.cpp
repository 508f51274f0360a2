// Fast linear layers on tall thin matrices (rows of tokens x a few dozen channels): the weight is
// packed once per call into a panel that stays in L1 and register tiles walk the rows (panel.hpp).
// The weight gradient sums over the rows in fixed chunks, one partial matrix per chunk, added in
// chunk order: the same bits on any number of threads.
#include "panel.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int64_t kRowsPerTask = 384;    // rows a thread takes at once: about 20 us of work
constexpr int64_t kRowsPerBlock = 96;    // rows read again per column block: 18 KiB at 48, in L1
constexpr int64_t kRowsPerChunk = 2048;  // rows of one partial weight gradient
constexpr int64_t kMaxChunks = 128;      // bounds the partials' memory on very large images
constexpr int64_t kRowsPerSum = 64;      // rows summed in registers: 12 KiB of gy and of x in L1
constexpr int64_t kTransposeTile = 16;   // floats: one cache line
#if defined(__AVX512F__)
constexpr bool kFetchAhead = true;   // rows come from L3 or memory: 42 -> 50 GMAC/s at 48 -> 48
#else
constexpr bool kFetchAhead = false;  // loses 5 % where two column blocks read each row twice
#endif
enum Slot { kPanel, kPartials };  // all taken by the caller before the threads start

void multiply(const float* x, const float* panel, const float* bias, float* y, int64_t rows,
              int64_t depth, int64_t columns) {
  parallel_for(rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += kRowsPerBlock) {
      PanelProduct p;
      p.segments[0] = {x + row * depth, panel};
      p.segment_count = 1;
      p.depth = depth;
      p.row_step = depth;
      p.width = padded(columns);
      p.bias = bias;
      p.y = y + row * columns;
      p.rows = end - row < kRowsPerBlock ? end - row : kRowsPerBlock;
      p.columns = columns;
      panel_product<kFetchAhead>(p);
    }
  });
}

}  // namespace

// Packed: the panel (in, padded out), then the padded bias.
void pack_linear(const PackLinear& a) {
  float* panel = reinterpret_cast<float*>(a.packed.data);
  float* bias = panel + a.in * padded(a.out);
  pack_panel(panel, a.weight.data, a.in, a.out, 1, a.in);
  for (int64_t o = 0; o < padded(a.out); ++o) bias[o] = a.bias && o < a.out ? a.bias.data[o] : 0.0f;
}

void packed_linear(const PackedLinear& a) {
  const float* panel = reinterpret_cast<const float*>(a.packed.data);
  multiply(a.x.data, panel, panel + a.in * padded(a.out), a.y.data, a.rows, a.in, a.out);
}

void linear(const Linear& a) {
  const int64_t bytes = packed_linear_bytes(a.in, a.out);
  const U8 packed = {scratch<uint8_t>(kPanel, bytes), bytes};
  pack_linear({a.weight, a.bias, packed, a.in, a.out});
  packed_linear({a.x, packed, a.y, a.rows, a.in, a.out});
}

void linear_grad_input(const LinearGradInput& a) {
  float* panel = scratch<float>(kPanel, a.out * padded(a.in));
  pack_panel(panel, a.weight.data, a.out, a.in, a.in, 1);
  multiply(a.gy.data, panel, nullptr, a.gx.data, a.rows, a.out, a.in);
}

void linear_grad_weight(const LinearGradWeight& a) {
  const int64_t width = padded(a.in), size = a.out * width + a.out;  // a partial: weight, bias
  int64_t chunk = (a.rows + kMaxChunks - 1) / kMaxChunks;
  if (chunk < kRowsPerChunk) chunk = kRowsPerChunk;
  const int64_t chunks = (a.rows + chunk - 1) / chunk;
  float* partials = scratch<float>(kPartials, chunks * size + 1);
  std::memset(partials, 0, static_cast<size_t>(chunks * size) * sizeof(float));
  parallel_for(a.rows, chunk, [&](int64_t begin, int64_t end) {
    float* partial = partials + begin / chunk * size;
    for (int64_t row = begin; row < end; row += kRowsPerSum) {
      const int64_t rows = end - row < kRowsPerSum ? end - row : kRowsPerSum;
      const float* gy = a.gy.data + row * a.out;
      outer_product({gy, a.out, a.x.data + row * a.in, a.in, partial, width, rows, a.out, a.in});
      if (a.gbias) add_column_sums(partial + a.out * width, gy, rows, a.out);
    }
  });
  for (int64_t o = 0; o < a.out; ++o) {
    float* to = a.gweight.data + o * a.in;
    for (int64_t i = 0; i < a.in; ++i) to[i] = 0.0f;
    for (int64_t c = 0; c < chunks; ++c) {
      const float* from = partials + c * size + o * width;
      for (int64_t i = 0; i < a.in; ++i) to[i] += from[i];
    }
  }
  if (!a.gbias) return;
  for (int64_t o = 0; o < a.out; ++o) a.gbias.data[o] = 0.0f;
  for (int64_t c = 0; c < chunks; ++c) {
    const float* from = partials + c * size + a.out * width;
    for (int64_t o = 0; o < a.out; ++o) a.gbias.data[o] += from[o];
  }
}

void transpose(const Transpose& a) {
  constexpr int64_t T = kTransposeTile;
  parallel_for(a.rows, 16 * T, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += T) {
      const int64_t rows = end - row < T ? end - row : T;
      for (int64_t column = 0; column < a.columns; column += T) {
        const int64_t columns = a.columns - column < T ? a.columns - column : T;
        const float* from = a.x.data + row * a.columns + column;
        float* to = a.y.data + column * a.rows + row;
        for (int64_t c = 0; c < columns; ++c) {
          for (int64_t r = 0; r < rows; ++r) to[c * a.rows + r] = from[r * a.columns + c];
        }
      }
    }
  });
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
