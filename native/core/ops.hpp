// The op vocabulary: one argument struct per op, in the order of the native boundary.
//
// This header is the manual of the native half. A backend implements each op as a function that
// takes its struct; native/ops has the readable reference, native/cpu the fast version, both in a
// file of the op's family. Reading rules:
//   * Tensors are row-major and token-major: (rows, channels) or (batch, height, width, channels).
//   * `rows` counts tokens of the whole batch. Outputs are written, never added to, unless said.
//   * "optional" operands may be absent (nullptr). Outputs must not alias inputs unless said.
//   * Gradients: gX is dL/dX. Codes are one byte each, 0 ... 2^bits - 1.
//   * Quantiser bounds: granularity kTensor: lower(1), upper(1); kRow: lower(rows), upper(rows);
//     kColumn: lower(columns) and ONE common range, upper(1) = range: x ~ lower[c] + range/L * q.
//     L = 2^bits - 1, inverse = L/(upper-lower) and step = (upper-lower)/L in float32;
//     u = min(max((x-lower)*inverse, 0), L), q = round_half_even(u), value = fma(step, q, lower).
// check() returns a message where an operand is missing or too small: the addon calls it once, so
// that no kernel has to.
#pragma once
#include <initializer_list>

#include "tensor.hpp"

namespace spr2q {

enum Granularity : int64_t { kTensor = 0, kRow = 1, kColumn = 2 };
enum ProbabilityCodes : int64_t { kFloat = 0, kUniform = 1, kHalfExponent = 2 };
enum RoutingMode : int64_t { kArgmax = 0, kSampled = 1 };

#define SPR2Q_FIELDS(...)                     \
  template <class Visitor>                    \
  void visit(Visitor& visitor) {              \
    visitor.fields(#__VA_ARGS__, __VA_ARGS__); \
  }
#define SPR2Q_NEED(condition) \
  if (!(condition)) return "needs " #condition

template <class View>
static inline bool absent_or(const View& view, int64_t size) {
  return view.data == nullptr || view.size >= size;
}
static inline int64_t bound_count(int64_t granularity, int64_t rows, int64_t columns) {
  return granularity == kTensor ? 1 : granularity == kRow ? rows : columns;
}
static inline int64_t upper_count(int64_t granularity, int64_t rows) {
  return granularity == kRow ? rows : 1;
}

// ---- products ------------------------------------------------------------------------------

// y(rows,out) = x(rows,in) weight(out,in)^T + bias(out), bias optional.
struct Linear {
  F32 x, weight, bias, y;
  int64_t rows, in, out;
  SPR2Q_FIELDS(x, weight, bias, y, rows, in, out)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && in > 0 && out > 0);
    SPR2Q_NEED(x.size >= rows * in && weight.size >= out * in && y.size >= rows * out);
    SPR2Q_NEED(absent_or(bias, out));
    return nullptr;
  }
};

// gx(rows,in) = gy(rows,out) weight(out,in).
struct LinearGradInput {
  F32 gy, weight, gx;
  int64_t rows, in, out;
  SPR2Q_FIELDS(gy, weight, gx, rows, in, out)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && in > 0 && out > 0);
    SPR2Q_NEED(gx.size >= rows * in && weight.size >= out * in && gy.size >= rows * out);
    return nullptr;
  }
};

// gweight(out,in) = gy^T x, gbias(out) = column sums of gy (optional).
struct LinearGradWeight {
  F32 gy, x, gweight, gbias;
  int64_t rows, in, out;
  SPR2Q_FIELDS(gy, x, gweight, gbias, rows, in, out)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && in > 0 && out > 0);
    SPR2Q_NEED(x.size >= rows * in && gweight.size >= out * in && gy.size >= rows * out);
    SPR2Q_NEED(absent_or(gbias, out));
    return nullptr;
  }
};

// Integer product on codes, the quantised twin of Linear (specs: y = (s_x q_x + a_x)(s_w q_w + a_w)).
// x codes (rows,in) with bounds of granularity kTensor or kColumn over `in`; weight codes packed at
// `weight_bits` (8, 4, 2 or 1) per code, each of the `out` rows starting on a byte, little-endian
// within the byte; weight bounds kTensor or kRow over `out`. acc = sum q_x q_w and total = sum q_x
// are exact integers; y = fma(S, float(acc), fma(R, float(total), constant)), with
// S = step_x*step_w[o], R = step_x*lower_w[o] (float32 products) and constant =
// float32(bias[o] + sum_c lower_x[c] * (step_w[o]*q_w + lower_w[o])) summed in double.
struct CodedLinear {
  U8 x, weight;
  F32 x_lower, x_upper, weight_lower, weight_upper, bias, y;
  int64_t rows, in, out, x_bits, weight_bits, x_granularity, weight_granularity, storage_bits;
  // storage_bits: width at which weight codes are stored (8 = one a byte), >= weight_bits.
  SPR2Q_FIELDS(x, weight, x_lower, x_upper, weight_lower, weight_upper, bias, y, rows, in, out,
               x_bits, weight_bits, x_granularity, weight_granularity, storage_bits)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && in > 0 && out > 0);
    SPR2Q_NEED(x_bits >= 1 && x_bits <= 8 && weight_bits >= 1 && weight_bits <= 8);
    SPR2Q_NEED(storage_bits == 8 || storage_bits == weight_bits);
    SPR2Q_NEED(x_granularity == kTensor || x_granularity == kColumn);
    SPR2Q_NEED(weight_granularity == kTensor || weight_granularity == kRow);
    SPR2Q_NEED(x.size >= rows * in && y.size >= rows * out);
    SPR2Q_NEED(weight.size >= out * ((in * storage_bits + 7) / 8));
    SPR2Q_NEED(x_lower.size >= bound_count(x_granularity, rows, in) && x_upper.size >= 1);
    SPR2Q_NEED(weight_lower.size >= bound_count(weight_granularity, out, in));
    SPR2Q_NEED(weight_upper.size >= upper_count(weight_granularity, out));
    SPR2Q_NEED(absent_or(bias, out));
    return nullptr;
  }
};

