// Linear layer on integer codes, on the tensor cores (coded_product.cuh), and its packing.
#include "coded_product.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kTilesM = 2;  // 16-row tiles of a warp
constexpr int kRows = kProductRows<kTilesM>;

template <int kWidth, int kTilesN>
__global__ void __launch_bounds__(kProductThreads) coded_kernel(Product a) {
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kRows;
  const int64_t first_column = static_cast<int64_t>(blockIdx.y) * 8 * kTilesN;
  __shared__ Staging<kTilesM, kTilesN> staged;
  const Rows rows = rows_from(first_row, a.rows, kRows);
  coded_product<kWidth>(a, rows, first_column, staged, [&](int row, int column, float value) {
    a.y[(first_row + row) * a.out + first_column + column] = value;
  });
}

template <int kWidth>
void product_of(const Product& a) {
  const bool narrow = is_narrow(a.out);
  const int64_t columns = divide_up(a.out, narrow ? 48 : 64);
  const dim3 grid(grid_size(divide_up(a.rows, kRows)), grid_size(columns));
  launch(narrow ? coded_kernel<kWidth, 6> : coded_kernel<kWidth, 8>, grid, dim3(kProductThreads), 0, a);
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
  const Product product = product_of_packed(a.x, a.packed, a.y.data, a.rows, a.in, a.out);
  switch (product_width(a.x_bits, a.weight_bits, a.in)) {
    case 1: return product_of<1>(product);
    case 4: return product_of<4>(product);
    default: return product_of<8>(product);
  }
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
