// Gradients of the selective scan, fast (equations: native/ops/selective_scan_grad.cpp). Nothing is
// kept from the forward pass. Per (batch, vector of channels):
//   1. forwards over the whole sequence: Delta is kept in gdelta's own place, the states at the
//      entry of every chunk of kChunk steps in scratch;
//   2. chunk by chunk from the end: states and decays of the chunk are recomputed into scratch that
//      fits the first-level cache, then the adjoint runs backwards through it.
// gB and gC are sums over channels: a group of channels adds its vectors in order into a partial
// row (gB | gC), and the groups are added in order at the end. gA, gD and gdelta_bias are summed
// within a chunk in float32, over chunks and batch in double. No order depends on threads.
#include "scan_math.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int kMaxStates = 64;          // as SelectiveScan::check
constexpr int64_t kChunk = 32;          // steps: 8 states x 2 buffers x 64 bytes = 32 KiB, half of L1+L2 traffic
constexpr int64_t kGroupChannels = 16;  // channels per partial row: one AVX-512 vector, ISA-independent
constexpr int64_t kMaxGroups = 8;       // partial rows per token at most, however many channels

// Scratch slots; the first two belong to the caller of parallel_for.
enum Slot { kPartialRows = 0, kSums = 1, kEntries = 2, kInside = 3 };

// One group of channels of one sample, and where its sums go.
struct Group {
  int64_t sample, first, last;  // channels [first, last)
  float* rows;                  // (length, 2 * states): gB | gC of this group
  double* sums;                 // (channels of the sample, states + 2): gA | gD | gdelta_bias
  double* bounds;               // (2): gstate_bounds
};

// The 2 * 8 lane sums of (gB[0..7], gC[0..7]), in this order, written or added to `row`.
static inline void put_row(float* row, VecF sums, bool add) {
  store(row, add ? load(row) + sums : sums);
}

#if defined(__AVX512F__)
static inline VecF blocks(VecF a, VecF b) {  // two vectors -> the halves of one
  return {_mm512_add_ps(_mm512_shuffle_f32x4(a.v, b.v, 0x44), _mm512_shuffle_f32x4(a.v, b.v, 0xee))};
}
static inline VecF quarters(VecF a, VecF b, VecF c, VecF d) {
  const VecF ab = blocks(a, b), cd = blocks(c, d);
  return {_mm512_add_ps(_mm512_shuffle_f32x4(ab.v, cd.v, 0x88),
                        _mm512_shuffle_f32x4(ab.v, cd.v, 0xdd))};
}
static inline VecF interleave(VecF a, VecF b) {
  return {_mm512_add_ps(_mm512_unpacklo_ps(a.v, b.v), _mm512_unpackhi_ps(a.v, b.v))};
}
static inline void lane_sums_8(float* row, const VecF* gB, const VecF* gC, bool add) {
  const VecF even = interleave(quarters(gB[0], gB[4], gC[0], gC[4]),
                               quarters(gB[1], gB[5], gC[1], gC[5]));
  const VecF odd = interleave(quarters(gB[2], gB[6], gC[2], gC[6]),
                              quarters(gB[3], gB[7], gC[3], gC[7]));
  const __m512d low = _mm512_castps_pd(even.v), high = _mm512_castps_pd(odd.v);
  const VecF first = {_mm512_castpd_ps(_mm512_unpacklo_pd(low, high))};
  const VecF second = {_mm512_castpd_ps(_mm512_unpackhi_pd(low, high))};
  put_row(row, first + second, add);
}
#elif defined(__AVX2__)
static inline VecF halves(VecF a, VecF b) {
  return {_mm256_add_ps(_mm256_permute2f128_ps(a.v, b.v, 0x20),
                        _mm256_permute2f128_ps(a.v, b.v, 0x31))};
}
static inline VecF interleave(VecF a, VecF b) {
  return {_mm256_add_ps(_mm256_unpacklo_ps(a.v, b.v), _mm256_unpackhi_ps(a.v, b.v))};
}
static inline VecF eight_sums(const VecF* g) {
  const VecF even = interleave(halves(g[0], g[4]), halves(g[1], g[5]));
  const VecF odd = interleave(halves(g[2], g[6]), halves(g[3], g[7]));
  const __m256d low = _mm256_castps_pd(even.v), high = _mm256_castps_pd(odd.v);
  const VecF first = {_mm256_castpd_ps(_mm256_unpacklo_pd(low, high))};
  const VecF second = {_mm256_castpd_ps(_mm256_unpackhi_pd(low, high))};
  return first + second;
}
static inline void lane_sums_8(float* row, const VecF* gB, const VecF* gC, bool add) {
  put_row(row, eight_sums(gB), add);
  put_row(row + 8, eight_sums(gC), add);
}
#else
static inline void lane_sums_8(float* row, const VecF* gB, const VecF* gC, bool add) {
  for (int s = 0; s < 8; ++s) {
    row[s] = sum(gB[s]) + (add ? row[s] : 0.0f);
    row[8 + s] = sum(gC[s]) + (add ? row[8 + s] : 0.0f);
  }
}
#endif

