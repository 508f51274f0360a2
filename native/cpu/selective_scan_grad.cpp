// Gradients of the selective scan, fast (equations: native/ops/selective_scan_grad.cpp). Nothing is
// kept from the forward pass. Per (batch, vector of channels):
//   1. forwards over the whole sequence: Delta is kept in gdelta's own place, the states at the
//      entry of every chunk of kChunk steps in scratch;
//   2. chunk by chunk from the end: decays and states of the chunk are recomputed into scratch that
//      stays in cache, then the adjoint runs backwards through it.
// gB and gC are sums over channels: the vectors of a group of channels are added in order, and so
// are the groups. Groups of a sample that run side by side have partial rows of their own, added at
// the end; where a group is one vector and there are samples for every thread, a sample's groups run
// one after the other and add straight into gB and gC, which is the same order. gA, gD and gdelta_bias are summed within a chunk in float32, over
// chunks and batch in double. No order of additions depends on threads.
#include "scan_math.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int kMaxStates = 64;          // as SelectiveScan::check
constexpr int64_t kChunk = 64;          // steps: two buffers of 32 KiB at 8 states stay in cache
constexpr int64_t kGroupChannels = 16;  // channels per partial row, on every instruction set
constexpr int64_t kMaxGroups = 8;       // partial rows per token at most, however many channels
constexpr int64_t kSumGrain = 16384;    // elements of gB per thread chunk when groups are added

// The sums of a step live in registers only if everything is inlined into one loop.
#define SPR2Q_INLINE inline __attribute__((always_inline))

// Scratch slots; the first two belong to the caller of parallel_for.
enum Slot { kPartials = 0, kSums = 1, kEntries = 2, kInside = 3 };

// One group of channels of one sample, and where its sums go.
struct Group {
  int64_t sample, first, last;  // channels [first, last)
  bool adds;                    // to what gB and gC hold, sums over the channels before `first`
  float *gB, *gC;               // (length, states): the sums over channels
  double* sums;                 // (channels of the sample, states + 2): gA | gD | gdelta_bias
  double* bounds;               // (2): gstate_bounds
};

