// Selective scan of Mamba in chunks (scan.cuh). A sequence of one chunk needs only the last step.
#include "scan.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int64_t kForwardChunk = 64;  // steps: 960 blocks of 2 warps at 61,440 tokens

struct Replay {
  ScanInputs in;
  ScanShape shape;
  const float *entry, *D;  // entry: null where every sequence is one chunk
  StateGrid grid;
  float *y, *states;
};

template <int kPer, bool kQuantised>
__global__ void __launch_bounds__(kMostScanThreads) replay_kernel(Replay a) {
  const ScanShape& s = a.shape;
  const ScanPlace p = scan_place<kPer>(s);
  float rate[kPer], B[kPer], C[kPer], h[kPer] = {};
  load_states(a.in.A + p.channel * s.states, s, p, rate);
#pragma unroll
  for (int k = 0; k < kPer; ++k) rate[k] *= kLog2e;
  if (a.entry) load_carries(a.entry + carry_row(s, p), s, p, h);
  const StateCopy copy = state_copy(a.grid);
  const float bias = p.active ? a.in.delta_bias[p.channel] : 0.0f;
  const float D = p.active ? a.D[p.channel] : 0.0f;
#pragma unroll 2
  for (int64_t t = 0; t < p.steps; ++t) {
    const int64_t row = p.row + t, i = row * s.channels + p.channel;
    const ScanStep step = load_step(a.in, s, p, row, true, bias);
    const float du = step.delta * step.u;
    load_states(a.in.B + row * s.states, s, p, B);
    load_states(a.in.C + row * s.states, s, p, C);
    float y = 0.0f;
#pragma unroll
    for (int k = 0; k < kPer; ++k) {
      h[k] = fmaf(exp2f(step.delta * rate[k]), h[k], du * B[k]);
      float seen = h[k];
      if (kQuantised) seen = fmaf(copy.step, rintf(copy_position(copy, seen)), copy.lower);
      y = fmaf(C[k], seen, y);
    }
    if (a.states) store_states(a.states + i * s.states, s, p, h);
    y = channel_sum(y, s.lanes);
    if (p.active && p.first_state == 0) a.y[i] = fmaf(D, step.u, y);
  }
}

// All 8 states of a channel in one thread spare the second softplus; up to 4 need no more than 4.
template <int kPer>
void scan(const SelectiveScan& a) {
  Scratch scratch;
  const ScanShape shape = scan_shape<kPer>(a, kForwardChunk);
  const ScanInputs in{a.u.data, a.delta.data, a.A.data, a.B.data, a.C.data, a.delta_bias.data,
                      nullptr};
  float* local = nullptr;
  if (shape.chunks > 1) {
    float* decay = scratch.take<float>(shape.carries());
    local = scratch.take<float>(shape.carries());
    launch(carry_kernel<kPer, false>, shape.grid(), dim3(grid_size(shape.threads)), 0, in, shape,
           Carries{decay, local, nullptr});
    entries<false>(shape, decay, local);
  }
  const StateGrid grid{a.state_bounds.data, static_cast<float>(a.state_levels())};
  launch(a.state_bounds ? replay_kernel<kPer, true> : replay_kernel<kPer, false>, shape.grid(),
         dim3(grid_size(shape.threads)), 0,
         Replay{in, shape, local, a.D.data, grid, a.y.data, a.states.data});
}

}  // namespace

void selective_scan(const SelectiveScan& a) {
  if (a.state_count > 4) return scan<8>(a);
  scan<4>(a);
}

}  // namespace cuda
}  // namespace spr2q
