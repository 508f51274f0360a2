// A coded linear layer with what follows it on each token: its parts one after the other on the
// stream, over scratch. The kernels that keep a token's values in registers from codes to codes are
// those of the fused plan.
#include "device.cuh"

namespace spr2q {
namespace cuda {

void packed_coded_linear(const PackedCodedLinear&);
void gelu(const Gelu&);
void scale(const Scale&);
void add(const Add&);
void scale_add(const ScaleAdd&);
void slice_columns(const SliceColumns&);
void layer_norm(const LayerNorm&);
void quantize(const Quantize&);

void fused_coded_linear(const FusedCodedLinear& a) {
  if (a.rows == 0) return;
  Scratch scratch;
  const int64_t columns = a.out - a.first, size = a.rows * a.out, narrow = a.rows * columns;
  const F32 v = {scratch.take<float>(size), size};
  packed_coded_linear({a.x, a.packed, v, a.rows, a.in, a.out, a.x_bits, a.weight_bits});
  if (a.gelu) gelu({v, v, size});
  if (a.factor != 1) scale({v, v, size, a.factor});
  if (a.added) add({v, a.added, v, size});
  if (a.residual) scale_add({a.residual, a.scale, v, v, a.rows, a.out});
  if (a.y) slice_columns({v, a.y, a.rows, a.out, 0, a.kept});
  F32 n = v;
  if (a.first > 0) {
    n = {scratch.take<float>(narrow), narrow};
    slice_columns({v, n, a.rows, a.out, a.first, columns});
  }
  if (a.norm_weight) {
    const F32 normed = {scratch.take<float>(narrow), narrow};
    layer_norm({n, a.norm_weight, a.norm_bias, normed, a.rows, columns});
    n = normed;
  }
  if (a.codes) quantize({n, a.lower, a.upper, a.codes, a.rows, columns, a.granularity, a.bits});
  if (a.more_codes) {
    quantize({n, a.more_lower, a.more_upper, a.more_codes, a.rows, columns, a.more_granularity,
              a.more_bits});
  }
}

}  // namespace cuda
}  // namespace spr2q
