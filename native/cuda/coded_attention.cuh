// Window attention on half-exponent codes on the tensor cores: one head of one window by a block, in
// the op's own kernel (coded_attention.cu), or all heads of a window before the rows of a segment
// (segment.cu). The product q k is an exact integer, so logits are the reference's to the bit; the
// weights code^2 are bytes, and both sums are exact too:
//   a warp has 16 queries; logits of 8 keys come out of one 8-bit mma; the largest of a row is
//   found in a first walk over the keys; in a second, code^2 comes from a table of 128 bytes (32
//   banks: no two lanes collide) and goes into the next mma as it lies: the keys of a group of 32
//   are renumbered so that the fragment of the first product is the operand of the second. No
//   exponential is computed. With the networks' windows (16 and 8) all logits of the 16 queries
//   stay in registers between the two walks, and where a bias lies is known when this is compiled.
#pragma once
#include "../core/exponent.hpp"
#include "../core/grid.hpp"
#include "coder.cuh"
#include "mma.cuh"
#include "window.cuh"

namespace spr2q {
namespace cuda {

constexpr float kLowest = -3.4e38f;              // below every logit, as in the reference
constexpr int64_t kMostTileBytes = 96 << 10;     // of shared memory, of the tensor-core kernel
constexpr int64_t kExactFloat = int64_t{1} << 24;

struct CodedScales {
  float factor, scale, key_scale;
  Grid v;
};

SPR2Q_DEVICE bool on_grid(const CodedWindowAttention& a) {
  return a.probability_codes == kHalfExponent && a.bits <= kGridBits;
}
SPR2Q_DEVICE CodedScales coded_scales(const CodedWindowAttention& a) {
  const float* bounds = a.grid.data;
  const Grid q = grid_between(bounds[0], bounds[1], a.code_bits);
  const Grid k = grid_between(bounds[2], bounds[3], a.code_bits);
  const float factor = on_grid(a) ? kGridFactor : 1.0f;
  return {factor, q.step * k.step * factor, q.lower * k.step * factor,
          grid_between(bounds[4], bounds[5], a.code_bits)};
}

// ---- Half-exponent codes on the tensor cores ---------------------------------------------------

constexpr int kTileThreads = 128;
constexpr int kTileBlocks = 2;  // on a multiprocessor: up to 255 registers a thread
constexpr int kTileWarps = kTileThreads / kWarp;
constexpr int kKeyGroup = 32;  // keys of one product with v
// As a float 2^23 + n: an accumulator that starts here is read as a float without conversion.
constexpr int kFloatBase = 0x4b000000;
constexpr float kFloatBaseValue = 8388608.0f;

struct AttentionTiles {
  CodedWindowAttention a;
  Windows windows;
  WindowLayout layout;
  int64_t halves, key_words, v_words, v_rows;  // 16-code halves of a head; strides; rows of v
  int64_t sums_at, keys_at, values_at, squares_at, end;  // of the pieces of shared memory
};

static inline AttentionTiles attention_tiles(const CodedWindowAttention& a) {
  AttentionTiles s = {a, {a.height, a.width, a.window, a.shift}, WindowLayout::of(a.window, kKeyGroup),
             0, 0, 0, 0, 0, 0, 0, 0, 0};
  s.halves = divide_up(a.head_dim, 16);
  s.key_words = s.halves == 1 ? 4 : 4 * s.halves + 4;  // fragments then fall on different banks
  s.v_words = s.layout.padded / 4 + 4;
  s.v_rows = round_up(a.head_dim, 8);
  s.sums_at = s.layout.end();
  s.keys_at = s.sums_at + WindowLayout::aligned(4 * s.layout.padded);
  s.values_at = s.keys_at + 4 * s.layout.padded * s.key_words;
  s.squares_at = s.values_at + 4 * s.v_rows * s.v_words;
  s.end = s.squares_at + kGridEntries;
  return s;
}

// Where key `key` of a group of 32 stands among the 32 codes of an A row. Lane t holds keys 8j + 2t
// and 8j + 2t + 1 of the four logit tiles j; as an A operand its bytes are 4t ... 4t+3 (j = 0, 1)
// and 16 + 4t ... (j = 2, 3).
SPR2Q_DEVICE int operand_position(int key) {
  const int j = key / 8, t = key % 8 / 2, e = key % 2;
  return j / 2 * 16 + 4 * t + j % 2 * 2 + e;
}

SPR2Q_DEVICE bool word_aligned(const CodedWindowAttention& a, const uint8_t* data) {
  return a.head_dim % 4 == 0 && reinterpret_cast<uintptr_t>(data) % 4 == 0;
}

// Keys, values, key sums and the table of squares into shared memory.
SPR2Q_DEVICE void stage(const AttentionTiles& s, const WindowView& view, unsigned char* shared,
                        int64_t head) {
  const CodedWindowAttention& a = s.a;
  const int64_t stride = a.heads * a.head_dim, words = 4 * s.halves;
  float* sums = reinterpret_cast<float*>(shared + s.sums_at);
  unsigned* keys = reinterpret_cast<unsigned*>(shared + s.keys_at);
  uint8_t* values = shared + s.values_at;
  const bool wide = word_aligned(a, a.k.data);
  for (int j = static_cast<int>(threadIdx.x); j < s.layout.padded; j += kTileThreads) {
    const int64_t row = view.rows[j] * stride + head * a.head_dim;
    int sum = 0;
    for (int64_t i = 0; i < words; ++i) {
      const unsigned word = code_word<8>(a.k.data + row, i, a.head_dim, wide);
      keys[j * s.key_words + i] = word;
      sum += code_sum<8>(word);
    }
    sums[j] = static_cast<float>(sum);
    const int in_group = j % kKeyGroup;
    uint8_t* column = values + j - in_group + operand_position(in_group);
    for (int64_t d = 0; d < s.v_rows; ++d) {
      const bool inside = j < s.layout.positions && d < a.head_dim;
      column[4 * d * s.v_words] = inside ? a.v.data[row + d] : 0;
    }
  }
  const float levels = level_count(a.bits);
  for (int i = static_cast<int>(threadIdx.x); i < kGridEntries; i += kTileThreads) {
    const float code = __builtin_nearbyintf(
        levels * exp2_shared(grid_exponent(static_cast<float>(i))));
    shared[s.squares_at + i] = static_cast<uint8_t>(code * code);
  }
}

// The 16 queries of a warp: fragments of q, bias places and labels of rows g and g + 8.
template <int kHalves>
struct QueryTile {
  unsigned q[kHalves][2];
  int place[2];
  int label[2];
};

// Place of key 8n of a window of kSide, which is a multiple of 8: known when compiled.
template <int kSide>
SPR2Q_DEVICE constexpr int place_of_tile(int n) {
  constexpr int side = kSide ? kSide : 1;  // 0 is no window: the caller then asks elsewhere
  return 8 * n / side * (2 * side - 1) + 8 * n % side;
}

// Logits of keys 8n + 2t and + 1 for rows g (0, 1) and g + 8 (2, 3). kSide: the window, 0 for any.
template <int kHalves, int kSide>
SPR2Q_DEVICE void tile_logits(const AttentionTiles& s, const WindowView& view, const unsigned char* shared,
                              const CodedScales& scales, const QueryTile<kHalves>& tile, int n,
                              float (&logits)[4]) {
  const unsigned* keys = reinterpret_cast<const unsigned*>(shared + s.keys_at);
  const float* sums = reinterpret_cast<const float*>(shared + s.sums_at);
  const int g = lane_index() / 4, t = lane_index() % 4;
  int products[4] = {kFloatBase, kFloatBase, kFloatBase, kFloatBase};
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
    mma_half(products, tile.q[h], keys[(8 * n + g) * s.key_words + 4 * h + t]);
  }
  const float2 key_sums = *reinterpret_cast<const float2*>(sums + 8 * n + 2 * t);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int key = 8 * n + 2 * t + i % 2, side = i / 2;
    const int key_place = kSide ? place_of_tile<kSide>(n) + 2 * t + i % 2 : view.places[key];
    float bias = view.bias[tile.place[side] - key_place];
    if (view.masked) bias += mask_of(tile.label[side], view.labels[key]) * scales.factor;
    const float rest = fmaf(scales.key_scale, i % 2 ? key_sums.y : key_sums.x, bias);
    const float product = __uint_as_float(static_cast<unsigned>(products[i])) - kFloatBaseValue;
    const bool inside = kSide || key < s.layout.positions;
    logits[i] = inside ? fmaf(scales.scale, product, rest) : -__builtin_inff();
  }
}

