// Integer depth-wise convolution on codes, fast. Rows are treated as flat runs of width*channels
// codes with a margin of zero codes on either side, which adds nothing to acc = sum q_x q_w and
// total = sum q_x; so no inner loop knows of borders, and only the constant of the epilogue does:
// a row of constants, one per flat position, is built for each border class of rows. A vector of
// kFlat flat positions sees a pattern of channels that repeats after `phases` vectors.
// Two ways to the same integers:
//   * bytes (where 16-bit sums cannot overflow: up to about 6 bit). AVX2 and AVX-512: two input
//     rows interleaved byte by byte meet two kernel rows in one maddubs. NEON: umlal, tap by tap;
//   * floats (everything else): codes and sums as float32, exact below 2^24.
#include "../core/coded_depthwise.hpp"
#include "coder.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int64_t kRows = 16;  // output rows per thread chunk
constexpr int64_t kFlat = 16;  // flat positions per step, on every instruction set

enum Slot { kWeights, kConstants, kScales, kRing, kColumns, kRowConstants, kRow, kOffsets };

int64_t common_divisor(int64_t a, int64_t b) { return b == 0 ? a : common_divisor(b, a % b); }

// What all threads read.
struct Plan {
  int64_t phases, row, margin, pitch;  // row = width*channels codes, pitch = row with its margins
  int64_t row_classes, column_classes;
  const float *scale_s, *scale_r;      // (phases * kFlat)
  const float* constants;              // (row classes, column classes, channels)
  const void* weights;                 // floats or bytes, by the way chosen
};

void arrange_scales(const CodedDepthwiseConv& a, Plan* plan) {
  const int64_t period = plan->phases * kFlat;
  float* s = scratch<float>(kScales, 2 * period);
  float* constants =
      scratch<float>(kConstants, plan->row_classes * plan->column_classes * a.channels);
  for (int64_t c = 0; c < a.channels; ++c) {
    int codes[kMaxDepthwiseTaps];
    depthwise_codes(a, c, codes);
    const DepthwiseScales scales = depthwise_scales(a, c);
    for (int64_t i = c; i < period; i += a.channels) {
      s[i] = scales.s;
      s[period + i] = scales.r;
    }
    for (int64_t i = 0; i < plan->row_classes; ++i) {
      for (int64_t j = 0; j < plan->column_classes; ++j) {
        constants[(i * plan->column_classes + j) * a.channels + c] =
            depthwise_constant(a, scales, codes, c, i, j);
      }
    }
  }
  plan->scale_s = s;
  plan->scale_r = s + period;
  plan->constants = constants;
}

// The constants of one row class along a whole row.
void fill_row_constants(const CodedDepthwiseConv& a, const Plan& plan, int64_t row_class,
                        float* out) {
  for (int64_t column = 0; column < a.width; ++column) {
    const int64_t column_class = border_class(column, a.width, a.kernel);
    const float* source =
        plan.constants + (row_class * plan.column_classes + column_class) * a.channels;
    for (int64_t c = 0; c < a.channels; ++c) out[column * a.channels + c] = source[c];
  }
}

// What the epilogue of one vector needs: y = fma(S, acc, fma(R, total, constant)).
struct Epilogue {
  const float *s, *r, *constants;
  float* y;
  int64_t left;  // flat positions up to the end of the row
};

static inline void finish(const Epilogue& e, int64_t i, VecF acc, VecF total) {
  if (i >= e.left) return;
  const VecF value =
      fma(load(e.s + i), acc, fma(load(e.r + i), total, load(e.constants + i)));
  if (i + kLanes <= e.left) store(e.y + i, value);
  else store_first(e.y + i, value, static_cast<int>(e.left - i));
}

static inline Epilogue epilogue(const Plan& plan, int64_t phase, int64_t at,
                                const float* constants, float* y) {
  return {plan.scale_s + phase * kFlat, plan.scale_r + phase * kFlat, constants + at, y + at,
          plan.row - at};
}

