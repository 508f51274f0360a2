// What the selective scan and its gradient share. A sequence is cut into chunks that run side by
// side; the recurrence h_t = a_t h_{t-1} + b_t over a chunk is h -> decay * h + local, so:
//   1. every chunk alone from h = 0: its decay and local state (carry_kernel);
//   2. chunks composed in order, giving the state each one starts from (entry_kernel);
//   3. every chunk once more from there, doing the op's real work.
// The gradient's adjoint runs the same three steps backwards. No atomics: equal bits on every run.
// A thread has one channel and kPer (4 or 8) of its states; the 1, 2, 4, 8 or 16 lanes of a channel
// are neighbours and add up by shuffles. exp(Delta A) is exp2f(Delta * (A log2 e)).
#pragma once
#include "device.cuh"

namespace spr2q {
namespace cuda {

constexpr int kMostScanThreads = 128;
constexpr float kLog2e = 1.44269504f;

struct ScanShape {
  int64_t batch, length, channels, states;
  int64_t chunk, chunks;  // steps of a chunk; chunks of a sequence
  int lanes, threads;     // threads of a channel; of a block
  bool wide;              // rows of states are whole 16-byte pieces
  int64_t block_channels, groups;  // channels of a block; blocks that all channels take

  dim3 grid() const {
    return dim3(grid_size(chunks), grid_size(groups), grid_size(batch));
  }
  int64_t carries() const { return batch * chunks * channels * states; }
};

static inline bool on_16_bytes(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

template <int kPer, class Args>
static inline ScanShape scan_shape(const Args& a, int64_t chunk) {
  ScanShape s = {};
  s.batch = a.batch;
  s.length = a.length;
  s.channels = a.channels;
  s.states = a.state_count;
  s.chunk = chunk;
  s.chunks = divide_up(a.length, chunk);
  s.lanes = 1;
  while (s.lanes * kPer < s.states) s.lanes *= 2;
  const int64_t wanted = round_up(s.channels * s.lanes, kWarp);
  s.threads = static_cast<int>(wanted < kMostScanThreads ? wanted : kMostScanThreads);
  s.block_channels = s.threads / s.lanes;
  s.groups = divide_up(s.channels, s.block_channels);
  s.wide = s.states % 4 == 0 && on_16_bytes(a.A.data) && on_16_bytes(a.B.data) &&
           on_16_bytes(a.C.data);
  return s;
}

// Where this thread is: its channel, its first state, and its part of the sequence.
struct ScanPlace {
  int64_t sample, chunk, channel, first_state, row, steps;  // row: of the chunk's first step
  bool active;
};
template <int kPer>
SPR2Q_DEVICE ScanPlace scan_place(const ScanShape& s) {
  ScanPlace p;
  p.sample = blockIdx.z;
  p.chunk = blockIdx.x;
  p.channel = blockIdx.y * s.block_channels + threadIdx.x / s.lanes;
  p.first_state = threadIdx.x % s.lanes * kPer;
  const int64_t first = p.chunk * s.chunk;
  p.row = p.sample * s.length + first;
  p.steps = first + s.chunk < s.length ? s.chunk : s.length - first;
  p.active = p.channel < s.channels;
  return p;
}

SPR2Q_DEVICE float softplus(float x) { return x <= 20.0f ? log1pf(expf(x)) : x; }

// The thread's part of a row of A, B or C; zeros past its end.
template <int kPer>
SPR2Q_DEVICE void load_states(const float* row, const ScanShape& s, const ScanPlace& p,
                              float (&to)[kPer]) {
#pragma unroll
  for (int k = 0; k < kPer; k += 4) {
    if (s.wide) {
      float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      if (p.active && p.first_state + k < s.states) {
        four = *reinterpret_cast<const float4*>(row + p.first_state + k);
      }
      to[k] = four.x;
      to[k + 1] = four.y;
      to[k + 2] = four.z;
      to[k + 3] = four.w;
      continue;
    }
#pragma unroll
    for (int i = k; i < k + 4; ++i) {
      to[i] = p.active && p.first_state + i < s.states ? row[p.first_state + i] : 0.0f;
    }
  }
}
// The same of a scratch array of carries, whose rows lie anywhere.
template <int kPer>
SPR2Q_DEVICE void load_carries(const float* row, const ScanShape& s, const ScanPlace& p,
                               float (&to)[kPer]) {
#pragma unroll
  for (int k = 0; k < kPer; ++k) {
    to[k] = p.active && p.first_state + k < s.states ? row[p.first_state + k] : 0.0f;
  }
}
template <int kPer>
SPR2Q_DEVICE void store_states(float* row, const ScanShape& s, const ScanPlace& p,
                               const float (&from)[kPer]) {
#pragma unroll
  for (int k = 0; k < kPer; ++k) {
    if (p.active && p.first_state + k < s.states) row[p.first_state + k] = from[k];
  }
}
// Index of this thread's first carry in (batch, chunks, channels, states).
SPR2Q_DEVICE int64_t carry_row(const ScanShape& s, const ScanPlace& p) {
  return ((p.sample * s.chunks + p.chunk) * s.channels + p.channel) * s.states;
}

// Sum over the lanes of one channel.
SPR2Q_DEVICE float channel_sum(float value, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

struct ScanInputs {
  const float *u, *delta, *A, *B, *C, *delta_bias, *gy;  // gy: the gradient's
};

// One step's operands of a channel; a neutral step (no decay, no input) where it is not active.
struct ScanStep {
  float u, x, delta;  // x: delta before softplus
};
SPR2Q_DEVICE ScanStep load_step(const ScanInputs& in, const ScanShape& s, const ScanPlace& p,
                                int64_t row, bool inside, float bias) {
  ScanStep step = {0.0f, 0.0f, 0.0f};
  if (!p.active || !inside) return step;
  step.u = in.u[row * s.channels + p.channel];
  step.x = in.delta[row * s.channels + p.channel] + bias;
  step.delta = softplus(step.x);
  return step;
}

struct Carries {
  float *decay, *local, *adjoint;  // adjoint: only where kAdjoint
};

// Step 1. With kAdjoint also the chunk's share of the adjoint that leaves it at its front,
// sum over t of (a_first ... a_t) gy_t C_t, which holds where the state's copy is not quantised.
template <int kPer, bool kAdjoint>
static __global__ void __launch_bounds__(kMostScanThreads)
carry_kernel(ScanInputs in, ScanShape s, Carries to) {
  const ScanPlace p = scan_place<kPer>(s);
  float rate[kPer], B[kPer], C[kPer];
  float decay[kPer], h[kPer] = {}, adjoint[kPer] = {};
  load_states(in.A + p.channel * s.states, s, p, rate);
#pragma unroll
  for (int k = 0; k < kPer; ++k) {
    rate[k] *= kLog2e;
    decay[k] = 1.0f;
  }
  const float bias = p.active ? in.delta_bias[p.channel] : 0.0f;
  for (int64_t t = 0; t < p.steps; ++t) {
    const int64_t row = p.row + t;
    const ScanStep step = load_step(in, s, p, row, true, bias);
    const float du = step.delta * step.u;
    load_states(in.B + row * s.states, s, p, B);
    float gy = 0.0f;
    if (kAdjoint) {
      load_states(in.C + row * s.states, s, p, C);
      gy = p.active ? in.gy[row * s.channels + p.channel] : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < kPer; ++k) {
      const float a = exp2f(step.delta * rate[k]);
      h[k] = fmaf(a, h[k], du * B[k]);
      decay[k] *= a;
      if (kAdjoint) adjoint[k] = fmaf(decay[k], gy * C[k], adjoint[k]);
    }
  }
  const int64_t at = carry_row(s, p);
  store_states(to.decay + at, s, p, decay);
  store_states(to.local + at, s, p, h);
  if (kAdjoint) store_states(to.adjoint + at, s, p, adjoint);
}

constexpr int kEntryWarps = 4;  // warps of a block, one (sample, channel, state) each

// Step 2: local(chunk) is replaced by the state that enters the chunk. A warp has one state of one
// channel; its lanes compose a stretch of chunks each, then scan over the lanes. kBackward: from
// the last chunk to the first (the adjoint, which enters a chunk at its end).
template <bool kBackward>
static __global__ void __launch_bounds__(kEntryWarps * kWarp)
entry_kernel(ScanShape s, const float* decay, float* local) {
  const int64_t per_chunk = s.channels * s.states;
  const int64_t line = static_cast<int64_t>(blockIdx.x) * kEntryWarps + warp_index();
  if (line >= s.batch * per_chunk) return;  // the whole warp
  const int64_t base = line / per_chunk * s.chunks * per_chunk + line % per_chunk;
  const int64_t share = (s.chunks + kWarp - 1) / kWarp;
  const int64_t begin = lane_index() * share;
  const int64_t end = begin + share < s.chunks ? begin + share : s.chunks;
  const auto index = [&](int64_t i) {
    return base + (kBackward ? s.chunks - 1 - i : i) * per_chunk;
  };
  float whole = 1.0f, state = 0.0f;
  for (int64_t i = begin; i < end; ++i) {
    const float a = decay[index(i)];
    state = fmaf(a, state, local[index(i)]);
    whole *= a;
  }
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const float before = __shfl_up_sync(kAllLanes, state, step);
    const float before_whole = __shfl_up_sync(kAllLanes, whole, step);
    if (lane_index() < step) continue;
    state = fmaf(whole, before, state);
    whole *= before_whole;
  }
  state = __shfl_up_sync(kAllLanes, state, 1);
  if (lane_index() == 0) state = 0.0f;
  for (int64_t i = begin; i < end; ++i) {
    const float a = decay[index(i)], own = local[index(i)];
    local[index(i)] = state;
    state = fmaf(a, state, own);
  }
}

template <bool kBackward>
static inline void entries(const ScanShape& s, const float* decay, float* local) {
  const int64_t lines = s.batch * s.channels * s.states;
  launch(entry_kernel<kBackward>, dim3(grid_size(divide_up(lines, kEntryWarps))),
         dim3(kEntryWarps * kWarp), 0, s, decay, local);
}

// ---- The quantised copy of the state (Eq. 1 in the order of ops.hpp) ---------------------------

struct StateGrid {
  const float* bounds;  // null: the copy is the state
  float levels;
};
struct StateCopy {
  float lower, upper, step, inverse, levels;
};
SPR2Q_DEVICE StateCopy state_copy(const StateGrid& g) {
  if (!g.bounds) return {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  const float range = g.bounds[1] - g.bounds[0];
  return {g.bounds[0], g.bounds[1], range / g.levels, g.levels / range, g.levels};
}
SPR2Q_DEVICE float copy_position(const StateCopy& c, float h) {
  return fminf(fmaxf((h - c.lower) * c.inverse, 0.0f), c.levels);
}

}  // namespace cuda
}  // namespace spr2q