// Cross-correlation, stride 1, zero padding kernel/2: x(batch,height,width,in),
// weight(out,in,kernel,kernel), bias(out) optional, y(batch,height,width,out).
struct Conv2d {
  F32 x, weight, bias, y;
  int64_t batch, height, width, in, out, kernel;
  SPR2Q_FIELDS(x, weight, bias, y, batch, height, width, in, out, kernel)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && in > 0 && out > 0);
    SPR2Q_NEED(kernel == 1 || kernel == 3 || kernel == 5);
    SPR2Q_NEED(x.size >= batch * height * width * in && y.size >= batch * height * width * out);
    SPR2Q_NEED(weight.size >= out * in * kernel * kernel && absent_or(bias, out));
    return nullptr;
  }
};

struct Conv2dGradInput {
  F32 gy, weight, gx;
  int64_t batch, height, width, in, out, kernel;
  SPR2Q_FIELDS(gy, weight, gx, batch, height, width, in, out, kernel)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && in > 0 && out > 0);
    SPR2Q_NEED(kernel == 1 || kernel == 3 || kernel == 5);
    SPR2Q_NEED(gx.size >= batch * height * width * in && gy.size >= batch * height * width * out);
    SPR2Q_NEED(weight.size >= out * in * kernel * kernel);
    return nullptr;
  }
};

struct Conv2dGradWeight {
  F32 gy, x, gweight, gbias;
  int64_t batch, height, width, in, out, kernel;
  SPR2Q_FIELDS(gy, x, gweight, gbias, batch, height, width, in, out, kernel)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && in > 0 && out > 0);
    SPR2Q_NEED(kernel == 1 || kernel == 3 || kernel == 5);
    SPR2Q_NEED(x.size >= batch * height * width * in && gy.size >= batch * height * width * out);
    SPR2Q_NEED(gweight.size >= out * in * kernel * kernel && absent_or(gbias, out));
    return nullptr;
  }
};

// Depth-wise cross-correlation, zero padding: weight(channels,kernel,kernel), kernel 3 or 5.
struct DepthwiseConv {
  F32 x, weight, bias, y;
  int64_t batch, height, width, channels, kernel;
  SPR2Q_FIELDS(x, weight, bias, y, batch, height, width, channels, kernel)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && channels > 0);
    SPR2Q_NEED(kernel == 3 || kernel == 5);
    SPR2Q_NEED(x.size >= batch * height * width * channels);
    SPR2Q_NEED(y.size >= batch * height * width * channels);
    SPR2Q_NEED(weight.size >= channels * kernel * kernel && absent_or(bias, channels));
    return nullptr;
  }
};

struct DepthwiseConvGradInput {
  F32 gy, weight, gx;
  int64_t batch, height, width, channels, kernel;
  SPR2Q_FIELDS(gy, weight, gx, batch, height, width, channels, kernel)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && channels > 0);
    SPR2Q_NEED(kernel == 3 || kernel == 5);
    SPR2Q_NEED(gx.size >= batch * height * width * channels);
    SPR2Q_NEED(gy.size >= batch * height * width * channels);
    SPR2Q_NEED(weight.size >= channels * kernel * kernel);
    return nullptr;
  }
};

struct DepthwiseConvGradWeight {
  F32 gy, x, gweight, gbias;
  int64_t batch, height, width, channels, kernel;
  SPR2Q_FIELDS(gy, x, gweight, gbias, batch, height, width, channels, kernel)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && channels > 0);
    SPR2Q_NEED(kernel == 3 || kernel == 5);
    SPR2Q_NEED(x.size >= batch * height * width * channels);
    SPR2Q_NEED(gy.size >= batch * height * width * channels);
    SPR2Q_NEED(gweight.size >= channels * kernel * kernel && absent_or(gbias, channels));
    return nullptr;
  }
};