template <int kStates>
static inline void put_lane_sums(float* row, const VecF* gB, const VecF* gC, int states, bool add) {
  if (kStates == 8) return lane_sums_8(row, gB, gC, add);
  for (int s = 0; s < states; ++s) {
    row[s] = sum(gB[s]) + (add ? row[s] : 0.0f);
    row[states + s] = sum(gC[s]) + (add ? row[states + s] : 0.0f);
  }
}

// One vector of channels of one sample.
template <int kStates, bool kQuantised>
class Lanes {
 public:
  Lanes(const SelectiveScanGrad& a, const Group& group, int64_t c0, int lanes)
      : a_(a), group_(group), c0_(c0), lanes_(lanes),
        state_count_(static_cast<int>(a.state_count)),
        quantiser_(state_quantiser(a.state_bounds, a.state_bits)) {
    load_decays(a.A, c0, lanes, state_count(), kLog2e, rate_);
    chunks_ = (a.length + kChunk - 1) / kChunk;
    const int64_t state_floats = state_count() * kLanes;
    entries_ = scratch<float>(kEntries, chunks_ * state_floats);
    h_ = scratch<float>(kInside, (2 * kChunk + 1) * state_floats);
    decay_ = h_ + (kChunk + 1) * state_floats;
  }

  void run() {
    enter_chunks();
    for (int s = 0; s < state_count(); ++s) carry_[s] = splat(0.0f);
    for (int64_t chunk = chunks_ - 1; chunk >= 0; --chunk) {
      const int64_t first = chunk * kChunk;
      const int64_t count = a_.length - first < kChunk ? a_.length - first : kChunk;
      recompute(chunk, first, count);
      reverse(first, count);
    }
  }

 private:
  static constexpr int kSize = kStates ? kStates : kMaxStates;

  int state_count() const { return kStates ? kStates : state_count_; }
  int64_t row(int64_t t) const { return group_.sample * a_.length + t; }
  int64_t index(int64_t t) const { return row(t) * a_.channels + c0_; }

