// A coded linear layer and what follows it on each token, as in native/ops/fused_coded_linear.cpp:
// a few rows at a time go from codes to codes without leaving the first cache. Every step is the
// loop of the op that it stands for (code_product, gelu, norm_rows, levels), so the bits are theirs.
#include "../core/stream.hpp"
#include "code_product.hpp"
#include "gelu.hpp"
#include "levels.hpp"
#include "norm_rows.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int64_t kRowsPerTask = 768;
constexpr int64_t kBlockRows = 8;  // whole tiles of the product, quads of the norm and patterns
enum Slot { kCopy, kScales, kOffsets, kMoreOffsets, kBlock, kNormed };  // of a thread

static_assert(kBlockRows % kTileRows == 0, "a block is whole tiles");

// Asks for the lines of n floats: a block's operands from beyond the caches, while the one before it
// is worked on. The machine's own prefetching does not see through such short bursts.
static inline void fetch(const F32& x, int64_t begin, int64_t n) {
  for (int64_t i = 0; x && i < n; i += kLine) __builtin_prefetch(x.data + begin + i);
}

// Columns of a block, from `first` on.
struct Columns {
  const float* x;
  int64_t width, first;
};
static inline void copy_columns(const Columns& from, int64_t rows, int64_t count, float* to) {
  for (int64_t r = 0; r < rows; ++r, to += count) {
    const float* row = from.x + r * from.width + from.first;
    sweep(0, count, [=](int64_t i, auto lanes) { lanes.store(to + i, lanes.load(row + i)); });
  }
}

// The quantiser of one output, its offsets repeated to whole vectors where columns have their own.
struct Coder {
  uint8_t* codes;
  Levels levels;
  Pattern offsets;
  bool binary;
};

static Coder coder(const F32& lower, const F32& upper, const U8& codes, int64_t columns,
                   int64_t granularity, int64_t bits, int slot) {
  const bool by_column = granularity == kColumn;
  const Grid grid = by_column ? grid_from(0.0f, upper.data[0], bits)
                              : grid_between(lower.data[0], upper.data[0], bits);
  Pattern offsets = {nullptr, 0, 0};
  if (by_column) {
    offsets = repeat(lower.data, columns, slot);
  } else {
    float* one = scratch<float>(slot, kLanes);
    for (int i = 0; i < kLanes; ++i) one[i] = lower.data[0];
    offsets = {one, kLanes, 1};
  }
  return {codes.data, Levels(grid), offsets, bits == 1};
}

// Codes of n contiguous values, which begin on a row; `to` is where theirs go.
template <bool kBinary>
static inline void code_values(const Coder& coder, const float* x, int64_t n, uint8_t* to) {
  sweep_pattern(coder.offsets.size, 0, n, [&](int64_t i, int64_t j, auto lanes) {
    store_codes_of<kBinary>(lanes, to + i, lanes.load(x + i), load(coder.offsets.data + j),
                            coder.levels);
  });
}
static inline void code_values(const Coder& coder, const float* x, int64_t n, uint8_t* to) {
  if (coder.binary) code_values<true>(coder, x, n, to);
  else code_values<false>(coder, x, n, to);
}

}  // namespace

void fused_coded_linear(const FusedCodedLinear& a) {
  const int64_t out = a.out, columns = a.out - a.first;
  const float factor = static_cast<float>(a.factor);
  const RowShape shape = row_shape(columns);
  with_product<false>(a, kCopy, [&](auto product) {
    parallel_for(a.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
      const Pattern scales = a.residual ? repeat(a.scale.data, out, kScales) : Pattern{};
      Coder coders[2];
      int count = 0;
      if (a.codes) {
        coders[count++] = coder(a.lower, a.upper, a.codes, columns, a.granularity, a.bits, kOffsets);
      }
      if (a.more_codes) {
        coders[count++] = coder(a.more_lower, a.more_upper, a.more_codes, columns,
                                a.more_granularity, a.more_bits, kMoreOffsets);
      }
      float* v = scratch<float>(kBlock, kBlockRows * out);
      float* normed = scratch<float>(kNormed, kBlockRows * out);
      for (int64_t row = begin; row < end; row += kBlockRows) {
        const int64_t rows = end - row < kBlockRows ? end - row : kBlockRows, n = rows * out;
        fetch(a.added, row * out + n, n);
        fetch(a.residual, row * out + n, n);
        product(row, row + rows, v);
        if (a.gelu) {
          sweep(0, n, [=](int64_t i, auto lanes) { lanes.store(v + i, gelu_of(lanes.load(v + i))); });
        }
        if (a.factor != 1) {
          sweep(0, n, [=](int64_t i, auto lanes) {
            lanes.store(v + i, splat(factor) * lanes.load(v + i));
          });
        }
        if (a.added) {
          const float* added = a.added.data + row * out;
          sweep(0, n, [=](int64_t i, auto lanes) {
            lanes.store(v + i, lanes.load(v + i) + lanes.load(added + i));
          });
        }
        if (a.residual) {
          const float* residual = a.residual.data + row * out;
          sweep_pattern(scales.size, 0, n, [=](int64_t i, int64_t j, auto lanes) {
            lanes.store(v + i, fma(load(scales.data + j), lanes.load(residual + i),
                                   lanes.load(v + i)));
          });
        }
        if (a.y) {
          const float* head = v;
          if (a.kept < out) {
            copy_columns({v, out, 0}, rows, a.kept, normed);
            head = normed;
          }
          uint8_t* to = reinterpret_cast<uint8_t*>(a.y.data + row * a.kept);
          const int64_t bytes = rows * a.kept * static_cast<int64_t>(sizeof(float));
          if (a.streamed) stream(to, reinterpret_cast<const uint8_t*>(head), bytes);
          else std::memcpy(to, head, static_cast<size_t>(bytes));
        }
        if (!count) continue;
        const float* x = v;
        if (a.first) {  // the columns that stay, side by side
          copy_columns({v, out, a.first}, rows, columns, normed);
          x = normed;
        }
        if (a.norm_weight) {
          const int64_t size = rows * columns;
          normalise_rows({{const_cast<float*>(x), size}, a.norm_weight, a.norm_bias, {normed, size},
                          rows, columns}, shape, 0, rows);
          x = normed;
        }
        for (int i = 0; i < count; ++i) {
          code_values(coders[i], x, rows * columns, coders[i].codes + row * columns);
        }
      }
      if (a.streamed) stream_fence();
    });
  });
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
