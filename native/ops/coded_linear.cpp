// Linear layer on integer codes: x codes (rows,in), one a byte; weight codes (out,in) packed at
// storage_bits, each row starting on a byte, the first code in the lowest bits. With
// x = step_x q_x + lower_x and w = step_w q_w + lower_w the product splits into two exact integer
// sums per output, acc = sum q_x q_w and total = sum q_x, and a constant that the codes of x do
// not touch. The float epilogue is two fused multiply-adds in a fixed order: every backend gives
// the same bits.
#include <cmath>
#include <vector>

#include "../core/ops.hpp"

namespace spr2q {
namespace ops {
namespace {

int code_at(const uint8_t* row, int64_t i, int64_t bits) {
  const int64_t bit = i * bits;
  return row[bit / 8] >> (bit % 8) & ((1 << bits) - 1);
}

}  // namespace

// Packed: product_scale, total_scale and constant (out each), then the codes (out,in), one a byte.
void pack_coded_linear(const PackCodedLinear& a) {
  const float x_levels = static_cast<float>((1 << a.x_bits) - 1);
  const float weight_levels = static_cast<float>((1 << a.weight_bits) - 1);
  const bool by_column = a.x_granularity == kColumn, by_row = a.weight_granularity == kRow;
  const float x_range = by_column ? a.x_upper.data[0] : a.x_upper.data[0] - a.x_lower.data[0];
  const float x_step = x_range / x_levels;
  float* scales = reinterpret_cast<float*>(a.packed.data);
  uint8_t* codes = a.packed.data + 12 * a.out;
  for (int64_t o = 0; o < a.out; ++o, codes += a.in) {
    const uint8_t* row = a.weight.data + o * ((a.in * a.storage_bits + 7) / 8);
    const float lower = a.weight_lower.data[by_row ? o : 0];
    const float step = (a.weight_upper.data[by_row ? o : 0] - lower) / weight_levels;
    double folded = 0.0;
    for (int64_t i = 0; i < a.in; ++i) {
      codes[i] = static_cast<uint8_t>(code_at(row, i, a.storage_bits));
      const double weight = static_cast<double>(step) * codes[i] + lower;
      folded += static_cast<double>(a.x_lower.data[by_column ? i : 0]) * weight;
    }
    scales[o] = x_step * step;
    scales[a.out + o] = x_step * lower;
    scales[2 * a.out + o] = static_cast<float>((a.bias ? a.bias.data[o] : 0.0) + folded);
  }
}

void packed_coded_linear(const PackedCodedLinear& a) {
  const float* scales = reinterpret_cast<const float*>(a.packed.data);
  const uint8_t* codes = a.packed.data + 12 * a.out;
  for (int64_t token = 0; token < a.rows; ++token) {
    const uint8_t* x = a.x.data + token * a.in;
    for (int64_t o = 0; o < a.out; ++o) {
      int32_t acc = 0, total = 0;
      for (int64_t i = 0; i < a.in; ++i) {
        acc += x[i] * codes[o * a.in + i];
        total += x[i];
      }
      const float constant = scales[2 * a.out + o];
      const float shift = std::fma(scales[a.out + o], static_cast<float>(total), constant);
      a.y.data[token * a.out + o] = std::fma(scales[o], static_cast<float>(acc), shift);
    }
  }
}

void coded_linear(const CodedLinear& a) {
  std::vector<uint8_t> memory(static_cast<size_t>(packed_coded_linear_bytes(a.in, a.out)));
  const U8 packed = {memory.data(), static_cast<int64_t>(memory.size())};
  pack_coded_linear({a.weight, a.x_lower, a.x_upper, a.weight_lower, a.weight_upper, a.bias, packed,
                     a.in, a.out, a.x_bits, a.weight_bits, a.x_granularity, a.weight_granularity,
                     a.storage_bits});
  packed_coded_linear({a.x, packed, a.y, a.rows, a.in, a.out, a.x_bits, a.weight_bits});
}

}  // namespace ops
}  // namespace spr2q