// Input row `row` of the sample, or zeros outside the image.
const uint8_t* input_row(const CodedDepthwiseConv& a, const Plan& plan, int64_t sample,
                         int64_t row) {
  if (row < 0 || row >= a.height) return nullptr;
  return a.x.data + (sample * a.height + row) * plan.row;
}

// Where rows of results go: to y, or multiplied and as codes. Of one thread.
class RowSink {
 public:
  RowSink(const CodedDepthwiseConv& a, const FusedCodedDepthwiseConv* fused)
      : y_(a.y.data), row_(a.width * a.channels), fused_(fused) {
    if (!fused) return;
    y_ = scratch<float>(kRow, row_);
    coder_ = coder(fused->lower, fused->upper, fused->codes, a.channels, fused->granularity,
                   fused->bits, kOffsets);
  }
  // Memory for row `row` of the batch.
  float* begin(int64_t row) const { return fused_ ? y_ : y_ + row * row_; }
  void end(int64_t row) const {
    if (!fused_) return;
    code_products(coder_, fused_->factor.data + row * row_, y_, row_, coder_.codes + row * row_);
  }

 private:
  float* y_;
  int64_t row_;
  const FusedCodedDepthwiseConv* fused_;
  Coder coder_;
};

// ---- codes as floats ------------------------------------------------------------------------

void arrange_float_weights(const CodedDepthwiseConv& a, Plan* plan) {
  const int64_t taps = a.kernel * a.kernel, period = plan->phases * kFlat;
  float* weights = scratch<float>(kWeights, taps * period);
  for (int64_t c = 0; c < a.channels; ++c) {
    int codes[kMaxDepthwiseTaps];
    depthwise_codes(a, c, codes);
    for (int64_t i = c; i < period; i += a.channels) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        weights[(i / kFlat * taps + tap) * kFlat + i % kFlat] = static_cast<float>(codes[tap]);
      }
    }
  }
  plan->weights = weights;
}

// Ring of the kernel's input rows as floats, each with its margins; row r lies in slot r % kernel.
void load_float_row(const uint8_t* codes, const Plan& plan, float* out) {
  out += plan.margin;
  int64_t i = 0;
  if (!codes) {
    for (; i < plan.row; ++i) out[i] = 0.0f;
    return;
  }
  for (; i + 16 <= plan.row; i += kLanes) store(out + i, load_codes(codes + i));
  for (; i < plan.row; ++i) out[i] = static_cast<float>(codes[i]);
}

template <int kKernel>
void float_row(const CodedDepthwiseConv& a, const Plan& plan, const float* ring, int64_t row,
               const float* constants, float* y) {
  constexpr int kParts = static_cast<int>(kFlat) / kLanes;
  for (int64_t at = 0, phase = 0; at < plan.row; at += kFlat) {
    const float* weights = static_cast<const float*>(plan.weights) +
                           phase * kKernel * kKernel * kFlat;
    VecF sums[kParts], codes[kParts];
    for (int p = 0; p < kParts; ++p) sums[p] = codes[p] = splat(0.0f);
    for (int i = 0; i < kKernel; ++i) {
      const int64_t slot = (row + i + kKernel - kKernel / 2) % kKernel;
      const float* x = ring + slot * plan.pitch + at;
      for (int j = 0; j < kKernel; ++j) {
        for (int p = 0; p < kParts; ++p) {
          const VecF value = load(x + j * a.channels + p * kLanes);
          sums[p] = fma(value, load(weights + (i * kKernel + j) * kFlat + p * kLanes), sums[p]);
          codes[p] = codes[p] + value;
        }
      }
    }
    const Epilogue out = epilogue(plan, phase, at, constants, y);
    for (int p = 0; p < kParts; ++p) finish(out, p * kLanes, sums[p], codes[p]);
    if (++phase == plan.phases) phase = 0;
  }
}

