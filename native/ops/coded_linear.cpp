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

void coded_linear(const CodedLinear& a) {
  const float x_levels = static_cast<float>((1 << a.x_bits) - 1);
  const float weight_levels = static_cast<float>((1 << a.weight_bits) - 1);
  const bool by_column = a.x_granularity == kColumn, by_row = a.weight_granularity == kRow;
  const float x_range = by_column ? a.x_upper.data[0] : a.x_upper.data[0] - a.x_lower.data[0];
  const float x_step = x_range / x_levels;

  std::vector<int> codes(a.in);
  for (int64_t o = 0; o < a.out; ++o) {
    const uint8_t* row = a.weight.data + o * ((a.in * a.storage_bits + 7) / 8);
    for (int64_t i = 0; i < a.in; ++i) codes[i] = code_at(row, i, a.storage_bits);
    const float lower = a.weight_lower.data[by_row ? o : 0];
    const float step = (a.weight_upper.data[by_row ? o : 0] - lower) / weight_levels;

    double folded = 0.0;
    for (int64_t i = 0; i < a.in; ++i) {
      const double weight = static_cast<double>(step) * codes[i] + lower;
      folded += static_cast<double>(a.x_lower.data[by_column ? i : 0]) * weight;
    }
    const float constant = static_cast<float>((a.bias ? a.bias.data[o] : 0.0) + folded);
    const float product_scale = x_step * step, total_scale = x_step * lower;

    for (int64_t token = 0; token < a.rows; ++token) {
      const uint8_t* x = a.x.data + token * a.in;
      int32_t acc = 0, total = 0;
      for (int64_t i = 0; i < a.in; ++i) {
        acc += x[i] * codes[i];
        total += x[i];
      }
      const float shift = std::fma(total_scale, static_cast<float>(total), constant);
      a.y.data[token * a.out + o] = std::fma(product_scale, static_cast<float>(acc), shift);
    }
  }
}

}  // namespace ops
}  // namespace spr2q
