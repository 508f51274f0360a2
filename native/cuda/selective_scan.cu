// Selective scan of Mamba in one kernel. A sequence is cut into chunks, a block each, and a chunk into
// stretches, a thread each for every channel; the recurrence h_t = a_t h_{t-1} + b_t over any of them
// is h -> decay * h + local. A block
//   1. runs its stretches from h = 0, composes them and leaves the chunk's pair for those behind it;
//   2. waits for the chunks before its own and composes theirs: whole spans of kSpan chunks, each
//      composed by the last of its blocks to arrive, then the chunks since, always in that order;
//   3. runs its stretches once more from the states that enter them, doing the op's real work.
// Chunks are taken in order (tickets.cuh). Floats meet no atomics: equal bits on every run.
#include "scan.cuh"
#include "tickets.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kStretch = 32;                      // steps of a thread
constexpr int kStretches = 8;                     // of a chunk
constexpr int64_t kChunk = kStretch * kStretches;  // 240 blocks at 61,440 tokens
constexpr int kWidth = 48;                        // threads of a stretch, at most
constexpr int kMostThreads = kStretches * kWidth;
constexpr int kBlocks = 2;                        // on a multiprocessor: all 240 at once
constexpr int kSpan = 16;                         // chunks that are composed once for all behind them

// Flags and counters: there, by (line, chunk); arrivals and there, by (line, span).
struct Signals {
  unsigned *chunk, *arrivals, *span;
};

struct Scan {
  ScanInputs in;
  ScanShape shape;  // a block has the channels of one group
  int64_t spans, carries;        // of a sequence; states of a block
  float *decay, *local;          // (lines, chunks, carries), a line being a group of a sample
  float *span_decay, *span_local;  // (lines, spans, carries)
  Tickets tickets;
  Signals signals;
  const float* D;
  StateGrid grid;
  float *y, *states;
};

// Composes `count` pairs, one every `stride` floats, behind (whole, state).
SPR2Q_DEVICE void compose(const float* decay, const float* local, int64_t count, int64_t stride,
                          float& whole, float& state) {
#pragma unroll 4
  for (int64_t i = 0; i < count; ++i) {
    const float a = decay[i * stride];
    state = fmaf(a, state, local[i * stride]);
    whole *= a;
  }
}

// A block's chunk and, for this thread, its stretch.
struct Place {
  int64_t line, chunk;
  int stretch, slot, width;  // slot: among the `width` threads of a stretch
  ScanPlace steps;
  // Of state k of a slot among those of a stretch: neighbours lie on different banks.
  __device__ int carry(int k) const { return k * width + slot; }
};
template <int kPer>
SPR2Q_DEVICE Place place_of(const ScanShape& s, int64_t ticket) {
  Place at;
  at.line = ticket / s.chunks;
  at.chunk = ticket - at.line * s.chunks;
  const int thread = static_cast<int>(threadIdx.x);
  at.width = s.threads / kStretches;
  at.stretch = thread / at.width;
  at.slot = thread - at.stretch * at.width;
  ScanPlace& p = at.steps;
  p.sample = at.line / s.groups;
  p.chunk = at.chunk;
  p.channel = at.line % s.groups * s.block_channels + at.slot / s.lanes;
  p.first_state = at.slot % s.lanes * kPer;
  const int64_t first = at.chunk * kChunk + at.stretch * kStretch, left = s.length - first;
  p.row = p.sample * s.length + first;
  p.steps = left < 0 ? 0 : left < kStretch ? left : kStretch;
  p.active = p.channel < s.channels;
  return at;
}