// Integer depth-wise convolution on codes. A padded pixel is real 0, off the grid, so only taps
// inside the image count: acc = sum q_x q_w, total = sum q_x over those taps, and
// y = fma(S, acc, fma(R, total, constant)), constant[c] = float32(bias + lower_x * sum of
// (step_w q_w + lower_w) over the same taps), in double: one value per border class and channel.
// x bounds kTensor or kColumn (per channel), weight bounds kTensor or kRow (per channel).
struct CodedDepthwiseConv {
  U8 x, weight;
  F32 x_lower, x_upper, weight_lower, weight_upper, bias, y;
  int64_t batch, height, width, channels, kernel, x_bits, weight_bits, x_granularity,
      weight_granularity, storage_bits;
  SPR2Q_FIELDS(x, weight, x_lower, x_upper, weight_lower, weight_upper, bias, y, batch, height,
               width, channels, kernel, x_bits, weight_bits, x_granularity, weight_granularity,
               storage_bits)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && channels > 0);
    SPR2Q_NEED(kernel == 3 || kernel == 5);
    SPR2Q_NEED(x_bits >= 1 && x_bits <= 8 && weight_bits >= 1 && weight_bits <= 8);
    SPR2Q_NEED(storage_bits == 8 || storage_bits == weight_bits);
    SPR2Q_NEED(x_granularity == kTensor || x_granularity == kColumn);
    SPR2Q_NEED(weight_granularity == kTensor || weight_granularity == kRow);
    SPR2Q_NEED(x.size >= batch * height * width * channels);
    SPR2Q_NEED(y.size >= batch * height * width * channels);
    SPR2Q_NEED(weight.size >= channels * ((kernel * kernel * storage_bits + 7) / 8));
    SPR2Q_NEED(x_lower.size >= bound_count(x_granularity, 1, channels) && x_upper.size >= 1);
    SPR2Q_NEED(weight_lower.size >= bound_count(weight_granularity, channels, 1));
    SPR2Q_NEED(weight_upper.size >= upper_count(weight_granularity, channels));
    SPR2Q_NEED(absent_or(bias, channels));
    return nullptr;
  }
};

// ---- rows and elements ----------------------------------------------------------------------

// y = (x - mean) / sqrt(variance + 1e-5) * weight + bias over the channels of each row.
struct LayerNorm {
  F32 x, weight, bias, y;
  int64_t rows, channels;
  SPR2Q_FIELDS(x, weight, bias, y, rows, channels)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && channels > 0);
    SPR2Q_NEED(x.size >= rows * channels && y.size >= rows * channels);
    SPR2Q_NEED(weight.size >= channels && bias.size >= channels);
    return nullptr;
  }
};

struct LayerNormGrad {
  F32 x, weight, gy, gx, gweight, gbias;
  int64_t rows, channels;
  SPR2Q_FIELDS(x, weight, gy, gx, gweight, gbias, rows, channels)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && channels > 0);
    SPR2Q_NEED(x.size >= rows * channels && gy.size >= rows * channels);
    SPR2Q_NEED(gx.size >= rows * channels && weight.size >= channels);
    SPR2Q_NEED(gweight.size >= channels && gbias.size >= channels);
    return nullptr;
  }
};

// Element-wise ops over n values; outputs may alias inputs in Add and Multiply.
#define SPR2Q_ELEMENTWISE(Name, ...)                                  \
  struct Name {                                                       \
    F32 __VA_ARGS__;                                                  \
    int64_t n;                                                        \
    SPR2Q_FIELDS(__VA_ARGS__, n)                                      \
    const char* check() const {                                       \
      for (const F32& view : {__VA_ARGS__}) SPR2Q_NEED(view.size >= n); \
      return nullptr;                                                 \
    }                                                                 \
  };
SPR2Q_ELEMENTWISE(Gelu, x, y)                             // x/2 (1 + erf(x/sqrt 2)), exact
SPR2Q_ELEMENTWISE(GeluGrad, x, gy, gx)
SPR2Q_ELEMENTWISE(SigmoidGate, x, gate, y)                // x * sigmoid(gate)
SPR2Q_ELEMENTWISE(SigmoidGateGrad, x, gate, gy, gx, ggate)
SPR2Q_ELEMENTWISE(Multiply, a, b, y)
SPR2Q_ELEMENTWISE(Add, a, b, y)
SPR2Q_ELEMENTWISE(NegativeExp, x, y)                      // -exp(x); its gradient is y * gy

// y = factor * x.
struct Scale {
  F32 x, y;
  int64_t n;
  double factor;
  SPR2Q_FIELDS(x, y, n, factor)
  const char* check() const {
    SPR2Q_NEED(x.size >= n && y.size >= n);
    return nullptr;
  }
};

// y(rows,channels) = scale(channels) * x + a.
struct ScaleAdd {
  F32 x, scale, a, y;
  int64_t rows, channels;
  SPR2Q_FIELDS(x, scale, a, y, rows, channels)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && channels > 0 && scale.size >= channels);
    SPR2Q_NEED(x.size >= rows * channels && a.size >= rows * channels);
    SPR2Q_NEED(y.size >= rows * channels);
    return nullptr;
  }
};