  // Pass 1. The states after the last chunk's entry are needed by nobody.
  void enter_chunks() {
    const int states = state_count();
    VecF h[kSize];
    for (int s = 0; s < states; ++s) h[s] = splat(0.0f);
    const VecF bias = load_lanes(a_.delta_bias.data + c0_, lanes_);
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      for (int s = 0; s < states; ++s) store(entries_ + (chunk * states + s) * kLanes, h[s]);
      const int64_t end = (chunk + 1) * kChunk < a_.length ? (chunk + 1) * kChunk : a_.length;
      for (int64_t t = chunk * kChunk; t < end; ++t) {
        const VecF delta = softplus(load_lanes(a_.delta.data + index(t), lanes_) + bias);
        store_lanes(a_.gdelta.data + index(t), delta, lanes_);
        const VecF input = delta * load_lanes(a_.u.data + index(t), lanes_);
        const float* B = a_.B.data + row(t) * states;
#pragma GCC unroll 8
        for (int s = 0; s < states; ++s) {
          h[s] = fma(exp2(delta * rate_[s]), h[s], input * splat(B[s]));
        }
      }
    }
  }

  // h_[0] = the entry of the chunk, h_[i + 1] and decay_[i] = state and decay of its i-th step.
  void recompute(int64_t chunk, int64_t first, int64_t count) {
    const int states = state_count();
    VecF h[kSize];
    for (int s = 0; s < states; ++s) {
      h[s] = load(entries_ + (chunk * states + s) * kLanes);
      store(h_ + s * kLanes, h[s]);
    }
    for (int64_t i = 0; i < count; ++i) {
      const VecF delta = load_lanes(a_.gdelta.data + index(first + i), lanes_);
      const VecF input = delta * load_lanes(a_.u.data + index(first + i), lanes_);
      const float* B = a_.B.data + row(first + i) * states;
#pragma GCC unroll 8
      for (int s = 0; s < states; ++s) {
        const VecF decay = exp2(delta * rate_[s]);
        h[s] = fma(decay, h[s], input * splat(B[s]));
        store(decay_ + (i * states + s) * kLanes, decay);
        store(h_ + ((i + 1) * states + s) * kLanes, h[s]);
      }
    }
  }

  void reverse(int64_t first, int64_t count) {
    const int states = state_count();
    VecF gA[kSize], carry[kSize];
    for (int s = 0; s < states; ++s) {
      gA[s] = splat(0.0f);
      carry[s] = carry_[s];
    }
    VecF gD = splat(0.0f), gbias = splat(0.0f), glower = splat(0.0f), gupper = splat(0.0f);
    const VecF D = load_lanes(a_.D.data + c0_, lanes_);
    for (int64_t i = count - 1; i >= 0; --i) {
      const int64_t at = index(first + i);
      const VecF delta = load_lanes(a_.gdelta.data + at, lanes_);
      const VecF u = load_lanes(a_.u.data + at, lanes_), gy = load_lanes(a_.gy.data + at, lanes_);
      const VecF input = delta * u;
      const float* B = a_.B.data + row(first + i) * states;
      const float* C = a_.C.data + row(first + i) * states;
      VecF gB[kSize], gC[kSize], by_B = splat(0.0f), by_A = splat(0.0f);
#pragma GCC unroll 8
      for (int s = 0; s < states; ++s) {
        const VecF decay = load(decay_ + (i * states + s) * kLanes);
        VecF seen = load(h_ + ((i + 1) * states + s) * kLanes), adjoint;
        if (kQuantised) {
          adjoint = carry[s] + through_copy(gy * splat(C[s]), &seen, &glower, &gupper);
        } else {
          adjoint = fma(gy, splat(C[s]), carry[s]);
        }
        gC[s] = gy * seen;
        gB[s] = adjoint * input;
        const VecF decayed = adjoint * (decay * load(h_ + (i * states + s) * kLanes));
        by_B = fma(adjoint, splat(B[s]), by_B);
        by_A = fma(rate_[s], decayed, by_A);
        gA[s] = fma(delta, decayed, gA[s]);
        carry[s] = decay * adjoint;
      }
      put_lane_sums<kStates>(group_.rows + (first + i) * 2 * states, gB, gC, states,
                             c0_ != group_.first);
      store_lanes(a_.gu.data + at, fma(delta, by_B, D * gy), lanes_);
      const VecF gdelta = fma(u, by_B, by_A * splat(1.0f / kLog2e)) * softplus_slope(delta);
      store_lanes(a_.gdelta.data + at, gdelta, lanes_);
      gD = fma(gy, u, gD);
      gbias = gbias + gdelta;
    }
    for (int s = 0; s < states; ++s) {
      add_lanes(gA[s], s);
      carry_[s] = carry[s];
    }
    add_lanes(gD, states);
    add_lanes(gbias, states + 1);
    if (kQuantised) {
      group_.bounds[0] += sum(glower);
      group_.bounds[1] += sum(gupper);
    }
  }

  // Straight-through: what gy C passes on to h, and what the bounds collect (Eq. 8).
  VecF through_copy(VecF gradient, VecF* h, VecF* glower, VecF* gupper) const {
    const VecF lower = splat(quantiser_.lower), upper = splat(quantiser_.upper), zero = splat(0.0f);
    const VecF value = *h, offset = quantiser_.offset(value), code = round_even(offset);
    const VecF residual = (code - offset) / splat(quantiser_.levels) * gradient;
    *h = quantiser_.value(code);
    *glower = *glower + (where_le(value, lower, gradient, zero) - residual);
    *gupper = *gupper + (where_le(upper, value, gradient, zero) + residual);
    return where_le(lower, value, where_le(value, upper, gradient, zero), zero);
  }

  void add_lanes(VecF values, int column) {
    float lane[kLanes];
    store(lane, values);
    for (int k = 0; k < lanes_; ++k) group_.sums[(c0_ + k) * (state_count() + 2) + column] += lane[k];
  }

  const SelectiveScanGrad& a_;
  const Group& group_;
  const int64_t c0_;
  const int lanes_, state_count_;
  const StateQuantiser quantiser_;
  int64_t chunks_;
  float *entries_, *h_, *decay_;
  VecF rate_[kSize], carry_[kSize];
};