template <int kKernel>
void float_rows(const CodedDepthwiseConv& a, const Plan& plan, const RowSink& sink, int64_t sample,
                int64_t first, int64_t last) {
  constexpr int64_t kPad = kKernel / 2;
  float* ring = scratch<float>(kRing, kKernel * plan.pitch);
  float* constants = scratch<float>(kRowConstants, plan.row + kFlat);
  std::memset(ring, 0, kKernel * plan.pitch * sizeof(float));
  const auto bring = [&](int64_t row) {
    load_float_row(input_row(a, plan, sample, row), plan,
                   ring + (row + kKernel) % kKernel * plan.pitch);
  };
  for (int64_t row = first - kPad; row < first + kPad; ++row) bring(row);
  int64_t filled = -1;
  for (int64_t row = first; row < last; ++row) {
    bring(row + kPad);
    const int64_t row_class = border_class(row, a.height, a.kernel);
    if (row_class != filled) fill_row_constants(a, plan, row_class, constants);
    filled = row_class;
    float_row<kKernel>(a, plan, ring, row, constants, sink.begin(sample * a.height + row));
    sink.end(sample * a.height + row);
  }
}

// ---- codes as bytes -------------------------------------------------------------------------

#if defined(__AVX2__)

// Pair row r holds (row r, row r + 1) byte by byte. Output row y takes the pair rows y - pad,
// y - pad + 2, ... against kernel rows (0, 1), (2, 3), (4, nothing).
void arrange_byte_weights(const CodedDepthwiseConv& a, Plan* plan) {
  const int64_t pairs = (a.kernel + 1) / 2, period = plan->phases * kFlat;
  uint8_t* weights = scratch<uint8_t>(kWeights, pairs * a.kernel * period * 2);
  for (int64_t c = 0; c < a.channels; ++c) {
    int codes[kMaxDepthwiseTaps];
    depthwise_codes(a, c, codes);
    for (int64_t i = c; i < period; i += a.channels) {
      for (int64_t k = 0; k < pairs * a.kernel; ++k) {
        const int64_t tap = 2 * (k / a.kernel) * a.kernel + k % a.kernel, below = tap + a.kernel;
        uint8_t* pair = weights + ((i / kFlat * pairs * a.kernel + k) * kFlat + i % kFlat) * 2;
        pair[0] = static_cast<uint8_t>(codes[tap]);
        pair[1] = static_cast<uint8_t>(below < a.kernel * a.kernel ? codes[below] : 0);
      }
    }
  }
  plan->weights = weights;
}

void load_pair_row(const uint8_t* upper, const uint8_t* lower, const Plan& plan, uint8_t* out) {
  out += 2 * plan.margin;
  const __m128i zero = _mm_setzero_si128();
  int64_t i = 0;
  for (; i + 16 <= plan.row; i += 16) {
    const __m128i a = upper ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(upper + i)) : zero;
    const __m128i b = lower ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(lower + i)) : zero;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * i), _mm_unpacklo_epi8(a, b));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * i + 16), _mm_unpackhi_epi8(a, b));
  }
  for (; i < plan.row; ++i) {
    out[2 * i] = upper ? upper[i] : 0;
    out[2 * i + 1] = lower ? lower[i] : 0;
  }
}

static inline __m256i load_bytes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

// 16 unsigned 16-bit sums through the epilogue.
static inline void finish_16(const Epilogue& e, __m256i acc, __m256i total) {
#if defined(__AVX512F__)
  finish(e, 0, {_mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(acc))},
         {_mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(total))});
#else
  const __m128i acc_low = _mm256_castsi256_si128(acc), total_low = _mm256_castsi256_si128(total);
  const __m128i acc_high = _mm256_extracti128_si256(acc, 1);
  const __m128i total_high = _mm256_extracti128_si256(total, 1);
  finish(e, 0, {_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(acc_low))},
         {_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(total_low))});
  finish(e, 8, {_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(acc_high))},
         {_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(total_high))});
#endif
}

