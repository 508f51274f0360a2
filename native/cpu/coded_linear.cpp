// Fast linear layer on integer codes: packing into the panels of code_product.hpp, and their product.
#include "code_product.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int64_t kRowsPerTask = 768;  // rows a thread takes at once: some 20 us of work
enum Slot { kPacked, kTile };  // of the caller, and of the thread that runs a task

static inline int code_at(const uint8_t* row, int64_t i, int64_t bits) {
  const int64_t bit = i * bits;
  return row[bit >> 3] >> (bit & 7) & ((1 << bits) - 1);
}

template <class Dot>
static void pack_codes(const PackCodedLinear& a, const Plan& plan) {
  auto* panel = static_cast<typename Dot::Weight*>(plan.panel);
  const int64_t row_bytes = (a.in * a.storage_bits + 7) / 8;
  std::memset(panel, 0, static_cast<size_t>(plan.steps * plan.width * Dot::kCodes) *
                            sizeof(typename Dot::Weight));
  for (int64_t o = 0; o < a.out; ++o) {
    for (int64_t i = 0; i < a.in; ++i) {
      const int code = code_at(a.weight.data + o * row_bytes, i, a.storage_bits);
      panel[(i / Dot::kCodes * plan.width + o) * Dot::kCodes + i % Dot::kCodes] =
          static_cast<typename Dot::Weight>(code - plan.weight_offset);
    }
  }
}

// Scales and constants, by the formulas of ops.hpp: float32 products, one double sum per output.
static void fill_epilogue(const PackCodedLinear& a, const Plan& plan) {
  const float x_levels = static_cast<float>((1 << a.x_bits) - 1);
  const float weight_levels = static_cast<float>((1 << a.weight_bits) - 1);
  const bool by_column = a.x_granularity == kColumn, by_row = a.weight_granularity == kRow;
  const float x_range = by_column ? a.x_upper.data[0] : a.x_upper.data[0] - a.x_lower.data[0];
  const float x_step = x_range / x_levels;
  const int64_t row_bytes = (a.in * a.storage_bits + 7) / 8;
  std::memset(plan.product_scale, 0, static_cast<size_t>(3 * plan.width) * sizeof(float));
  for (int64_t o = 0; o < a.out; ++o) {
    const float lower = a.weight_lower.data[by_row ? o : 0];
    const float step = (a.weight_upper.data[by_row ? o : 0] - lower) / weight_levels;
    double folded = 0.0;
    for (int64_t i = 0; i < a.in; ++i) {
      const int code = code_at(a.weight.data + o * row_bytes, i, a.storage_bits);
      const double weight = static_cast<double>(step) * code + lower;
      folded += static_cast<double>(a.x_lower.data[by_column ? i : 0]) * weight;
    }
    plan.product_scale[o] = x_step * step;
    plan.total_scale[o] = x_step * lower;
    plan.constant[o] = static_cast<float>((a.bias ? a.bias.data[o] : 0.0) + folded);
  }
}

}  // namespace

void pack_coded_linear(const PackCodedLinear& a) {
#if defined(__AVX512F__) || defined(SPR2Q_NEON)
  const bool binary = is_binary(a);  // first: where it has to be found out, scratch is used
#endif
  with_dot(a, [&](Plan plan, auto dot) {
    typedef decltype(dot) Dot;
    fill_epilogue(a, plan);
#if defined(__AVX512F__)
    if (binary) {
      pack_bits(a.weight.data, a.storage_bits, a.in, a.out, plan.width,
                static_cast<uint64_t*>(plan.panel));
      return;
    }
#elif defined(SPR2Q_NEON)
    if (binary) {
      pack_bits(a.weight.data, a.storage_bits, a.in, a.out, plane_width(a.out),
                static_cast<uint8_t*>(plan.panel));
      return;
    }
#endif
    pack_codes<Dot>(a, plan);
  });
}

void packed_coded_linear(const PackedCodedLinear& a) {
  with_product<true>(a, kTile, [&](auto product) {
    parallel_for(a.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
      product(begin, end, a.y.data + begin * a.out);
    });
  });
}

void coded_linear(const CodedLinear& a) {
  const int64_t bytes = packed_coded_linear_bytes(a.in, a.out);
  const U8 packed = {scratch<uint8_t>(kPacked, bytes), bytes};
  pack_coded_linear({a.weight, a.x_lower, a.x_upper, a.weight_lower, a.weight_upper, a.bias, packed,
                     a.in, a.out, a.x_bits, a.weight_bits, a.x_granularity, a.weight_granularity,
                     a.storage_bits});
  packed_coded_linear({a.x, packed, a.y, a.rows, a.in, a.out, a.x_bits, a.weight_bits});
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