void run_group(const SelectiveScanGrad& a, const Group& group) {
  for (int64_t c0 = group.first; c0 < group.last; c0 += kLanes) {
    const int lanes = static_cast<int>(group.last - c0 < kLanes ? group.last - c0 : kLanes);
    if (a.state_bounds) Lanes<0, true>(a, group, c0, lanes).run();
    else if (a.state_count == 8) Lanes<8, false>(a, group, c0, lanes).run();
    else Lanes<0, false>(a, group, c0, lanes).run();
  }
}

// The sums of all samples, in order: gA, gD, gdelta_bias, and the bounds over samples and groups.
void write_sums(const SelectiveScanGrad& a, const double* sums, const double* bounds,
                int64_t groups) {
  const int64_t states = a.state_count, width = states + 2;
  for (int64_t c = 0; c < a.channels; ++c) {
    for (int64_t k = 0; k < width; ++k) {
      double total = 0;
      for (int64_t b = 0; b < a.batch; ++b) total += sums[(b * a.channels + c) * width + k];
      float* out = k < states    ? a.gA.data + c * states + k
                   : k == states ? a.gD.data + c
                                 : a.gdelta_bias.data + c;
      *out = static_cast<float>(total);
    }
  }
  if (!a.state_bounds) return;
  double total[2] = {};
  for (int64_t i = 0; i < a.batch * groups; ++i) {
    total[0] += bounds[2 * i];
    total[1] += bounds[2 * i + 1];
  }
  a.gstate_bounds.data[0] = static_cast<float>(total[0]);
  a.gstate_bounds.data[1] = static_cast<float>(total[1]);
}

}  // namespace

void selective_scan_grad(const SelectiveScanGrad& a) {
  const int64_t states = a.state_count, rows = a.batch * a.length;
  const int64_t blocks_of_channels = (a.channels + kGroupChannels - 1) / kGroupChannels;
  const int64_t group_channels = (blocks_of_channels + kMaxGroups - 1) / kMaxGroups * kGroupChannels;
  const int64_t groups = (a.channels + group_channels - 1) / group_channels;
  float* partial = scratch<float>(kPartialRows, groups * rows * 2 * states);
  const int64_t sum_count = a.batch * a.channels * (states + 2);
  double* sums = scratch<double>(kSums, sum_count + 2 * a.batch * groups);
  double* bounds = sums + sum_count;
  for (int64_t i = 0; i < sum_count + 2 * a.batch * groups; ++i) sums[i] = 0;

  parallel_for(a.batch * groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      Group group;
      group.sample = unit / groups;
      group.first = unit % groups * group_channels;
      group.last = group.first + group_channels < a.channels ? group.first + group_channels
                                                             : a.channels;
      group.rows = partial + (unit % groups * rows + group.sample * a.length) * 2 * states;
      group.sums = sums + group.sample * a.channels * (states + 2);
      group.bounds = bounds + 2 * unit;
      run_group(a, group);
    }
  });

  parallel_for(rows, 2048, [&](int64_t begin, int64_t end) {  // tokens per chunk, by trial
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t s = 0; s < 2 * states; ++s) {
        float total = partial[t * 2 * states + s];
        for (int64_t g = 1; g < groups; ++g) total += partial[(g * rows + t) * 2 * states + s];
        if (s < states) a.gB.data[t * states + s] = total;
        else a.gC.data[t * states + s - states] = total;
      }
    }
  });
  write_sums(a, sums, bounds, groups);
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
