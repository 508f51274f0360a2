// Linear layer on integer codes, on the tensor cores: y = fma(S, acc, fma(R, total, constant)) with
// acc = sum q_x q_w from mma and total = sum q_x from the same registers. Codes of up to 4 bits are
// multiplied as 4-bit numbers where the device does that natively, else as 8-bit ones; 1-bit codes
// by AND and popcount where a row has at least kFewestBits of them (fewer would be padding to 256).
// A block of 4 warps makes 128 rows by 48 or 64 outputs; codes are packed to the operand width
// while they are staged in shared memory.
#include "coded_pack.cuh"
#include "mma.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kTilesM = 2;                                   // 16-row tiles of a warp
constexpr int kRows = kThreads / kWarp * kTilesM * 16;       // of a block
constexpr int kStageWords = 4 * kWordsOfK;                   // of a row, staged at a time
constexpr int kStride = kStageWords + 4;                     // + 4: the 8 rows of a fragment fall
                                                             // on different banks
constexpr int64_t kFewestBits = 128;

struct Product {
  const uint8_t *x, *codes;
  const float* scales;
  float* y;
  int64_t rows, in, out, outputs;  // outputs: stride of the scales
};

template <int kWidth, int kTilesN>
__global__ void __launch_bounds__(kThreads) coded_kernel(Product a) {
  constexpr int kColumns = 8 * kTilesN;
  __shared__ unsigned staged_x[kRows][kStride];
  __shared__ unsigned staged_w[kColumns][kStride];
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kRows;
  const int64_t first_column = static_cast<int64_t>(blockIdx.y) * kColumns;
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
      for (int row = thread / kWordsOfK; row < kRows; row += kThreads / kWordsOfK) {
        const uint8_t* from = a.x + (first_row + row) * a.in;
        const bool inside = first_row + row < a.rows && word < here;
        staged_x[row][word] = inside ? code_word<kWidth>(from, first + word, a.in, wide) : 0;
      }
      for (int column = thread / kWordsOfK; column < kColumns; column += kThreads / kWordsOfK) {
        const uint8_t* from = a.codes + (first_column + column) * stride;
        const bool inside = first_column + column < a.out && word < here;
        staged_w[column][word] = inside ? code_word<kWidth>(from, first + word, a.in, true) : 0;
      }
    }
    __syncthreads();
    for (int k = 0; k < padded; k += kWordsOfK) {
      const bool half = kWidth == 8 && here - k <= kWordsOfK / 2;  // 48 = 32 + 16, exactly
      unsigned x[kTilesM][4];
#pragma unroll
      for (int m = 0; m < kTilesM; ++m) {
        const int row = warp_row + 16 * m + g;
        x[m][0] = staged_x[row][k + t];
        x[m][1] = staged_x[row + 8][k + t];
        x[m][2] = half ? 0 : staged_x[row][k + 4 + t];
        x[m][3] = half ? 0 : staged_x[row + 8][k + 4 + t];
        total[m][0] += code_sum<kWidth>(x[m][0]) + code_sum<kWidth>(x[m][2]);
        total[m][1] += code_sum<kWidth>(x[m][1]) + code_sum<kWidth>(x[m][3]);
      }
#pragma unroll
      for (int n = 0; n < kTilesN; ++n) {
        const unsigned w[2] = {staged_w[8 * n + g][k + t], staged_w[8 * n + g][k + 4 + t]};
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
      const int64_t row = first_row + warp_row + 16 * m + 8 * side + g;
      if (row >= a.rows) continue;
#pragma unroll
      for (int n = 0; n < kTilesN; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int64_t o = first_column + 8 * n + 2 * t + i;
          if (o >= a.out) continue;
          const float shift = fmaf(a.scales[a.outputs + o], static_cast<float>(sum),
                                   a.scales[2 * a.outputs + o]);
          a.y[row * a.out + o] =
              fmaf(a.scales[o], static_cast<float>(acc[m][n][2 * side + i]), shift);
        }
      }
    }
  }
}

template <int kWidth>
void product_of(const Product& a) {
  const bool narrow = round_up(a.out, 48) <= round_up(a.out, 64);
  const int64_t columns = divide_up(a.out, narrow ? 48 : 64);
  const dim3 grid(grid_size(divide_up(a.rows, kRows)), grid_size(columns));
  launch(narrow ? coded_kernel<kWidth, 6> : coded_kernel<kWidth, 8>, grid, dim3(kThreads), 0, a);
}

__global__ void __launch_bounds__(kPackThreads)
pack_kernel(PackTarget target, const uint8_t* weight, int64_t storage_bits) {
  const int64_t o = blockIdx.x;
  const uint8_t* row = weight + o * ((target.in * storage_bits + 7) / 8);
  pack_row(target, o, [&](int64_t i) {
    const int64_t bit = i * storage_bits;
    if (storage_bits == 8) return row[i];
    // 1, 2 and 4 bits never cross a byte; 3, 5, 6 and 7 do.
    int window = row[bit / 8] >> (bit % 8);
    if (bit % 8 + storage_bits > 8) window |= row[bit / 8 + 1] << (8 - bit % 8);
    return static_cast<uint8_t>(window & ((1 << storage_bits) - 1));
  });
}

}  // namespace

void pack_coded_linear(const PackCodedLinear& a) {
  const PackTarget target{a.packed.data,       a.x_lower.data, a.x_upper.data,
                          a.weight_lower.data, a.weight_upper.data, a.bias.data,
                          a.in,                a.out,          a.x_bits,
                          a.weight_bits,       a.x_granularity, a.weight_granularity};
  launch(pack_kernel, dim3(grid_size(a.out)), dim3(kPackThreads), 0, target, a.weight.data,
         a.storage_bits);
}

void packed_coded_linear(const PackedCodedLinear& a) {
  const int64_t outputs = scale_stride(a.out);
  const Product product{a.x.data, a.packed.data + 12 * outputs,
                        reinterpret_cast<const float*>(a.packed.data), a.y.data, a.rows,
                        a.in,     a.out,  outputs};
  if (a.x_bits == 1 && a.weight_bits == 1 && a.in >= kFewestBits) return product_of<1>(product);
  const bool native4 = architecture() < kFirst8BitOnly;
  if (native4 && a.x_bits <= 4 && a.weight_bits <= 4) return product_of<4>(product);
  product_of<8>(product);
}

void coded_linear(const CodedLinear& a) {
  Scratch scratch;
  const int64_t bytes = packed_coded_linear_bytes(a.in, a.out);
  const U8 packed = {scratch.take<uint8_t>(bytes), bytes};
  pack_coded_linear({a.weight, a.x_lower, a.x_upper, a.weight_lower, a.weight_upper, a.bias, packed,
                     a.in, a.out, a.x_bits, a.weight_bits, a.x_granularity, a.weight_granularity,
                     a.storage_bits});
  packed_coded_linear({a.x, packed, a.y, a.rows, a.in, a.out, a.x_bits, a.weight_bits});
}

}  // namespace cuda
}  // namespace spr2q
