// Products of integer codes on the tensor cores: y = fma(S, acc, fma(R, total, constant)) with
// acc = sum q_x q_w from mma and total = sum q_x from the same registers. Codes of up to 4 bits are
// multiplied as 4-bit numbers where the device does that natively, else as 8-bit ones; 1-bit codes
// by AND and popcount where a row has at least kFewestBits of them (fewer would be padding to 256).
// Codes are packed to the operand width while they are staged in shared memory. Sums are integers:
// the tiling leaves no trace in the bits.
#pragma once
#include "coded_pack.cuh"
#include "mma.cuh"

namespace spr2q {
namespace cuda {

constexpr int kProductThreads = 128;
constexpr int kStageWords = 4 * kWordsOfK;     // of a row, staged at a time
constexpr int kStageStride = kStageWords + 4;  // + 4: a fragment's 8 rows fall on different banks
constexpr int64_t kFewestBits = 128;

// Rows of a block whose warps take kTilesM tiles of 16 rows each.
template <int kTilesM>
constexpr int kProductRows = kProductThreads / kWarp * kTilesM * 16;

struct Product {
  const uint8_t *x, *codes;
  const float* scales;
  float* y;
  int64_t rows, in, out, outputs;  // outputs: stride of the scales
};

static inline Product product_of_packed(const U8& x, const U8& packed, float* y, int64_t rows,
                                        int64_t in, int64_t out) {
  const int64_t outputs = scale_stride(out);
  return {x.data, packed.data + 12 * outputs, reinterpret_cast<const float*>(packed.data), y,
          rows,   in, out, outputs};
}

// Bits of an operand on the tensor cores as a number: 4 or 8.
static inline int number_width(int64_t x_bits, int64_t weight_bits) {
  return architecture() < kFirst8BitOnly && x_bits <= 4 && weight_bits <= 4 ? 4 : 8;
}
// Bits of an operand on the tensor cores: 1, 4 or 8.
static inline int product_width(int64_t x_bits, int64_t weight_bits, int64_t in) {
  const bool bits = x_bits == 1 && weight_bits == 1 && in >= kFewestBits;
  return bits ? 1 : number_width(x_bits, weight_bits);
}
// True where `out` columns fit tiles of 48 as well as tiles of 64.
static inline bool is_narrow(int64_t out) { return round_up(out, 48) <= round_up(out, 64); }

// Codes of a block's tile on their way to the tensor cores, in shared memory.
template <int kTilesM, int kTilesN>
struct Staging {
  unsigned x[kProductRows<kTilesM>][kStageStride];
  unsigned w[8 * kTilesN][kStageStride];
};

// A block's rows, at most kProductRows<kTilesM>, by 8 kTilesN columns: take(row, column, value) for
// each that the product has, row being a number among `rows` and columns counted from first_column.
// Every thread of the block calls it, at the beginning of the kernel or behind a barrier.
template <int kWidth, int kTilesM, int kTilesN, class Take>
SPR2Q_DEVICE void coded_product(const Product& a, const Rows& rows, int64_t first_column,
                                Staging<kTilesM, kTilesN>& staged, const Take& take) {
  if (!has_width<kWidth>()) return;
  constexpr int kRows = kProductRows<kTilesM>, kColumns = 8 * kTilesN;
  const int64_t words = (a.in * kWidth + 31) / 32, stride = packed_stride(a.in);
  const bool wide = a.in % 4 == 0 && reinterpret_cast<uintptr_t>(a.x) % 4 == 0;
  const int thread = static_cast<int>(threadIdx.x), g = lane_index() / 4, t = lane_index() % 4;
  const int warp_row = warp_index() * kTilesM * 16;
  int acc[kTilesM][kTilesN][4] = {};
  int total[kTilesM][2] = {};
  for (int64_t first = 0; first < words; first += kStageWords) {
    const int64_t left = words - first;
    const int here = left < kStageWords ? static_cast<int>(left) : kStageWords;
    const int padded = (here + kWordsOfK - 1) / kWordsOfK * kWordsOfK;
    for (int word = thread % kWordsOfK; word < padded; word += kWordsOfK) {
      for (int row = thread / kWordsOfK; row < kRows; row += kProductThreads / kWordsOfK) {
        const bool inside = row < rows.count && word < here;
        const uint8_t* from = a.x + (inside ? rows[row] : 0) * a.in;
        staged.x[row][word] = inside ? code_word<kWidth>(from, first + word, a.in, wide) : 0;
      }
      for (int column = thread / kWordsOfK; column < kColumns;
           column += kProductThreads / kWordsOfK) {
        const uint8_t* from = a.codes + (first_column + column) * stride;
        const bool inside = first_column + column < a.out && word < here;
        staged.w[column][word] = inside ? code_word<kWidth>(from, first + word, a.in, true) : 0;
      }
    }
    __syncthreads();
    for (int k = 0; k < padded; k += kWordsOfK) {
      const bool half = kWidth == 8 && here - k <= kWordsOfK / 2;  // 48 = 32 + 16, exactly
      unsigned x[kTilesM][4];
#pragma unroll
      for (int m = 0; m < kTilesM; ++m) {
        const int row = warp_row + 16 * m + g;
        x[m][0] = staged.x[row][k + t];
        x[m][1] = staged.x[row + 8][k + t];
        x[m][2] = half ? 0 : staged.x[row][k + 4 + t];
        x[m][3] = half ? 0 : staged.x[row + 8][k + 4 + t];
        total[m][0] += code_sum<kWidth>(x[m][0]) + code_sum<kWidth>(x[m][2]);
        total[m][1] += code_sum<kWidth>(x[m][1]) + code_sum<kWidth>(x[m][3]);
      }
#pragma unroll
      for (int n = 0; n < kTilesN; ++n) {
        const unsigned w[2] = {staged.w[8 * n + g][k + t], staged.w[8 * n + g][k + 4 + t]};
#pragma unroll
        for (int m = 0; m < kTilesM; ++m) {
          if (half) {
            const unsigned low[2] = {x[m][0], x[m][1]};
            mma_half(acc[m][n], low, w[0]);
          } else {
            mma<kWidth>(acc[m][n], x[m], w);
          }
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int m = 0; m < kTilesM; ++m) {
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      int sum = total[m][side];  // the four lanes of a row hold a part each
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      const int row = warp_row + 16 * m + 8 * side + g;
      if (row >= rows.count) continue;
#pragma unroll
      for (int n = 0; n < kTilesN; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int column = 8 * n + 2 * t + i;
          const int64_t o = first_column + column;
          if (o >= a.out) continue;
          const float shift = fmaf(a.scales[a.outputs + o], static_cast<float>(sum),
                                   a.scales[2 * a.outputs + o]);
          take(row, column, fmaf(a.scales[o], static_cast<float>(acc[m][n][2 * side + i]), shift));
        }
      }
    }
  }
}

}  // namespace cuda
}  // namespace spr2q