// gx = scale * gy, gscale = column sums of x * gy; the gradient of `a` is gy itself.
struct ScaleAddGrad {
  F32 x, scale, gy, gx, gscale;
  int64_t rows, channels;
  SPR2Q_FIELDS(x, scale, gy, gx, gscale, rows, channels)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && channels > 0 && scale.size >= channels && gscale.size >= channels);
    SPR2Q_NEED(x.size >= rows * channels && gy.size >= rows * channels);
    SPR2Q_NEED(gx.size >= rows * channels);
    return nullptr;
  }
};

// y(rows,count) = columns start ... start+count-1 of x(rows,columns).
struct SliceColumns {
  F32 x, y;
  int64_t rows, columns, start, count;
  SPR2Q_FIELDS(x, y, rows, columns, start, count)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && start >= 0 && count > 0 && start + count <= columns);
    SPR2Q_NEED(x.size >= rows * columns && y.size >= rows * count);
    return nullptr;
  }
};

// Writes gy into those columns of gx and zeros into the others.
struct SliceColumnsGrad {
  F32 gy, gx;
  int64_t rows, columns, start, count;
  SPR2Q_FIELDS(gy, gx, rows, columns, start, count)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && start >= 0 && count > 0 && start + count <= columns);
    SPR2Q_NEED(gx.size >= rows * columns && gy.size >= rows * count);
    return nullptr;
  }
};

// y(columns,rows) = x(rows,columns)^T.
struct Transpose {
  F32 x, y;
  int64_t rows, columns;
  SPR2Q_FIELDS(x, y, rows, columns)
  const char* check() const {
    SPR2Q_NEED(x.size >= rows * columns && y.size >= rows * columns);
    return nullptr;
  }
};

// y[i] = x[index[i]] / y[index[i]] = x[i], row by row; index is a permutation of 0 ... rows-1
// (entries outside are refused by the kernels by skipping the row).
struct GatherRows {
  F32 x;
  I32 index;
  F32 y;
  int64_t rows, channels;
  SPR2Q_FIELDS(x, index, y, rows, channels)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && channels > 0 && index.size >= rows);
    SPR2Q_NEED(x.size >= rows * channels && y.size >= rows * channels);
    return nullptr;
  }
};
struct ScatterRows {
  F32 x;
  I32 index;
  F32 y;
  int64_t rows, channels;
  SPR2Q_FIELDS(x, index, y, rows, channels)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && channels > 0 && index.size >= rows);
    SPR2Q_NEED(x.size >= rows * channels && y.size >= rows * channels);
    return nullptr;
  }
};

// x(batch,height,width,channels) -> y(batch,padded_height,padded_width,channels), symmetric
// padding below and right (row height+i repeats row height-1-i), minus mean(channels).
struct PadImage {
  F32 x, mean, y;
  int64_t batch, height, width, padded_height, padded_width, channels;
  SPR2Q_FIELDS(x, mean, y, batch, height, width, padded_height, padded_width, channels)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && height > 0 && width > 0 && channels > 0 && mean.size >= channels);
    SPR2Q_NEED(padded_height >= height && padded_height <= 2 * height);
    SPR2Q_NEED(padded_width >= width && padded_width <= 2 * width);
    SPR2Q_NEED(x.size >= batch * height * width * channels);
    SPR2Q_NEED(y.size >= batch * padded_height * padded_width * channels);
    return nullptr;
  }
};

// x(batch,height,width,channels*scale^2) -> y(batch,out_height,out_width,channels), cropped top
// left, plus mean(channels): y[Y,X,c] = x[Y/s, X/s, c*s*s + (Y%s)*s + X%s] + mean[c].
struct PixelShuffle {
  F32 x, mean, y;
  int64_t batch, height, width, channels, scale, out_height, out_width;
  SPR2Q_FIELDS(x, mean, y, batch, height, width, channels, scale, out_height, out_width)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && scale >= 1 && channels > 0 && mean.size >= channels);
    SPR2Q_NEED(height > 0 && width > 0 && out_height >= 0 && out_width >= 0);
    SPR2Q_NEED(out_height <= height * scale && out_width <= width * scale);
    SPR2Q_NEED(x.size >= batch * height * width * channels * scale * scale);
    SPR2Q_NEED(y.size >= batch * out_height * out_width * channels);
    return nullptr;
  }
};
// gx gets zeros where the crop dropped pixels.
struct PixelShuffleGrad {
  F32 gy, gx;
  int64_t batch, height, width, channels, scale, out_height, out_width;
  SPR2Q_FIELDS(gy, gx, batch, height, width, channels, scale, out_height, out_width)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && scale >= 1 && channels > 0);
    SPR2Q_NEED(height > 0 && width > 0 && out_height >= 0 && out_width >= 0);
    SPR2Q_NEED(out_height <= height * scale && out_width <= width * scale);
    SPR2Q_NEED(gx.size >= batch * height * width * channels * scale * scale);
    SPR2Q_NEED(gy.size >= batch * out_height * out_width * channels);
    return nullptr;
  }
};

// ---- attention and state space --------------------------------------------------------------