// columns[i] = sum of the codes of the kernel's rows at flat position i, margins included.
template <int kPairs>
void sum_columns(const Plan& plan, const uint8_t* const* pairs, uint16_t* columns) {
  const __m256i both = _mm256_set1_epi8(1), upper = _mm256_set1_epi16(1);
  for (int64_t i = 0; i < plan.pitch; i += kFlat) {
    __m256i sums = _mm256_maddubs_epi16(load_bytes(pairs[kPairs - 1] + 2 * i), upper);
    for (int k = 0; k + 1 < kPairs; ++k) {
      sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(load_bytes(pairs[k] + 2 * i), both));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(columns + i), sums);
  }
}

template <int kKernel>
void byte_row(const CodedDepthwiseConv& a, const Plan& plan, const uint8_t* const* pairs,
              const uint16_t* columns, const float* constants, float* y) {
  constexpr int kPairs = (kKernel + 1) / 2, kWeightCount = kPairs * kKernel;
  for (int64_t phase = 0; phase < plan.phases; ++phase) {
    const uint8_t* source = static_cast<const uint8_t*>(plan.weights) +
                            phase * kWeightCount * kFlat * 2;
    __m256i weights[kWeightCount];
#pragma GCC unroll 15
    for (int k = 0; k < kWeightCount; ++k) weights[k] = load_bytes(source + k * kFlat * 2);
    for (int64_t at = phase * kFlat; at < plan.row; at += plan.phases * kFlat) {
      __m256i sums = _mm256_setzero_si256(), codes = sums;
#pragma GCC unroll 5
      for (int j = 0; j < kKernel; ++j) {
        const int64_t from = at + j * a.channels;
        codes = _mm256_add_epi16(codes, load_bytes(columns + from));
#pragma GCC unroll 3
        for (int k = 0; k < kPairs; ++k) {
          sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(load_bytes(pairs[k] + 2 * from),
                                                             weights[k * kKernel + j]));
        }
      }
      finish_16(epilogue(plan, phase, at, constants, y), sums, codes);
    }
  }
}

template <int kKernel>
void byte_rows(const CodedDepthwiseConv& a, const Plan& plan, const RowSink& sink, int64_t sample,
               int64_t first, int64_t last) {
  constexpr int64_t kPad = kKernel / 2;
  constexpr int kPairs = (kKernel + 1) / 2, kSlots = 2 * kPairs - 1;
  uint8_t* ring = scratch<uint8_t>(kRing, kSlots * plan.pitch * 2);
  uint16_t* columns = scratch<uint16_t>(kColumns, plan.pitch);
  float* constants = scratch<float>(kRowConstants, plan.row + kFlat);
  std::memset(ring, 0, kSlots * plan.pitch * 2);
  const auto pair_row = [&](int64_t row) {
    return ring + (row + kSlots) % kSlots * plan.pitch * 2;
  };
  const auto bring = [&](int64_t row) {
    load_pair_row(input_row(a, plan, sample, row), input_row(a, plan, sample, row + 1), plan,
                  pair_row(row));
  };
  const int64_t newest = 2 * (kPairs - 1) - kPad;  // of output row 0
  for (int64_t row = first - kPad; row < first + newest; ++row) bring(row);
  int64_t filled = -1;
  for (int64_t row = first; row < last; ++row) {
    bring(row + newest);
    const int64_t row_class = border_class(row, a.height, a.kernel);
    if (row_class != filled) fill_row_constants(a, plan, row_class, constants);
    filled = row_class;
    const uint8_t* pairs[kPairs];
    for (int k = 0; k < kPairs; ++k) pairs[k] = pair_row(row - kPad + 2 * k);
    sum_columns<kPairs>(plan, pairs, columns);
    byte_row<kKernel>(a, plan, pairs, columns, constants, sink.begin(sample * a.height + row));
    sink.end(sample * a.height + row);
  }
}

