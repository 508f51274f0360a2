// Gradients of the selective scan, in chunks (scan.cuh) and without atomics. The state that enters
// each chunk and the adjoint that enters it from behind come first; then every chunk is run forward
// once more, keeping a state every kSub steps, and backward piece by piece: the piece's states are
// made again from the kept one into registers, and its steps taken in reverse. gB and gC sum over
// channels, in shared memory in a fixed order; gA, gD, gdelta_bias and the bounds' gradients are
// parts of each chunk, added in order by final_sums.
#include "scan.cuh"
#include "sums.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int64_t kGradChunk = 64;  // steps: their kept states fill 12 KiB of shared memory
constexpr int kSub = 8;             // steps of a piece: 2 x 32 registers of states and decays
constexpr int kLaneStates = 4;      // states of a thread
constexpr int64_t kPieces = kGradChunk / kSub;

struct Grad {
  ScanInputs in;
  ScanShape shape;
  const float *entry, *adjoint, *D;  // null entry and adjoint: every sequence is one chunk
  StateGrid grid;
  float *gu, *gdelta;
  float *gB, *gC;                    // (groups, batch * length, states)
  float *gA, *gD, *gbias, *gbounds;  // parts: (batch * chunks, ...); bounds of every block
};

// Gradient that reaches h through the copy that meets C; `seen` becomes that copy.
template <bool kQuantised>
SPR2Q_DEVICE float through_copy(const StateCopy& c, float h, float gradient, float* seen,
                                Sum* bounds) {
  *seen = h;
  if (!kQuantised) return gradient;
  const float position = copy_position(c, h), code = rintf(position);
  *seen = fmaf(c.step, code, c.lower);
  const float error = (code - position) / c.levels * gradient;
  add_to(bounds[0], (h <= c.lower ? gradient : 0.0f) - error);
  add_to(bounds[1], (h >= c.upper ? gradient : 0.0f) + error);
  return c.lower <= h && h <= c.upper ? gradient : 0.0f;
}

// The adjoint's share of a chunk where the copy is quantised: its mask needs the state.
__global__ void __launch_bounds__(kMostScanThreads) adjoint_kernel(Grad a, float* to) {
  const ScanShape& s = a.shape;
  const ScanPlace p = scan_place<kLaneStates>(s);
  float rate[kLaneStates], B[kLaneStates], C[kLaneStates], h[kLaneStates] = {};
  float decay[kLaneStates], adjoint[kLaneStates] = {};
  load_states(a.in.A + p.channel * s.states, s, p, rate);
#pragma unroll
  for (int k = 0; k < kLaneStates; ++k) {
    rate[k] *= kLog2e;
    decay[k] = 1.0f;
  }
  load_carries(a.entry + carry_row(s, p), s, p, h);
  const StateCopy copy = state_copy(a.grid);
  const float bias = p.active ? a.in.delta_bias[p.channel] : 0.0f;
  for (int64_t t = 0; t < p.steps; ++t) {
    const int64_t row = p.row + t;
    const ScanStep step = load_step(a.in, s, p, row, true, bias);
    const float du = step.delta * step.u;
    const float gy = p.active ? a.in.gy[row * s.channels + p.channel] : 0.0f;
    load_states(a.in.B + row * s.states, s, p, B);
    load_states(a.in.C + row * s.states, s, p, C);
#pragma unroll
    for (int k = 0; k < kLaneStates; ++k) {
      const float decays = exp2f(step.delta * rate[k]);
      h[k] = fmaf(decays, h[k], du * B[k]);
      decay[k] *= decays;
      const bool passes = copy.lower <= h[k] && h[k] <= copy.upper;
      if (passes) adjoint[k] = fmaf(decay[k], gy * C[k], adjoint[k]);
    }
  }
  store_states(to + carry_row(s, p), s, p, adjoint);
}

// Shared memory: kept states (kPieces, threads, 4), then one piece's terms of gB and gC,
// (kSub, 2, padded states, block_channels + 1): the odd stride keeps a row off one bank.
int64_t kept_floats(const ScanShape& s) { return kPieces * s.threads * kLaneStates; }
int64_t term_floats(const ScanShape& s) {
  return kSub * 2 * s.lanes * kLaneStates * (s.block_channels + 1);
}