// (Shifted) window attention. q, k, v, y: (batch*height*width, heads*head_dim), head-major; q is
// already scaled. bias_table((2w-1)^2, heads), logit of (query (y,x), key (y',x')) in a window gets
// bias_table[(y-y'+w-1)*(2w-1) + x-x'+w-1, head]. With shift > 0 the image is rolled by -shift and
// pairs whose rolled positions carry different labels get -100 (rows: 0 below height-w, 1 below
// height-shift, else 2; columns alike). probability_codes: kFloat; kUniform: softmax, then Eq. 1
// with probability_bounds (lower, upper) at `bits`; kHalfExponent: q = round(L exp((l-max)/2)),
// out = sum q^2 v / sum q^2. Optional output probabilities(batch*windows, heads, w*w, w*w): softmax
// before any quantiser, for calibration. height and width are multiples of window.
#define SPR2Q_ATTENTION_CHECK(tokens_of)                                                      \
  SPR2Q_NEED(batch >= 0 && heads > 0 && head_dim > 0 && head_dim <= 64 && window > 0);         \
  SPR2Q_NEED(window <= 32 && shift >= 0 && shift < window);                                    \
  SPR2Q_NEED(height > 0 && width > 0 && height % window == 0 && width % window == 0);          \
  SPR2Q_NEED(probability_codes >= 0 && probability_codes <= 2 && bits >= 1 && bits <= 8);      \
  SPR2Q_NEED(probability_codes != kUniform || probability_bounds.size >= 2);                   \
  SPR2Q_NEED(bias_table.size >= (2 * window - 1) * (2 * window - 1) * heads);                  \
  const int64_t size = batch * height * width * heads * head_dim;                              \
  SPR2Q_NEED(q.size >= size && k.size >= size && v.size >= size && tokens_of.size >= size)

struct WindowAttention {
  F32 q, k, v, bias_table, probability_bounds, y, probabilities;
  int64_t batch, height, width, heads, head_dim, window, shift, probability_codes, bits;
  SPR2Q_FIELDS(q, k, v, bias_table, probability_bounds, y, probabilities, batch, height, width,
               heads, head_dim, window, shift, probability_codes, bits)
  const char* check() const {
    SPR2Q_ATTENTION_CHECK(y);
    SPR2Q_NEED(absent_or(probabilities, batch * height * width * heads * window * window));
    return nullptr;
  }
};

// The same on codes: logits = fma(S, sum q_q q_k, fma(T, sum_c q_k[c], bias)) with
// S = step_q step_k, T = lower_q step_k (terms that depend on the query alone cancel in the
// softmax); y = fma(step_v, (sum_j P_j q_v[j]) / (sum_j P_j), lower_v) for kHalfExponent (P = q^2,
// both sums exact integers), fma(step_v, sum_j P_j q_v[j], lower_v * sum_j P_j) otherwise with P
// the (quantised) probabilities. grid(6) = lower and upper of q, k, v; all at code_bits bits.
struct CodedWindowAttention {
  U8 q, k, v;
  F32 grid, bias_table, probability_bounds, y;
  int64_t batch, height, width, heads, head_dim, window, shift, probability_codes, bits, code_bits;
  SPR2Q_FIELDS(q, k, v, grid, bias_table, probability_bounds, y, batch, height, width, heads,
               head_dim, window, shift, probability_codes, bits, code_bits)
  const char* check() const {
    SPR2Q_ATTENTION_CHECK(y);
    SPR2Q_NEED(grid.size >= 6 && code_bits >= 1 && code_bits <= 8);
    return nullptr;
  }
};

// Gradients of WindowAttention given gy: gq, gk, gv, gbias_table and, for kUniform,
// gprobability_bounds(2). kHalfExponent: with p the unquantised softmax and P = q^2/sum q^2,
// gv = P^T gy and dL/dl_j = p_j (gy.v_j - gy.out_p), out_p = sum p v (the smooth surrogate).
struct WindowAttentionGrad {
  F32 q, k, v, bias_table, probability_bounds, gy, gq, gk, gv, gbias_table, gprobability_bounds;
  int64_t batch, height, width, heads, head_dim, window, shift, probability_codes, bits;
  SPR2Q_FIELDS(q, k, v, bias_table, probability_bounds, gy, gq, gk, gv, gbias_table,
               gprobability_bounds, batch, height, width, heads, head_dim, window, shift,
               probability_codes, bits)
  const char* check() const {
    SPR2Q_ATTENTION_CHECK(gy);
    SPR2Q_NEED(gq.size >= size && gk.size >= size && gv.size >= size);
    SPR2Q_NEED(gbias_table.size >= (2 * window - 1) * (2 * window - 1) * heads);
    SPR2Q_NEED(probability_codes != kUniform || gprobability_bounds.size >= 2);
    return nullptr;
  }
};

// classes[n] = argmax_k logits[n,k] (+ Gumbel noise when kSampled); the lowest index wins ties.
// noise(sample, token, k) = -log(E), E ~ Exp(1), from Philox4x32-10 keyed by (seed, tile, layer,
// token, k); `tile` + the sample's index in the batch identifies the tile. See core/philox.hpp.
struct Route {
  F32 logits;
  I32 classes;
  int64_t batch, tokens, count, mode, seed, tile, layer;
  SPR2Q_FIELDS(logits, classes, batch, tokens, count, mode, seed, tile, layer)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && tokens > 0 && count > 0);
    SPR2Q_NEED(logits.size >= batch * tokens * count && classes.size >= batch * tokens);
    return nullptr;
  }
};