// The quantiser of the result, if it has one.
SPR2Q_DEVICE Coder coder_of(const CodedWindowAttention& a) {
  return {a.y_lower.data, a.y_upper.data, a.y_codes.data, a.y_bits, a.y_granularity == kColumn};
}

// One head of one window by the block. `coded` is the grid of the result, where it becomes codes, and
// may still be on its way: a barrier comes before it is read. Every thread of the block calls this, at
// the beginning of the kernel or behind a barrier. kHalves: 16-code halves of a head; v has
// kHalves * 2 columns of 8. kSide: 16 or 8, with the logits kept; 0: any window, the logits made twice.
template <int kHalves, int kSide>
SPR2Q_DEVICE WindowView attend_head(const AttentionTiles& s, unsigned char* shared, int64_t window,
                                    int64_t head, const Coder& coder, const Grid& coded) {
  const CodedWindowAttention& a = s.a;
  const WindowView view = window_view(shared, s.layout, s.windows, window);
  const CodedScales scales = coded_scales(a);
  fill_window(view, s.layout, s.windows, window, a.bias_table.data, a.heads, head, scales.factor);
  __syncthreads();
  stage(s, view, shared, head);
  __syncthreads();
  const unsigned* values = reinterpret_cast<const unsigned*>(shared + s.values_at);
  const unsigned char* squares = shared + s.squares_at;
  const int64_t stride = a.heads * a.head_dim;
  const int g = lane_index() / 4, t = lane_index() % 4;
  const bool wide = word_aligned(a, a.q.data);
  const int positions = static_cast<int>(s.layout.positions);
  constexpr int kKept = kSide * kSide / 8;  // tiles whose logits stay in registers
  const int tiles = kSide ? kKept : static_cast<int>(s.layout.padded) / 8;
  for (int first = warp_index() * 16; first < positions; first += kTileWarps * 16) {
    QueryTile<kHalves> tile;
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int p = first + g + 8 * side < positions ? first + g + 8 * side : 0;
      const uint8_t* query = a.q.data + view.rows[p] * stride + head * a.head_dim;
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        tile.q[h][side] = code_word<8>(query, 4 * h + t, a.head_dim, wide);
      }
      tile.place[side] = view.base + view.places[p];
      tile.label[side] = view.labels[p];
    }
    float largest[2] = {kLowest, kLowest};
    float kept[kSide ? kKept : 1][4];
