// Linear layers on float32 tokens, their gradients, and the transpose: gemm.cuh with the operands
// where each product has them. The gradient of the weight sums over tokens: by splits, added in
// order; the bias gradient is one more column of it, against a column of ones.
#include "gemm.cuh"

namespace spr2q {
namespace cuda {
namespace {

struct Forward {
  static constexpr bool kRowsOfA = true, kRowsOfB = true;
  const float *x, *weight, *bias;
  float* y;
  int64_t in, out;
  __device__ float a(int64_t m, int64_t k) const { return x[m * in + k]; }
  __device__ float b(int64_t k, int64_t n) const { return weight[n * in + k]; }
  __device__ void store(int64_t m, int64_t n, int64_t, float sum) const {
    y[m * out + n] = bias ? sum + bias[n] : sum;
  }
};

struct GradInput {
  static constexpr bool kRowsOfA = true, kRowsOfB = false;
  LinearGradInput g;
  __device__ float a(int64_t m, int64_t k) const { return g.gy.data[m * g.out + k]; }
  __device__ float b(int64_t k, int64_t n) const { return g.weight.data[k * g.in + n]; }
  __device__ void store(int64_t m, int64_t n, int64_t, float sum) const {
    g.gx.data[m * g.in + n] = sum;
  }
};

// m = output, n = input (the last one: the bias), k = token. Parts of a split: (out, in), the bias's
// (out) behind them.
struct GradWeight {
  static constexpr bool kRowsOfA = false, kRowsOfB = false;
  LinearGradWeight g;
  float* parts;
  int64_t columns;
  __device__ float a(int64_t m, int64_t k) const { return g.gy.data[k * g.out + m]; }
  __device__ float b(int64_t k, int64_t n) const {
    return n < g.in ? g.x.data[k * g.in + n] : 1.0f;
  }
  __device__ void store(int64_t m, int64_t n, int64_t split, float sum) const {
    float* here = parts + split * g.out * columns;
    here[n < g.in ? m * g.in + n : g.out * g.in + m] = sum;
  }
};

constexpr int kTransposeTile = 32;
constexpr int kTransposeRows = 8;  // a thread moves 4 values of a 32 x 32 tile

__global__ void __launch_bounds__(kTransposeTile * kTransposeRows) transpose_kernel(Transpose a) {
  __shared__ float tile[kTransposeTile][kTransposeTile + 1];  // + 1: no two rows on one bank
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kTransposeTile;
  const int64_t first_column = static_cast<int64_t>(blockIdx.y) * kTransposeTile;
  for (int i = static_cast<int>(threadIdx.y); i < kTransposeTile; i += kTransposeRows) {
    const int64_t row = first_row + i, column = first_column + threadIdx.x;
    if (row >= a.rows || column >= a.columns) continue;
    tile[i][threadIdx.x] = a.x.data[row * a.columns + column];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.y); i < kTransposeTile; i += kTransposeRows) {
    const int64_t row = first_row + threadIdx.x, column = first_column + i;
    if (row < a.rows && column < a.columns) a.y.data[column * a.rows + row] = tile[threadIdx.x][i];
  }
}

// Packed: the weight as it is, then the bias or zeros.
__global__ void __launch_bounds__(kElementBlock) pack_kernel(PackLinear a) {
  float* packed = reinterpret_cast<float*>(a.packed.data);
  const int64_t size = a.out * a.in;
  for (int64_t i = first_element(); i < size + a.out; i += element_stride()) {
    packed[i] = i < size ? a.weight.data[i] : a.bias ? a.bias.data[i - size] : 0.0f;
  }
}

}  // namespace

void linear(const Linear& a) {
  gemm(Forward{a.x.data, a.weight.data, a.bias.data, a.y.data, a.in, a.out},
       {a.rows, a.out, a.in, a.in});
}

void pack_linear(const PackLinear& a) {
  launch(pack_kernel, dim3(element_grid(a.out * (a.in + 1))), dim3(kElementBlock), 0, a);
}

void packed_linear(const PackedLinear& a) {
  const float* packed = reinterpret_cast<const float*>(a.packed.data);
  gemm(Forward{a.x.data, packed, packed + a.out * a.in, a.y.data, a.in, a.out},
       {a.rows, a.out, a.in, a.in});
}

void linear_grad_input(const LinearGradInput& a) {
  gemm(GradInput{a}, {a.rows, a.in, a.out, a.out});
}

void linear_grad_weight(const LinearGradWeight& a) {
  Scratch scratch;
  const int64_t columns = a.in + (a.gbias ? 1 : 0), n = a.out * columns;
  float* parts = scratch.take<float>(split_count(a.rows) * n);
  gemm(GradWeight{a, parts, columns}, {a.out, columns, a.rows, split_of(a.rows)});
  const int64_t splits = split_count(a.rows), size = a.out * a.in;
  final_sums({{parts, a.gweight.data, splits, size, n},
              {parts + size, a.gbias.data, splits, n - size, n}});
}

void transpose(const Transpose& a) {
  const dim3 grid(grid_size(divide_up(a.rows, kTransposeTile)),
                  grid_size(divide_up(a.columns, kTransposeTile)));
  launch(transpose_kernel, grid, dim3(kTransposeTile, kTransposeRows), 0, a);
}

}  // namespace cuda
}  // namespace spr2q