// Straight-through gradient of the one-hot choice: s = softmax(logits + noise), given the gradient
// gprompt(batch*tokens, states) of the chosen row of pool(count, states):
// dc[k] = <pool[k], gprompt>, glogits = s * (dc - <dc, s>).
struct RouteGrad {
  F32 logits, pool, gprompt, glogits;
  int64_t batch, tokens, count, states, mode, seed, tile, layer;
  SPR2Q_FIELDS(logits, pool, gprompt, glogits, batch, tokens, count, states, mode, seed, tile,
               layer)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && tokens > 0 && count > 0 && states > 0);
    SPR2Q_NEED(logits.size >= batch * tokens * count && glogits.size >= batch * tokens * count);
    SPR2Q_NEED(pool.size >= count * states && gprompt.size >= batch * tokens * states);
    return nullptr;
  }
};

// Stable counting sort of each sample's tokens by class; order holds global row indices:
// order[b*tokens + t] = b*tokens + n of the t-th token. Classes outside 0 ... count-1 clamp.
struct SortTokens {
  I32 classes, order;
  int64_t batch, tokens, count;
  SPR2Q_FIELDS(classes, order, batch, tokens, count)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && tokens > 0 && count > 0);
    SPR2Q_NEED(classes.size >= batch * tokens && order.size >= batch * tokens);
    return nullptr;
  }
};

// y[n] = c[n] + pool[classes[n]] over `states` columns (classes clamp to the pool).
struct AddPrompt {
  F32 c, pool;
  I32 classes;
  F32 y;
  int64_t rows, count, states;
  SPR2Q_FIELDS(c, pool, classes, y, rows, count, states)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && count > 0 && states > 0 && pool.size >= count * states);
    SPR2Q_NEED(c.size >= rows * states && y.size >= rows * states && classes.size >= rows);
    return nullptr;
  }
};
// gpool[k] = sum of gy over the rows of class k; the gradient of c is gy itself.
struct AddPromptGrad {
  F32 gy;
  I32 classes;
  F32 gpool;
  int64_t rows, count, states;
  SPR2Q_FIELDS(gy, classes, gpool, rows, count, states)
  const char* check() const {
    SPR2Q_NEED(rows >= 0 && count > 0 && states > 0 && gpool.size >= count * states);
    SPR2Q_NEED(gy.size >= rows * states && classes.size >= rows);
    return nullptr;
  }
};

// Selective scan (specs/mambairv2-light.md 3.6g). u, delta, y: (batch,length,channels); A(channels,
// states); B, C: (batch,length,states); D, delta_bias: (channels). Delta = softplus(delta +
// delta_bias); h_t = exp(Delta A) h_{t-1} + Delta B u; y = sum_s C h + D u. state_bounds (lower,
// upper; optional) quantises the copy of h that meets C, by Eq. 1 at state_bits; the recurrence
// itself stays float. Optional output states(batch,length,channels,states) holds h.
struct SelectiveScan {
  F32 u, delta, A, B, C, D, delta_bias, state_bounds, y, states;
  int64_t batch, length, channels, state_count, state_bits;
  SPR2Q_FIELDS(u, delta, A, B, C, D, delta_bias, state_bounds, y, states, batch, length, channels,
               state_count, state_bits)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && length > 0 && channels > 0 && state_count > 0 && state_count <= 64);
    const int64_t size = batch * length * channels, narrow = batch * length * state_count;
    SPR2Q_NEED(u.size >= size && delta.size >= size && y.size >= size);
    SPR2Q_NEED(A.size >= channels * state_count && B.size >= narrow && C.size >= narrow);
    SPR2Q_NEED(D.size >= channels && delta_bias.size >= channels);
    SPR2Q_NEED(!state_bounds || (state_bounds.size >= 2 && state_bits >= 1 && state_bits <= 8));
    SPR2Q_NEED(absent_or(states, size * state_count));
    return nullptr;
  }
};

// All gradients of SelectiveScan. gdelta is of delta before bias and softplus; gstate_bounds(2)
// only where state_bounds is given (STE inside the bounds, as Qdq).
struct SelectiveScanGrad {
  F32 u, delta, A, B, C, D, delta_bias, state_bounds, gy, gu, gdelta, gA, gB, gC, gD, gdelta_bias,
      gstate_bounds;
  int64_t batch, length, channels, state_count, state_bits;
  SPR2Q_FIELDS(u, delta, A, B, C, D, delta_bias, state_bounds, gy, gu, gdelta, gA, gB, gC, gD,
               gdelta_bias, gstate_bounds, batch, length, channels, state_count, state_bits)
  const char* check() const {
    SPR2Q_NEED(batch >= 0 && length > 0 && channels > 0 && state_count > 0 && state_count <= 64);
    const int64_t size = batch * length * channels, narrow = batch * length * state_count;
    SPR2Q_NEED(u.size >= size && delta.size >= size && gy.size >= size);
    SPR2Q_NEED(gu.size >= size && gdelta.size >= size);
    SPR2Q_NEED(A.size >= channels * state_count && B.size >= narrow && C.size >= narrow);
    SPR2Q_NEED(gA.size >= channels * state_count && gB.size >= narrow && gC.size >= narrow);
    SPR2Q_NEED(D.size >= channels && delta_bias.size >= channels);
    SPR2Q_NEED(gD.size >= channels && gdelta_bias.size >= channels);
    SPR2Q_NEED(!state_bounds || (state_bounds.size >= 2 && state_bits >= 1 && state_bits <= 8));
    SPR2Q_NEED(!state_bounds || gstate_bounds.size >= 2);
    return nullptr;
  }
};