#pragma unroll(kSide ? kKept : 1)
    for (int n = 0; n < tiles; ++n) {
      float(&logits)[4] = kept[kSide ? n : 0];
      tile_logits<kHalves, kSide>(s, view, shared, scales, tile, n, logits);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        largest[i / 2] = logits[i] > largest[i / 2] ? logits[i] : largest[i / 2];
      }
    }
#pragma unroll
    for (int side = 0; side < 2; ++side) {  // the four lanes of a row
#pragma unroll
      for (int step = 1; step < 4; step *= 2) {
        const float other = __shfl_xor_sync(kAllLanes, largest[side], step);
        largest[side] = other > largest[side] ? other : largest[side];
      }
    }
    int sums[2 * kHalves][4] = {};
    int total[2] = {};
#pragma unroll(kSide ? kKept / 4 : 1)
    for (int group = 0; group < tiles; group += 4) {
      unsigned weights[4] = {};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float(&logits)[4] = kept[kSide ? group + j : 0];
        if (!kSide) tile_logits<kHalves, 0>(s, view, shared, scales, tile, group + j, logits);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float shifted = kRoundingMagic + (largest[i / 2] - logits[i]);
          const unsigned index = __float_as_uint(shifted < kGridEnd ? shifted : kGridEnd) &
                                 static_cast<unsigned>(kGridEntries - 1);
          weights[j / 2 * 2 + i / 2] |= static_cast<unsigned>(squares[index])
                                        << (8 * (j % 2 * 2 + i % 2));
        }
      }
      total[0] += code_sum<8>(weights[0]) + code_sum<8>(weights[2]);
      total[1] += code_sum<8>(weights[1]) + code_sum<8>(weights[3]);