template <bool kQuantised>
__global__ void __launch_bounds__(kMostScanThreads, 2) grad_kernel(Grad a) {
  const ScanShape& s = a.shape;
  const ScanPlace p = scan_place<kLaneStates>(s);
  SPR2Q_DYNAMIC_SHARED(float, shared);
  float* kept = shared + threadIdx.x * kLaneStates;
  float* terms = shared + kPieces * blockDim.x * kLaneStates;
  const int64_t padded = s.lanes * kLaneStates, stride = s.block_channels + 1;
  const int64_t local = threadIdx.x / s.lanes;  // the channel within the block
  float A[kLaneStates], rate[kLaneStates], B[kLaneStates], C[kLaneStates];
  float h[kLaneStates] = {}, carry[kLaneStates] = {}, gA[kLaneStates] = {};
  load_states(a.in.A + p.channel * s.states, s, p, A);
#pragma unroll
  for (int k = 0; k < kLaneStates; ++k) rate[k] = A[k] * kLog2e;
  if (a.entry) {
    load_carries(a.entry + carry_row(s, p), s, p, h);
    load_carries(a.adjoint + carry_row(s, p), s, p, carry);
  }
  const StateCopy copy = state_copy(a.grid);
  const float bias = p.active ? a.in.delta_bias[p.channel] : 0.0f;
  const float D = p.active ? a.D[p.channel] : 0.0f;

  const int64_t pieces = (p.steps + kSub - 1) / kSub;
  for (int64_t piece = 0; piece < pieces; ++piece) {
#pragma unroll
    for (int k = 0; k < kLaneStates; ++k) kept[piece * blockDim.x * kLaneStates + k] = h[k];
    if (piece == pieces - 1) break;
    for (int i = 0; i < kSub; ++i) {
      const int64_t row = p.row + piece * kSub + i;
      const ScanStep step = load_step(a.in, s, p, row, true, bias);
      const float du = step.delta * step.u;
      load_states(a.in.B + row * s.states, s, p, B);
#pragma unroll
      for (int k = 0; k < kLaneStates; ++k) {
        h[k] = fmaf(exp2f(step.delta * rate[k]), h[k], du * B[k]);
      }
    }
  }

  float gD = 0.0f, gbias = 0.0f;
  Sum bounds[2] = {{0.0f, 0.0f}, {0.0f, 0.0f}};
  for (int64_t piece = pieces - 1; piece >= 0; --piece) {
    const int64_t first = piece * kSub;
    float before[kSub][kLaneStates], decays[kSub][kLaneStates];
#pragma unroll
    for (int k = 0; k < kLaneStates; ++k) h[k] = kept[piece * blockDim.x * kLaneStates + k];
#pragma unroll
    for (int i = 0; i < kSub; ++i) {
      const bool inside = first + i < p.steps;
      const int64_t row = p.row + (inside ? first + i : 0);
      const ScanStep step = load_step(a.in, s, p, row, inside, bias);
      const float du = step.delta * step.u;
      load_states(a.in.B + row * s.states, s, p, B);
#pragma unroll
      for (int k = 0; k < kLaneStates; ++k) {
        before[i][k] = h[k];
        decays[i][k] = exp2f(step.delta * rate[k]);
        h[k] = fmaf(decays[i][k], h[k], du * B[k]);
      }
    }
#pragma unroll
    for (int i = kSub - 1; i >= 0; --i) {
      const bool inside = first + i < p.steps;
      const int64_t row = p.row + (inside ? first + i : 0), at = row * s.channels + p.channel;
      const ScanStep step = load_step(a.in, s, p, row, inside, bias);
      const float gy = p.active && inside ? a.in.gy[at] : 0.0f;
      load_states(a.in.B + row * s.states, s, p, B);
      load_states(a.in.C + row * s.states, s, p, C);
      float gu = 0.0f, gdelta = 0.0f;
#pragma unroll
      for (int k = 0; k < kLaneStates; ++k) {
        float seen;
        const float direct = through_copy<kQuantised>(copy, h[k], gy * C[k], &seen, bounds);
        const float adjoint = direct + carry[k], decayed = decays[i][k] * before[i][k];
        const float moved = adjoint * step.delta;
        float* term = terms + ((2 * i) * padded + p.first_state + k) * stride + local;
        term[0] = moved * step.u;
        term[padded * stride] = gy * seen;
        gA[k] = fmaf(moved, decayed, gA[k]);
        gu = fmaf(moved, B[k], gu);
        gdelta = fmaf(adjoint, fmaf(A[k], decayed, B[k] * step.u), gdelta);
        carry[k] = decays[i][k] * adjoint;
        h[k] = before[i][k];
      }
      gu = channel_sum(gu, s.lanes);
      gdelta = channel_sum(gdelta, s.lanes);
      if (step.x <= 20.0f) gdelta /= 1.0f + expf(-step.x);
      if (p.active && inside && p.first_state == 0) {
        a.gu[at] = fmaf(D, gy, gu);
        a.gdelta[at] = gdelta;
        gD = fmaf(gy, step.u, gD);
        gbias += gdelta;
      }
    }
    __syncthreads();
    // One output (step, gB or gC, state) a thread: the sum over the block's channels.
    for (int64_t o = threadIdx.x; o < kSub * 2 * s.states; o += blockDim.x) {
      const int64_t state = o % s.states, which = o / s.states % 2, i = o / s.states / 2;
      if (first + i >= p.steps) continue;
      const float* row = terms + ((2 * i + which) * padded + state) * stride;
      float sum = 0.0f;
      for (int64_t c = 0; c < s.block_channels; ++c) sum += row[c];
      float* to = which ? a.gC : a.gB;
      to[(blockIdx.y * s.batch * s.length + p.row + first + i) * s.states + state] = sum;
    }
    __syncthreads();
  }

  const int64_t part = p.sample * s.chunks + p.chunk;
  store_states(a.gA + (part * s.channels + p.channel) * s.states, s, p, gA);
  if (p.active && p.first_state == 0) {
    a.gD[part * s.channels + p.channel] = gD;
    a.gbias[part * s.channels + p.channel] = gbias;
  }
  if (!kQuantised) return;
  // The bounds' sums of the block, in thread order.
  terms[threadIdx.x] = value_of(bounds[0]);
  terms[blockDim.x + threadIdx.x] = value_of(bounds[1]);
  __syncthreads();
  if (threadIdx.x >= 2) return;
  Sum sum = {0.0f, 0.0f};
  for (unsigned i = 0; i < blockDim.x; ++i) add_to(sum, terms[threadIdx.x * blockDim.x + i]);
  a.gbounds[(part * s.groups + blockIdx.y) * 2 + threadIdx.x] = value_of(sum);
}

}  // namespace

