// A coded linear layer and what follows it on each token, as in native/ops/fused_coded_linear.cpp:
// a few rows at a time go from codes to codes without leaving the first cache. Every step is the
// loop of the op that it stands for (code_product, activations, norm_rows, coder): same bits.
#include "../core/stream.hpp"
#include "activations.hpp"
#include "code_product.hpp"
#include "coder.hpp"
#include "fused_tile.hpp"
#include "norm_rows.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int64_t kRowsPerTask = 768;
// Whole tiles of the product, quads of the norm and patterns of a row.
constexpr int64_t kBlockRows = kTileRows % 4 == 0 ? 8 : 2 * kTileRows;
constexpr int64_t kBitBlockRows = 64;  // of 1-bit products, which load the weights once a block
// Of a thread; kBitRows is what bit_linear.hpp keeps there.
enum Slot {
  kCopy, kScales, kBitRows, kOffsets, kMoreOffsets, kBlock, kNarrow, kTileOffsets, kMoreTileOffsets
};

static_assert(kBlockRows % kTileRows == 0, "a block is whole tiles");
#if defined(__AVX512F__)
static_assert(kBitRows == kBitSlot, "one use of a slot at a time");
#endif

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

// The quantisers of `a`, for the thread that runs a task.
struct Coders {
  Coder list[2];
  int count = 0;
  explicit Coders(const FusedCodedLinear& a) {
    const int64_t columns = a.out - a.first;
    if (a.codes) {
      list[count++] = coder(a.lower, a.upper, a.codes, columns, a.granularity, a.bits, kOffsets);
    }
    if (a.more_codes) {
      list[count++] = coder(a.more_lower, a.more_upper, a.more_codes, columns, a.more_granularity,
                            a.more_bits, kMoreOffsets);
    }
  }
};

// The steps on values, on the block v(rows,out) that begins with `row`.
static inline void change_values(const FusedCodedLinear& a, const Pattern& scales, int64_t row,
                                 int64_t rows, float* v) {
  const int64_t n = rows * a.out;
  if (a.gelu) {
    sweep(0, n, [=](int64_t i, auto lanes) { lanes.store(v + i, gelu_of(lanes.load(v + i))); });
  }
  if (a.factor != 1) {
    const VecF factor = splat(static_cast<float>(a.factor));
    sweep(0, n, [=](int64_t i, auto lanes) { lanes.store(v + i, factor * lanes.load(v + i)); });
  }
  if (a.added) {
    const float* added = a.added.data + row * a.out;
    sweep(0, n, [=](int64_t i, auto lanes) {
      lanes.store(v + i, lanes.load(v + i) + lanes.load(added + i));
    });
  }
  if (a.residual) {
    const float* residual = a.residual.data + row * a.out;
    sweep_pattern(scales.size, 0, n, [=](int64_t i, int64_t j, auto lanes) {
      lanes.store(v + i, fma(load(scales.data + j), lanes.load(residual + i), lanes.load(v + i)));
    });
  }
}

// The steps behind them: y, norm and codes of the block.
static inline void finish(const FusedCodedLinear& a, const Coders& coders, const RowShape& shape,
                          int64_t row, int64_t rows, float* v) {
  const int64_t columns = a.out - a.first;
  float* narrow = scratch<float>(kNarrow, rows * a.out);
  if (a.y) {
    const float* head = v;
    if (a.kept < a.out) {
      copy_columns({v, a.out, 0}, rows, a.kept, narrow);
      head = narrow;
    }
    uint8_t* to = reinterpret_cast<uint8_t*>(a.y.data + row * a.kept);
    const int64_t bytes = rows * a.kept * static_cast<int64_t>(sizeof(float));
    if (a.streamed) stream(to, reinterpret_cast<const uint8_t*>(head), bytes);
    else std::memcpy(to, head, static_cast<size_t>(bytes));
  }
  if (!coders.count) return;
  float* x = v;
  if (a.first) {  // the columns that go on, side by side
    copy_columns({v, a.out, a.first}, rows, columns, narrow);
    x = narrow;
  }
  if (a.norm_weight) {
    const F32 view = {x, rows * columns};
    normalise_rows({view, a.norm_weight, a.norm_bias, view, rows, columns}, shape, 0, rows);
  }
  for (int i = 0; i < coders.count; ++i) {
    const Coder& coder = coders.list[i];
    code_values(coder, x, rows * columns, coder.codes + row * columns);
  }
}

// Calls body(row, rows) for the blocks of all rows, the operands of the next one on their way.
template <class Prepare>
static inline void each_block(const FusedCodedLinear& a, int64_t block_rows, Prepare prepare) {
  parallel_for(a.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    auto body = prepare();
    for (int64_t row = begin; row < end; row += block_rows) {
      const int64_t rows = end - row < block_rows ? end - row : block_rows, n = rows * a.out;
      fetch(a.added, row * a.out + n, n);
      fetch(a.residual, row * a.out + n, n);
      body(row, rows);
    }
    if (a.streamed) stream_fence();
  });
}