#pragma unroll
      for (int column = 0; column < 2 * kHalves; ++column) {
        if (8 * column >= s.v_rows) continue;
        const unsigned* row = values + (8 * column + g) * s.v_words + 2 * group;
        const unsigned v[2] = {row[t], row[4 + t]};
        mma<8>(sums[column], weights, v);
      }
    }
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      total[side] += __shfl_xor_sync(kAllLanes, total[side], 1);
      total[side] += __shfl_xor_sync(kAllLanes, total[side], 2);
      const int p = first + g + 8 * side;
      if (p >= positions) continue;
      const int64_t at = view.rows[p] * stride + head * a.head_dim;
#pragma unroll
      for (int column = 0; column < 2 * kHalves; ++column) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int d = 8 * column + 2 * t + i;
          if (d >= a.head_dim) continue;
          // Both integers are exact as floats (coded_window_attention checks), so this is the
          // correctly rounded quotient.
          const float mean = static_cast<float>(sums[column][2 * side + i]) /
                             static_cast<float>(total[side]);
          const float y = value_on(scales.v, mean);
          if (coder.codes) {
            coder.codes[at + d] = code_in(coder, coded, head * a.head_dim + d, y);
          } else {
            a.y.data[at + d] = y;
          }
        }
      }
    }
  }
  return view;
}

// True where the tensor-core kernel's arithmetic is exact and its tiles fit.
static inline bool fits_tiles(const CodedWindowAttention& a, const AttentionTiles& s) {
  const int64_t square = ((1 << a.bits) - 1) * ((1 << a.bits) - 1);
  return a.probability_codes == kHalfExponent && a.bits <= kGridBits && s.end <= kMostTileBytes &&
         square * ((1 << a.code_bits) - 1) * s.layout.positions < kExactFloat;
}

// Windows whose heads attend_window() takes one after the other.
static inline bool attends_window(const CodedWindowAttention& a) {
  const AttentionTiles s = attention_tiles(a);
  return s.halves == 1 && fits_tiles(a, s);
}

// All heads of one window by the block, at the beginning of a kernel; the caller's barrier follows.
SPR2Q_DEVICE WindowView attend_window(const AttentionTiles& s, unsigned char* shared,
                                      int64_t window) {
  __shared__ Grid coded;
  const Coder coder = coder_of(s.a);
  if (threadIdx.x == 0 && coder.codes) coded = grid_of(coder);
  WindowView view;
  for (int64_t head = 0; head < s.a.heads; ++head) {
    if (head > 0) __syncthreads();  // keys and values of the head before have been read
    view = s.a.window == 16  ? attend_head<1, 16>(s, shared, window, head, coder, coded)
           : s.a.window == 8 ? attend_head<1, 8>(s, shared, window, head, coder, coded)
                             : attend_head<1, 0>(s, shared, window, head, coder, coded);
  }
  return view;
}

}  // namespace cuda
}  // namespace spr2q
