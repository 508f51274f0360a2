// A coded linear layer and what follows it on each token: its parts, one after the other, by their
// own references.
#include <cstddef>
#include <vector>

#include "../core/ops.hpp"

namespace spr2q {
namespace ops {

void packed_coded_linear(const PackedCodedLinear&);
void gelu(const Gelu&);
void scale(const Scale&);
void add(const Add&);
void scale_add(const ScaleAdd&);
void slice_columns(const SliceColumns&);
void layer_norm(const LayerNorm&);
void quantize(const Quantize&);

void fused_coded_linear(const FusedCodedLinear& a) {
  const int64_t columns = a.out - a.first, size = a.rows * a.out, narrow = a.rows * columns;
  std::vector<float> memory(static_cast<std::size_t>(size));
  std::vector<float> sliced(static_cast<std::size_t>(narrow)), normed(sliced.size());
  const F32 v = {memory.data(), size}, slice = {sliced.data(), narrow};
  const F32 norm = {normed.data(), narrow};
  packed_coded_linear({a.x, a.packed, v, a.rows, a.in, a.out, a.x_bits, a.weight_bits});
  if (a.gelu) gelu({v, v, size});
  if (a.factor != 1) scale({v, v, size, a.factor});
  if (a.added) add({v, a.added, v, size});
  if (a.residual) scale_add({a.residual, a.scale, v, v, a.rows, a.out});
  if (a.y) slice_columns({v, a.y, a.rows, a.out, 0, a.kept});
  slice_columns({v, slice, a.rows, a.out, a.first, columns});
  if (a.norm_weight) layer_norm({slice, a.norm_weight, a.norm_bias, norm, a.rows, columns});
  const F32 n = a.norm_weight ? norm : slice;
  if (a.codes) quantize({n, a.lower, a.upper, a.codes, a.rows, columns, a.granularity, a.bits});
  if (a.more_codes) {
    quantize({n, a.more_lower, a.more_upper, a.more_codes, a.rows, columns, a.more_granularity,
              a.more_bits});
  }
}

}  // namespace ops
}  // namespace spr2q