#if defined(__AVX512F__)
// `count` values, padded to the vectors of a row.
static const float* padded_row(const float* values, int64_t count, bool repeated, int slot) {
  const int64_t width = padded(count);
  float* row = scratch<float>(slot, width);
  for (int64_t i = 0; i < width; ++i) {
    row[i] = repeated ? values[0] : i < count ? values[i] : 0.0f;
  }
  return row;
}

static void run_tiles(const FusedCodedLinear& a) {
  const RowShape row_of_out = row_shape(a.out), shape = row_shape(a.out - a.first);
  const bool aligned = reinterpret_cast<uintptr_t>(a.y.data) % 64 == 0;
  const bool whole_lines = row_of_out.last == kLanes && aligned;
  const bool halves = a.out == 48 && a.first == 24 && a.kept == 24 && a.y && aligned;
  const bool in_registers = halves || (a.first == 0 && (!a.y || a.kept == a.out));
  // Rows that are no whole lines go past the caches by way of a block.
  const bool by_block = in_registers && !halves && a.y && a.streamed && !whole_lines;
  with_dot(a, [&](const Plan& plan, auto dot) {
    typedef decltype(dot) Dot;
    const PackedCodes codes = {a.x.data, a.rows};
    const bool binary = is_binary(a);
    const BitLinear bits = bit_linear(plan);
    each_block(a, kBlockRows, [&] {
      const Coders coders(a);
      TileChain chain = {a.added.data, nullptr, a.residual.data, a.y.data, nullptr, nullptr, {}, 0,
                         a.gelu != 0, a.factor != 1, in_registers && a.streamed != 0,
                         static_cast<float>(a.factor), row_of_out, halves, shape};
      if (a.residual) chain.scale = padded_row(a.scale.data, a.out, false, kScales);
      if (in_registers) {
        chain.norm_weight = a.norm_weight.data;
        chain.norm_bias = a.norm_bias.data;
        const auto add_coder = [&](const F32& lower, int64_t granularity, int slot) {
          const Coder& coder = coders.list[chain.coder_count];
          chain.coders[chain.coder_count++] = {
              coder.codes, coder.levels,
              padded_row(lower.data, a.out - a.first, granularity != kColumn, slot), coder.binary};
        };
        if (a.codes) add_coder(a.lower, a.granularity, kTileOffsets);
        if (a.more_codes) add_coder(a.more_lower, a.more_granularity, kMoreTileOffsets);
      }
      float* v = scratch<float>(kBlock, kBlockRows * a.out);
      chain.past_caches = chain.past_caches && !by_block;
      return [&a, &plan, codes, binary, bits, coders, chain, shape, in_registers, by_block,
              v](int64_t row, int64_t rows) mutable {
        if (!in_registers || by_block) chain.y = v - row * a.out;
        if (binary) count_rows(chain, bits, a.x.data, row, rows);
        else chain_rows<Dot>(chain, plan, rows_of<Dot>(plan, codes, row, rows, kCopy), row);
        if (!in_registers) {
          finish(a, coders, shape, row, rows, v);
        } else if (by_block) {
          stream(reinterpret_cast<uint8_t*>(a.y.data + row * a.out),
                 reinterpret_cast<const uint8_t*>(v), rows * a.out * 4);
        }
      };
    });
  });
}
#endif

static void run_blocks(const FusedCodedLinear& a) {
  const RowShape shape = row_shape(a.out - a.first);
  const int64_t block_rows = a.x_bits == 1 && a.weight_bits == 1 ? kBitBlockRows : kBlockRows;
  with_product<false>(a, kCopy, [&](auto product) {
    each_block(a, block_rows, [&] {
      const Coders coders(a);
      const Pattern scales = a.residual ? repeat(a.scale.data, a.out, kScales) : Pattern{};
      float* v = scratch<float>(kBlock, block_rows * a.out);
      return [=, &a](int64_t row, int64_t rows) {
        product(row, row + rows, v);
        change_values(a, scales, row, rows, v);
        finish(a, coders, shape, row, rows, v);
      };
    });
  });
}

}  // namespace

void fused_coded_linear(const FusedCodedLinear& a) {
#if defined(__AVX512F__)
  // 1-bit codes of rows that are no whole vectors are written faster a block at a time.
  const bool by_tiles = !is_binary(a) || a.out % kLanes == 0;
  if (by_tiles && (a.out <= kMostVectors * kLanes || !a.norm_weight)) return run_tiles(a);
#endif
  run_blocks(a);
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