// Leaves the chunk's pair, and with the last chunk of a span the span's.
SPR2Q_DEVICE void leave_pairs(const Scan& a, const Place& at, const float* decays,
                              const float* locals) {
  const int64_t chunks = a.shape.chunks, mine = at.line * chunks + at.chunk;
  const int64_t spans = a.spans, span = at.chunk / kSpan;
  const int carries = static_cast<int>(a.carries);
  for (int i = static_cast<int>(threadIdx.x); i < carries; i += static_cast<int>(blockDim.x)) {
    float whole = 1.0f, state = 0.0f;
    compose(decays + i, locals + i, kStretches, carries, whole, state);
    a.decay[mine * carries + i] = whole;
    a.local[mine * carries + i] = state;
  }
  raise(a.signals.chunk + mine);
  if ((span + 1) * kSpan > chunks) return;  // its last chunks are nobody's past
  if (!arrives_last(a.signals.arrivals + at.line * spans + span, kSpan)) return;
  const int64_t from = (at.line * chunks + span * kSpan) * carries;
  const int64_t to = (at.line * spans + span) * carries;
  for (int i = static_cast<int>(threadIdx.x); i < carries; i += static_cast<int>(blockDim.x)) {
    float whole = 1.0f, state = 0.0f;
    compose(a.decay + from + i, a.local + from + i, kSpan, carries, whole, state);
    a.span_decay[to + i] = whole;
    a.span_local[to + i] = state;
  }
  raise(a.signals.span + at.line * spans + span);
}

// The states that enter the chunk.
SPR2Q_DEVICE void entry_states(const Scan& a, const Place& at, float* entry) {
  const int64_t spans = at.chunk / kSpan, since = at.chunk % kSpan;
  const int64_t first = at.line * a.shape.chunks + at.chunk - since, span = at.line * a.spans;
  for (int64_t i = threadIdx.x; i < spans + since; i += blockDim.x) {
    wait_for(i < spans ? a.signals.span + span + i : a.signals.chunk + first + i - spans);
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < a.carries; i += blockDim.x) {
    float whole = 1.0f, state = 0.0f;
    compose(a.span_decay + span * a.carries + i, a.span_local + span * a.carries + i, spans,
            a.carries, whole, state);
    compose(a.decay + first * a.carries + i, a.local + first * a.carries + i, since, a.carries,
            whole, state);
    entry[i] = state;
  }
}

// exp(Delta A) is exp2f(Delta * rate).
template <int kPer>
SPR2Q_DEVICE void load_rates(const ScanInputs& in, const ScanShape& s, const ScanPlace& p,
                             float (&rate)[kPer]) {
  load_states(in.A + p.channel * s.states, s, p, rate);
#pragma unroll
  for (int k = 0; k < kPer; ++k) rate[k] *= kLog2e;
}

template <int kPer, bool kQuantised>
__global__ void __launch_bounds__(kMostThreads, kBlocks) scan_kernel(Scan a) {
  __shared__ float decays[kMostThreads * kPer], locals[kMostThreads * kPer], entry[kWidth * kPer];
  const ScanShape& s = a.shape;
  const Place at = place_of<kPer>(s, take_ticket(a.tickets));
  const ScanPlace& p = at.steps;
  const int carries = static_cast<int>(a.carries);
  float rate[kPer], B[kPer], h[kPer] = {}, decay[kPer];
  load_rates(a.in, s, p, rate);
#pragma unroll
  for (int k = 0; k < kPer; ++k) decay[k] = 1.0f;
  const float bias = p.active ? a.in.delta_bias[p.channel] : 0.0f;
  const int mine = at.stretch * carries;
#pragma unroll 1
  for (int64_t t = 0; t < p.steps; ++t) {
    const int64_t row = p.row + t;
    const ScanStep step = load_step(a.in, s, p, row, true, bias);
    const float du = step.delta * step.u;
    load_states(a.in.B + row * s.states, s, p, B);
#pragma unroll
    for (int k = 0; k < kPer; ++k) {
      const float a_t = exp2f(step.delta * rate[k]);
      h[k] = fmaf(a_t, h[k], du * B[k]);
      decay[k] *= a_t;
    }
  }
#pragma unroll
  for (int k = 0; k < kPer; ++k) {
    decays[mine + at.carry(k)] = decay[k];
    locals[mine + at.carry(k)] = h[k];
  }
  __syncthreads();
  if (s.chunks > 1) {
    leave_pairs(a, at, decays, locals);
    entry_states(a, at, entry);
    __syncthreads();
  }
#pragma unroll
  for (int k = 0; k < kPer; ++k) {
    const int carry = at.carry(k);
    h[k] = s.chunks > 1 ? entry[carry] : 0.0f;
    compose(decays + carry, locals + carry, at.stretch, carries, decay[k], h[k]);
  }
  load_rates(a.in, s, p, rate);  // again: registers are needed for more until here
  const StateCopy copy = state_copy(a.grid);
  const float D = p.active ? a.D[p.channel] : 0.0f;
#pragma unroll 1
  for (int t = 0; t < kStretch; ++t) {  // all lanes of a warp: they add up by shuffles
    const bool inside = t < p.steps;
    const int64_t row = p.row + t, i = row * s.channels + p.channel;
    const ScanStep step = load_step(a.in, s, p, row, inside, bias);
    const float du = step.delta * step.u;
    float C[kPer], y = 0.0f;
    load_states(a.in.B + (inside ? row : 0) * s.states, s, p, B);
    load_states(a.in.C + (inside ? row : 0) * s.states, s, p, C);
#pragma unroll
    for (int k = 0; k < kPer; ++k) {
      h[k] = fmaf(exp2f(step.delta * rate[k]), h[k], du * B[k]);
      float seen = h[k];
      if (kQuantised) seen = fmaf(copy.step, rintf(copy_position(copy, seen)), copy.lower);
      y = fmaf(C[k], seen, y);
    }
    if (a.states && inside) store_states(a.states + i * s.states, s, p, h);
    y = channel_sum(y, s.lanes);
    if (p.active && inside && p.first_state == 0) a.y[i] = fmaf(D, step.u, y);
  }
  put_back(a.tickets);
}

