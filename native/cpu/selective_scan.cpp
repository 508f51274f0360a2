// Selective scan, fast: one vector holds kLanes neighbouring channels of one token, and the state
// count of MambaIRv2 (8) keeps its eight state vectors in registers, so that a step has no
// horizontal operation: u, delta, y (batch, length, channels) are read and written as they lie,
// B and C (batch, length, states) are broadcast. The work is split by (batch, vector of channels),
// and each chain is computed by one thread from front to back: same bits on any number of threads.
// Other state counts, the quantised copy of h and the optional output of h run the same loop with
// the state in memory.
#include "scan_math.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int kMaxStates = 64;  // as SelectiveScan::check

// kStates: the state count, or 0 where it is known at run time only. kKeep: the states are an
// output too.
template <int kStates, bool kQuantised, bool kKeep>
void scan_lanes(const SelectiveScan& a, int64_t b, int64_t c0, int lanes) {
  const int states = kStates ? kStates : static_cast<int>(a.state_count);
  const StateQuantiser quantiser = state_quantiser(a.state_bounds, a.state_bits);
  VecF h[kStates ? kStates : kMaxStates], rate[kStates ? kStates : kMaxStates];
  load_decays(a.A, c0, lanes, states, kLog2e, rate);
  for (int s = 0; s < states; ++s) h[s] = splat(0.0f);
  const VecF D = load_lanes(a.D.data + c0, lanes);
  const VecF bias = load_lanes(a.delta_bias.data + c0, lanes);
  alignas(64) float deltas[kBlock * kLanes];
  const int64_t begin = b * a.length, end = begin + a.length;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t i = t * a.channels + c0, in_block = (t - begin) % kBlock;
    if (in_block == 0) {
      fetch_block(a, t + 2 * kBlock, end, c0);
      step_sizes(a.delta.data + i, bias, lanes, end - t < kBlock ? end - t : kBlock, a.channels,
                 deltas, kLanes, kLanes);
    }
    const float* B = a.B.data + t * states;
    const float* C = a.C.data + t * states;
    const VecF u = load_lanes(a.u.data + i, lanes);
    const VecF delta = load(deltas + in_block * kLanes);
    const VecF input = delta * u;
    VecF y = D * u;
#pragma GCC unroll 8
    for (int s = 0; s < states; ++s) {
      h[s] = fma(input, splat(B[s]), exp2(delta * rate[s]) * h[s]);
      VecF seen = h[s];
      if (kQuantised) seen = quantiser.value(round_even(quantiser.offset(h[s])));
      y = fma(splat(C[s]), seen, y);
    }
    store_lanes(a.y.data + i, y, lanes);
    if (kKeep) {
      for (int s = 0; s < states; ++s) {
        float lane[kLanes];
        store(lane, h[s]);
        for (int k = 0; k < lanes; ++k) a.states.data[(i + k) * states + s] = lane[k];
      }
    }
  }
}

void scan_unit(const SelectiveScan& a, int64_t b, int64_t c0, int lanes) {
  if (a.state_count == 8 && !a.states) {
    if (a.state_bounds) scan_lanes<8, true, false>(a, b, c0, lanes);
    else scan_lanes<8, false, false>(a, b, c0, lanes);
  } else if (a.states) {
    if (a.state_bounds) scan_lanes<0, true, true>(a, b, c0, lanes);
    else scan_lanes<0, false, true>(a, b, c0, lanes);
  } else {
    if (a.state_bounds) scan_lanes<0, true, false>(a, b, c0, lanes);
    else scan_lanes<0, false, false>(a, b, c0, lanes);
  }
}

}  // namespace

void selective_scan(const SelectiveScan& a) {
  const int64_t vectors = (a.channels + kLanes - 1) / kLanes;
  parallel_for(a.batch * vectors, 1, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t c0 = unit % vectors * kLanes;
      const int lanes = static_cast<int>(a.channels - c0 < kLanes ? a.channels - c0 : kLanes);
      scan_unit(a, unit / vectors, c0, lanes);
    }
  });
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