// maddubs takes weights as signed bytes, and its 16-bit sums are read as unsigned.
bool fits_bytes(const CodedDepthwiseConv& a) {
  const int64_t product = ((int64_t{1} << a.x_bits) - 1) * ((int64_t{1} << a.weight_bits) - 1);
  return a.weight_bits <= 7 && a.kernel * a.kernel * product <= 65535;
}

#elif defined(SPR2Q_NEON)

void arrange_byte_weights(const CodedDepthwiseConv& a, Plan* plan) {
  const int64_t taps = a.kernel * a.kernel, period = plan->phases * kFlat;
  uint8_t* weights = scratch<uint8_t>(kWeights, taps * period);
  for (int64_t c = 0; c < a.channels; ++c) {
    int codes[kMaxDepthwiseTaps];
    depthwise_codes(a, c, codes);
    for (int64_t i = c; i < period; i += a.channels) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        weights[(i / kFlat * taps + tap) * kFlat + i % kFlat] = static_cast<uint8_t>(codes[tap]);
      }
    }
  }
  plan->weights = weights;
}

// columns[i] = sum of the codes of the kernel's rows at flat position i, margins included.
template <int kKernel>
void sum_columns(const Plan& plan, const uint8_t* const* rows, uint16_t* columns) {
  for (int64_t i = 0; i < plan.pitch; i += kFlat) {
    const uint8x16_t first = vld1q_u8(rows[0] + i);
    uint16x8_t low = vmovl_u8(vget_low_u8(first)), high = vmovl_high_u8(first);
    for (int k = 1; k < kKernel; ++k) {
      const uint8x16_t codes = vld1q_u8(rows[k] + i);
      low = vaddw_u8(low, vget_low_u8(codes));
      high = vaddw_high_u8(high, codes);
    }
    vst1q_u16(columns + i, low);
    vst1q_u16(columns + i + 8, high);
  }
}

// Eight sums of 16 bits through the epilogue.
static inline void finish_8(const Epilogue& e, int64_t i, uint16x8_t acc, uint16x8_t total) {
  finish(e, i, {vcvtq_f32_u32(vmovl_u16(vget_low_u16(acc)))},
         {vcvtq_f32_u32(vmovl_u16(vget_low_u16(total)))});
  finish(e, i + 4, {vcvtq_f32_u32(vmovl_high_u16(acc))}, {vcvtq_f32_u32(vmovl_high_u16(total))});
}

template <int kKernel>
void byte_row(const CodedDepthwiseConv& a, const Plan& plan, const uint8_t* const* rows,
              const uint16_t* columns, const float* constants, float* y) {
  constexpr int kTaps = kKernel * kKernel;
  for (int64_t phase = 0; phase < plan.phases; ++phase) {
    const uint8_t* source = static_cast<const uint8_t*>(plan.weights) + phase * kTaps * kFlat;
    uint8x16_t weights[kTaps];
#pragma GCC unroll 25
    for (int tap = 0; tap < kTaps; ++tap) weights[tap] = vld1q_u8(source + tap * kFlat);
    for (int64_t at = phase * kFlat; at < plan.row; at += plan.phases * kFlat) {
      uint16x8_t low = vdupq_n_u16(0), high = low, low_codes = low, high_codes = low;
#pragma GCC unroll 5
      for (int j = 0; j < kKernel; ++j) {
        const int64_t from = at + j * a.channels;
        low_codes = vaddq_u16(low_codes, vld1q_u16(columns + from));
        high_codes = vaddq_u16(high_codes, vld1q_u16(columns + from + 8));
#pragma GCC unroll 5
        for (int i = 0; i < kKernel; ++i) {
          const uint8x16_t codes = vld1q_u8(rows[i] + from), weight = weights[i * kKernel + j];
          low = vmlal_u8(low, vget_low_u8(codes), vget_low_u8(weight));
          high = vmlal_high_u8(high, codes, weight);
        }
      }
      const Epilogue out = epilogue(plan, phase, at, constants, y);
      finish_8(out, 0, low, low_codes);
      finish_8(out, 8, high, high_codes);
    }
  }
}