void selective_scan_grad(const SelectiveScanGrad& a) {
  Scratch scratch;
  const ScanShape shape = scan_shape<kLaneStates>(a, kGradChunk);
  const dim3 grid = shape.grid(), block(grid_size(shape.threads));
  const ScanInputs in{a.u.data, a.delta.data, a.A.data, a.B.data, a.C.data, a.delta_bias.data,
                      a.gy.data};
  const int64_t parts = a.batch * shape.chunks, narrow = a.batch * a.length * a.state_count;
  const bool quantised = static_cast<bool>(a.state_bounds), several = shape.groups > 1;
  Grad g{in, shape, nullptr, nullptr, a.D.data, {a.state_bounds.data, 0.0f}, a.gu.data,
         a.gdelta.data, a.gB.data, a.gC.data, nullptr, nullptr, nullptr, nullptr};
  g.grid.levels = static_cast<float>(a.state_levels());
  if (shape.chunks > 1) {
    float* decay = scratch.take<float>(shape.carries());
    float* local = scratch.take<float>(shape.carries());
    float* adjoint = scratch.take<float>(shape.carries());
    const Carries carries{decay, local, adjoint};
    launch(quantised ? carry_kernel<kLaneStates, false>
                     : carry_kernel<kLaneStates, true>, grid, block, 0, in, shape,
           carries);
    entries<false>(shape, decay, local);
    g.entry = local;
    if (quantised) launch(adjoint_kernel, grid, block, 0, g, adjoint);
    entries<true>(shape, decay, adjoint);
    g.adjoint = adjoint;
  }
  if (several) {
    g.gB = scratch.take<float>(shape.groups * narrow);
    g.gC = scratch.take<float>(shape.groups * narrow);
  }
  g.gA = scratch.take<float>(parts * a.channels * a.state_count);
  g.gD = scratch.take<float>(parts * a.channels);
  g.gbias = scratch.take<float>(parts * a.channels);
  g.gbounds = scratch.take<float>(parts * shape.groups * 2);
  launch(quantised ? grad_kernel<true> : grad_kernel<false>, grid, block,
         4 * (kept_floats(shape) + term_floats(shape)), g);
  const int64_t rates = a.channels * a.state_count, shared = several ? narrow : 0;
  final_sums({{g.gB, a.gB.data, shape.groups, shared, narrow},
              {g.gC, a.gC.data, shape.groups, shared, narrow},
              {g.gA, a.gA.data, parts, rates, rates},
              {g.gD, a.gD.data, parts, a.channels, a.channels},
              {g.gbias, a.gdelta_bias.data, parts, a.channels, a.channels},
              {g.gbounds, a.gstate_bounds.data, parts * shape.groups, quantised ? 2 : 0, 2}});
}

}  // namespace cuda
}  // namespace spr2q