// Lane sums of the eight states of one token, written or added (`add`) to the rows of gB and gC:
// take(k, ...) accepts the states k and k + 4 as soon as they exist, which keeps few of them alive.
#if defined(__AVX512F__)
static inline VecF halves(VecF a, VecF b) {  // two vectors -> the halves of one
  return {_mm512_add_ps(_mm512_shuffle_f32x4(a.v, b.v, 0x44),
                        _mm512_shuffle_f32x4(a.v, b.v, 0xee))};
}
static inline VecF interleave(VecF a, VecF b) {
  return {_mm512_add_ps(_mm512_unpacklo_ps(a.v, b.v), _mm512_unpackhi_ps(a.v, b.v))};
}
struct EightSums {
  VecF quarters[4];  // of gB[k], gB[k + 4], gC[k], gC[k + 4]
  void take(int k, VecF gB_low, VecF gB_high, VecF gC_low, VecF gC_high) {
    const VecF gB = halves(gB_low, gB_high), gC = halves(gC_low, gC_high);
    quarters[k].v = _mm512_add_ps(_mm512_shuffle_f32x4(gB.v, gC.v, 0x88),
                                  _mm512_shuffle_f32x4(gB.v, gC.v, 0xdd));
  }
  void put(float* gB, float* gC, bool add) const {
    const __m512d even = _mm512_castps_pd(interleave(quarters[0], quarters[1]).v);
    const __m512d odd = _mm512_castps_pd(interleave(quarters[2], quarters[3]).v);
    const __m512 sums = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(even, odd)),
                                      _mm512_castpd_ps(_mm512_unpackhi_pd(even, odd)));
    put_half(gB, _mm512_castps512_ps256(sums), add);
    put_half(gC, _mm512_extractf32x8_ps(sums, 1), add);
  }
  static void put_half(float* row, __m256 sums, bool add) {
    _mm256_storeu_ps(row, add ? _mm256_add_ps(_mm256_loadu_ps(row), sums) : sums);
  }
};
#elif defined(__AVX2__)
static inline VecF halves(VecF a, VecF b) {
  return {_mm256_add_ps(_mm256_permute2f128_ps(a.v, b.v, 0x20),
                        _mm256_permute2f128_ps(a.v, b.v, 0x31))};
}
static inline VecF interleave(VecF a, VecF b) {
  return {_mm256_add_ps(_mm256_unpacklo_ps(a.v, b.v), _mm256_unpackhi_ps(a.v, b.v))};
}
struct EightSums {
  VecF gB_halves[4], gC_halves[4];  // of the states k and k + 4
  void take(int k, VecF gB_low, VecF gB_high, VecF gC_low, VecF gC_high) {
    gB_halves[k] = halves(gB_low, gB_high);
    gC_halves[k] = halves(gC_low, gC_high);
  }
  void put(float* gB, float* gC, bool add) const {
    put_half(gB, gB_halves, add);
    put_half(gC, gC_halves, add);
  }
  static void put_half(float* row, const VecF* parts, bool add) {
    const __m256d even = _mm256_castps_pd(interleave(parts[0], parts[1]).v);
    const __m256d odd = _mm256_castps_pd(interleave(parts[2], parts[3]).v);
    const VecF low = {_mm256_castpd_ps(_mm256_unpacklo_pd(even, odd))};
    const VecF high = {_mm256_castpd_ps(_mm256_unpackhi_pd(even, odd))};
    store(row, add ? load(row) + (low + high) : low + high);
  }
};
#elif defined(SPR2Q_NEON)
struct EightSums {
  VecF gB_low[4], gB_high[4], gC_low[4], gC_high[4];  // of the states k and k + 4
  void take(int k, VecF gB_k, VecF gB_k4, VecF gC_k, VecF gC_k4) {
    gB_low[k] = gB_k;
    gB_high[k] = gB_k4;
    gC_low[k] = gC_k;
    gC_high[k] = gC_k4;
  }
  void put(float* gB, float* gC, bool add) const {
    put_four(gB, gB_low, add);
    put_four(gB + 4, gB_high, add);
    put_four(gC, gC_low, add);
    put_four(gC + 4, gC_high, add);
  }
  static void put_four(float* to, const VecF* parts, bool add) {
    const float32x4_t even = vpaddq_f32(parts[0].v, parts[1].v);
    const VecF sums = {vpaddq_f32(even, vpaddq_f32(parts[2].v, parts[3].v))};
    store(to, add ? load(to) + sums : sums);
  }
};
#else
struct EightSums {
  float gB_sums[8], gC_sums[8];
  void take(int k, VecF gB_low, VecF gB_high, VecF gC_low, VecF gC_high) {
    gB_sums[k] = sum(gB_low);
    gB_sums[k + 4] = sum(gB_high);
    gC_sums[k] = sum(gC_low);
    gC_sums[k + 4] = sum(gC_high);
  }
  void put(float* gB, float* gC, bool add) const {
    for (int s = 0; s < 8; ++s) {
      gB[s] = gB_sums[s] + (add ? gB[s] : 0.0f);
      gC[s] = gC_sums[s] + (add ? gC[s] : 0.0f);
    }
  }
};
#endif

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
    faded_ = scratch<float>(kInside, kChunk * (2 * state_floats + kLanes));
    decay_ = faded_ + kChunk * state_floats;
    step_gradients_ = decay_ + kChunk * state_floats;
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

  // Pass 1.
  void enter_chunks() {
    const int states = state_count();
    VecF h[kSize];
    for (int s = 0; s < states; ++s) h[s] = splat(0.0f);
    const VecF bias = load_lanes(a_.delta_bias.data + c0_, lanes_);
    alignas(64) float deltas[kBlock * kLanes];
    for (int64_t first = 0; first < a_.length; first += kBlock) {
      if (first % kChunk == 0) {
        float* entry = entries_ + first / kChunk * states * kLanes;
        for (int s = 0; s < states; ++s) store(entry + s * kLanes, h[s]);
      }
      const int64_t end = first + kBlock < a_.length ? first + kBlock : a_.length;
      fetch_block(a_, row(first) + 2 * kBlock, row(a_.length), c0_);
      step_sizes(a_.delta.data + index(first), bias, lanes_, end - first, a_.channels, deltas,
                 kLanes, kLanes);
      for (int64_t t = first; t < end; ++t) {
        const VecF delta = load(deltas + (t - first) * kLanes);
        store_lanes(a_.gdelta.data + index(t), delta, lanes_);
        if (first / kChunk + 1 == chunks_) continue;  // nobody needs the states at the very end
        const VecF input = delta * load_lanes(a_.u.data + index(t), lanes_);
        const float* B = a_.B.data + row(t) * states;
#pragma GCC unroll 8
        for (int s = 0; s < states; ++s) {
          h[s] = fma(input, splat(B[s]), exp2(delta * rate_[s]) * h[s]);
        }
      }
    }
  }

  // Asks for a step of the chunk before this one, which is next; inlined by force as fetch_block.
  SPR2Q_INLINE void fetch_step(int64_t t) const {
    __builtin_prefetch(a_.gdelta.data + index(t));
    __builtin_prefetch(a_.u.data + index(t));
    __builtin_prefetch(a_.gy.data + index(t));
    __builtin_prefetch(a_.gu.data + index(t), 1);
  }

  // Of the i-th step of the chunk: decay_[i] = a and faded_[i] = a h_{t-1}.
  void recompute(int64_t chunk, int64_t first, int64_t count) {
    const int states = state_count();
    VecF h[kSize];
    for (int s = 0; s < states; ++s) {
      h[s] = load(entries_ + (chunk * states + s) * kLanes);
    }
    for (int64_t i = 0; i < count; ++i) {
      const VecF delta = load_lanes(a_.gdelta.data + index(first + i), lanes_);
      const VecF input = delta * load_lanes(a_.u.data + index(first + i), lanes_);
      const float* B = a_.B.data + row(first + i) * states;
#pragma GCC unroll 8
      for (int s = 0; s < states; ++s) {
        const VecF decay = exp2(delta * rate_[s]), faded = decay * h[s];
        h[s] = fma(input, splat(B[s]), faded);
        store(decay_ + (i * states + s) * kLanes, decay);
        store(faded_ + (i * states + s) * kLanes, faded);
      }
    }
  }

  // What runs through the steps of a chunk: the carried adjoint a l, and sums; `moved` is that of
  // (round(v) - v) gy C.
  struct Totals {
    VecF carry[kSize], gA[kSize], gD, gbias, glower, gupper, moved;
  };
  // What one step needs and gives.
  struct Step {
    VecF delta, u, gy, input, by_A, by_B;
    const float *B, *C, *decay, *faded;
  };

  // The adjoint of state s through one step; gB and gC of this vector's channels come back.
  SPR2Q_INLINE void adjoint_step(int s, Step* step, Totals* totals, VecF* gB, VecF* gC) {
    const VecF decay = load(step->decay + s * kLanes), faded = load(step->faded + s * kLanes);
    const VecF B = splat(step->B[s]), C = splat(step->C[s]);
    VecF seen = fma(step->input, B, faded), adjoint;
    if (kQuantised) adjoint = totals->carry[s] + through_copy(step->gy * C, &seen, totals);
    else adjoint = fma(step->gy, C, totals->carry[s]);
    *gC = step->gy * seen;
    *gB = adjoint * step->input;
    const VecF along = adjoint * faded;
    step->by_B = fma(adjoint, B, step->by_B);
    step->by_A = fma(rate_[s], along, step->by_A);
    totals->gA[s] = fma(step->delta, along, totals->gA[s]);
    totals->carry[s] = decay * adjoint;
  }

  SPR2Q_INLINE void states_step(int64_t t, Step* step, Totals* totals) {
    const int states = state_count();
    float* gB_row = group_.gB + t * states;
    float* gC_row = group_.gC + t * states;
    const bool add = group_.adds || c0_ != group_.first;
    if (kStates == 8) {
      EightSums sums;
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        VecF gB[2], gC[2];
        adjoint_step(k, step, totals, &gB[0], &gC[0]);
        adjoint_step(k + 4, step, totals, &gB[1], &gC[1]);
        sums.take(k, gB[0], gB[1], gC[0], gC[1]);
      }
      sums.put(gB_row, gC_row, add);
    } else {
      for (int s = 0; s < states; ++s) {
        VecF gB, gC;
        adjoint_step(s, step, totals, &gB, &gC);
        gB_row[s] = sum(gB) + (add ? gB_row[s] : 0.0f);
        gC_row[s] = sum(gC) + (add ? gC_row[s] : 0.0f);
      }
    }
  }

  // The steps of one chunk, last to first.
  void reverse(int64_t first, int64_t count) {
    const int states = state_count();
    Totals totals;
    for (int s = 0; s < states; ++s) {
      totals.carry[s] = carry_[s];
      totals.gA[s] = splat(0.0f);
    }
    totals.gD = totals.gbias = totals.glower = totals.gupper = totals.moved = splat(0.0f);
    const VecF D = load_lanes(a_.D.data + c0_, lanes_);
    for (int64_t i = count - 1; i >= 0; --i) {
      const int64_t at = index(first + i);
      if (first >= kChunk) fetch_step(first + i - kChunk);
      Step step;
      step.delta = load_lanes(a_.gdelta.data + at, lanes_);
      step.u = load_lanes(a_.u.data + at, lanes_);
      step.gy = load_lanes(a_.gy.data + at, lanes_);
      step.input = step.delta * step.u;
      step.by_A = step.by_B = splat(0.0f);
      step.B = a_.B.data + row(first + i) * states;
      step.C = a_.C.data + row(first + i) * states;
      step.decay = decay_ + i * states * kLanes;
      step.faded = faded_ + i * states * kLanes;
      states_step(first + i, &step, &totals);
      store_lanes(a_.gu.data + at, fma(step.delta, step.by_B, D * step.gy), lanes_);
      store(step_gradients_ + i * kLanes,
            fma(step.u, step.by_B, step.by_A * splat(1.0f / kLog2e)));
      totals.gD = fma(step.gy, step.u, totals.gD);
    }
    for (int64_t i = 0; i < count; ++i) {  // from gDelta to gdelta
      float* at = a_.gdelta.data + index(first + i);
      const VecF slope = softplus_slope(load_lanes(at, lanes_));
      const VecF gdelta = load(step_gradients_ + i * kLanes) * slope;
      store_lanes(at, gdelta, lanes_);
      totals.gbias = totals.gbias + gdelta;
    }
    for (int s = 0; s < states; ++s) {
      carry_[s] = totals.carry[s];
      add_lanes(totals.gA[s], s);
    }
    add_lanes(totals.gD, states);
    add_lanes(totals.gbias, states + 1);
    if (kQuantised) {
      const double residual = sum(totals.moved) / quantiser_.levels;
      group_.bounds[0] += sum(totals.glower) - residual;
      group_.bounds[1] += sum(totals.gupper) + residual;
    }
  }

  // Straight-through: what gy C passes on to h, and what the bounds collect (Eq. 8).
  SPR2Q_INLINE VecF through_copy(VecF gradient, VecF* h, Totals* totals) const {
    const VecF lower = splat(quantiser_.lower), upper = splat(quantiser_.upper), zero = splat(0.0f);
    const VecF value = *h, offset = quantiser_.offset(value), code = round_even(offset);
    *h = quantiser_.value(code);
    totals->moved = fma(code - offset, gradient, totals->moved);
    totals->glower = totals->glower + where_le(value, lower, gradient, zero);
    totals->gupper = totals->gupper + where_le(upper, value, gradient, zero);
    return where_le(lower, value, where_le(value, upper, gradient, zero), zero);
  }

  void add_lanes(VecF values, int column) {
    float lane[kLanes];
    store(lane, values);
    const int width = state_count() + 2;
    for (int k = 0; k < lanes_; ++k) group_.sums[(c0_ + k) * width + column] += lane[k];
  }

  const SelectiveScanGrad& a_;
  const Group& group_;
  const int64_t c0_;
  const int lanes_, state_count_;
  const StateQuantiser quantiser_;
  int64_t chunks_;
  float *entries_, *faded_, *decay_, *step_gradients_;  // step_gradients_: gDelta of each step
  VecF rate_[kSize], carry_[kSize];
};