// ---- quantisation ---------------------------------------------------------------------------

#define SPR2Q_QUANTISER_CHECK                                              \
  SPR2Q_NEED(rows >= 0 && columns > 0 && bits >= 1 && bits <= 8);           \
  SPR2Q_NEED(granularity >= kTensor && granularity <= kColumn);             \
  SPR2Q_NEED(lower.size >= bound_count(granularity, rows, columns));        \
  SPR2Q_NEED(upper.size >= upper_count(granularity, rows))

// codes = q of x (Eq. 1), by the formula on top of this file.
struct Quantize {
  F32 x, lower, upper;
  U8 codes;
  int64_t rows, columns, granularity, bits;
  SPR2Q_FIELDS(x, lower, upper, codes, rows, columns, granularity, bits)
  const char* check() const {
    SPR2Q_QUANTISER_CHECK;
    SPR2Q_NEED(x.size >= rows * columns && codes.size >= rows * columns);
    return nullptr;
  }
};
struct Dequantize {
  U8 codes;
  F32 lower, upper, y;
  int64_t rows, columns, granularity, bits;
  SPR2Q_FIELDS(codes, lower, upper, y, rows, columns, granularity, bits)
  const char* check() const {
    SPR2Q_QUANTISER_CHECK;
    SPR2Q_NEED(y.size >= rows * columns && codes.size >= rows * columns);
    return nullptr;
  }
};
// y = dequantize(quantize(x)).
struct Qdq {
  F32 x, lower, upper, y;
  int64_t rows, columns, granularity, bits;
  SPR2Q_FIELDS(x, lower, upper, y, rows, columns, granularity, bits)
  const char* check() const {
    SPR2Q_QUANTISER_CHECK;
    SPR2Q_NEED(y.size >= rows * columns && x.size >= rows * columns);
    return nullptr;
  }
};
// Straight-through gradients (Eq. 8): gx = gy inside the closed interval, else 0; x <= lower feeds
// glower, x >= upper feeds gupper (a tie feeds both gx and the bound), and everywhere
// e = (round(u) - u)/L adds -e*gy to glower and +e*gy to gupper. kColumn: upper = range, so
// glower[c] collects gy where clipped on either side (no e term) and gupper(1), the gradient of the
// range, collects gy above and e*gy everywhere. Sums in double or by blocks, in a fixed order.
struct QdqGrad {
  F32 x, lower, upper, gy, gx, glower, gupper;
  int64_t rows, columns, granularity, bits;
  SPR2Q_FIELDS(x, lower, upper, gy, gx, glower, gupper, rows, columns, granularity, bits)
  const char* check() const {
    SPR2Q_QUANTISER_CHECK;
    SPR2Q_NEED(x.size >= rows * columns && gy.size >= rows * columns && gx.size >= rows * columns);
    SPR2Q_NEED(glower.size >= bound_count(granularity, rows, columns));
    SPR2Q_NEED(gupper.size >= upper_count(granularity, rows));
    return nullptr;
  }
};

// DOBI: of the 100 ranges that shrink about the middle (lower = min + i d, upper = max - i d,
// d = (max-min)/200), the one with the least squared error of Eq. 1, the widest on ties; one_sided:
// lower = min, upper = max - i (max-min)/100. kTensor or kRow; kColumn: lower is GIVEN (offsets)
// and only the range(1) is searched among R (100-i)/100, R = max over columns of (max - lower).
struct Dobi {
  F32 x, lower, upper;
  int64_t rows, columns, granularity, bits, one_sided;
  SPR2Q_FIELDS(x, lower, upper, rows, columns, granularity, bits, one_sided)
  const char* check() const {
    SPR2Q_QUANTISER_CHECK;
    SPR2Q_NEED(rows > 0 && x.size >= rows * columns);
    return nullptr;
  }
};

