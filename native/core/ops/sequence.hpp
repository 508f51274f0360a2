// Sequence ops: window attention, routing, selective scan. The rules of reading are in ../ops.hpp.
#pragma once
#include "common.hpp"

namespace spr2q {

// (Shifted) window attention. q, k, v, y: (batch*height*width, heads*head_dim), head-major; q is
// already scaled. bias_table((2w-1)^2, heads), logit of (query (y,x), key (y',x')) in a window gets
// bias_table[(y-y'+w-1)*(2w-1) + x-x'+w-1, head]. With shift > 0 the image is rolled by -shift and
// pairs whose rolled positions carry different labels get -100 (rows: 0 below height-w, 1 below
// height-shift, else 2; columns alike). probability_codes: kFloat; kUniform: softmax, then Eq. 1
// with probability_bounds (lower, upper) at `bits`; kHalfExponent: q = round(L exp((l-max)/2)),
// out = sum q^2 v / sum q^2. Optional output probabilities(batch*windows, heads, w*w, w*w): softmax
// before any quantiser, for calibration. height and width are multiples of window.
#define SPR2Q_ATTENTION_CHECK(tokens_of)                                                      \
  SPR2Q_NEED(batch > 0 && heads > 0 && head_dim > 0 && head_dim <= 64 && window > 0);         \
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
// Half exponents of up to 4 bits: S, T, bias and mask are multiplied by kGridFactor first and the
// exponents rounded to a grid (../exponent.hpp). The result goes to y or, as the codes that
// quantize() makes of y, to y_codes: kTensor or kColumn bounds y_lower, y_upper at y_bits.
struct CodedWindowAttention {
  U8 q, k, v;
  F32 grid, bias_table, probability_bounds, y, y_lower, y_upper;
  U8 y_codes;
  int64_t batch, height, width, heads, head_dim, window, shift, probability_codes, bits, code_bits,
      y_bits, y_granularity;
  SPR2Q_FIELDS(q, k, v, grid, bias_table, probability_bounds, y, y_lower, y_upper, y_codes, batch,
               height, width, heads, head_dim, window, shift, probability_codes, bits, code_bits,
               y_bits, y_granularity)
  const char* check() const {
    SPR2Q_ATTENTION_CHECK(q);
    SPR2Q_NEED(grid.size >= 6 && code_bits >= 1 && code_bits <= 8);
    SPR2Q_NEED(!y_codes ? y.size >= size : y_codes.size >= size);
    SPR2Q_NEED(!y_codes || (y_bits >= 1 && y_bits <= 8 && y_upper.size >= 1));
    SPR2Q_NEED(!y_codes || y_granularity == kTensor || y_granularity == kColumn);
    SPR2Q_NEED(!y_codes || y_lower.size >= bound_count(y_granularity, 0, heads * head_dim));
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
// token, k); `tile` + the sample's index in the batch identifies the tile, `first` is the number of
// the first token given here. See core/philox.hpp.
struct Route {
  F32 logits;
  I32 classes;
  int64_t batch, tokens, count, mode, seed, tile, layer, first;
  SPR2Q_FIELDS(logits, classes, batch, tokens, count, mode, seed, tile, layer, first)
  const char* check() const {
    SPR2Q_NEED(batch > 0 && tokens > 0 && count > 0 && first >= 0);
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
    SPR2Q_NEED(batch > 0 && tokens > 0 && count > 0 && states > 0);
    SPR2Q_NEED(logits.size >= batch * tokens * count && glogits.size >= batch * tokens * count);
    SPR2Q_NEED(pool.size >= count * states && gprompt.size >= batch * tokens * states);
    return nullptr;
  }
};

// Stable counting sort of each sample's tokens by class; order holds global row indices:
// order[b*tokens + t] = b*tokens + n of the t-th token. Classes outside 0 ... count-1 clamp.
// Optional output inverse: inverse[order[i]] = i, for all rows of the batch. Whatever the arrays hold
// or become meanwhile, nothing is written outside of them.
struct SortTokens {
  I32 classes, order, inverse;
  int64_t batch, tokens, count;
  SPR2Q_FIELDS(classes, order, inverse, batch, tokens, count)
  const char* check() const {
    SPR2Q_NEED(batch > 0 && tokens > 0 && count > 0 && count <= kMostClasses);
    SPR2Q_NEED(batch * tokens <= INT32_MAX);
    SPR2Q_NEED(classes.size >= batch * tokens && order.size >= batch * tokens);
    SPR2Q_NEED(absent_or(inverse, batch * tokens));
    return nullptr;
  }
  static constexpr int64_t kMostClasses = 4096;  // counted for every run of tokens
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
// itself stays float, and without bounds state_bits counts for nothing. Optional output
// states(batch,length,channels,states) holds h.
struct SelectiveScan {
  F32 u, delta, A, B, C, D, delta_bias, state_bounds, y, states;
  int64_t batch, length, channels, state_count, state_bits;
  SPR2Q_FIELDS(u, delta, A, B, C, D, delta_bias, state_bounds, y, states, batch, length, channels,
               state_count, state_bits)
  const char* check() const {
    SPR2Q_NEED(batch > 0 && length > 0 && channels > 0 && state_count > 0 && state_count <= 64);
    const int64_t size = batch * length * channels, narrow = batch * length * state_count;
    SPR2Q_NEED(u.size >= size && delta.size >= size && y.size >= size);
    SPR2Q_NEED(A.size >= channels * state_count && B.size >= narrow && C.size >= narrow);
    SPR2Q_NEED(D.size >= channels && delta_bias.size >= channels);
    SPR2Q_NEED(!state_bounds || (state_bounds.size >= 2 && state_bits >= 1 && state_bits <= 8));
    SPR2Q_NEED(absent_or(states, size * state_count));
    return nullptr;
  }
  int state_levels() const { return state_bounds ? (1 << state_bits) - 1 : 1; }
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
    SPR2Q_NEED(batch > 0 && length > 0 && channels > 0 && state_count > 0 && state_count <= 64);
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
  int state_levels() const { return state_bounds ? (1 << state_bits) - 1 : 1; }
};

}  // namespace spr2q