// Ring of the kernel's input rows, each with its margins; row r lies in slot r % kernel.
template <int kKernel>
void byte_rows(const CodedDepthwiseConv& a, const Plan& plan, const RowSink& sink, int64_t sample,
               int64_t first, int64_t last) {
  constexpr int64_t kPad = kKernel / 2;
  uint8_t* ring = scratch<uint8_t>(kRing, kKernel * plan.pitch);
  uint16_t* columns = scratch<uint16_t>(kColumns, plan.pitch);
  float* constants = scratch<float>(kRowConstants, plan.row + kFlat);
  std::memset(ring, 0, kKernel * plan.pitch);
  const auto slot = [&](int64_t row) { return ring + (row + kKernel) % kKernel * plan.pitch; };
  const auto bring = [&](int64_t row) {
    const uint8_t* codes = input_row(a, plan, sample, row);
    if (codes) std::memcpy(slot(row) + plan.margin, codes, plan.row);
    else std::memset(slot(row) + plan.margin, 0, plan.row);
  };
  for (int64_t row = first - kPad; row < first + kPad; ++row) bring(row);
  int64_t filled = -1;
  for (int64_t row = first; row < last; ++row) {
    bring(row + kPad);
    const int64_t row_class = border_class(row, a.height, a.kernel);
    if (row_class != filled) fill_row_constants(a, plan, row_class, constants);
    filled = row_class;
    const uint8_t* rows[kKernel];
    for (int k = 0; k < kKernel; ++k) rows[k] = slot(row - kPad + k);
    sum_columns<kKernel>(plan, rows, columns);
    byte_row<kKernel>(a, plan, rows, columns, constants, sink.begin(sample * a.height + row));
    sink.end(sample * a.height + row);
  }
}

bool fits_bytes(const CodedDepthwiseConv& a) {
  const int64_t product = ((int64_t{1} << a.x_bits) - 1) * ((int64_t{1} << a.weight_bits) - 1);
  return a.kernel * a.kernel * product <= 65535;
}

#endif

void convolve(const CodedDepthwiseConv& a, const FusedCodedDepthwiseConv* fused) {
  Plan plan = {};
  plan.phases = a.channels / common_divisor(a.channels, kFlat);
  plan.row = a.width * a.channels;
  plan.margin = a.kernel / 2 * a.channels;
  plan.pitch = (plan.row + 2 * plan.margin + 2 * kFlat - 1) / kFlat * kFlat;
  plan.row_classes = border_class_count(a.height, a.kernel);
  plan.column_classes = border_class_count(a.width, a.kernel);
  arrange_scales(a, &plan);
  bool bytes = false;
#if defined(__AVX2__) || defined(SPR2Q_NEON)
  bytes = fits_bytes(a);
  if (bytes) arrange_byte_weights(a, &plan);
#endif
  if (!bytes) arrange_float_weights(a, &plan);
  const int64_t chunks = (a.height + kRows - 1) / kRows;
  parallel_for(a.batch * chunks, 1, [&](int64_t begin, int64_t end) {
    const RowSink sink(a, fused);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t sample = unit / chunks, first = unit % chunks * kRows;
      const int64_t last = first + kRows < a.height ? first + kRows : a.height;
#if defined(__AVX2__) || defined(SPR2Q_NEON)
      if (bytes) {
        if (a.kernel == 3) byte_rows<3>(a, plan, sink, sample, first, last);
        else byte_rows<5>(a, plan, sink, sample, first, last);
        continue;
      }
#endif
      if (a.kernel == 3) float_rows<3>(a, plan, sink, sample, first, last);
      else float_rows<5>(a, plan, sink, sample, first, last);
    }
  });
}

}  // namespace

void coded_depthwise_conv(const CodedDepthwiseConv& a) { convolve(a, nullptr); }

void fused_coded_depthwise_conv(const FusedCodedDepthwiseConv& a) {
  convolve(a.convolution({nullptr, 0}), &a);
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