// merged(out,in) = weight + sum_i gates[i] b[i](out,rank) a[i](rank,in), i < experts (Eq. 9).
struct MergeRectifiers {
  F32 weight, a, b, gates, merged;
  int64_t experts, rank, in, out;
  SPR2Q_FIELDS(weight, a, b, gates, merged, experts, rank, in, out)
  const char* check() const {
    SPR2Q_NEED(experts >= 0 && rank > 0 && in > 0 && out > 0);
    SPR2Q_NEED(weight.size >= out * in && merged.size >= out * in && gates.size >= experts);
    SPR2Q_NEED(a.size >= experts * rank * in && b.size >= experts * out * rank);
    return nullptr;
  }
};
// ga = gates b^T gmerged, gb = gates gmerged a^T, ggates = <gmerged, b a> (Eq. 7 with its gate).
struct MergeRectifiersGrad {
  F32 gmerged, a, b, gates, ga, gb, ggates;
  int64_t experts, rank, in, out;
  SPR2Q_FIELDS(gmerged, a, b, gates, ga, gb, ggates, experts, rank, in, out)
  const char* check() const {
    SPR2Q_NEED(experts > 0 && rank > 0 && in > 0 && out > 0);
    SPR2Q_NEED(gmerged.size >= out * in && gates.size >= experts && ggates.size >= experts);
    SPR2Q_NEED(a.size >= experts * rank * in && b.size >= experts * out * rank);
    SPR2Q_NEED(ga.size >= experts * rank * in && gb.size >= experts * out * rank);
    return nullptr;
  }
};

// ---- training -------------------------------------------------------------------------------

// loss(1) = mean |x - target|, gx = sign(x - target)/n (0 at equality).
struct L1Loss {
  F32 x, target, loss, gx;
  int64_t n;
  SPR2Q_FIELDS(x, target, loss, gx, n)
  const char* check() const {
    SPR2Q_NEED(n > 0 && x.size >= n && target.size >= n && gx.size >= n && loss.size >= 1);
    return nullptr;
  }
};
// loss(1) = mean over samples of |x - target|^2 / |target|^2 (each sample has n/batch values), and
// its gradient gx; a sample with target = 0 counts with denominator 1.
struct FeatureLoss {
  F32 x, target, loss, gx;
  int64_t n, batch;
  SPR2Q_FIELDS(x, target, loss, gx, n, batch)
  const char* check() const {
    SPR2Q_NEED(n > 0 && batch > 0 && n % batch == 0 && loss.size >= 1);
    SPR2Q_NEED(x.size >= n && target.size >= n && gx.size >= n);
    return nullptr;
  }
};
// Adam, in place: m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2, parameter -= rate * mhat /
// (sqrt(vhat) + epsilon), hats by 1 - beta^step, step counted from 1.
struct Adam {
  F32 parameter, gradient, m, v;
  int64_t n, step;
  double rate, beta1, beta2, epsilon;
  SPR2Q_FIELDS(parameter, gradient, m, v, n, step, rate, beta1, beta2, epsilon)
  const char* check() const {
    SPR2Q_NEED(n >= 0 && step >= 1 && parameter.size >= n && gradient.size >= n);
    SPR2Q_NEED(m.size >= n && v.size >= n);
    return nullptr;
  }
};

// The list that fills every backend table: X(function name, argument struct).
#define SPR2Q_OPS(X)                                                                       \
  X(linear, Linear) X(linear_grad_input, LinearGradInput)                                  \
  X(linear_grad_weight, LinearGradWeight) X(coded_linear, CodedLinear)                     \
  X(conv2d, Conv2d) X(conv2d_grad_input, Conv2dGradInput)                                  \
  X(conv2d_grad_weight, Conv2dGradWeight) X(depthwise_conv, DepthwiseConv)                 \
  X(depthwise_conv_grad_input, DepthwiseConvGradInput)                                     \
  X(depthwise_conv_grad_weight, DepthwiseConvGradWeight)                                   \
  X(coded_depthwise_conv, CodedDepthwiseConv) X(layer_norm, LayerNorm)                     \
  X(layer_norm_grad, LayerNormGrad) X(gelu, Gelu) X(gelu_grad, GeluGrad)                   \
  X(sigmoid_gate, SigmoidGate) X(sigmoid_gate_grad, SigmoidGateGrad)                       \
  X(multiply, Multiply) X(add, Add) X(negative_exp, NegativeExp) X(scale, Scale)           \
  X(scale_add, ScaleAdd) X(scale_add_grad, ScaleAddGrad) X(slice_columns, SliceColumns)    \
  X(slice_columns_grad, SliceColumnsGrad) X(transpose, Transpose)                          \
  X(gather_rows, GatherRows) X(scatter_rows, ScatterRows) X(pad_image, PadImage)           \
  X(pixel_shuffle, PixelShuffle) X(pixel_shuffle_grad, PixelShuffleGrad)                   \
  X(window_attention, WindowAttention) X(coded_window_attention, CodedWindowAttention)     \
  X(window_attention_grad, WindowAttentionGrad) X(route, Route) X(route_grad, RouteGrad)   \
  X(sort_tokens, SortTokens) X(add_prompt, AddPrompt) X(add_prompt_grad, AddPromptGrad)    \
  X(selective_scan, SelectiveScan) X(selective_scan_grad, SelectiveScanGrad)               \
  X(quantize, Quantize) X(dequantize, Dequantize) X(qdq, Qdq) X(qdq_grad, QdqGrad)         \
  X(dobi, Dobi) X(merge_rectifiers, MergeRectifiers)                                       \
  X(merge_rectifiers_grad, MergeRectifiersGrad) X(l1_loss, L1Loss)                         \
  X(feature_loss, FeatureLoss) X(adam, Adam)

}  // namespace spr2q