void run_group(const SelectiveScanGrad& a, const Group& group) {
  for (int64_t c0 = group.first; c0 < group.last; c0 += kLanes) {
    const int lanes = static_cast<int>(group.last - c0 < kLanes ? group.last - c0 : kLanes);
    if (a.state_count == 8) {
      if (a.state_bounds) Lanes<8, true>(a, group, c0, lanes).run();
      else Lanes<8, false>(a, group, c0, lanes).run();
    } else {
      if (a.state_bounds) Lanes<0, true>(a, group, c0, lanes).run();
      else Lanes<0, false>(a, group, c0, lanes).run();
    }
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

// gB and gC from the partial rows (gB | gC, each groups x rows x states).
void add_groups(const SelectiveScanGrad& a, const float* partial, int64_t groups) {
  const int64_t size = a.batch * a.length * a.state_count;
  parallel_for(size, kSumGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float gB = partial[i], gC = partial[groups * size + i];
      for (int64_t g = 1; g < groups; ++g) {
        gB += partial[g * size + i];
        gC += partial[(groups + g) * size + i];
      }
      a.gB.data[i] = gB;
      a.gC.data[i] = gC;
    }
  });
}

}  // namespace

void selective_scan_grad(const SelectiveScanGrad& a) {
  const int64_t states = a.state_count, rows = a.batch * a.length;
  const int64_t most = kMaxGroups * kGroupChannels;
  const int64_t group_channels = (a.channels + most - 1) / most * kGroupChannels;
  const int64_t groups = (a.channels + group_channels - 1) / group_channels;
  // Wider groups may not: (v0 + v1) + (v2 + v3) is not ((v0 + v1) + v2) + v3.
  const bool in_turn =
      groups == 1 || (group_channels <= kLanes && a.batch >= thread_count());
  float* partial = in_turn ? nullptr : scratch<float>(kPartials, groups * rows * 2 * states);
  const int64_t sum_count = a.batch * a.channels * (states + 2);
  double* sums = scratch<double>(kSums, sum_count + 2 * a.batch * groups);
  double* bounds = sums + sum_count;
  for (int64_t i = 0; i < sum_count + 2 * a.batch * groups; ++i) sums[i] = 0;

  parallel_for(a.batch * groups, in_turn ? groups : 1, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t sample = unit / groups, g = unit % groups;
      const int64_t place = sample * a.length * states;
      Group group;
      group.sample = sample;
      group.first = g * group_channels;
      group.last = group.first + group_channels < a.channels ? group.first + group_channels
                                                             : a.channels;
      group.adds = in_turn && g > 0;
      group.gB = in_turn ? a.gB.data + place : partial + g * rows * states + place;
      group.gC = in_turn ? a.gC.data + place : partial + (groups + g) * rows * states + place;
      group.sums = sums + sample * a.channels * (states + 2);
      group.bounds = bounds + 2 * unit;
      run_group(a, group);
    }
  });
  if (!in_turn) add_groups(a, partial, groups);
  write_sums(a, sums, bounds, groups);
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