// A stretch has whole channels, and a block whole warps.
template <int kPer>
ScanShape shape_of(const SelectiveScan& a) {
  ScanShape s = scan_shape<kPer>(a, kChunk);
  const int64_t wanted = s.channels * s.lanes < kWidth ? s.channels * s.lanes : kWidth;
  const int64_t whole = s.lanes > kWarp / kStretches ? s.lanes : kWarp / kStretches;
  const int64_t width = round_up(wanted, whole);
  s.threads = static_cast<int>(kStretches * width);
  s.block_channels = width / s.lanes;
  s.groups = divide_up(s.channels, s.block_channels);
  return s;
}

// All 8 states of a channel in one thread spare the second softplus; up to 4 need no more than 4.
template <int kPer>
void scan(const SelectiveScan& a) {
  Scratch scratch;
  const ScanShape shape = shape_of<kPer>(a);
  const int64_t spans = divide_up(shape.chunks, kSpan), lines = shape.groups * shape.batch;
  const int64_t carries = shape.threads / kStretches * kPer;
  Scan scan = {};
  scan.in = {a.u.data, a.delta.data, a.A.data, a.B.data, a.C.data, a.delta_bias.data, nullptr};
  scan.shape = shape;
  scan.spans = spans;
  scan.carries = carries;
  const int64_t chunk_flags = lines * shape.chunks, span_flags = lines * spans;
  scan.tickets = tickets(chunk_flags + 2 * span_flags);
  unsigned* flags = scan.tickets.flags;
  scan.signals = {flags, flags + chunk_flags, flags + chunk_flags + span_flags};
  scan.D = a.D.data;
  scan.grid = {a.state_bounds.data, static_cast<float>(a.state_levels())};
  scan.y = a.y.data;
  scan.states = a.states.data;
  if (shape.chunks > 1) {
    scan.decay = scratch.take<float>(lines * shape.chunks * carries);
    scan.local = scratch.take<float>(lines * shape.chunks * carries);
    scan.span_decay = scratch.take<float>(lines * spans * carries);
    scan.span_local = scratch.take<float>(lines * spans * carries);
  }
  launch(a.state_bounds ? scan_kernel<kPer, true> : scan_kernel<kPer, false>,
         dim3(grid_size(lines * shape.chunks)), dim3(grid_size(shape.threads)), 0, scan);
}

}  // namespace

void selective_scan(const SelectiveScan& a) {
  if (a.state_count > 4) return scan<8>(a);
  scan<4>(a);
}

}  // namespace cuda
}  // namespace spr2q
