// A coded linear layer with what follows it on each token, in one kernel (fused_rows.cuh).
#include "fused_rows.cuh"

namespace spr2q {
namespace cuda {
namespace {

template <int kWidth, int kTilesN>
__global__ void __launch_bounds__(kProductThreads) fused_kernel(Fused a) {
  SPR2Q_DYNAMIC_SHARED(float, tile);
  __shared__ FusedStaging<kTilesN> staged;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kFusedRows;
  fused_rows<kWidth, kTilesN>(a, rows_from(first, a.product.rows, kFusedRows), staged, tile);
}

template <int kWidth>
void run(const Fused& a) {
  const auto kernel = is_narrow(a.product.out) ? fused_kernel<kWidth, 6> : fused_kernel<kWidth, 8>;
  const int64_t tile = tile_bytes(a), staged = sizeof(FusedStaging<8>);
  // Together with what coded_product stages, a wide tile is more than a kernel has unasked.
  if (!failed() && tile + staged > kPlainSharedBytes) {
    allow_shared(reinterpret_cast<const void*>(kernel), tile);
  }
  launch(kernel, dim3(grid_size(divide_up(a.product.rows, kFusedRows))), dim3(kProductThreads),
         tile, a);
}

}  // namespace

void fused_coded_linear(const FusedCodedLinear& a) {
  switch (product_width(a.x_bits, a.weight_bits, a.in)) {
    case 1: return run<1>(fused_of(a));
    case 4: return run<4>(fused_of(a));
    default: return run<8>(fused_of(a));
  }
}

}  // namespace cuda
}  // namespace spr2q
